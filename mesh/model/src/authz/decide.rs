//! The verdict on a connection, and the policy and rule that it is owed to.

use std::borrow::Borrow;
use std::fmt;

use super::{Action, Policy, Subject, Truth};
use crate::address::Str;
use crate::identity::Identity;
use crate::workload::PolicyName;

/// Whether a connection may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// A verdict, what it is owed to, and what policies on trial would have said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the connection may pass.
    pub verdict: Verdict,
    /// What decided.
    pub cause: Cause,
    /// Policies in dry run that matched, with the rule; they decide nothing.
    pub dry_run: Vec<RuleName>,
}

/// One rule of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleName {
    /// The policy.
    pub policy: PolicyName,
    /// What the rule means.
    pub action: Action,
    /// The rule's place in the policy, from 0, as it was written.
    pub rule: usize,
}

/// What a verdict is owed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No policy that could refuse applies.
    NothingApplies,
    /// The client is a waypoint that has judged the request by all policies already.
    JudgedBefore(Identity),
    /// An ALLOW rule matched.
    AllowedBy(RuleName),
    /// A DENY rule matched, or might have: `unseen` names what could not be seen of it.
    DeniedBy {
        /// The rule.
        rule: RuleName,
        /// Attributes that layer 4 cannot see; empty where the rule matched without doubt.
        unseen: Vec<Str>,
    },
    /// ALLOW policies apply and none of their rules matched.
    NoneAllowed {
        /// The first of the ALLOW policies considered, [`MAX_NAMED`] at most.
        considered: Vec<PolicyName>,
        /// How many more were considered.
        others: usize,
        /// Attributes for want of which a rule could not match, [`MAX_NAMED`] at most.
        unseen: Vec<Str>,
    },
    /// A policy that applies cannot be read as it was written; its whole scope is denied.
    Invalid {
        /// The policy.
        policy: PolicyName,
        /// What is wrong with it.
        reason: Str,
    },
}

/// A cause travels in headers and log lines, so it names no more things of a kind than this.
pub const MAX_NAMED: usize = 8;

/// Judges a connection by all policies that apply to its destination: a DENY rule that matches or might match
/// refuses; else, where any ALLOW policy applies, one of their rules must match without doubt. A policy in dry run
/// only has its match reported.
///
/// Policies may come in any order; of several that would decide, the first gets the mention. This looks at every
/// rule; [`Mesh::judge`](crate::mesh::Mesh::judge) says the same of many policies in less time.
pub fn decide<P: Borrow<Policy>>(policies: &[P], subject: &Subject<'_>) -> Decision {
    let mut ballot = Ballot::default();
    for policy in policies {
        ballot.take(policy.borrow(), subject);
    }
    ballot.close(policies.iter().map(Borrow::borrow))
}

/// What the policies looked at so far have to say.
#[derive(Debug, Default)]
pub(crate) struct Ballot {
    denied: Option<Cause>,
    allowed: Option<RuleName>,
    unseen: Vec<Str>,
    dry_run: Vec<RuleName>,
}

impl Ballot {
    /// Hears one policy. One of which no rule matches or might match need not be heard.
    pub(crate) fn take(&mut self, policy: &Policy, subject: &Subject<'_>) {
        if policy.dry_run {
            self.dry_run.extend(first_match(policy, subject).map(|(rule, _)| rule));
        } else if let Some(reason) = &policy.invalid {
            let cause = || Cause::Invalid { policy: policy.name.clone(), reason: reason.clone() };
            self.denied.get_or_insert_with(cause);
        } else {
            match policy.action {
                Action::Deny if self.denied.is_none() => {
                    let matched = first_match(policy, subject);
                    self.denied = matched.map(|(rule, unseen)| Cause::DeniedBy { rule, unseen });
                }
                Action::Allow if self.allowed.is_none() => {
                    self.allowed = first_match(policy, subject).map(|(rule, _)| rule);
                    if self.allowed.is_none() {
                        note_unseen(policy, subject, &mut self.unseen);
                    }
                }
                Action::Deny | Action::Allow => {}
            }
        }
    }

