//! The pages of admin ports that `lateen` reads: one type for who serves a page and for who reads it, so that neither means
//! something else than the other.
//!
//! Who reads may be of another version than who serves: a field that is not known is passed over, and one that may be missing
//! has a value then.

pub mod ca;

pub mod decisions;

pub mod sync;

pub mod top;

pub mod version;
