//! Tests of `fault`.
