//! Finding the rule for a request without asking every one: by the path that a condition wants, where it wants one in so
//! many words. What decides is the same as in [`select`], which is the measure of this.

use std::collections::HashMap;
use std::ops::Deref;

use super::condition::{HttpMatch, PathMatch, Scope};
use super::select::{by_rule, select, undecided};
use super::{Decision, HttpRule, Routing};
use crate::address::Str;
use crate::request::Request;
use crate::select::Draw;

/// Conditions from which on an index costs less than it saves.
const WORTH: usize = 16;

/// A routing with what finds its rules.
#[derive(Debug, Clone)]
pub struct Indexed {
    routing: Routing,
    index: Option<Index>,
}

/// A condition by its rule and its place in it, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rule: u32,
    condition: u32,
}

type ByPath = HashMap<Str, Vec<Place>, foldhash::fast::RandomState>;

/// Every condition is in one of these, each list in order.
#[derive(Debug, Clone, Default)]
struct Index {
    exact: ByPath,
    prefixes: ByPath,
    /// The lengths that prefixes have, the longest first.
    lengths: Vec<usize>,
    /// What asks for no path, or not in so many words; and the rule that takes everything.
    others: Vec<Place>,
    /// Whether a condition is for every client and port.
    unscoped: bool,
}

impl Deref for Indexed {
    type Target = Routing;

    fn deref(&self) -> &Routing {
        &self.routing
    }
}

impl Indexed {
    /// Makes the index, if there are enough conditions to be worth it.
    pub fn new(routing: Routing) -> Self {
        let conditions: usize = routing.http.iter().map(|rule| rule.matches.len()).sum();
        let index = (conditions > WORTH).then(|| Index::of(&routing.http));
        Self { routing, index }
    }

    /// What becomes of a request: what [`select`] says.
    pub fn select<'a>(&'a self, request: &Request<'_>, draw: Draw<'_>) -> Decision<'a> {
        let Some(index) = &self.index else { return select(&self.routing, request, draw) };
        let rules = &self.routing.http;
        match index.first(rules, request) {
            Some(place) => {
                let rule = &rules[place.rule as usize];
                by_rule(rule, rule.matches.get(place.condition as usize), draw)
            }
            None => {
                let covers = |one: &HttpMatch| one.scope.covers(&request.client, request.destination);
                let concerned = index.unscoped || rules.iter().flat_map(|rule| &rule.matches).any(covers);
                undecided(&self.routing, concerned, draw)
            }
        }
    }
}

impl Index {
    fn of(rules: &[HttpRule]) -> Self {
        let mut index = Self::default();
        for (rule, number) in rules.iter().zip(0..) {
            for (one, condition) in rule.matches.iter().zip(0..) {
                index.unscoped |= one.scope == Scope::default();
                index.put(one, Place { rule: number, condition });
            }
            if rule.matches.is_empty() {
                index.others.push(Place { rule: number, condition: 0 });
                // It takes all that comes so far: nothing behind it is ever asked.
                break;
            }
        }
        index.lengths = index.prefixes.keys().map(|prefix| prefix.len()).collect();
        index.lengths.sort_unstable_by(|one, other| other.cmp(one));
        index.lengths.dedup();
        for list in index.exact.values_mut().chain(index.prefixes.values_mut()) {
            list.shrink_to_fit();
        }
        index
    }

    fn put(&mut self, condition: &HttpMatch, place: Place) {
        let list = match &condition.path {
            Some(PathMatch::Exact(path)) if !condition.ignore_path_case => {
                self.exact.entry(path.clone()).or_default()
            }
            Some(PathMatch::Prefix(prefix)) if !condition.ignore_path_case => {
                self.prefixes.entry(prefix.clone()).or_default()
            }
            _ => &mut self.others,
        };
        list.push(place);
    }

    /// The first condition that holds, or the rule that asks for none.
    fn first(&self, rules: &[HttpRule], request: &Request<'_>) -> Option<Place> {
        let prefixes = self.lengths.iter().filter_map(|length| {
            let prefix = request.path.get(..*length)?;
            self.prefixes.get(prefix)
        });
        let lists = self.exact.get(request.path).into_iter().chain(prefixes).chain([&self.others]);
        let mut first: Option<Place> = None;
        for list in lists {
            let earlier = list.iter().take_while(|place| first.is_none_or(|first| **place < first));
            first = earlier.copied().find(|place| decides(rules, *place, request)).or(first);
        }
        first
    }
}

fn decides(rules: &[HttpRule], place: Place, request: &Request<'_>) -> bool {
    rules[place.rule as usize].matches.get(place.condition as usize).is_none_or(|condition| {
        condition.scope.covers(&request.client, request.destination) && condition.holds(request)
    })
}

#[cfg(test)]
mod tests;
