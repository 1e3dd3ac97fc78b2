//! Rules that a schema does not say: what names look like, which values a policy may hold, what contradicts
//! itself. One object at a time; what only several objects together show is `analyze`'s.

mod authorization_policy;
mod destination_rule;
mod gateway;
mod hosts;
mod kubernetes;
mod metadata;
mod peer_authentication;
mod selector;
mod unsupported;
mod values;
mod virtual_service;

use std::{path::Path, sync::Arc};

use model::route::regex::Allowance;

use crate::{
    cursor::Cursor,
    finding::{Code, Finding, Level},
    object::Typed,
    position::{Mark, Position},
};
pub(crate) use metadata::check as metadata;

/// Where findings go.
pub(crate) struct Report<'a> {
    file: &'a Arc<Path>,
    findings: &'a mut Vec<Finding>,
    /// What the expressions of one object may still take: they are compiled to see whether they can be.
    regexes: Allowance,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a Arc<Path>, findings: &'a mut Vec<Finding>) -> Self {
        Self { file, findings, regexes: Allowance::default() }
    }

    /// The object is refused for this.
    fn error(&mut self, at: &Cursor<'_>, message: impl Into<String>, fix: Option<String>) {
        self.push(Level::Error, Code::Schema, at.at, &at.path, message.into(), fix);
    }

    /// The object is refused for this key, whatever its value.
    fn error_at_key(&mut self, at: &Cursor<'_>, message: impl Into<String>, fix: Option<String>) {
        self.push(Level::Error, Code::Schema, at.key_at, &at.path, message.into(), fix);
    }

    /// The object is in force, but this was hardly meant.
    fn warning(&mut self, at: &Cursor<'_>, message: impl Into<String>, fix: Option<String>) {
        self.push(Level::Warning, Code::SchemaWarning, at.at, &at.path, message.into(), fix);
    }

    /// The same for a key, whatever its value.
    fn warning_at_key(&mut self, at: &Cursor<'_>, message: impl Into<String>, fix: Option<String>) {
        self.push(Level::Warning, Code::SchemaWarning, at.key_at, &at.path, message.into(), fix);
    }

    fn push(&mut self, level: Level, code: Code, at: Mark, path: &str, message: String, fix: Option<String>) {
        let mut finding = Finding::new(level, code, Position::new(self.file, at), message).in_field(path);
        finding.fix = fix;
        self.findings.push(finding);
    }
}

/// The rules of the object's kind.
pub(crate) fn object(root: &Cursor<'_>, typed: &Typed, mut report: Report<'_>) {
    let report = &mut report;
    match typed {
        Typed::AuthorizationPolicy(policy) => authorization_policy::check(root, policy, report),
        Typed::PeerAuthentication(_) => peer_authentication::check(root, report),
        Typed::Gateway(_) => gateway::check(root, report),
        Typed::VirtualService(service) => virtual_service::check(root, service, report),
        Typed::DestinationRule(rule) => destination_rule::check(root, rule, report),
        Typed::Service(_) => kubernetes::service(root, report),
        Typed::Pod(_) => kubernetes::pod(root, report),
        Typed::Deployment(_) | Typed::ReplicaSet(_) | Typed::StatefulSet(_) | Typed::DaemonSet(_) => {
            kubernetes::workload(root, report);
        }
        Typed::Job(_) => kubernetes::job(root, report),
        Typed::CronJob(_) => kubernetes::cron_job(root, report),
        Typed::ConfigMap(_) | Typed::Secret(_) => kubernetes::data(root, report),
        _ => {}
    }
}
