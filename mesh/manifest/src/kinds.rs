//! The kinds a manifest may hold: which are read, which belong to a mesh but are not carried yet, and what is
//! said about everything else. The one table from which reading, refusing and ignoring follow.

use crate::suggest::nearest;

/// What happens to objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// Read into a type of its own.
    Typed,
    /// A mesh kind that is not built yet: refused by name.
    Refused,
    /// Of no use to the mesh, and harmless to leave out.
    Ignored,
}

/// One kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// API group, empty for the core group.
    pub(crate) group: &'static str,
    /// Versions that are read alike.
    pub(crate) versions: &'static [&'static str],
    /// The kind's name.
    pub(crate) name: &'static str,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    /// What happens to it.
    pub(crate) support: Support,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// Groups that belong to the mesh: an unknown kind of theirs is an error, not something to ignore.
const MESH_GROUPS: [&str; 5] = [NETWORKING, SECURITY, TELEMETRY, EXTENSIONS, GATEWAY];

const V1: &[&str] = &["v1"];
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];
const TELEMETRY_VERSIONS: &[&str] = &["v1", "v1alpha1"];
const EXTENSIONS_VERSIONS: &[&str] = &["v1alpha1"];
const GATEWAY_VERSIONS: &[&str] = &["v1", "v1beta1"];
const ROUTE_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3", "v1alpha2"];

