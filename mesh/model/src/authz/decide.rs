//! The verdict on a connection or request, and the policy and rule that it is owed to.

use std::borrow::Borrow;
use std::fmt;

use super::{Action, Facts, Layer, Policy, Truth};
use crate::address::Str;
use crate::identity::Identity;
use crate::workload::PolicyName;

/// Whether a connection or request may pass.
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
    /// Which actions policies in dry run would have, whether they matched or not.
    pub on_trial: OnTrial,
    /// AUDIT policies that matched or might have, with the rule: they ask to have the request noted.
    pub audited: Vec<RuleName>,
}

/// Which actions there are among the policies in dry run that apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnTrial {
    /// ALLOW.
    pub allow: bool,
    /// DENY.
    pub deny: bool,
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
        /// What could not be told; empty where the rule matched without doubt.
        unseen: Unseen,
    },
    /// ALLOW policies apply and none of their rules matched.
    NoneAllowed {
        /// The first of the ALLOW policies considered, [`MAX_NAMED`] at most.
        considered: Vec<PolicyName>,
        /// How many more were considered.
        others: usize,
        /// What a rule could not match for want of, [`MAX_NAMED`] at most.
        unseen: Unseen,
    },
    /// A policy that applies cannot be read as it was written; its whole scope is denied.
    Invalid {
        /// The policy.
        policy: PolicyName,
        /// What is wrong with it.
        reason: Str,
    },
}

/// Attributes that a rule restricts and its enforcer could not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unseen {
    /// Their names.
    pub names: Vec<Str>,
    /// Where they were looked for.
    pub layer: Layer,
}

impl Unseen {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A cause travels in headers and log lines, so it names no more things of a kind than this.
pub const MAX_NAMED: usize = 8;

/// Judges a connection or request by all policies that apply to its destination: a DENY rule that matches or might
/// match refuses; else, where any ALLOW policy applies, one of their rules must match without doubt. A policy in dry
/// run only has its match reported, and so has an AUDIT policy.
///
/// `facts` are a [`Subject`](super::Subject), a [`Request`](crate::request::Request), or [`Facts`] themselves.
///
/// Policies may come in any order; of several that would decide, the first gets the mention. This looks at every
/// rule; [`Mesh::judge`](crate::mesh::Mesh::judge) says the same of many policies in less time.
pub fn decide<'a, P: Borrow<Policy>>(policies: &[P], facts: impl Into<Facts<'a>>) -> Decision {
    let facts = facts.into();
    let mut ballot = Ballot::default();
    for policy in policies {
        ballot.take(policy.borrow(), &facts);
    }
    ballot.close(policies.iter().map(Borrow::borrow))
}

/// What the policies looked at so far have to say.
#[derive(Debug, Default)]
pub(crate) struct Ballot {
    denied: Option<Cause>,
    allowed: Option<RuleName>,
    unseen: Unseen,
    dry_run: Vec<RuleName>,
    on_trial: OnTrial,
    audited: Vec<RuleName>,
}

impl Ballot {
    /// Hears one policy. One of which no rule matches or might match need not be heard, unless it is in dry run: then
    /// [`is_on_trial`](Self::is_on_trial) is to be told.
    pub(crate) fn take(&mut self, policy: &Policy, facts: &Facts<'_>) {
        if policy.dry_run {
            self.is_on_trial(policy.action);
            self.dry_run.extend(first_match(policy, facts).map(|(rule, _)| rule));
        } else if let Some(reason) = &policy.invalid {
            let cause = || Cause::Invalid { policy: policy.name.clone(), reason: reason.clone() };
            self.denied.get_or_insert_with(cause);
        } else {
            match policy.action {
                Action::Deny if self.denied.is_none() => {
                    let matched = first_match(policy, facts);
                    self.denied = matched.map(|(rule, names)| {
                        let unseen = Unseen { names, layer: facts.layer() };
                        Cause::DeniedBy { rule, unseen }
                    });
                }
                Action::Allow if self.allowed.is_none() => {
                    self.allowed = first_match(policy, facts).map(|(rule, _)| rule);
                    if self.allowed.is_none() {
                        self.unseen.layer = facts.layer();
                        note_unseen(policy, facts, &mut self.unseen.names);
                    }
                }
                Action::Audit => self.audited.extend(first_match(policy, facts).map(|(rule, _)| rule)),
                Action::Deny | Action::Allow => {}
            }
        }
    }

    /// A policy in dry run applies, whether it is heard or not.
    pub(crate) fn is_on_trial(&mut self, action: Action) {
        match action {
            Action::Allow => self.on_trial.allow = true,
            Action::Deny => self.on_trial.deny = true,
            Action::Audit => {}
        }
    }

