//! The delta protocol as state machines without I/O: what the server has ([`store`]), what one client of it has and
//! lacks ([`session`]), and the client's own side ([`subscriber`]).
//!
//! ```text
//!  controller ─► store ─► session ══ responses ══► subscriber ─► handler
//!                            ▲ ════ requests ═════════╝
//! ```
//!
//! Versions are hashes of contents, so replicas of the controller agree without talking, and a client that comes
//! back is sent what changed and nothing else.

mod digest;
pub mod session;
pub mod store;
pub mod subscriber;
pub mod version;

#[cfg(test)]
mod tests;
