//! `/top` of a node's agent: what each pod costs now.

use serde::{Deserialize, Serialize};

/// The page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    /// The node.
    #[serde(default)]
    pub node: String,
    /// Bytes of memory that the process may have.
    pub memory_limit: u64,
    /// Files that it may have open.
    pub open_files_limit: u64,
    /// What each pod costs, by namespace and name.
    pub pods: Vec<Costs>,
}

/// What one pod costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Costs {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `serving`, `draining` or `gone`.
    pub phase: String,
    /// Its connections.
    pub connections: u32,
    /// Its tunnels.
    pub tunnels: u32,
    /// Its file descriptors.
    pub descriptors: u32,
    /// Bytes that are held for it.
    pub buffered_bytes: u64,
    /// Bytes of memory that it takes.
    pub memory_bytes: u64,
    /// Bytes that it has sent.
    pub sent_bytes: u64,
    /// Bytes that it has received.
    pub received_bytes: u64,
    /// Bytes a second that it sent in the last window.
    pub sent_per_second: u64,
    /// Bytes a second that it received in the last window.
    pub received_per_second: u64,
    /// Its part of what all pods' turns on the threads came to in the last window, from 0 to 1.
    pub work: f64,
    /// How often it was turned away.
    pub refused: u64,
}
