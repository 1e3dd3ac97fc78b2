//! Lets the kubelet's probes through to captured pods, also where they accept nothing but tunnels: on their way out of the
//! node's own network they get a source address that no other packet has, which the pods' rules know.
//!
//! Not every root process of the node passes: only what goes to a port that the pod itself names for its probes or hooks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::Mutex;
use tracing::warn;

use super::{
    apply::{ApplyError, run_nft},
    eligible::PodFacts,
    rules::{PROBE_V4, PROBE_V6},
};
use crate::netns::NetnsFd;

/// The table in the node's own network namespace.
const TABLE: &str = "lateen_probes";
/// Before kube-proxy and CNI plugins, who would put the node's own address there (100, `srcnat`).
const PRIORITY: i32 = 99;

/// An address of a pod and a port that it has probed.
type Target = (IpAddr, u16);

/// Keeps the rules of the node. Clones share them.
#[derive(Clone, Debug)]
pub struct Probes {
    nft: String,
    node: NetnsFd,
    /// By the pods' uids.
    targets: Arc<Mutex<BTreeMap<String, BTreeSet<Target>>>>,
}

impl Probes {
    /// Rules for the node whose network this thread is in. Nothing is set yet.
    ///
    /// # Errors
    /// When that network cannot be told.
    pub fn new(nft: &str) -> std::io::Result<Self> {
        Ok(Self { nft: nft.to_owned(), node: NetnsFd::current()?, targets: Arc::default() })
    }

    /// Lets probes of these pods through, from when this returns.
    ///
    /// # Errors
    /// When the rules are refused; they are then as they were.
    pub async fn admit<'a>(&self, pods: impl IntoIterator<Item = &'a PodFacts>) -> Result<(), ApplyError> {
        let mut targets = self.targets.lock().await;
        let mut wanted = targets.clone();
        for pod in pods {
            let all = pod.ips.iter().flat_map(|ip| pod.probed.iter().map(|port| (*ip, *port)));
            let all: BTreeSet<Target> = all.collect();
            if all.is_empty() {
                wanted.remove(&pod.uid)
            } else {
                wanted.insert(pod.uid.clone(), all)
            };
        }
        self.replace(&mut targets, wanted).await
    }

    /// A pod is captured no more, or gone.
    pub async fn forget(&self, uid: &str) {
        let mut targets = self.targets.lock().await;
        let mut wanted = targets.clone();
        wanted.remove(uid);
        if let Err(error) = self.replace(&mut targets, wanted).await {
            warn!(%error, uid, "the node's rules for probes still name a pod that is gone");
        }
    }

    async fn replace(
        &self,
        targets: &mut BTreeMap<String, BTreeSet<Target>>,
        wanted: BTreeMap<String, BTreeSet<Target>>,
    ) -> Result<(), ApplyError> {
        if *targets != wanted {
            let all = wanted.values().flatten().copied().collect();
            run_nft(&self.node, &self.nft, &render(&all)).await?;
            *targets = wanted;
        }
        Ok(())
    }

    /// Takes the rules away.
    pub async fn remove(&self) {
        let mut targets = self.targets.lock().await;
        targets.clear();
        if let Err(error) = run_nft(&self.node, &self.nft, &removal()).await {
            warn!(%error, "the node's rules for probes stay");
        }
    }
}

fn removal() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The transaction that replaces the table.
fn render(targets: &BTreeSet<Target>) -> String {
    let mut text = removal();
    let _ = writeln!(text, "table inet {TABLE} {{");
    let mut rules = String::new();
    for (family, kind, name, source) in
        [("ip", "ipv4_addr", "targets_v4", PROBE_V4), ("ip6", "ipv6_addr", "targets_v6", PROBE_V6)]
    {
        let of_family = targets.iter().filter(|(ip, _)| ip.is_ipv6() == (family == "ip6"));
        let elements: Vec<String> = of_family.map(|(ip, port)| format!("{ip} . {port}")).collect();
        if elements.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\tset {name} {{\n\t\ttype {kind} . inet_service");
        let _ = writeln!(text, "\t\telements = {{ {} }}\n\t}}", elements.join(", "));
        // Sockets of the node's own, and of root: forwarded packets have none.
        let _ =
            writeln!(rules, "\t\tmeta skuid 0 {family} daddr . tcp dport @{name} snat {family} to {source}");
    }
    let _ = writeln!(
        text,
        "\tchain probes {{\n\t\ttype nat hook postrouting priority {PRIORITY}; policy accept;\n{rules}\t}}\n}}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{Target, render};

    #[test]
    fn each_family_has_its_set_and_its_source() {
        let targets: [Target; 3] = [
            ("10.244.1.2".parse().expect("ip"), 8080),
            ("10.244.1.3".parse().expect("ip"), 9000),
            ("fd00::2".parse().expect("ip"), 8080),
        ];
        let text = render(&targets.into());
        for part in [
            "elements = { 10.244.1.2 . 8080, 10.244.1.3 . 9000 }",
            "meta skuid 0 ip daddr . tcp dport @targets_v4 snat ip to 169.254.7.127",
            "elements = { fd00::2 . 8080 }",
            "snat ip6 to fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let none = render(&[].into());
        assert!(!none.contains("targets_v4") && none.contains("chain probes"), "{none}");
    }
}
