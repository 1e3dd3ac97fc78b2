//! Tests of `redirect`.
