//! Whether a pod belongs to the mesh, and what its rules should do: pure functions of the pod and its namespace.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use manifest::enrolment::{Enrolment, Names};

use super::rules::{RuleSet, is_interface_name};

/// Annotation with the path of the pod's network namespace, where there is no runtime to ask.
pub const NETNS_ANNOTATION: &str = "lateen.dev/netns";
/// Annotation that captures nothing inbound: for a gateway that must see its clients as they are.
const BYPASS_INBOUND_ANNOTATION: &str = "ambient.istio.io/bypass-inbound-capture";
/// Annotation that says whether DNS queries are captured, over the node's default.
const DNS_ANNOTATION: &str = "ambient.istio.io/dns-capture";
/// Annotation with interfaces behind which something else speaks for the pod.
const VIRTUAL_INTERFACES_ANNOTATION: &str = "istio.io/reroute-virtual-interfaces";
/// Annotation, of the kubelet, with the uid under which it runs a pod that comes from a file of the node's.
const STATIC_UID_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Annotation by which the redirecting role notes what it did.
pub const REDIRECTION_ANNOTATION: &str = "ambient.istio.io/redirection";

/// What of a pod the redirecting role looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Kubernetes uid.
    pub uid: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service account, `default` where none is named.
    pub service_account: String,
    /// Node it runs on; empty while it has none.
    pub node: String,
    /// Its addresses, as far as they are known.
    pub ips: Vec<IpAddr>,
    /// Labels.
    pub labels: Names,
    /// Annotations.
    pub annotations: Names,
    /// Whether it uses its node's network.
    pub host_network: bool,
    /// `status.phase`.
    pub phase: String,
    /// Ports that its node's kubelet calls: those of its containers' probes and hooks.
    pub probed: BTreeSet<u16>,
}

/// Whether a pod is to be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Captured,
    /// It is not, for this reason.
    Left(&'static str),
    /// It has run to its end: its namespace is going away.
    Ended,
}

impl PodFacts {
    /// Whether the pod belongs to the mesh; its own label comes before that of its namespace.
    #[must_use]
    pub fn verdict(&self, namespace: &Names) -> Verdict {
        if matches!(self.phase.as_str(), "Succeeded" | "Failed") {
            return Verdict::Ended;
        }
        let Self { labels, annotations, host_network, .. } = self;
        let pod = Enrolment { labels, annotations, host_network: *host_network, namespace };
        pod.refusal().map_or(Verdict::Captured, Verdict::Left)
    }

    /// What its rules should do, from the node's `defaults` and its annotations. An annotation that says neither
    /// true nor false leaves the default.
    #[must_use]
    pub fn rules(&self, defaults: &RuleSet) -> RuleSet {
        let says = |name: &str| self.annotations.get(name).and_then(|text| text.parse::<bool>().ok());
        let interfaces = self.annotations.get(VIRTUAL_INTERFACES_ANNOTATION).map_or("", String::as_str);
        let interfaces = interfaces.split(',').map(str::trim).filter(|name| is_interface_name(name));
        RuleSet {
            dns: says(DNS_ANNOTATION).unwrap_or(defaults.dns),
            inbound: !says(BYPASS_INBOUND_ANNOTATION).unwrap_or(!defaults.inbound),
            virtual_interfaces: interfaces.map(str::to_owned).collect(),
            probed: self.probed.clone(),
            ..defaults.clone()
        }
    }

    /// Where its network namespace is said to be.
    #[must_use]
    pub fn netns(&self) -> Option<PathBuf> {
        self.annotations.get(NETNS_ANNOTATION).map(PathBuf::from)
    }

    /// The uid by which its node's kubelet and runtime know it: its own, but for a pod that comes from a file of the
    /// node's, whose object is only its image.
    #[must_use]
    pub fn runtime_uid(&self) -> &str {
        self.annotations.get(STATIC_UID_ANNOTATION).map_or(&self.uid, String::as_str)
    }

    /// Whether peers have been told that it takes tunnels.
    #[must_use]
    pub fn is_noted_enabled(&self) -> bool {
        self.annotations.get(REDIRECTION_ANNOTATION).is_some_and(|note| note == "enabled")
    }

    /// Whether it is marked as captured (or to be captured) already.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.annotations.contains_key(REDIRECTION_ANNOTATION)
    }
}

#[cfg(test)]
mod tests {
    use manifest::enrolment::Names;

    use super::{PodFacts, Verdict};
    use crate::redirect::rules::RuleSet;

    fn names(pairs: &[(&str, &str)]) -> Names {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn mode(value: &str) -> Names {
        if value.is_empty() { Names::new() } else { names(&[("istio.io/dataplane-mode", value)]) }
    }

    #[test]
    fn labels_decide_and_some_pods_are_never_captured() {
        let out = PodFacts { labels: mode("none"), ..PodFacts::default() };
        assert!(matches!(out.verdict(&mode("ambient")), Verdict::Left(why) if why.contains("mode=none")));
        assert!(
            matches!(PodFacts::default().verdict(&mode("")), Verdict::Left(why) if why.contains("neither"))
        );
        let ambient = mode("ambient");
        let host = PodFacts { host_network: true, ..PodFacts::default() };
        assert!(matches!(host.verdict(&ambient), Verdict::Left(why) if why.contains("hostNetwork")));
        let sidecar =
            PodFacts { annotations: names(&[("sidecar.istio.io/status", "{}")]), ..PodFacts::default() };
        assert!(matches!(sidecar.verdict(&ambient), Verdict::Left(why) if why.contains("sidecar")));
        let mirror =
            PodFacts { annotations: names(&[("kubernetes.io/config.mirror", "0")]), ..PodFacts::default() };
        assert!(matches!(mirror.verdict(&ambient), Verdict::Left(why) if why.contains("static pod")));
        for phase in ["Succeeded", "Failed"] {
            let ended = PodFacts { phase: phase.into(), ..PodFacts::default() };
            assert_eq!(ended.verdict(&ambient), Verdict::Ended);
        }
        for phase in ["Pending", "Running", ""] {
            let alive = PodFacts { phase: phase.into(), ..PodFacts::default() };
            assert_eq!(alive.verdict(&ambient), Verdict::Captured);
        }
    }

    #[test]
    fn annotations_shape_the_rules() {
        let defaults = RuleSet::default();
        assert_eq!(PodFacts::default().rules(&defaults), defaults);
        let facts = PodFacts {
            annotations: names(&[
                ("ambient.istio.io/dns-capture", "false"),
                ("ambient.istio.io/bypass-inbound-capture", "true"),
                ("istio.io/reroute-virtual-interfaces", "k6t-eth0, docker0,\"evil\""),
            ]),
            ..PodFacts::default()
        };
        let rules = facts.rules(&defaults);
        assert!(!rules.dns && !rules.inbound && rules.probed.is_empty());
        let probed = PodFacts { probed: [8080].into(), ..PodFacts::default() };
        assert_eq!(probed.rules(&defaults).probed, [8080].into());
        assert_eq!(rules.virtual_interfaces, ["k6t-eth0", "docker0"]);
        let unclear = PodFacts {
            annotations: names(&[("ambient.istio.io/dns-capture", "maybe")]),
            ..PodFacts::default()
        };
        assert!(unclear.rules(&defaults).dns);
    }
}
