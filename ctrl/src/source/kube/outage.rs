//! What is said while the API server cannot be asked: once when it begins and now and then while it lasts, not once a
//! watch and try.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

/// No error for as long, longer than the watches' back-off: the next one is another outage.
const OVER: Duration = Duration::from_secs(60);
/// Between two lines about one outage.
const QUIET: Duration = Duration::from_secs(300);
/// A refusal counts once it has lasted: an API server that has just started refuses everything for a moment.
const LASTING: Duration = Duration::from_secs(5);

/// What went wrong lately. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage {
    lately: Arc<Mutex<BTreeMap<&'static str, Lately>>>,
    errors: Counter,
}

#[derive(Debug, Clone, Copy)]
struct Lately {
    begun: Instant,
    seen: Instant,
    told: Option<Instant>,
}

impl Outage {
    /// Counting into `errors`.
    pub(crate) fn counting(errors: Counter) -> Self {
        Self { errors, ..Self::default() }
    }

    /// A request about `kind` failed, and will be tried again.
    pub(crate) fn note(&self, kind: &'static str, error: &impl std::error::Error) {
        self.errors.inc();
        let error = with_causes(error);
        // What a server refuses it refuses by kind; one that is away is away for all.
        let about = if error.contains("orbidden") { kind } else { "" };
        if self.is_time(about, Instant::now()) {
            tracing::warn!(kind, error, "the API server cannot be asked; what was in force stays in force");
        }
    }

    /// Whether to tell about an error now; `about` is the kind that is refused, or nothing.
    fn is_time(&self, about: &'static str, now: Instant) -> bool {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Lately { begun: now, seen: now, told: None };
        let one = lately.entry(about).or_insert(fresh);
        if now.duration_since(one.seen) > OVER {
            *one = fresh;
        }
        one.seen = now;
        let lasts = about.is_empty() || now.duration_since(one.begun) >= LASTING;
        let tell = lasts && one.told.is_none_or(|told| now.duration_since(told) > QUIET);
        if tell {
            one.told = Some(now);
        }
        tell
    }
}

/// The error with what caused it, without the answer's structure, which says the same once more.
fn with_causes(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split(" (Status {").next().map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_when_it_begins_and_now_and_then() {
        let outage = Outage::default();
        let begun = Instant::now();
        for (at, about, wanted) in [
            (0, "", true),
            (1, "", false),
            (1, "Pod", false),
            (5, "Pod", false),
            (6, "Pod", true),
            (7, "Pod", false),
            (30, "", false),
            (80, "", false),
            (139, "", false),
            (190, "", false),
            (245, "", false),
            (302, "", true),
            (330, "", false),
            (391, "", true),
        ] {
            let told = outage.is_time(about, begun + Duration::from_secs(at));
            assert_eq!(told, wanted, "{about:?} after {at} s");
        }
    }
}
