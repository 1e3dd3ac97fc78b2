//! The redirecting role: captures the node's pods, one network namespace at a time, and keeps what a proxy needs
//! over its own restarts.

pub mod apply;
pub mod enrol;
pub mod rules;
