//! The certificate authority: whose word it is that a key belongs to a service account.
//!
//! ```text
//! CreateCertificate ─► service ─► authorize (which node calls? may it speak for this identity?)
//!                                    └─► issue (the request's signature, lifetime, the leaf) ─► [leaf, …, roots]
//!                                           ▲
//!              root (made here, or plugged in and validated) ─► own: the controller's own server certificate
//! ```

pub mod authorize;
pub mod issue;
pub mod listen;
pub mod own;
pub mod root;
pub mod service;
