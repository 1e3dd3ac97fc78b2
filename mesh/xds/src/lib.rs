//! Delta xDS, both ends: how the controller's knowledge reaches the proxies.
//!
//! ```text
//!  model ─► convert ─► delta::store ─► delta::session ─► server ══ gRPC ══► client ─► delta::subscriber ─► convert ─► model
//! ```
//!
//! [`convert`] and [`delta`] decide everything and do no I/O.

pub mod convert;
pub mod delta;
