//! Who this process may speak as, and how it proves it: certificates in, TLS configurations out.
//!
//! The path of a certificate, which is also the order of the modules:
//!
//! ```text
//! key ─► csr ─► authority (ca_client: gRPC to the controller, over control_plane) ─► bundle (checked)
//!                   ▲                                                                   │
//!                   └──── rotation: when to fetch next, who waits, what to keep ◄───────┘
//!                              │
//!                              ▼
//!          tls: Credentials ─► rustls ServerConfig / ClientConfig, peers judged by verify
//! ```
//!
//! [`tls`] is the only place in the whole mesh that chooses a cryptographic provider, suites and key-exchange
//! groups. Nothing here spawns a task: what must run is returned as a future for its owner.

pub mod key;

pub mod csr;

pub mod bundle;

pub mod authority;

pub mod ca_client;

pub mod control_plane;

pub mod rotation;

pub mod tls;

pub mod revocation;

pub mod trust;

pub mod verify;
