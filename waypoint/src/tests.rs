//! The waypoint from end to end, in this process: real sockets on loopback, real TLS, a client's tunnel in, a pod's agent
//! and application behind.

pub(crate) mod fixtures;
mod requests;
mod routes;
mod streams;
mod world;
