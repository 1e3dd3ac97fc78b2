//! Tests of `timeout`.
