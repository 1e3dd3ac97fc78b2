//! Tunnels against peers: the h2 crate at the other end, ours at both, over pipes in memory and over TLS.

// Helpers of tests are tests, but no lint can see that.
#![allow(clippy::unwrap_used, clippy::panic, clippy::async_yields_async)]

#[path = "tunnel/support.rs"]
mod support;

#[path = "tunnel/bounds.rs"]
mod bounds;
#[path = "tunnel/detach.rs"]
mod detach;
#[path = "tunnel/h2_client.rs"]
mod h2_client;
#[path = "tunnel/h2_server.rs"]
mod h2_server;
#[path = "tunnel/lifecycle.rs"]
mod lifecycle;
#[path = "tunnel/pair.rs"]
mod pair;
#[path = "tunnel/passthrough.rs"]
mod passthrough;
#[path = "tunnel/pool.rs"]
mod pool;
#[path = "tunnel/tls.rs"]
mod tls;
#[path = "tunnel/windows.rs"]
mod windows;
