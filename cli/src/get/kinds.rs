//! The kind a word means: singular, plural, short name or Kind, as kubectl takes them.

/// Kind, plural, short names, whether it lives in no namespace.
const KINDS: &[(&str, &str, &[&str], bool)] = &[
    ("Namespace", "namespaces", &["ns"], true),
    ("Node", "nodes", &["no"], true),
    ("Pod", "pods", &["po"], false),
    ("Service", "services", &["svc"], false),
    ("ServiceAccount", "serviceaccounts", &["sa"], false),
    ("ConfigMap", "configmaps", &["cm"], false),
    ("Secret", "secrets", &[], false),
    ("EndpointSlice", "endpointslices", &["eps"], false),
    ("Deployment", "deployments", &["deploy"], false),
    ("StatefulSet", "statefulsets", &["sts"], false),
    ("DaemonSet", "daemonsets", &["ds"], false),
    ("Job", "jobs", &[], false),
    ("Gateway", "gateways", &["gtw", "gw"], false),
    ("GatewayClass", "gatewayclasses", &["gc"], true),
    ("HTTPRoute", "httproutes", &[], false),
    ("GRPCRoute", "grpcroutes", &[], false),
    ("TCPRoute", "tcproutes", &[], false),
    ("TLSRoute", "tlsroutes", &[], false),
    ("ReferenceGrant", "referencegrants", &["refgrant"], false),
    ("VirtualService", "virtualservices", &["vs"], false),
    ("DestinationRule", "destinationrules", &["dr"], false),
    ("ServiceEntry", "serviceentries", &["se"], false),
    ("WorkloadEntry", "workloadentries", &["we"], false),
    ("Sidecar", "sidecars", &[], false),
    ("AuthorizationPolicy", "authorizationpolicies", &["ap", "authz"], false),
    ("PeerAuthentication", "peerauthentications", &["pa"], false),
    ("RequestAuthentication", "requestauthentications", &["ra"], false),
    ("Telemetry", "telemetries", &["telemetry"], false),
];

/// The Kind; a word that is none of ours is taken as it stands.
pub(super) fn canonical(word: &str) -> String {
    // networking.istio.io and the like after a dot only choose among kinds of one name.
    let word = word.split('.').next().unwrap_or(word);
    let same = |other: &str| other.eq_ignore_ascii_case(word);
    let found = KINDS
        .iter()
        .find(|(kind, plural, short, _)| same(kind) || same(plural) || short.iter().any(|s| same(s)));
    found.map_or_else(|| word.to_owned(), |(kind, ..)| (*kind).to_owned())
}

/// Whether objects of this kind live in no namespace.
pub(super) fn is_cluster_wide(kind: &str) -> bool {
    KINDS.iter().any(|(known, _, _, cluster_wide)| *known == kind && *cluster_wide)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn kubectl_s_words_are_understood() {
        for (word, kind) in [
            ("po", "Pod"),
            ("Pods", "Pod"),
            ("svc", "Service"),
            ("vs", "VirtualService"),
            ("virtualservices.networking.istio.io", "VirtualService"),
            ("authorizationpolicy", "AuthorizationPolicy"),
            ("Widget", "Widget"),
        ] {
            assert_eq!(canonical(word), kind);
        }
    }
}
