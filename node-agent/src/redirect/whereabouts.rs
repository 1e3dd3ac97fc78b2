//! Where a pod's network namespace is, for pods of which no CNI plugin has told. Without Kubernetes the pod's object
//! says it. In a cluster its processes have it: their control groups carry the pod's uid, which no other pod ever has,
//! whatever runtime started them; of what they are in, it is the one that has the pod's address.

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    eligible::PodFacts,
    enrol::{EnrolError, addresses},
};
use crate::netns::{NetnsFd, NetnsId, in_namespace};

/// Processes of one pod that are looked at: the first ones are those of its sandbox.
const LOOKED_AT: usize = 64;

/// Who knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// The pod's object, by an annotation.
    Annotated,
    /// The node's processes: this is where `/proc` of the node is.
    Processes(PathBuf),
}

/// Why it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum WhereaboutsError {
    /// Nobody said.
    #[error("the network namespace of the pod is not known: its object has no annotation lateen.dev/netns")]
    NoPath,
    /// The path does not lead to it.
    #[error("cannot open the pod's network namespace at {path}: {source}")]
    Open {
        /// The path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// None that can be seen.
    #[error(
        "no process of the pod (uid {uid}) is in a network namespace with one of its addresses {ips:?}; the agent needs hostPID, and the pod must run"
    )]
    NoProcess {
        /// The uid looked for.
        uid: String,
        /// The pod's addresses.
        ips: Vec<IpAddr>,
    },
}

impl Whereabouts {
    /// Opens the pod's namespace.
    ///
    /// # Errors
    /// When it is not found.
    pub async fn find(&self, pod: &PodFacts) -> Result<NetnsFd, WhereaboutsError> {
        match self {
            Self::Annotated => open(&pod.netns().ok_or(WhereaboutsError::NoPath)?),
            Self::Processes(proc) => {
                let (proc, uid, ips) = (proc.clone(), pod.runtime_uid().to_owned(), pod.ips.clone());
                let missing = WhereaboutsError::NoProcess { uid: uid.clone(), ips: ips.clone() };
                // A busy node has thousands of processes.
                let found = tokio::task::spawn_blocking(move || search(&proc, &uid, &ips)).await;
                found.ok().flatten().ok_or(missing)
            }
        }
    }

    /// A pod that is just being made, of which its CNI plugin will tell before anything of it starts; also one that
    /// nobody would find.
    #[must_use]
    pub fn is_left_to_cni(&self, pod: &PodFacts) -> bool {
        match self {
            Self::Annotated => pod.netns().is_none() || (!pod.is_noted() && pod.phase != "Running"),
            // Its object has its address only once its sandbox stands, for which the plugin has answered.
            Self::Processes(_) => pod.ips.is_empty(),
        }
    }
}

/// The namespace at a path that somebody has told.
pub(super) fn open(path: &Path) -> Result<NetnsFd, WhereaboutsError> {
    NetnsFd::open(path).map_err(|source| WhereaboutsError::Open { path: path.display().to_string(), source })
}

fn search(proc: &Path, uid: &str, ips: &[IpAddr]) -> Option<NetnsFd> {
    let mut seen: HashSet<NetnsId> = HashSet::new();
    processes(proc, uid).into_iter().take(LOOKED_AT).find_map(|process| {
        let namespace = NetnsFd::open(&proc.join(process.to_string()).join("ns/net")).ok()?;
        // A process of the pod may have made itself another one.
        (seen.insert(namespace.id()) && has_one(&namespace, ips).is_ok_and(|has| has)).then_some(namespace)
    })
}

fn has_one(namespace: &NetnsFd, ips: &[IpAddr]) -> Result<bool, EnrolError> {
    let owned = in_namespace(namespace, addresses).map_err(EnrolError::Enter)?.map_err(EnrolError::Enter)?;
    Ok(ips.iter().any(|ip| owned.contains(ip)))
}

/// The pod's processes, oldest numbers first.
fn processes(proc: &Path, uid: &str) -> Vec<u32> {
    let all = fs::read_dir(proc).into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_pod = |process: &u32| {
        let groups = fs::read_to_string(proc.join(process.to_string()).join("cgroup"));
        groups.is_ok_and(|groups| is_of_pod(&groups, uid))
    };
    let mut found: Vec<u32> = numbers.filter(of_pod).collect();
    found.sort_unstable();
    found
}

/// Whether these control groups (`/proc/PID/cgroup`) are of the pod with this uid: `pod` and the uid is part of a path, with
/// underscores where systemd's names cannot have a hyphen (`kubepods-burstable-pod1_2.slice`).
fn is_of_pod(groups: &str, uid: &str) -> bool {
    let names = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let ends = |rest: &str| rest.chars().next().is_none_or(|next| matches!(next, '/' | '.' | '\n'));
    !uid.is_empty()
        && names.iter().any(|name| groups.match_indices(name).any(|(at, _)| ends(&groups[at + name.len()..])))
}

#[cfg(test)]
mod tests {
    use super::{is_of_pod, processes};

    const UID: &str = "0b6e7c1a-42e1-4a37-9d31-0c1f0b8a2f11";

    #[test]
    fn control_groups_name_the_pod() {
        for (groups, expected) in [
            (
                "5:memory:/lc-node-1/kubepods/besteffort/pod0b6e7c1a-42e1-4a37-9d31-0c1f0b8a2f11/2f\n0::/x\n",
                true,
            ),
            (
                "0::/../../kubepods-burstable-pod0b6e7c1a_42e1_4a37_9d31_0c1f0b8a2f11.slice/cri-containerd-2f.scope\n",
                true,
            ),
            ("0::/kubepods/pod0b6e7c1a-42e1-4a37-9d31-0c1f0b8a2f11\n", true),
            ("0::/kubepods/pod0b6e7c1a-42e1-4a37-9d31-0c1f0b8a2f112/a\n", false),
            ("0::/kubepods/pod1b6e7c1a-42e1-4a37-9d31-0c1f0b8a2f11/a\n", false),
            ("0::/system.slice/containerd.service\n", false),
        ] {
            assert_eq!(is_of_pod(groups, UID), expected, "{groups}");
        }
        assert!(!is_of_pod("0::/kubepods/pod/a\n", ""));
    }

    #[test]
    fn processes_are_found_by_their_groups() {
        let proc = tempfile::tempdir().expect("a folder");
        for (process, group) in [("30", UID), ("7", UID), ("8", "another"), ("self", UID)] {
            let folder = proc.path().join(process);
            std::fs::create_dir(&folder).expect("a folder");
            std::fs::write(folder.join("cgroup"), format!("0::/kubepods/pod{group}/c\n")).expect("a file");
        }
        assert_eq!(processes(proc.path(), UID), [7, 30]);
    }
}
