//! Making a pod: its node, its addresses, its name, the task that lives its life.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Entry, Message, World};
use crate::local::addresses::Pair;
use crate::local::clock::now;
use crate::local::components;
use crate::local::nodes::{self, Node};
use crate::local::pods::object::{self, Placement};
use crate::local::pods::worker::{Live, PodTask};
use crate::local::scheduler::{Create, Kind, Workload, spell};

impl World {
    pub(super) fn create(&mut self, workload: &Workload, create: &Create) -> Result<(), String> {
        let node = self.place(workload, create)?;
        let host_network = workload.template.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let addresses = match host_network {
            true => None,
            false => {
                let pool = &mut self.pools[usize::from(node.number - 1)];
                Some(pool.take().ok_or_else(|| format!("{} has no pod address left", node.name))?)
            }
        };
        let random = random_bytes().map_err(|error| format!("no random numbers: {error}"))?;
        let uid = uid(random);
        let name = create.name.clone().unwrap_or_else(|| generated_name(workload, random));
        let netns =
            if host_network { node.netns.path().to_owned() } else { self.host.dir.netns().join(&uid) };
        let place = Placement {
            name,
            uid: uid.clone(),
            node: &node.name,
            node_addresses: node.addresses,
            addresses,
            netns: netns.to_string_lossy().into_owned(),
            created: now(),
        };
        self.start(workload, object::build(workload, place), &node, addresses, create.failures);
        Ok(())
    }

    fn start(
        &mut self,
        workload: &Workload,
        pod: Pod,
        node: &Arc<Node>,
        addresses: Option<Pair>,
        failures: usize,
    ) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (live, stop) = (Arc::new(Live::default()), CancellationToken::new());
        let (reports, mut received) = mpsc::channel(4);
        let task = PodTask {
            host: Arc::clone(&self.host),
            store: self.store.clone(),
            node: Arc::clone(node),
            pod: pod.clone(),
            addresses,
            manifests: self.manifests.subscribe(),
            reports,
            delay: backoff(failures),
            agent: components::has_agents().then(|| components::agent_socket(&self.host, &node.name)),
            live: Arc::clone(&live),
            stop: stop.clone(),
        };
        let to_self = self.to_self.clone();
        tokio::spawn(async move {
            while let Some(report) = received.recv().await {
                if to_self.send(Message::Pod(report)).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(task.run());
        let entry = Entry {
            pod,
            owner: workload.owner.clone(),
            hash: workload.hash.clone(),
            node: Arc::clone(node),
            addresses,
            stop,
            live,
            leaving: false,
            announced: false,
            stuck: None,
        };
        self.pods.insert(uid, entry);
    }

    /// The node of a new pod: the workload's choice, the manifest's, or the next one.
    fn place(&mut self, workload: &Workload, create: &Create) -> Result<Arc<Node>, String> {
        let spec = workload.template.spec.as_ref();
        let selected =
            spec.and_then(|s| s.node_selector.as_ref()).and_then(|s| s.get("kubernetes.io/hostname"));
        let asked = create.node.map(nodes::name);
        let asked =
            asked.or_else(|| spec.and_then(|spec| spec.node_name.clone())).or_else(|| selected.cloned());
        if let Some(name) = asked.filter(|name| !name.is_empty()) {
            let found = self.nodes.iter().find(|node| node.name == name).cloned();
            return found.ok_or_else(|| {
                let last = self.nodes.len();
                format!("there is no node {name:?} (nodes are node-1 to node-{last}; more with: lateen up --nodes N)")
            });
        }
        let node = Arc::clone(&self.nodes[self.next_node % self.nodes.len()]);
        self.next_node += 1;
        Ok(node)
    }
}

/// How long a pod of a Job waits after so many have failed.
fn backoff(failures: usize) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << n.min(5)).min(Duration::from_secs(20)),
    }
}

fn random_bytes() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A random (version 4) UUID.
fn uid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn generated_name(workload: &Workload, random: [u8; 16]) -> String {
    let number = random.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let end = spell(number, 5);
    match workload.owner.kind {
        Kind::Deployment => format!("{}-{}-{end}", workload.owner.name, workload.hash),
        _ => format!("{}-{end}", workload.owner.name),
    }
}
