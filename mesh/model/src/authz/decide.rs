//! The verdict on a connection, and the policy and rule that it is owed to.

use std::borrow::Borrow;
use std::fmt;

use super::{Action, Policy, Subject, Truth};
use crate::address::Str;
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
        /// The ALLOW policies considered.
        considered: Vec<PolicyName>,
        /// Attributes for want of which a rule could not match.
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

/// Judges a connection by all policies that apply to its destination: a DENY rule that matches or might match
/// refuses; else, where any ALLOW policy applies, one of their rules must match without doubt.
///
/// Policies may come in any order; among several that would decide, the first named wins the mention.
pub fn decide<P: Borrow<Policy>>(policies: &[P], subject: &Subject<'_>) -> Decision {
    let mut dry_run = Vec::new();
    let mut denied = None;
    let mut allowed = None;
    let mut considered = Vec::new();
    let mut unseen: Vec<Str> = Vec::new();
    for policy in policies {
        let policy: &Policy = policy.borrow();
        if policy.dry_run {
            dry_run.extend(first_match(policy, subject).map(|(rule, _)| rule));
            continue;
        }
        if let Some(reason) = &policy.invalid {
            let cause = Cause::Invalid { policy: policy.name.clone(), reason: reason.clone() };
            denied.get_or_insert(cause);
            continue;
        }
        match policy.action {
            Action::Deny => {
                if denied.is_none() {
                    denied =
                        first_match(policy, subject).map(|(rule, unseen)| Cause::DeniedBy { rule, unseen });
                }
            }
            Action::Allow => {
                considered.push(policy.name.clone());
                if allowed.is_none() {
                    allowed = first_match(policy, subject).map(|(rule, _)| Cause::AllowedBy(rule));
                    if allowed.is_none() {
                        note_unseen(policy, subject, &mut unseen);
                    }
                }
            }
        }
    }
    let (verdict, cause) = match (denied, allowed) {
        (Some(cause), _) => (Verdict::Deny, cause),
        (None, Some(cause)) => (Verdict::Allow, cause),
        (None, None) if considered.is_empty() => (Verdict::Allow, Cause::NothingApplies),
        (None, None) => (Verdict::Deny, Cause::NoneAllowed { considered, unseen }),
    };
    Decision { verdict, cause, dry_run }
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
            if !unseen.iter().any(|known| &**known == name) {
                unseen.push(Str::from(name));
            }
        }
    }
}

impl Decision {
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
    /// The texts of `features.md` D2, each followed by what decided in full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingApplies => f.write_str("no policy applies"),
            Self::AllowedBy(rule) => write!(f, "allowed by: {} (rule {})", rule.policy, rule.rule),
            Self::DeniedBy { rule, unseen } => {
                write!(f, "explicitly denied by: {} (rule {}", rule.policy, rule.rule)?;
                if !unseen.is_empty() {
                    write!(f, ", which restricts {} that layer 4 cannot see", unseen.join(", "))?;
                }
                f.write_str(")")
            }
            Self::NoneAllowed { considered, unseen } => {
                f.write_str("allow policies exist, but none allowed (considered: ")?;
                for (index, policy) in considered.iter().enumerate() {
                    write!(f, "{}{policy}", if index > 0 { ", " } else { "" })?;
                }
                if !unseen.is_empty() {
                    write!(f, "; layer 4 cannot see {}", unseen.join(", "))?;
                }
                f.write_str(")")
            }
            Self::Invalid { policy, reason } => {
                write!(f, "policy {policy} is invalid, so that all it covers is denied: {reason}")
            }
        }
    }
}
