//! The mesh on this machine. `keeper` makes the namespaces, `init` is process 1 in them, `daemon` runs the mesh:
//!
//! ```text
//! files ─► source ─► world ─► scheduler (which pods) ─► pods (a task each: namespace, enrolment, containers, probes)
//!                      │                                     │ status
//!                      ├─► services (addresses, EndpointSlices) ◄┘
//!                      ├─► rules, dns (how nodes reach service addresses and names)
//!                      └─► store (objects/, read by ctrl and the node agents)
//! ```

pub(crate) mod daemon;
pub(crate) mod init;
pub(crate) mod keeper;

pub(crate) mod preflight;
mod sys;

mod addresses;
mod links;
mod namespaces;
mod nodes;

mod claims;
pub(crate) mod manifests;
mod source;
mod store;

mod clock;
mod converge;
mod dns;
mod rules;
mod scheduler;
mod services;
pub(crate) mod waypoints;
mod world;

pub(crate) mod containers;
mod pods;
mod probes;

pub(crate) mod components;
mod http;
pub(crate) mod logs;
mod process;
mod server;
mod supervise;
mod upgrade;
