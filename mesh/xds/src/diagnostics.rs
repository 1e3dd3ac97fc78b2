//! The stream on which a proxy answers what the controller asks on behalf of people, and the records of decisions that it
//! answers from. It goes over the connection that configuration comes on.

mod attend;
mod ring;
mod server;

pub use self::attend::Answers;
pub(crate) use self::attend::attend;
pub use self::ring::{Ring, micros, newest};
pub use self::server::{Admission, Admitted, Agrees, Attending, Desk, Said};

/// Records that a proxy sends at most in one answer.
pub const MOST_RECORDS: usize = 1000;
/// Bytes of a text that a request brought, in a record.
const TEXT: usize = 256;

/// How many records a question wants at most.
fn most(query: &proto::diagnostics::DecisionQuery) -> usize {
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
