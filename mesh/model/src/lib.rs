//! What the mesh knows and how it decides: pure types and functions, no I/O, no clock, no randomness of its own.
//!
//! ```text
//!  wire ─► mesh (all that is known) ─► plan    where an outgoing connection goes
//!                                  ├─► select  which endpoint
//!                                  ├─► accept  what an incoming CONNECT asks for
//!                                  ├─► route   what becomes of a request at layer 7
//!                                  └─► authz   whether a connection may pass, and why ([`mesh::Mesh::judge`])
//!  DestinationRule ─► traffic        which endpoint of a host takes a request, how much may be under way, who is left out
//! ```
//!
//! Proxies, the controller and the command line call the same functions, so they cannot disagree.

pub mod address;
pub mod identity;
pub mod path;
pub mod ports;

pub mod request;
pub mod service;
pub mod workload;

pub mod authz;
pub mod mesh;
pub mod select;

pub mod accept;
pub mod baggage;
pub mod plan;
pub mod route;

pub mod traffic;

#[cfg(test)]
mod fixtures;

pub use identity::Identity;
