//! AuthorizationPolicy (`security.istio.io`): who may call what.

use serde::Deserialize;

use super::{TargetRef, WorkloadSelector};

/// The `spec` of an AuthorizationPolicy. An empty one allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthorizationPolicy {
    /// The workloads it is for; every one of its namespace when absent.
    pub selector: Option<WorkloadSelector>,
    /// The one resource it is attached to (older form of `target_refs`).
    pub target_ref: Option<TargetRef>,
    /// The resources it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// What happens when a rule matches.
    pub action: Action,
    /// Who decides, for [`Action::Custom`].
    pub provider: Option<ExtensionProvider>,
    /// The policy matches when one of these does. None: it never matches.
    pub rules: Vec<Rule>,
}

impl AuthorizationPolicy {
    /// All targets, in whichever field they were written.
    pub fn targets(&self) -> impl Iterator<Item = &TargetRef> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}

/// What a matching policy does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Lets through; as soon as one ALLOW policy is there, what none of them matches is refused.
    #[default]
    Allow,
    /// Refuses.
    Deny,
    /// Notes.
    Audit,
    /// Asks the provider.
    Custom,
}

impl Action {
    /// As written in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// The extension provider of a CUSTOM policy, as named in the mesh's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExtensionProvider {
    /// Its name.
    pub name: String,
}

/// Matches when `from`, `to` and `when` all do; each that is empty always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    /// One of these sources.
    pub from: Vec<From>,
    /// One of these operations.
    pub to: Vec<To>,
    /// All of these conditions.
    pub when: Vec<Condition>,
}

/// Wraps a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct From {
    /// Who calls.
    pub source: Source,
}

/// Who calls. All fields that are set must match; within a field one value must, and none of a `not` field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Source {
    /// Peer identities without `spiffe://`: `cluster.local/ns/NS/sa/NAME`; `*` at either end.
    pub principals: Vec<String>,
    /// None of these identities.
    pub not_principals: Vec<String>,
    /// Identities from a token, `ISSUER/SUBJECT`. Layer 7.
    pub request_principals: Vec<String>,
    /// None of these token identities. Layer 7.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer's identity.
    pub namespaces: Vec<String>,
    /// None of these namespaces.
    pub not_namespaces: Vec<String>,
    /// Service accounts of the peer, `NS/NAME`, or `NAME` for one of the policy's namespace.
    pub service_accounts: Vec<String>,
    /// None of these service accounts.
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the peer's identity.
    pub trust_domains: Vec<String>,
    /// None of these trust domains.
    pub not_trust_domains: Vec<String>,
    /// Addresses or CIDRs the connection comes from.
    pub ip_blocks: Vec<String>,
    /// None of these addresses.
    pub not_ip_blocks: Vec<String>,
    /// Addresses or CIDRs of the original client (`X-Forwarded-For`, PROXY protocol). Layer 7.
    pub remote_ip_blocks: Vec<String>,
    /// None of these original addresses. Layer 7.
    pub not_remote_ip_blocks: Vec<String>,
}

/// Wraps an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct To {
    /// What is called.
    pub operation: Operation,
}

/// What is called. All fields that are set must match; within a field one value must, and none of a `not` one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Operation {
    /// Hosts, compared without case. Layer 7.
    pub hosts: Vec<String>,
    /// None of these hosts. Layer 7.
    pub not_hosts: Vec<String>,
    /// Destination ports, as strings.
    pub ports: Vec<String>,
    /// None of these ports.
    pub not_ports: Vec<String>,
    /// Methods. Layer 7.
    pub methods: Vec<String>,
    /// None of these methods. Layer 7.
    pub not_methods: Vec<String>,
    /// Paths: exact, `prefix*`, `*suffix`, `{*}` and `{**}` templates. Layer 7.
    pub paths: Vec<String>,
    /// None of these paths. Layer 7.
    pub not_paths: Vec<String>,
}

/// A condition on one attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Condition {
    /// The attribute, such as `source.ip` or `request.headers[x-token]`.
    pub key: String,
    /// One of these values.
    pub values: Vec<String>,
    /// None of these values.
    pub not_values: Vec<String>,
}