const fn typed(group: &'static str, versions: &'static [&'static str], name: &'static str) -> Kind {
    Kind { group, versions, name, namespaced: true, support: Support::Typed }
}

const fn refused(group: &'static str, versions: &'static [&'static str], name: &'static str) -> Kind {
    Kind { group, versions, name, namespaced: true, support: Support::Refused }
}

const fn ignored(group: &'static str, versions: &'static [&'static str], name: &'static str) -> Kind {
    Kind { group, versions, name, namespaced: true, support: Support::Ignored }
}

const fn cluster(kind: Kind) -> Kind {
    Kind { namespaced: false, ..kind }
}

/// Every kind that is known by name.
pub(crate) const KINDS: &[Kind] = &[
    cluster(typed("", V1, "Namespace")),
    typed("", V1, "ServiceAccount"),
    typed("", V1, "Service"),
    typed("", V1, "Pod"),
    typed("", V1, "ConfigMap"),
    typed("", V1, "Secret"),
    cluster(typed("", V1, "Node")),
    typed("apps", V1, "Deployment"),
    typed("apps", V1, "ReplicaSet"),
    typed("apps", V1, "StatefulSet"),
    typed("apps", V1, "DaemonSet"),
    typed("batch", V1, "Job"),
    typed("batch", V1, "CronJob"),
    typed("discovery.k8s.io", V1, "EndpointSlice"),
    typed("networking.k8s.io", V1, "NetworkPolicy"),
    typed(GATEWAY, GATEWAY_VERSIONS, "Gateway"),
    typed(SECURITY, SECURITY_VERSIONS, "AuthorizationPolicy"),
    typed(SECURITY, SECURITY_VERSIONS, "PeerAuthentication"),
    refused(SECURITY, SECURITY_VERSIONS, "RequestAuthentication"),
    typed(NETWORKING, NETWORKING_VERSIONS, "VirtualService"),
    typed(NETWORKING, NETWORKING_VERSIONS, "DestinationRule"),
    refused(NETWORKING, NETWORKING_VERSIONS, "Gateway"),
    refused(NETWORKING, NETWORKING_VERSIONS, "ServiceEntry"),
    refused(NETWORKING, NETWORKING_VERSIONS, "WorkloadEntry"),
    refused(NETWORKING, NETWORKING_VERSIONS, "WorkloadGroup"),
    refused(NETWORKING, NETWORKING_VERSIONS, "Sidecar"),
    refused(NETWORKING, NETWORKING_VERSIONS, "EnvoyFilter"),
    refused(NETWORKING, NETWORKING_VERSIONS, "ProxyConfig"),
    refused(TELEMETRY, TELEMETRY_VERSIONS, "Telemetry"),
    refused(EXTENSIONS, EXTENSIONS_VERSIONS, "WasmPlugin"),
    refused(EXTENSIONS, EXTENSIONS_VERSIONS, "TrafficExtension"),
    refused(GATEWAY, ROUTE_VERSIONS, "HTTPRoute"),
    refused(GATEWAY, ROUTE_VERSIONS, "GRPCRoute"),
    refused(GATEWAY, ROUTE_VERSIONS, "TLSRoute"),
    refused(GATEWAY, ROUTE_VERSIONS, "TCPRoute"),
    refused(GATEWAY, ROUTE_VERSIONS, "UDPRoute"),
    refused(GATEWAY, ROUTE_VERSIONS, "BackendTLSPolicy"),
    refused(GATEWAY, ROUTE_VERSIONS, "ListenerSet"),
    cluster(ignored(GATEWAY, GATEWAY_VERSIONS, "GatewayClass")),
    ignored(GATEWAY, GATEWAY_VERSIONS, "ReferenceGrant"),
    cluster(ignored("", V1, "PersistentVolume")),
    cluster(ignored("rbac.authorization.k8s.io", V1, "ClusterRole")),
    cluster(ignored("rbac.authorization.k8s.io", V1, "ClusterRoleBinding")),
    cluster(ignored("apiextensions.k8s.io", V1, "CustomResourceDefinition")),
    cluster(ignored("storage.k8s.io", V1, "StorageClass")),
    cluster(ignored("scheduling.k8s.io", V1, "PriorityClass")),
    cluster(ignored("networking.k8s.io", V1, "IngressClass")),
    cluster(ignored("admissionregistration.k8s.io", V1, "ValidatingWebhookConfiguration")),
    cluster(ignored("admissionregistration.k8s.io", V1, "MutatingWebhookConfiguration")),
    cluster(ignored("apiregistration.k8s.io", V1, "APIService")),
];

/// A kind of the mesh's own API groups, for whoever has to ask an API server for its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshKind {
    /// API group.
    pub group: &'static str,
    /// Versions that are read alike, the preferred one first.
    pub versions: &'static [&'static str],
    /// The kind's name.
    pub name: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// The kinds of the mesh's own groups: those that are read, and those that are refused by name.
pub fn mesh_kinds() -> impl Iterator<Item = MeshKind> {
    KINDS.iter().filter(|kind| is_mesh(kind.group)).map(|kind| MeshKind {
        group: kind.group,
        versions: kind.versions,
        name: kind.name,
        namespaced: kind.namespaced,
    })
}

/// What `apiVersion` and `kind` stand for.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// A kind of the table.
    Known(&'static Kind),
    /// A kind that the mesh has no part in.
    Foreign,
    /// No such kind or version, though the group is one that is known completely: a mistake.
    Wrong {
        /// What is wrong.
        message: String,
        /// What was probably meant.
        fix: Option<String>,
        /// True when `kind` is at fault, false when `apiVersion` is.
        in_kind: bool,
    },
}

/// `apiVersion` cut into group and version.
pub(crate) fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// What an object that calls itself `kind` of `api_version` is.
pub(crate) fn lookup(api_version: &str, kind: &str) -> Lookup {
    let (group, version) = split(api_version);
    if let Some(known) = KINDS.iter().find(|known| known.group == group && known.name == kind) {
        if known.versions.contains(&version) {
            return Lookup::Known(known);
        }
        return Lookup::Wrong {
            message: format!("{kind} has no version `{api_version}`"),
            fix: Some(format!("write apiVersion: {}", api_version_of(known))),
            in_kind: false,
        };
    }
    let typed_elsewhere =
        KINDS.iter().find(|known| known.name == kind && known.support != Support::Ignored && !is_mesh(group));
    if let Some(other) = typed_elsewhere.filter(|other| looks_misplaced(group, other)) {
        return Lookup::Wrong {
            message: format!("there is no {kind} in `{api_version}`"),
            fix: Some(format!("write apiVersion: {}", api_version_of(other))),
            in_kind: false,
        };
    }
    unknown_kind(group, api_version, kind)
}

fn unknown_kind(group: &str, api_version: &str, kind: &str) -> Lookup {
    let of_group = KINDS.iter().filter(|known| known.group == group).map(|known| known.name);
    let near = nearest(kind, of_group);
    if is_mesh(group) || near.is_some() {
        return Lookup::Wrong {
            message: format!("there is no kind `{kind}` in `{api_version}`"),
            fix: near.map(|word| format!("did you mean `{word}`?")),
            in_kind: true,
        };
    }
    // A misspelt group would otherwise turn a policy into something to ignore.
    if let Some(other) = nearest(group, MESH_GROUPS) {
        return Lookup::Wrong {
            message: format!("there is no API group `{group}`"),
            fix: Some(format!("did you mean `{other}`?")),
            in_kind: false,
        };
    }
    Lookup::Foreign
}

/// Whether a kind under a wrong group is a mistake rather than somebody else's kind of the same name: a group
/// of Kubernetes' own, or one that is nearly the right one.
fn looks_misplaced(group: &str, known: &Kind) -> bool {
    matches!(group, "" | "apps" | "batch" | "core" | "extensions" | "discovery.k8s.io")
        || group.ends_with("istio.io")
        || nearest(group, [known.group]).is_some()
}

fn is_mesh(group: &str) -> bool {
    MESH_GROUPS.contains(&group)
}

fn api_version_of(kind: &Kind) -> String {
    match kind.group {
        "" => kind.versions[0].to_owned(),
        group => format!("{group}/{}", kind.versions[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::{Lookup, Support, lookup};

    #[test]
    fn served_versions_are_read_alike() {
        for (api_version, kind, support) in [
            ("v1", "Pod", Support::Typed),
            ("security.istio.io/v1", "AuthorizationPolicy", Support::Typed),
            ("security.istio.io/v1beta1", "PeerAuthentication", Support::Typed),
            ("networking.istio.io/v1", "VirtualService", Support::Typed),
            ("networking.istio.io/v1beta1", "VirtualService", Support::Typed),
            ("networking.istio.io/v1alpha3", "DestinationRule", Support::Typed),
            ("gateway.networking.k8s.io/v1beta1", "Gateway", Support::Typed),
            ("networking.istio.io/v1", "Gateway", Support::Refused),
        ] {
            match lookup(api_version, kind) {
                Lookup::Known(known) => assert_eq!(known.support, support, "{api_version} {kind}"),
                other => panic!("{api_version} {kind}: {other:?}"),
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (api_version, kind, wanted_fix, wanted_in_kind) in [
            (
                "security.istio.io/v1alpha1",
                "AuthorizationPolicy",
                "write apiVersion: security.istio.io/v1",
                false,
            ),
            ("security.istio.io/v1", "AuthorizationPolcy", "did you mean `AuthorizationPolicy`?", true),
            ("v1", "Deployment", "write apiVersion: apps/v1", false),
            ("v1", "Pods", "did you mean `Pod`?", true),
            ("security.isto.io/v1", "Whatever", "did you mean `security.istio.io`?", false),
            ("istio.io/v1", "AuthorizationPolicy", "write apiVersion: security.istio.io/v1", false),
            ("extensions/v1beta1", "Deployment", "write apiVersion: apps/v1", false),
        ] {
            match lookup(api_version, kind) {
                Lookup::Wrong { fix, in_kind, .. } => {
                    assert_eq!(
                        (fix.as_deref(), in_kind),
                        (Some(wanted_fix), wanted_in_kind),
                        "{api_version} {kind}"
                    );
                }
                other => panic!("{api_version} {kind}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_peoples_kinds_stay_theirs() {
        for (api_version, kind) in [
            ("networking.k8s.io/v1", "Ingress"),
            ("serving.knative.dev/v1", "Service"),
            ("monitoring.coreos.com/v1", "ServiceMonitor"),
        ] {
            assert!(matches!(lookup(api_version, kind), Lookup::Foreign), "{api_version} {kind}");
        }
    }
}
