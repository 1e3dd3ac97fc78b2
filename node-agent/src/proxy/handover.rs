//! Live connections from a proxy to the one that takes its place (`docs/decisions/0011-hand-over.md`): an upgrade, a restart.
//!
//! ```text
//!  predecessor                                  successor
//!      │ ◄──────────────── Hello ─────────────────── │   it has everything, and serves
//!      │  accepts nothing more, GOAWAY on its tunnels │
//!      │  detaches what it carries, wave by wave      │
//!      │ ─── Passed + sockets (+ what is between) ──► │   resumes, parks or joins it
//!      │ ◄──────────────── GoneOn ────────────────── │   so many carry bytes again
//!      │                     …                        │
//!      │ ─────────── closes when all have gone ─────► │
//! ```
//!
//! The redirecting role gives each end of the socket to one of them. What a foreign peer carries cannot be moved: it
//! stays with the predecessor, which ends when the last of it has, or its time is up.

mod give;
pub(crate) mod message;
mod take;
mod waves;

pub(crate) use give::{Onward, Retirement, Successor, give};
pub(crate) use take::{Predecessor, Predecessors, take};
pub(crate) use waves::Arriving;

/// Why a hand-over did not go on. Connections not handed over yet stay with the predecessor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// The socket failed.
    #[error("the socket between the two proxies failed: {0}")]
    Socket(#[from] std::io::Error),
    /// The other end has gone.
    #[error("the other proxy has gone")]
    Gone,
    /// This proxy is told to end at once.
    #[error("told to end")]
    Stopped,
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
