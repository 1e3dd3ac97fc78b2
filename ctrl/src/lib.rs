//! The controller: reads the configuration, issues the identities and distributes both.
//!
//! ```text
//!  source ─► index ─► translate ─► [model] ─► compile ─► [publisher] ─► serve ══ mesh/xds ══► proxies
//!    (objects)  (facts, joins)  (pure)          (edits)                      ca ══ certificates ══►
//! ```
//!
//! [`app`] alone knows every part. Nothing behind the index knows where an object came from.

pub mod source;

pub mod index;

pub mod translate;

pub mod compile;
pub mod core;

pub mod serve;

pub mod ca;

pub mod status;

pub mod gateways;

pub mod cluster;

pub mod admin;

pub mod admission;

pub mod app;
pub mod config;
pub mod limits;
mod turns;
