//! What the rules of one host may come to. Delegates multiply: some thousand rules that each delegate to some thousand
//! others are two objects of ordinary size and millions of rules. So the product is looked at before any of it is made.

use std::fmt::{self, Write as _};

use manifest::istio::HttpRoute;
use model::route::regex::Allowance;

use super::lookup::Rules;

/// Rules for HTTP of one host, delegates merged: five times as many as the largest host that is measured
/// (`bench change`).
pub(super) const MAX_RULES: usize = 16_384;
/// Matches of these rules.
const MAX_MATCHES: usize = 16_384;
/// How long all that delegates are merged to may be, written out, in bytes: what a rule says is copied for each that it is
/// merged with.
const MAX_MERGED: usize = 32 << 20;

/// What is left of that for the rules of one host.
#[derive(Debug)]
pub(super) struct Room {
    rules: usize,
    matches: usize,
    merged: usize,
    /// What their expressions may still take.
    pub(super) regexes: Allowance,
    refused: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            rules: MAX_RULES,
            matches: MAX_MATCHES,
            merged: MAX_MERGED,
            regexes: Allowance::default(),
            refused: false,
        }
    }
}

impl Room {
    /// Takes room for a rule.
    ///
    /// # Errors
    /// What there is no room for, in words.
    pub(super) fn rule(&mut self, route: &HttpRoute) -> Result<(), String> {
        self.take(1, route.matches.len())
    }

    /// Takes room for a delegate's rules below the rule that names it.
    ///
    /// # Errors
    /// What there is no room for, in words.
    pub(super) fn delegated(&mut self, root: &HttpRoute, delegate: &Rules) -> Result<(), String> {
        let inner = &delegate.spec.http;
        let times = root.matches.len().max(1);
        let all = inner.iter().map(|inner| inner.matches.len().max(1));
        self.take(inner.len(), all.sum::<usize>().saturating_mul(times))?;
        let length = length(root);
        for (inner, own) in inner.iter().zip(&delegate.lengths) {
            // At most what both say, for each of their matches.
            let merged = length.saturating_mul(inner.matches.len().max(1));
            let merged = merged.saturating_add(own.saturating_mul(times));
            self.merged = self.merged.checked_sub(merged).ok_or_else(|| {
                self.refused = true;
                format!(
                    "room for what its delegate's rules are merged to: at most {} MiB for one host; delegate fewer rules, or \
                     say less in each",
                    MAX_MERGED >> 20
                )
            })?;
        }
        Ok(())
    }

    /// Whether something was refused: no further rule is read then.
    pub(super) fn is_exceeded(&self) -> bool {
        self.refused || self.regexes.is_exceeded()
    }

    fn take(&mut self, rules: usize, matches: usize) -> Result<(), String> {
        let left = self.rules.checked_sub(rules).zip(self.matches.checked_sub(matches));
        let Some((rules_left, matches_left)) = left else {
            self.refused = true;
            return Err(format!(
                "room for {rules} more rules with {matches} matches: at most {MAX_RULES} rules and {MAX_MATCHES} matches are \
                 read for one host, those of delegates counted for each rule that delegates; write fewer"
            ));
        };
        (self.rules, self.matches) = (rules_left, matches_left);
        Ok(())
    }
}

/// How long a rule is, written out: what a copy of it takes, roughly.
pub(super) fn length(route: &HttpRoute) -> usize {
    struct Counted(usize);
    impl fmt::Write for Counted {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // Counting cannot fail.
    let _ = write!(counted, "{route:?}");
    counted.0
}

#[cfg(test)]
mod tests {
    use manifest::istio::HttpMatch;

    use super::*;

    #[test]
    fn there_is_room_for_so_many_rules_and_matches() {
        for (matches, fit) in
            [(0, MAX_RULES), (1, MAX_RULES), (2, MAX_MATCHES / 2), (MAX_MATCHES, 1), (MAX_MATCHES + 1, 0)]
        {
            let route = HttpRoute { matches: vec![HttpMatch::default(); matches], ..HttpRoute::default() };
            let mut room = Room::default();
            assert_eq!((0..fit).find(|_| room.rule(&route).is_err()), None, "{matches}");
            assert!(!room.is_exceeded(), "{matches}");
            assert!(room.rule(&route).is_err() && room.is_exceeded(), "{matches}");
        }
    }
}
