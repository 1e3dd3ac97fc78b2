//! Containers: local processes in a pod's namespaces. `spec` says what one is told, `env` and `volumes` compute it
//! from the manifest, `enter` is the hidden command that becomes the container's process, `join` the one that becomes
//! an `exec`'s, `run` starts both from the daemon.

pub(crate) mod enter;
pub(crate) mod env;
pub(crate) mod join;
mod root;
pub(crate) mod run;
pub(crate) mod spec;
mod user;
pub(crate) mod volumes;
