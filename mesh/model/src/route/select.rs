//! Which rule is for a request, and where that sends it.

use super::action::{Action, Destination, Destinations, DirectResponse, Forward};
use super::condition::HttpMatch;
use super::redirect::Redirect;
use super::{Cause, HttpRule, Routing};
use crate::address::Str;
use crate::request::Request;
use crate::select::Draw;

/// What becomes of a request, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision<'a> {
    /// What decided.
    pub cause: Cause<'a>,
    /// What becomes of it.
    pub outcome: Outcome<'a>,
    /// The rule; `None` where none decided.
    pub rule: Option<&'a HttpRule>,
    /// The condition of the rule that held; `None` where it has none.
    pub matched: Option<&'a HttpMatch>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome<'a> {
    /// It is sent on.
    Forward(Forwarding<'a>),
    /// The client is sent elsewhere.
    Redirect(&'a Redirect),
    /// It is answered.
    Respond(&'a DirectResponse),
    /// 503: the rule has no destination left. Which references are missing; none where all weights are 0.
    NoDestination(&'a [Str]),
    /// 404: there are rules, and none of them is for it.
    NotFound,
}

/// A request that is sent on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forwarding<'a> {
    /// How.
    pub forward: &'a Forward,
    /// Where to.
    pub destination: &'a Destination,
    /// The rule, unless it is the default routing.
    pub rule: Option<&'a HttpRule>,
    /// The condition of the rule that held.
    pub matched: Option<&'a HttpMatch>,
}

impl Decision<'_> {
    /// What the access log calls the route: the rule's name, and behind a dot the condition's. Istio calls the routing
    /// without any rule `default`.
    pub fn route_name(&self) -> Option<String> {
        let Some(rule) = self.rule else {
            return matches!(self.cause, Cause::Default(_)).then(|| "default".to_owned());
        };
        let condition = self.matched.and_then(|matched| matched.name.as_ref());
        match (&rule.name, condition) {
            (None, None) => None,
            (name, None) => name.as_ref().map(ToString::to_string),
            (name, Some(condition)) => Some(format!("{}.{condition}", name.as_deref().unwrap_or_default())),
        }
    }

    /// How much of the path a rewrite or redirect replaces, in bytes.
    pub fn matched_length(&self, path: &str) -> usize {
        matched_length(self.matched, path)
    }
}

/// A rule without conditions matches every path by its first `/`.
pub(super) fn matched_length(matched: Option<&HttpMatch>, path: &str) -> usize {
    matched.map_or_else(|| path.len().min(1), |matched| matched.matched_length(path))
}

/// What becomes of a request: the first rule of which a condition holds decides. Where none of the rules is for this
/// client and port at all, or there are none, the default routing does; where some are and none holds, nothing does.
pub fn select<'a>(routing: &'a Routing, request: &Request<'_>, draw: Draw<'_>) -> Decision<'a> {
    let mut concerned = false;
    for rule in &routing.http {
        if rule.matches.is_empty() {
            return by_rule(rule, None, draw);
        }
        for one in &rule.matches {
            if one.scope.covers(&request.client, request.destination) {
                concerned = true;
                if one.holds(request) {
                    return by_rule(rule, Some(one), draw);
                }
            }
        }
    }
    undecided(routing, concerned, draw)
}

/// Where no condition holds: whether any was for this client and port says what that means.
pub(super) fn undecided<'a>(routing: &'a Routing, concerned: bool, draw: Draw<'_>) -> Decision<'a> {
    match &routing.default {
        Some(forward) if !concerned => by_default(routing, forward, draw),
        _ => Decision {
            cause: Cause::NoRule(&routing.host),
            outcome: Outcome::NotFound,
            rule: None,
            matched: None,
        },
    }
}

pub(super) fn by_rule<'a>(
    rule: &'a HttpRule,
    matched: Option<&'a HttpMatch>,
    draw: Draw<'_>,
) -> Decision<'a> {
    let outcome = match &rule.action {
        Action::Forward(forward) => forwarding(forward, Some(rule), matched, draw),
        Action::Redirect(redirect) => Outcome::Redirect(redirect),
        Action::Respond(response) => Outcome::Respond(response),
    };
    Decision { cause: Cause::Rule(&rule.source), outcome, rule: Some(rule), matched }
}

fn by_default<'a>(routing: &'a Routing, forward: &'a Forward, draw: Draw<'_>) -> Decision<'a> {
    let outcome = forwarding(forward, None, None, draw);
    Decision { cause: Cause::Default(&routing.host), outcome, rule: None, matched: None }
}

fn forwarding<'a>(
    forward: &'a Forward,
    rule: Option<&'a HttpRule>,
    matched: Option<&'a HttpMatch>,
    draw: Draw<'_>,
) -> Outcome<'a> {
    match forward.destinations.choose(draw) {
        Some(destination) => Outcome::Forward(Forwarding { forward, destination, rule, matched }),
        None => Outcome::NoDestination(&forward.missing),
    }
}

impl Forwarding<'_> {
    /// Whether the destination is one of several that were written.
    pub(super) fn is_split(&self) -> bool {
        matches!(self.forward.destinations, Destinations::Split(_))
    }
}

#[cfg(test)]
mod tests;
