//! The controller: reads the configuration, issues the identities and distributes both.

pub mod ca;
