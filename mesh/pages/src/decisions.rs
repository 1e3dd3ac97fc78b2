//! `/decisions` of the controller: what proxies remember of what they decided, the newest first.

use serde::{Deserialize, Serialize};

/// The page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    /// What was decided.
    pub records: Vec<Record>,
    /// Proxies that did not answer.
    #[serde(default)]
    pub silent: Vec<Silent>,
}

/// A proxy that did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silent {
    /// Which, as [`Record::proxy`] has it.
    pub proxy: String,
    /// Why not.
    pub reason: String,
}

/// What was decided of a request, or of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Microseconds since 1970.
    pub begun_micros: u64,
    /// Microseconds that it took.
    #[serde(default)]
    pub duration_micros: u64,
    /// `waypoint/NAMESPACE/POD` or `node-agent/NODE`.
    pub proxy: String,
    /// `outbound` or `inbound`, at a node's agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub direction: String,
    /// Who asked.
    #[serde(default)]
    pub client: End,
    /// Who was asked.
    #[serde(default)]
    pub server: End,
    /// The service's host name, if it was one that was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// What was asked for, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// `passed`, `denied` or `failed`.
    pub verdict: String,
    /// Its flags in the access log.
    #[serde(default)]
    pub flags: String,
    /// The policy that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// The rule by which it went.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// What else is to be said of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What a request asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Its `x-request-id`.
    pub id: String,
    /// Its method.
    pub method: String,
    /// Whom it was for.
    pub authority: String,
    /// Its path.
    pub path: String,
    /// The status of the answer; 0 where there was none.
    pub status: u32,
}

/// One of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// The namespace of its workload.
    pub namespace: String,
    /// The name of that; empty where it is not known.
    pub name: String,
    /// The identity that it has proved.
    pub identity: String,
    /// Its address.
    pub address: String,
}
