//! Delta xDS, both ends: how the controller's knowledge reaches the proxies.
//!
//! ```text
//!  model ─► convert ─► delta::store ─► delta::session ─► server ══ gRPC ══► client ─► delta::subscriber ─► feed ─► model
//! ```
//!
//! [`convert`] and [`delta`] decide everything and do no I/O; [`server`] and [`client`] are thin.

pub mod convert;
pub mod delta;

pub mod node;

pub mod server;

pub mod client;
pub mod diagnostics;
pub mod feed;
pub mod names;
pub mod state;
