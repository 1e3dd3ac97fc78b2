//! What only several objects together show: a policy that selects nobody, an attribute that nobody in the way
//! can see, a name that leads nowhere, a rule that nobody enforces. Pure: the same for `lateen analyze` and for whoever shows status.
//!
//! The files of an analysis are seldom all there is. So nothing is called missing unless the files describe
//! the place where it would have to be: a policy alone in its file is not told that it selects nothing.

mod enrolment;
mod inventory;
mod layer7;
mod misplaced;
mod network;
mod parameters;
mod references;
mod routing;
mod selectors;
mod uncarried;
mod unenforced;

use std::sync::Arc;

use crate::{
    finding::{Code, Finding, Level},
    object::Object,
    position::Position,
};
use inventory::Inventory;

/// Findings about `objects` as a whole, by file and line. Policies in `root_namespace` are for all namespaces.
pub fn analyze(objects: &[Arc<Object>], root_namespace: &str) -> Vec<Finding> {
    let inventory = Inventory::new(objects, root_namespace);
    let mut findings = Vec::new();
    for object in objects {
        findings.extend(of_one(object, &inventory));
    }
    findings.extend(references::undeclared_namespaces(objects, &inventory));
    findings.sort_by(|a, b| a.position.cmp(&b.position));
    findings
}

/// What the same says about `object`, one of `objects`.
pub fn analyze_one(object: &Object, objects: &[Arc<Object>], root_namespace: &str) -> Vec<Finding> {
    of_one(object, &Inventory::new(objects, root_namespace))
}

fn of_one(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut findings = Vec::from_iter(selectors::check(object, inventory));
    findings.extend(layer7::check(object, inventory));
    findings.extend(references::check(object, inventory));
    findings.extend(parameters::check(object, inventory));
    findings.extend(routing::check(object, inventory));
    findings.extend(uncarried::check(object, inventory));
    findings.extend(unenforced::check(object, inventory));
    findings.extend(enrolment::check(object));
    findings.extend(misplaced::check(object));
    findings.extend(network::check(object, inventory));
    findings
}

/// A finding about `object`.
fn finding(level: Level, code: Code, object: &Object, at: Position, field: &str, message: String) -> Finding {
    Finding::new(level, code, at, message).about(object.key().to_string()).in_field(field)
}

#[cfg(test)]
mod tests;
