//! The node agent: one process redirects the node's pods ([`redirect`]), another proxies what they send and get.
//!
//! ```text
//! pod ─SYN─► rules ─► listeners ─► (proxy) ─ mTLS :15008 ─► …        redirect: rules, listeners, who is captured
//!                         ▲                                         proxy: everything behind the listeners
//!     redirect ── private socket, ZDS ──► pods (the proxy's feed)
//! ```

pub mod allocator;
pub mod config;

pub mod redirect;

pub mod proxy;

mod code;
pub mod listeners;
pub mod netns;
pub mod pods;
pub mod private;
pub mod ready;
pub mod seqpacket;
pub mod socket;
pub mod zds;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
