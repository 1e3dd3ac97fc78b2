//! What every long-running process of the mesh gives its operator, in one place: settings from one table, logs in
//! Istio's format with levels that change at run time, metrics, traces, readiness, an admin page, and an orderly end.

pub mod settings;

pub mod log;
pub mod metrics;
pub mod trace;

pub mod http;
pub mod readiness;

pub mod files;
pub mod limits;
pub mod ports;

pub mod shutdown;
pub mod start;
pub mod tasks;
