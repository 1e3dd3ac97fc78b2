//! Gateway (`gateway.networking.k8s.io`): here mostly the waypoints. Parts that only an ingress gateway would
//! interpret are kept as they were written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The `spec` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Gateway {
    /// Who answers for it; `istio-waypoint` makes it a waypoint.
    pub gateway_class_name: String,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Addresses asked for.
    pub addresses: Vec<GatewayAddress>,
    /// What its pods and Service get.
    pub infrastructure: Option<Infrastructure>,
    /// Which ListenerSets may add listeners.
    pub allowed_listeners: Option<AllowedListeners>,
    /// TLS towards backends and clients, for all listeners.
    pub tls: Option<GatewayTls>,
    /// The older form of `tls.backend`.
    #[serde(rename = "backendTLS")]
    pub backend_tls: Option<Value>,
    /// Whether routes without a parent attach to it.
    pub default_scope: Option<String>,
}

/// One listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Listener {
    /// Its name, unique in the Gateway.
    pub name: String,
    /// The host it is for; all when absent.
    pub hostname: Option<String>,
    /// Its port.
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP`, or `HBONE` for a waypoint.
    pub protocol: String,
    /// How TLS ends.
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    pub allowed_routes: Option<AllowedRoutes>,
}

/// How TLS ends at a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListenerTls {
    /// `Terminate` or `Passthrough`.
    pub mode: Option<String>,
    /// Secrets with the certificates.
    pub certificate_refs: Vec<ObjectReference>,
    /// How clients' certificates are checked (older form of the Gateway's `tls.frontend`).
    pub frontend_validation: Option<Value>,
    /// An implementation's own options.
    pub options: BTreeMap<String, String>,
}

/// A reference to another object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ObjectReference {
    /// API group; the core group when absent.
    pub group: Option<String>,
    /// Kind; `Secret` when absent.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; the referrer's when absent.
    pub namespace: Option<String>,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AllowedRoutes {
    /// Of which namespaces.
    pub namespaces: Option<ListenerNamespaces>,
    /// Of which kinds.
    pub kinds: Vec<RouteGroupKind>,
}

/// A choice of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListenerNamespaces {
    /// `Same` (the default), `All`, `Selector` or `None`.
    pub from: Option<String>,
    /// The labels of the namespaces, with `Selector`.
    pub selector: Option<LabelSelector>,
}

/// Kubernetes' label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must be there.
    pub match_labels: BTreeMap<String, String>,
    /// Conditions that must hold.
    pub match_expressions: Vec<MatchExpression>,
}

impl LabelSelector {
    /// Whether it selects what has these labels; `label` is the value that stands under a key. What nobody knows (an operator)
    /// selects nothing.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let holds = |expression: &MatchExpression| {
            let value = label(&expression.key);
            let listed = value.is_some_and(|value| expression.values.iter().any(|one| one == value));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, wanted)| label(key) == Some(wanted))
            && self.match_expressions.iter().all(holds)
    }
}

/// One condition of a label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MatchExpression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Its values.
    pub values: Vec<String>,
}

/// A kind of route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RouteGroupKind {
    /// API group; the Gateway API's when absent.
    pub group: Option<String>,
    /// Kind.
    pub kind: String,
}

/// An address asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GatewayAddress {
    /// `IPAddress` (the default), `Hostname`, or a name of an implementation's own.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The address.
    pub value: Option<String>,
}

/// What a Gateway's pods and Service get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Infrastructure {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Further parameters.
    pub parameters_ref: Option<ObjectReference>,
}

/// Which ListenerSets may add listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AllowedListeners {
    /// Of which namespaces.
    pub namespaces: Option<ListenerNamespaces>,
}

/// TLS for a whole Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GatewayTls {
    /// Towards backends.
    pub backend: Option<Value>,
    /// Towards clients.
    pub frontend: Option<Value>,
}
