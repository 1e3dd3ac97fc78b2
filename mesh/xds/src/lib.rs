//! Delta xDS, both ends: wire ⇄ model ([`convert`]) and the subscription state machines.

pub mod convert;
