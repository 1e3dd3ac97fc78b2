//! Where configuration comes from. Every source emits batches of raw objects: everything that is there first, then
//! what changed, each batch to be applied as one. Nothing behind the index knows which source an object came from.

pub mod file;
pub mod last_good;
pub mod routings;
pub mod waypoints;

pub use manifest::Batch;
