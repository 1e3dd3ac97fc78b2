//! The stream on which a proxy answers what the controller asks on behalf of people, and the records of decisions that it
//! answers from. It goes over the connection that configuration comes on.

mod attend;
mod ring;
mod server;

use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

use model::workload::Workload;
use proto::diagnostics::{DecisionQuery, Peer};

pub use self::attend::Answers;
pub(crate) use self::attend::attend;
pub use self::ring::{Ring, micros, newest};
pub use self::server::{Admission, Admitted, Agrees, Attending, Desk, Said};

/// Whether a question means a record: one of this moment, of a request with this id (empty where it has none), that concerns
/// these namespaces, and went well or did not.
pub fn is_meant<'a>(
    query: &DecisionQuery,
    at: SystemTime,
    request_id: &str,
    namespaces: impl IntoIterator<Item = &'a str>,
    went_well: bool,
) -> bool {
    let mut namespaces = namespaces.into_iter();
    (query.request_id.is_empty() || query.request_id == request_id)
        && (query.namespace.is_empty() || namespaces.any(|namespace| namespace == query.namespace))
        && (!query.refused_only || !went_well)
        && micros(at) >= query.since_micros
}

/// One of the two who a record is of, as far as it is known.
pub fn peer(workload: Option<&Workload>, identity: Option<&dyn fmt::Display>, address: SocketAddr) -> Peer {
    Peer {
        namespace: workload.map(|workload| workload.namespace().to_string()).unwrap_or_default(),
        name: workload.map(|workload| workload.name.to_string()).unwrap_or_default(),
        identity: identity.map(ToString::to_string).unwrap_or_default(),
        address: address.to_string(),
    }
}

/// Records that a proxy sends at most in one answer.
pub const MOST_RECORDS: usize = 1000;
/// Bytes of a text that a request brought, in a record.
const TEXT: usize = 256;

/// How many records a question wants at most.
fn most(query: &DecisionQuery) -> usize {
    match usize::try_from(query.limit).unwrap_or(MOST_RECORDS) {
        0 => MOST_RECORDS,
        limit => limit.min(MOST_RECORDS),
    }
}

/// A text as a record has it: what is longer than 256 bytes is cut.
pub fn cut(text: &str) -> &str {
    let end = (0..=TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_a_question_means() {
        let all = DecisionQuery::default;
        let of = |namespace: &str| DecisionQuery { namespace: namespace.into(), ..all() };
        let by = |id: &str| DecisionQuery { request_id: id.into(), ..all() };
        let since = |since_micros| DecisionQuery { since_micros, ..all() };
        let at = UNIX_EPOCH + Duration::from_micros(5);
        let namespaces = ["shop", "till"];
        for (query, meant) in [
            (all(), [true, true]),
            (of("till"), [true, true]),
            (of("other"), [false, false]),
            (by("7"), [true, true]),
            (by("8"), [false, false]),
            (since(5), [true, true]),
            (since(6), [false, false]),
            (DecisionQuery { refused_only: true, ..all() }, [true, false]),
        ] {
            let found = [false, true].map(|well| is_meant(&query, at, "7", namespaces, well));
            assert_eq!(found, meant, "{query:?}");
        }
    }
}
