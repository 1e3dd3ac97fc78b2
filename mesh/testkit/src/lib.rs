//! What tests and benches need around the mesh: namespaces, scripted and foreign peers, fake servers.
//! A dev-dependency, and the bench's; nothing that ships depends on it.

pub mod certificates;
pub mod costs;
pub mod envoy;
pub mod netns;
