//! What happens to a request between its arrival and its departure. [`chain`] is the one ordered list.

pub(crate) mod chain;
mod forward;
mod forwarded;
mod headers;
mod local;
mod mirror;
mod outgoing;
pub(crate) mod policy;
mod prepare;
mod read;
mod standing;

pub(crate) use self::forwarded::Asker;
pub(crate) use self::standing::Standing;
