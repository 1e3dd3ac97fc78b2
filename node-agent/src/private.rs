//! The private socket, beside ZDS: what only our own redirector and our own proxy say to each other. Over it a
//! new proxy gets, in one go and without a question per pod, everything its predecessor had: each pod with its
//! namespace and its open listeners, and memory files with the last known state and certificates. Hence a proxy
//! that crashed is back in milliseconds, no queue of a listener is lost, and a restart needs no controller.
//!
//! One message a datagram; descriptors beside it, in the order that the message names them.
//!
//! | proxy → redirector | redirector → proxy |
//! |---|---|
//! | `Hello(versions)` | `Welcome(version)` + the saved state, or `Refused(reason)` |
//! | | `Pod(…)` + namespace and listeners, for each pod; `Complete` |
//! | `Received(sequence)` for each later message | `Pod`, `Draining`, `Resumed`, `Removed`, `Superseded` |
//! | `Store` + memory files; `Drained(uid)` | |
//!
//! A proxy that takes another's place is told so (`Predecessor`), and so is the other (`Superseded`), each with its end
//! of a socket over which they hand live connections over ([`crate::proxy`]).
//!
//! A redirector that starts while another one runs takes that one's place in the same way ([`takeover`]): it says `TakeOver`
//! instead of a hello, gets everything, the sockets of the connected proxies too, and answers `Taken`.
//!
//! A pod's listeners are always sent, and received, before ZDS adds the pod.

pub mod client;
pub mod saved;
pub mod server;
pub mod takeover;
pub(crate) mod wire;

/// The version of the messages. A proxy names the oldest and newest it speaks; the redirector picks. 2: proxies hand
/// connections over to one another.
pub const VERSION: u32 = 2;
/// The oldest version that is understood: one release back.
pub const OLDEST_VERSION: u32 = 1;

/// Largest message: a pod's names and seven numbers fit many times over.
pub(crate) const MAX_MESSAGE: usize = 8192;
