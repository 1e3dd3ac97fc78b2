//! The same requests to a waypoint and to an Envoy whose configuration was written by hand, from Envoy's and Istio's
//! documentation, for the same manifests (`e2e/fidelity`). What ours is translated to has no part in it.

pub mod configurations;
pub mod envoy;
pub mod reading;
pub mod requests;
pub mod seen;