    /// The decision, given all policies that apply, heard or not.
    pub(crate) fn close<'a>(self, all: impl Iterator<Item = &'a Policy>) -> Decision {
        let Self { denied, allowed, unseen, dry_run } = self;
        let (verdict, cause) = match (denied, allowed) {
            (Some(cause), _) => (Verdict::Deny, cause),
            (None, Some(rule)) => (Verdict::Allow, Cause::AllowedBy(rule)),
            (None, None) => none_matched(all, unseen),
        };
        Decision { verdict, cause, dry_run }
    }
}

/// What holds where no rule matched: everything, unless there are ALLOW policies.
fn none_matched<'a>(all: impl Iterator<Item = &'a Policy>, unseen: Vec<Str>) -> (Verdict, Cause) {
    let mut considered = Vec::new();
    let mut others = 0;
    for policy in all.filter(|policy| policy.action == Action::Allow && !policy.dry_run) {
        if considered.len() < MAX_NAMED {
            considered.push(policy.name.clone());
        } else {
            others += 1;
        }
    }
    if considered.is_empty() {
        return (Verdict::Allow, Cause::NothingApplies);
    }
    (Verdict::Deny, Cause::NoneAllowed { considered, others, unseen })
}

/// The first rule of a policy that takes effect on the connection, with what could not be seen of it.
fn first_match(policy: &Policy, subject: &Subject<'_>) -> Option<(RuleName, Vec<Str>)> {
    policy.rules.iter().enumerate().find_map(|(index, rule)| {
        let unseen = match (policy.action, rule.matches(subject)) {
            (_, Truth::Yes) => Vec::new(),
            (Action::Deny, Truth::Unknown) => rule.unseen().into_iter().map(Str::from).collect(),
            (Action::Allow, Truth::Unknown) | (_, Truth::No) => return None,
        };
        let name = RuleName { policy: policy.name.clone(), action: policy.action, rule: index };
        Some((name, unseen))
    })
}

/// Collects what an ALLOW policy's rules would have needed to see.
fn note_unseen(policy: &Policy, subject: &Subject<'_>, unseen: &mut Vec<Str>) {
    for rule in policy.rules.iter().filter(|rule| rule.matches(subject) == Truth::Unknown) {
        for name in rule.unseen() {
            if unseen.len() < MAX_NAMED && !unseen.iter().any(|known| &**known == name) {
                unseen.push(Str::from(name));
            }
        }
    }
}

impl Decision {
    /// A connection may pass for a reason that is no policy's.
    pub(crate) fn allowed(cause: Cause) -> Self {
        Self { verdict: Verdict::Allow, cause, dry_run: Vec::new() }
    }

    /// Whether the connection may pass.
    pub fn allows(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizationPolicy {} rule {}", self.policy, self.rule)
    }
}

impl fmt::Display for Cause {
    /// ztunnel's texts, each followed by what decided in full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingApplies => f.write_str("no policy applies"),
            Self::JudgedBefore(waypoint) => write!(f, "judged before by the waypoint {waypoint}"),
            Self::AllowedBy(rule) => write!(f, "allowed by: {} (rule {})", rule.policy, rule.rule),
            Self::DeniedBy { rule, unseen } => {
                write!(f, "explicitly denied by: {} (rule {}", rule.policy, rule.rule)?;
                if !unseen.is_empty() {
                    f.write_str(", which restricts ")?;
                    list(f, unseen, 0)?;
                    f.write_str(" that layer 4 cannot see")?;
                }
                f.write_str(")")?;
                if rule.policy.is_of_peer_authentications() {
                    f.write_str(": a PeerAuthentication is STRICT, and this connection has no mutual TLS")?;
                }
                Ok(())
            }
            Self::NoneAllowed { considered, others, unseen } => {
                f.write_str("allow policies exist, but none allowed (considered: ")?;
                list(f, considered, *others)?;
                if !unseen.is_empty() {
                    f.write_str("; layer 4 cannot see ")?;
                    list(f, unseen, 0)?;
                }
                f.write_str(")")
            }
            Self::Invalid { policy, reason } => {
                write!(f, "policy {policy} is invalid, so that all it covers is denied: {reason}")
            }
        }
    }
}

/// Writes the first of the items, and how many there are beside them.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], others: usize) -> fmt::Result {
    for (index, item) in items.iter().take(MAX_NAMED).enumerate() {
        write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
    }
    match others + items.len().saturating_sub(MAX_NAMED) {
        0 => Ok(()),
        others => write!(f, " and {others} more"),
    }
}
