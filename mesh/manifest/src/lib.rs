//! Manifests: the YAML and JSON that people write for Kubernetes and for the mesh, read into types without
//! losing where anything stands.
//!
//! ```text
//! text ─► yaml (documents, places) ─► kinds (what is it?) ─► decode (types) ─► check (rules) ─► Object
//!                     └────────────── everything wrong on the way ──────────────► Finding
//! files ─► folder (all of them, again when they change) ─► objects in force      state (what a mesh writes)
//! Gateway ─► waypoint (the objects by which it runs)      Pod, Namespace ─► enrolment (whether it belongs to the mesh)
//! ```
//!
//! Used by whoever reads manifests: the controller's file source, `lateen up` and `lateen analyze`, and the
//! redirecting role of the node agent. All of it is pure but for `folder` and `state`.
//!
//! An object that is wrong is never read as if the wrong part were not there: it is [`Typed::Broken`], and
//! its findings say why. A mesh kind that is not built yet is [`Typed::Unsupported`] and refused by name.

mod analyze;
mod check;
mod compatibility;
mod cursor;
mod decode;
pub mod enrolment;
mod finding;
mod folder;
mod health_check;
pub mod istio;
mod kinds;
mod network_policy;
mod node;
mod object;
mod parse;
mod position;
mod scalar;
#[cfg(test)]
mod schema;
mod state;
mod suggest;
pub mod waypoint;
mod yaml;

pub use analyze::{analyze, analyze_one};
pub use finding::{Code, Finding, Level};
pub use folder::{Batch, Folder, Watch};
pub use kinds::{MeshKind, mesh_kinds};
pub use network_policy::{NetworkPeer, NetworkPolicy, NetworkPort, NetworkRule};
pub use node::{Entry, Node, Step, Value};
pub use object::{API_SERVER, BrokenScope, Key, Metadata, Object, Typed};
pub use parse::{Parsed, from_json, parse};
pub use position::{Mark, Position};
pub use scalar::Scalar;
pub use state::{State, StateError};
