//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::ConnectError;

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(15);
/// A stream that was closed in order after this long did its work; one that is closed at once, again and again (by a
/// middlebox without a controller behind it), is a failure.
const USEFUL: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// None came about.
    NoConnection,
    /// The controller refuses the client: its token or its name.
    Refused,
    /// It closed the stream, as it does now and then, or a middlebox did.
    Benign,
    /// It reported an error.
    Error,
}

/// Doubles from failure to failure.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Backoff {
    /// The wait after a connection that ended so and had lasted so long. A fifth of it is left to chance, so that
    /// the clients of a controller that restarts do not come back as one.
    pub(super) fn next(&mut self, ending: Ending, lasted: Duration) -> Duration {
        let good = lasted >= LONGEST || (ending == Ending::Benign && lasted >= USEFUL);
        let wait = if good { SHORTEST } else { self.next };
        self.next = (wait * 2).min(LONGEST);
        let chance = (RandomState::new().hash_one(()) % 1000) as f64 / 1000.0;
        wait.mul_f64(1.0 - 0.2 * chance)
    }
}

impl Ending {
    pub(super) fn of(error: &ConnectError) -> Self {
        match error {
            ConnectError::Closed | ConnectError::StartOver(_) => Self::Benign,
            ConnectError::Status(status) => Self::of_status(status),
            _ => Self::NoConnection,
        }
    }

    fn of_status(status: &tonic::Status) -> Self {
        use tonic::Code;
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Self::Refused,
            Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => Self::Benign,
            _ if is_goodbye(status.message()) => Self::Benign,
            _ => Self::Error,
        }
    }
}

/// How servers word it when they close a connection in order.
fn is_goodbye(message: &str) -> bool {
    ["transport is closing", "received prior goaway"].iter().any(|goodbye| message.contains(goodbye))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::{Code, Status};

    #[test]
    fn doubles_up_to_a_limit_and_starts_anew_after_a_benign_end() {
        let mut backoff = Backoff::default();
        let mut next = |ending| backoff.next(ending, Duration::ZERO).as_secs_f64();
        let near = |wait: f64, expected: f64| wait <= expected && wait >= expected * 0.79;
        for expected in [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 15.0, 15.0] {
            let wait = next(Ending::NoConnection);
            assert!(near(wait, expected), "{wait} instead of {expected}");
        }
        assert!(near(next(Ending::Benign), 15.0), "closed at once");
        assert!(near(backoff.next(Ending::Benign, USEFUL).as_secs_f64(), 0.01));
        assert!(near(backoff.next(Ending::Error, USEFUL).as_secs_f64(), 0.02));
        assert!(near(backoff.next(Ending::Error, LONGEST).as_secs_f64(), 0.01));
    }

    #[test]
    fn tells_a_goodbye_from_an_error() {
        let cases = [
            (Code::Unknown, "", Ending::Benign),
            (Code::Cancelled, "", Ending::Benign),
            (Code::DeadlineExceeded, "", Ending::Benign),
            (Code::Unavailable, "error reading: transport is closing", Ending::Benign),
            (Code::Unavailable, "received prior goaway: code: NO_ERROR", Ending::Benign),
            (Code::Unavailable, "no", Ending::Error),
            (Code::Aborted, "behind", Ending::Error),
            (Code::Unauthenticated, "", Ending::Refused),
            (Code::PermissionDenied, "", Ending::Refused),
        ];
        for (code, message, expected) in cases {
            let error = ConnectError::from_status(Status::new(code, message));
            assert_eq!(Ending::of(&error), expected, "{code:?} {message}");
        }
        assert_eq!(Ending::of(&ConnectError::Closed), Ending::Benign);
    }
}
