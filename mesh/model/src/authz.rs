//! Authorization: what a policy says and whether it lets a connection or request through.
//!
//! The shape is that of `istio.security.Authorization`: rules are ORed, the clauses of a rule ANDed, the matches of
//! a clause ORed, the fields of a match ANDed, the values of a field ORed. There is one engine with three values
//! (`docs/decisions/0003`): what the enforcer cannot see is [`Truth::Unknown`], and an ALLOW rule then does not match while
//! a DENY rule does. [`decide::decide`] names the policy and rule that decided. Layer 4 and layer 7 differ in the
//! [`Facts`] alone.

mod addressee;
pub mod decide;
mod facts;
pub(crate) mod index;
pub mod matcher;
mod path_match;
mod request_match;

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

pub use self::addressee::{Addressee, GatewayName, policies_for};
pub use self::decide::{Cause, Decision, Verdict, decide};
pub use self::facts::{Facts, Layer, Sni};
pub use self::matcher::Truth;
pub use self::path_match::{PathMatch, Template, TemplateError};
pub use self::request_match::{HeaderMatch, RequestMatch};
use crate::address::{NamespacedHostname, Str};
use crate::identity::Identity;
use crate::workload::PolicyName;

/// An authorization policy as an enforcer reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace and name.
    pub name: PolicyName,
    /// Which workloads it applies to.
    pub scope: PolicyScope,
    /// What a matching rule means.
    pub action: Action,
    /// The rules; without any the policy never matches, so that an ALLOW policy without rules denies everything.
    pub rules: Box<[Rule]>,
    /// Only report what the policy would decide.
    pub dry_run: bool,
    /// Why the policy cannot be read as it was written; such a policy denies all of its scope.
    pub invalid: Option<Str>,
}

/// What a policy applies to (`istio.security.Scope`, and `targetRefs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PolicyScope {
    /// Every workload of the mesh.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads that name it.
    Workload,
    /// What passes a waypoint for one of these. Node agents never see such a policy.
    Targets(Box<[Target]>),
}

/// What a policy is attached to, instead of the workloads behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// All that passes the waypoint of this Gateway.
    Gateway {
        /// Its namespace.
        namespace: Str,
        /// Its name.
        name: Str,
    },
    /// All that passes a waypoint of this GatewayClass.
    GatewayClass(Str),
    /// What is sent to this service.
    Service(NamespacedHostname),
    /// What is sent to a host of this ServiceEntry.
    ServiceEntry {
        /// Its namespace.
        namespace: Str,
        /// Its name.
        name: Str,
    },
}

/// What a matching rule means (`istio.security.Action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let through; where any ALLOW policy applies, what none of them matches is denied.
    Allow,
    /// Refuse, whatever else allows.
    Deny,
    /// Note; decides nothing. Node agents never see such a policy.
    Audit,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
        })
    }
}

/// One rule: all of its clauses must hold. Without clauses it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The clauses, ANDed.
    pub clauses: Box<[Clause]>,
}

/// One clause: any of its matches must hold. Without matches it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clause {
    /// The matches, ORed.
    pub matches: Box<[Match]>,
}

/// Attributes of a connection or request, ANDed; an empty list does not restrict. A match that restricts nothing never holds
/// (as on the wire, where it is what is left of one that could not be expressed).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    /// The client's namespace is one of these.
    pub namespaces: Vec<StringMatch>,
    /// … is none of these.
    pub not_namespaces: Vec<StringMatch>,
    /// The client's identity, without `spiffe://`, is one of these.
    pub principals: Vec<StringMatch>,
    /// … is none of these.
    pub not_principals: Vec<StringMatch>,
    /// The client's service account is one of these, whatever its trust domain.
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// … is none of these.
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// The client's address is in one of these ranges.
    pub source_ips: Vec<IpNet>,
    /// … is in none of these.
    pub not_source_ips: Vec<IpNet>,
    /// The application's address is in one of these ranges.
    pub destination_ips: Vec<IpNet>,
    /// … is in none of these.
    pub not_destination_ips: Vec<IpNet>,
    /// The application's port is one of these.
    pub destination_ports: Vec<u16>,
    /// … is none of these.
    pub not_destination_ports: Vec<u16>,
    /// Attributes that the rule restricts and this enforcer cannot see, by their names in the API
    /// (`to.operation.methods`, `when[request.headers[x]]`). Each is [`Truth::Unknown`].
    pub unseen: Vec<Str>,
    /// What is asked of the request. `None` in what node agents are sent: there it is among `unseen`.
    pub request: Option<Box<RequestMatch>>,
}

/// How a string is compared (`istio.security.StringMatch`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Str),
    /// Begins with.
    Prefix(Str),
    /// Ends with.
    Suffix(Str),
    /// Not empty.
    Presence,
}

/// A namespace and a service account, compared whatever the trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountMatch {
    /// The namespace.
    pub namespace: Str,
    /// The service account.
    pub service_account: Str,
}

/// What is known of a connection when it is judged at layer 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The client's address: the tunnel's peer, or the plaintext peer.
    pub source: SocketAddr,
    /// Who the client is, by its certificate; `None` for plaintext.
    pub identity: Option<&'a Identity>,
    /// The application's address and port, as resolved; never the tunnel's port.
    pub destination: SocketAddr,
}

#[cfg(test)]
mod tests;
