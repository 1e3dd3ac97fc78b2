//! Memory: how much this process may have, and which pod gives some back when it is nearly used up. The kernel would end
//! the process, and with it every pod's connections; the one that holds most loses some of its own long before.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::metrics::process::resident_bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Agent;
use super::limits::Limit;
use super::pod::Pod;
use super::worker::Job;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);
/// From this part of the limit on, in percent, somebody gives back …
const PRESSED: u64 = 85;
/// … until it would be this one.
const RELIEVED: u64 = 75;
/// Who holds less than this is not to blame.
const BLAMELESS: u64 = 1 << 20;
/// How long it takes until what was freed is seen to be: the allocator keeps it for a while, in case it is needed again.
const SETTLES: Duration = Duration::from_secs(15);
/// What applications' buffers may take of the limit, all pods together.
const BUFFERS: u64 = 2;

/// The most that this process may have: what is set, else what its cgroup allows, else a quarter of the machine's.
///
/// # Errors
/// What is set cannot be read; the text says how it is written.
pub(crate) fn limit(set: &str) -> Result<u64, String> {
    if !set.is_empty() {
        return size(set);
    }
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let quarter = machine.unwrap_or(8 << 30) / 4;
    Ok(of_cgroup().map_or(quarter, |cgroup| cgroup.min(machine.unwrap_or(cgroup))))
}

/// What applications that do not read may make us hold, all pods together.
pub(crate) fn for_buffers(limit: u64) -> u64 {
    limit / BUFFERS
}

/// Reads a number of bytes, which is not 0.
///
/// # Errors
/// It cannot be read; the text says how it is written.
pub(crate) fn size(set: &str) -> Result<u64, String> {
    parse(set).ok_or_else(|| {
        format!("{set:?} is no size: give bytes, or a number with Ki, Mi or Gi, such as 512Mi")
    })
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The smallest limit of our own cgroup and those above it.
fn of_cgroup() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let files = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some((PathBuf::from("/sys/fs/cgroup"), path, "memory.max")),
            list if list.split(',').any(|one| one == "memory") => {
                Some((PathBuf::from("/sys/fs/cgroup/memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    files.filter_map(|(root, path, file)| smallest(&root, path, file)).min()
}

fn smallest(root: &Path, path: &str, file: &str) -> Option<u64> {
    let folders = Path::new(path).ancestors();
    let limits = folders.filter_map(|folder| {
        let text = std::fs::read_to_string(root.join(folder).join(file)).ok()?;
        text.trim().parse::<u64>().ok()
    });
    limits.min()
}

/// Who gives back how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relief {
    /// There is enough.
    None,
    /// There is not, but no pod is to blame.
    Nobody,
    /// The pod at this place of those given, this many bytes.
    Pod(usize, u64),
}

/// Decides by what the process has and what each pod holds of it. The one that holds most gives back what is too much,
/// but not so much that it would then hold far less than the next: then it is that one's turn.
fn decide(resident: u64, limit: u64, held: &[u64]) -> Relief {
    if resident < limit / 100 * PRESSED {
        return Relief::None;
    }
    let Some((most, largest)) = held.iter().copied().enumerate().max_by_key(|(_, bytes)| *bytes) else {
        return Relief::Nobody;
    };
    if largest < BLAMELESS {
        return Relief::Nobody;
    }
    let next = held.iter().enumerate().filter(|(at, _)| *at != most).map(|(_, bytes)| *bytes).max();
    let excess = resident - limit / 100 * RELIEVED;
    let down_to_the_next = (largest - next.unwrap_or(0)).max(BLAMELESS);
    Relief::Pod(most, excess.min(down_to_the_next))
}

/// Watches the memory until the process ends.
pub(crate) async fn watch(agent: Arc<Agent>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut freed: VecDeque<(Instant, u64)> = VecDeque::new();
    loop {
        look.tick().await;
        let now = Instant::now();
        while freed.front().is_some_and(|(when, _)| now - *when > SETTLES) {
            freed.pop_front();
        }
        let Some(resident) = resident_bytes().and_then(|bytes| u64::try_from(bytes).ok()) else { continue };
        let resident = resident.saturating_sub(freed.iter().map(|(_, bytes)| bytes).sum());
        let pods: Vec<Arc<Pod>> = agent.pods().values().cloned().collect();
        let held: Vec<u64> = pods.iter().map(|pod| pod.account.memory()).collect();
        match decide(resident, agent.memory_limit, &held) {
            Relief::None => {}
            Relief::Nobody => {
                if agent.hits.hit_and_tell(Limit::Memory) {
                    tracing::warn!(
                        resident,
                        limit = agent.memory_limit,
                        "memory is nearly used up, and not by a pod's connections: raise the limit (MEMORY_LIMIT, or the container's)"
                    );
                }
            }
            Relief::Pod(at, bytes) => {
                freed.push_back((now, bytes));
                shed(&agent, &pods[at], bytes, resident).await;
            }
        }
    }
}

/// Has every thread cut its part of a pod's connections, as far as it is not done with ending handshakes: whoever reaches
/// the pod can begin those, and it must not lose connections to them.
async fn shed(agent: &Agent, pod: &Pod, bytes: u64, resident: u64) {
    tracing::warn!(
        pod = %pod.name,
        namespace = %pod.namespace,
        resident,
        limit = agent.memory_limit,
        held = pod.account.memory(),
        giving_back = bytes,
        "memory is nearly used up, and this pod holds most of it: some of its connections are reset"
    );
    let bytes = bytes - agent.handshakes.give_back(&pod.uid, bytes);
    if bytes == 0 {
        return;
    }
    let share = bytes.div_ceil(u64::try_from(agent.workers.len()).unwrap_or(1).max(1));
    for worker in &agent.workers {
        worker.send(Job::Shed { uid: pod.uid.clone(), bytes: share }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, expected) in
            [("1000", Some(1000)), ("64Mi", Some(64 << 20)), ("2Gi", Some(2 << 30)), ("8Ki", Some(8192))]
        {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in ["0", "Mi", "64MB", "-1", "99999999999Gi"] {
            assert_eq!(parse(text), None, "{text}");
            assert!(limit(text).unwrap_err().contains("512Mi"));
        }
        assert_eq!(total("MemTotal:       1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert!(limit("").unwrap() > 0);
    }

    #[test]
    fn the_smallest_limit_above_counts() {
        let folder = std::env::temp_dir().join(format!("lateen-cgroup-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("a/memory.max"), "5000\n").unwrap();
        std::fs::write(folder.join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(smallest(&folder, "a/b", "memory.max"), Some(5000));
        assert_eq!(smallest(&folder, "a/b", "absent"), None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn who_holds_most_gives_back() {
        const MIB: u64 = 1 << 20;
        let limit = 100 * MIB;
        for (resident, held, expected) in [
            (84, vec![50, 10], Relief::None),
            (90, vec![], Relief::Nobody),
            (90, vec![0, 0], Relief::Nobody),
            (90, vec![10, 50], Relief::Pod(1, 15)),
            (95, vec![50], Relief::Pod(0, 20)),
            // No further than to the next one, which then gives too.
            (95, vec![20, 25, 24], Relief::Pod(1, 1)),
            (95, vec![25, 25], Relief::Pod(1, 1)),
        ] {
            let bytes: Vec<u64> = held.iter().map(|mib| mib * MIB).collect();
            let expected = match expected {
                Relief::Pod(at, mib) => Relief::Pod(at, mib * MIB),
                other => other,
            };
            assert_eq!(decide(resident * MIB, limit, &bytes), expected, "{resident} MiB, {held:?}");
        }
    }
}