    /// The decision, given all policies that apply, heard or not.
    pub(crate) fn close<'a>(self, all: impl Iterator<Item = &'a Policy>) -> Decision {
        let Self { denied, allowed, unseen, dry_run, on_trial, audited } = self;
        let (verdict, cause) = match (denied, allowed) {
            (Some(cause), _) => (Verdict::Deny, cause),
            (None, Some(rule)) => (Verdict::Allow, Cause::AllowedBy(rule)),
            (None, None) => none_matched(all, unseen),
        };
        Decision { verdict, cause, dry_run, on_trial, audited }
    }
}

/// What holds where no rule matched: everything, unless there are ALLOW policies.
fn none_matched<'a>(all: impl Iterator<Item = &'a Policy>, mut unseen: Unseen) -> (Verdict, Cause) {
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
    if unseen.is_empty() {
        // Whether any of them was heard depends on the index.
        unseen.layer = Layer::default();
    }
    (Verdict::Deny, Cause::NoneAllowed { considered, others, unseen })
}

/// The first rule of a policy that takes effect, with what could not be seen of it.
fn first_match(policy: &Policy, facts: &Facts<'_>) -> Option<(RuleName, Vec<Str>)> {
    policy.rules.iter().enumerate().find_map(|(index, rule)| {
        let unseen = match (policy.action, rule.matches(*facts)) {
            (_, Truth::Yes) => Vec::new(),
            (Action::Deny | Action::Audit, Truth::Unknown) => rule.unknown(facts),
            (Action::Allow, Truth::Unknown) | (_, Truth::No) => return None,
        };
        let name = RuleName { policy: policy.name.clone(), action: policy.action, rule: index };
        Some((name, unseen))
    })
}

/// Collects what an ALLOW policy's rules would have needed to see.
fn note_unseen(policy: &Policy, facts: &Facts<'_>, unseen: &mut Vec<Str>) {
    for rule in policy.rules.iter().filter(|rule| rule.matches(*facts) == Truth::Unknown) {
        for name in rule.unknown(facts) {
            if unseen.len() < MAX_NAMED && !unseen.contains(&name) {
                unseen.push(name);
            }
        }
    }
}

const ALLOW_TAGS: [&str; 2] =
    ["istio.authorization.dry_run.allow_policy.name", "istio.authorization.dry_run.allow_policy.result"];
const DENY_TAGS: [&str; 2] =
    ["istio.authorization.dry_run.deny_policy.name", "istio.authorization.dry_run.deny_policy.result"];

impl Decision {
    /// A connection may pass for a reason that is no policy's.
    pub(crate) fn allowed(cause: Cause) -> Self {
        let (dry_run, audited) = (Vec::new(), Vec::new());
        Self { verdict: Verdict::Allow, cause, dry_run, on_trial: OnTrial::default(), audited }
    }

    /// Whether it may pass.
    pub fn allows(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// This and another decision on the same thing, which may pass if both let it: the one that counts, with what both note
    /// beside it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (mut counts, beside) = if other.allows() { (self, other) } else { (other, self) };
        let more = |noted: &mut Vec<RuleName>, beside: Vec<RuleName>| {
            let new: Vec<_> = beside.into_iter().filter(|rule| !noted.contains(rule)).collect();
            noted.extend(new);
        };
        more(&mut counts.dry_run, beside.dry_run);
        more(&mut counts.audited, beside.audited);
        counts.on_trial.allow |= beside.on_trial.allow;
        counts.on_trial.deny |= beside.on_trial.deny;
        counts
    }

    /// What policies in dry run would have decided, as tags of a trace, by Istio's names: for each action that is on
    /// trial its result (`allowed` or `denied`) and the policy and rule that matched, if one did.
    pub fn dry_run_tags(&self) -> Vec<(&'static str, String)> {
        let mut tags = Vec::new();
        let trials =
            [(Action::Allow, self.on_trial.allow, ALLOW_TAGS), (Action::Deny, self.on_trial.deny, DENY_TAGS)];
        for (action, _, [name, result]) in trials.into_iter().filter(|(_, on_trial, _)| *on_trial) {
            let matched = self.dry_run.iter().find(|rule| rule.action == action);
            if let Some(RuleName { policy, rule, .. }) = matched {
                let text = format!("ns[{}]-policy[{}]-rule[{rule}]", policy.namespace, policy.name);
                tags.push((name, text));
            }
            let allowed = matched.is_some() == (action == Action::Allow);
            tags.push((result, if allowed { "allowed" } else { "denied" }.to_owned()));
        }
        tags
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
                    list(f, &unseen.names, 0)?;
                    write!(f, " that {} cannot see", unseen.layer)?;
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
                    write!(f, "; {} cannot see ", unseen.layer)?;
                    list(f, &unseen.names, 0)?;
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
