//! The waypoint from end to end, in this process: real sockets on loopback, real TLS, a client's tunnel in, a pod's agent
//! and application behind.

mod breaks;
mod certificates;
mod connections;
mod ending;
pub(crate) mod fixtures;
mod forged;
mod gone;
mod handshakes;
mod health;
mod namespaces;
mod requests;
mod routes;
mod shares;
mod slow;
mod streams;
mod timeouts;
mod traffic;
mod world;
