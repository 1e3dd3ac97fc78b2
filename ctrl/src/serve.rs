//! Who is shown what: proxies are told by the same tokens as certificates are issued for, and a node's token opens the
//! view of that node's agent.

mod control;
pub mod convergence;
pub mod diagnostics;
pub mod metrics;

pub use control::{Gate, view_of};
