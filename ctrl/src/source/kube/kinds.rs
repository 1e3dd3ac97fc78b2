//! What is asked of the API server: Kubernetes' own kinds that say who runs where, and every kind of the mesh, also
//! those that are refused: whoever wrote one is to be told.

use kube::core::ApiResource;
use manifest::{Key, Object};

/// One kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched {
    /// API group, empty for the core group.
    pub(super) group: &'static str,
    /// Versions that mean the same, the preferred one first.
    pub(super) versions: &'static [&'static str],
    /// The kind's name.
    pub(super) kind: &'static str,
    /// Whether it is there only where somebody has installed its definition.
    pub(super) custom: bool,
}

const fn own(group: &'static str, kind: &'static str) -> Watched {
    Watched { group, versions: &["v1"], kind, custom: false }
}

/// Kubernetes' own.
const OWN: [Watched; 6] = [
    own("", "Namespace"),
    own("", "ServiceAccount"),
    own("", "Service"),
    own("", "Pod"),
    own("", "Node"),
    own("discovery.k8s.io", "EndpointSlice"),
];

/// All kinds that are watched.
pub(super) fn watched() -> Vec<Watched> {
    let of_mesh = manifest::mesh_kinds().map(|kind| Watched {
        group: kind.group,
        versions: kind.versions,
        kind: kind.name,
        custom: true,
    });
    OWN.into_iter().chain(of_mesh).collect()
}

impl Watched {
    /// How the API server calls it in one of its versions.
    pub(super) fn resource(&self, version: &str) -> ApiResource {
        let api_version = match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: plural(self.kind),
        }
    }

    /// The name of its CustomResourceDefinition.
    pub(super) fn definition(&self) -> String {
        format!("{}.{}", plural(self.kind), self.group)
    }

    /// The key of an object of it.
    pub(super) fn key(&self, namespace: Option<String>, name: String) -> Key {
        Key { group: self.group.to_owned(), kind: self.kind.to_owned(), namespace, name }
    }
}

/// How the API server calls the kind of an object.
pub(crate) fn resource_of(object: &Object) -> ApiResource {
    let (group, version) = object.api_version.rsplit_once('/').unwrap_or(("", &object.api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        plural: plural(&object.kind),
    }
}

/// English plural of a kind, in small letters, as API servers name resources.
fn plural(kind: &str) -> String {
    let word = kind.to_ascii_lowercase();
    match word.as_bytes() {
        [.., before, b'y'] if !b"aeiou".contains(before) => format!("{}ies", &word[..word.len() - 1]),
        [.., b's' | b'x'] | [.., b'c' | b's', b'h'] => format!("{word}es"),
        _ => format!("{word}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_that_api_servers_use() {
        for (kind, wanted) in [
            ("Pod", "pods"),
            ("EndpointSlice", "endpointslices"),
            ("Gateway", "gateways"),
            ("GatewayClass", "gatewayclasses"),
            ("AuthorizationPolicy", "authorizationpolicies"),
            ("ServiceEntry", "serviceentries"),
            ("BackendTLSPolicy", "backendtlspolicies"),
            ("Telemetry", "telemetries"),
            ("ProxyConfig", "proxyconfigs"),
        ] {
            assert_eq!(plural(kind), wanted);
        }
    }

    #[test]
    fn a_kind_of_one_name_in_two_groups_is_two() {
        let gateways: Vec<String> =
            watched().iter().filter(|one| one.kind == "Gateway").map(Watched::definition).collect();
        assert_eq!(gateways, ["gateways.gateway.networking.k8s.io", "gateways.networking.istio.io"]);
    }
}
