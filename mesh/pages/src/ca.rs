//! `/ca` of the controller: how the authorities stand, and what came of what people had them do.

use serde::{Deserialize, Serialize};

/// How the authorities stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `made here` or `plugged in`.
    pub authority: String,
    /// `stable`, `distributing` or `retiring`.
    pub phase: String,
    /// What it means, and what is waited for.
    pub explanation: String,
    /// The certificates that count: who signs, who will, who did.
    pub certificates: Vec<Certificate>,
    /// Who has not said that he trusts the successor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<String>,
    /// Since when the successor is distributed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When it signs at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_the_latest: Option<String>,
    /// Workloads' certificates that were issued and have not ended.
    pub issued: usize,
    /// Identities that get no certificates.
    pub revoked_identities: Vec<String>,
    /// Certificates revoked here that have not ended.
    pub revoked_certificates: usize,
    /// The lists that proxies have.
    pub revocation_lists: Vec<List>,
    /// Whose renewal is late: past two thirds of their life, and their pods are there.
    pub late: Vec<Late>,
    /// What somebody ought to look at.
    pub warnings: Vec<String>,
}

/// A certificate that counts, and what it is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    /// `root`, `signing` or `intermediate`.
    pub kind: String,
    /// `current`, `next` or `retired`.
    pub state: String,
    /// Its subject.
    pub subject: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// From when it counts, RFC 3339.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// Of a retired one: until when it is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A list of revoked certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct List {
    /// How many it has.
    pub entries: usize,
    /// When the next is due, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_update: Option<String>,
}

/// A workload's certificate that was not renewed in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Late {
    /// Whose it is.
    pub identity: String,
    /// Who has it.
    pub holder: String,
    /// When it ends, RFC 3339.
    pub not_after: String,
}

/// What was revoked (`/ca/revoke`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Revoked {
    /// Whose certificates.
    pub identity: String,
    /// Whether it gets no others.
    pub whole: bool,
    /// How many there were.
    pub certificates: usize,
}

/// Who gets certificates again (`/ca/restore`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restored {
    /// The identity.
    pub identity: String,
}
