//! The end of a connection: what it means for the record, and how the application learns of a failure.

use std::io;
use std::time::Duration;

use hbone::splice::End;
use hbone::tunnel::Gone;
use socket2::SockRef;

use super::authorize::by_policy;
use super::record::{Failure, flags};

/// HTTP/2's code for a stream that is reset though nothing broke.
const NO_ERROR: u32 = 0;

/// Makes the coming close of a socket a reset.
pub(crate) fn reset(socket: &SockRef<'_>) {
    // It fails only on a socket that is already dead.
    let _ = socket.set_linger(Some(Duration::ZERO));
}

/// What the end of a splice means.
pub(crate) fn outcome(end: &End) -> Option<Failure> {
    match end {
        // The far side needs no more of what our application would still say: a server that hung up after its answer.
        End::Complete | End::Reset(NO_ERROR) => None,
        // Applications hang up in many ways; none of these is the mesh's doing.
        End::Application(error) if is_hang_up(error) => None,
        End::Application(error) => Some(Failure::new(flags::CONNECT, error)),
        End::Reset(code) => {
            Some(Failure::new(flags::CONNECT, format_args!("reset by the far side (HTTP/2 code {code})")))
        }
        End::Tunnel(gone @ Gone::Ended(_)) => Some(Failure::new(flags::CERT_REVOKED, gone)),
        End::Tunnel(gone) => Some(Failure::new(flags::CONNECT, gone)),
        End::Cut(cause) | End::CutByPeer(cause) => {
            let flags = if by_policy(cause).is_some() { flags::DENY } else { flags::CONNECT };
            Some(Failure::new(flags, cause))
        }
        End::Account(full) => Some(Failure::new(flags::CONNECT, full)),
        End::Detached | End::Undetachable => Some(Failure::new(flags::CONNECT, "taken off its tunnel")),
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof | NotConnected)
}

#[cfg(test)]
mod tests {
    use super::super::authorize::{NO_LONGER, REFUSED};
    use super::super::connections::{GONE, OVER, SHED};
    use super::*;

    #[test]
    fn only_a_policy_denies() {
        for (cause, expected) in [
            (format!("{NO_LONGER}explicitly denied by: a/b (rule 0)"), flags::DENY),
            (format!("{REFUSED}explicitly denied by: a/b (rule 0)"), flags::DENY),
            (GONE.to_owned(), flags::CONNECT),
            (SHED.to_owned(), flags::CONNECT),
            (OVER.to_owned(), flags::CONNECT),
        ] {
            for end in [End::Cut(cause.clone()), End::CutByPeer(cause.clone())] {
                let failure = outcome(&end).expect("it failed");
                assert_eq!((failure.flags, failure.error.as_str()), (expected, cause.as_str()));
            }
        }
    }
}
