//! What the mesh knows and how it decides: pure types and functions, no I/O, no clock.

pub mod identity;

pub use identity::Identity;
