//! The certificate authority: whose word it is that a key belongs to a service account.
//!
//! ```text
//! CreateCertificate ─► service ─► authorize (which node calls? may it speak for this identity?)
//!                                    └─► issue (the request's signature, lifetime, the leaf) ─► [leaf, …, roots]
//!                                           ▲
//!       keyring (who signs now, who next, who did before; what was issued and revoked) ◄─ upkeep (phases, files, alarms)
//!                                           ▲
//!              root (made here, or plugged in and validated) ─► own: the controller's own server certificate
//! ```

pub mod authorize;
pub mod custody;
pub mod issue;
pub mod keyring;
pub mod listen;
pub mod metrics;
pub mod own;
pub mod rate;
pub mod root;
pub mod service;
pub mod upkeep;
