//! Live connections from a proxy to the one that takes its place (`design.md` D8): an upgrade, a restart.
//!
//! ```text
//!  predecessor                                  successor
//!      │ ◄──────────────── Hello ─────────────────── │   it serves all pods
//!      │  accepts nothing more, GOAWAY on its tunnels │
//!      │  detaches what it carries, with the peers    │
//!      │ ─── Passed + sockets (+ what is between) ──► │   resumes, parks or joins it
//!      │                     …                        │
//!      │ ─────────── closes when all have gone ─────► │
//! ```
//!
//! The redirecting role gives each end of the socket to one of them. What a foreign peer carries cannot be moved: it
//! stays with the predecessor, which ends when the last of it has, or its time is up.

mod give;
pub(crate) mod message;
mod take;

pub(crate) use give::{Successor, give};
pub(crate) use take::take;

/// Why a hand-over did not go on. Connections not handed over yet stay with the predecessor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// The socket failed.
    #[error("the socket between the two proxies failed: {0}")]
    Socket(#[from] std::io::Error),
    /// The other end has gone.
    #[error("the other proxy has gone")]
    Gone,
    /// The other end said nothing in time.
    #[error("the other proxy said nothing for {0:?}")]
    Silent(std::time::Duration),
    /// The other end speaks another language.
    #[error("the other proxy speaks versions {oldest} to {newest} of the hand-over, this one {ours}")]
    Version {
        /// The oldest it speaks.
        oldest: u32,
        /// The newest.
        newest: u32,
        /// Ours.
        ours: u32,
    },
    /// It said something that is no message of this version.
    #[error("the other proxy said something that cannot be understood: {0}")]
    Garbled(String),
}

#[cfg(test)]
mod tests;
