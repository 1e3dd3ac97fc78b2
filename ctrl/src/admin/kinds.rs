//! Kinds as people write them: `pods`, `po`, `AuthorizationPolicy`, as kubectl and istioctl know them.

/// Kind, plural and short names.
const NAMES: [(&str, &[&str]); 29] = [
    ("Pod", &["pods", "po"]),
    ("Service", &["services", "svc"]),
    ("ServiceAccount", &["serviceaccounts", "sa"]),
    ("Namespace", &["namespaces", "ns"]),
    ("Node", &["nodes", "no"]),
    ("ConfigMap", &["configmaps", "cm"]),
    ("Secret", &["secrets"]),
    ("Deployment", &["deployments", "deploy"]),
    ("ReplicaSet", &["replicasets", "rs"]),
    ("StatefulSet", &["statefulsets", "sts"]),
    ("DaemonSet", &["daemonsets", "ds"]),
    ("Job", &["jobs"]),
    ("CronJob", &["cronjobs", "cj"]),
    ("EndpointSlice", &["endpointslices", "endpointslice", "endpoints", "ep"]),
    ("Gateway", &["gateways", "gtw", "gw"]),
    ("HTTPRoute", &["httproutes"]),
    ("GRPCRoute", &["grpcroutes"]),
    ("AuthorizationPolicy", &["authorizationpolicies", "ap"]),
    ("PeerAuthentication", &["peerauthentications", "pa"]),
    ("RequestAuthentication", &["requestauthentications", "ra"]),
    ("VirtualService", &["virtualservices", "vs"]),
    ("DestinationRule", &["destinationrules", "dr"]),
    ("ServiceEntry", &["serviceentries", "se"]),
    ("WorkloadEntry", &["workloadentries", "we"]),
    ("WorkloadGroup", &["workloadgroups", "wg"]),
    ("Sidecar", &["sidecars"]),
    ("EnvoyFilter", &["envoyfilters"]),
    ("Telemetry", &["telemetries", "telemetry"]),
    ("WasmPlugin", &["wasmplugins"]),
];

/// Whether `asked` means objects of this kind.
pub(super) fn means(asked: &str, kind: &str) -> bool {
    let asked = asked.to_ascii_lowercase();
    // A resource of a group, as kubectl takes it.
    let asked = asked.split('.').next().unwrap_or_default();
    kind.eq_ignore_ascii_case(asked)
        || NAMES.iter().any(|(known, names)| *known == kind && names.contains(&asked))
}

/// Whether anybody knows a kind of this name.
pub(super) fn is_known(asked: &str) -> bool {
    NAMES.iter().any(|(kind, _)| means(asked, kind))
}

/// All kinds, for people who mistyped one.
pub(super) fn all() -> String {
    NAMES.map(|(kind, _)| kind).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_short_names_and_case_does_not_matter() {
        for (asked, kind) in [
            ("po", "Pod"),
            ("PODS", "Pod"),
            ("pod", "Pod"),
            ("ap", "AuthorizationPolicy"),
            ("authorizationpolicies.security.istio.io", "AuthorizationPolicy"),
            ("pa", "PeerAuthentication"),
            ("ep", "EndpointSlice"),
            ("gtw", "Gateway"),
        ] {
            assert!(means(asked, kind) && is_known(asked), "{asked}");
        }
        assert!(!means("po", "PodDisruptionBudget") && !is_known("poo"));
    }
}
