//! What each pod costs now: `/top` of the admin page, which `lateen top pods` asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pages::top::{Costs, Top};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Agent;
use super::pod::{Phase, Pod};

/// What rates are taken over. Threads tell what they carried once a second.
const WINDOW: Duration = Duration::from_secs(2);

/// What pods did in the last window, by uid.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<Arc<str>, Rate>>);

/// What a pod did in the last window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Rate {
    sent: u64,
    received: u64,
    work: f64,
}

/// Counters of a pod at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    sent: u64,
    received: u64,
    work: u64,
}

impl Sample {
    fn of(pod: &Pod) -> Self {
        let account = &pod.account;
        Self { sent: account.sent(), received: account.received(), work: account.work() }
    }
}

/// Takes the rates of all pods until the process ends.
pub(crate) async fn follow(agent: Arc<Agent>) {
    let mut window = interval(WINDOW);
    window.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: HashMap<Arc<str>, Sample> = HashMap::new();
    let mut began = Instant::now();
    loop {
        window.tick().await;
        let now: HashMap<Arc<str>, Sample> =
            agent.pods().values().map(|pod| (pod.uid.clone(), Sample::of(pod))).collect();
        let rates = rates(&before, &now, began.elapsed());
        *agent.rates.0.lock().unwrap_or_else(PoisonError::into_inner) = rates;
        (before, began) = (now, Instant::now());
    }
}

/// What happened between two samples of pods, a second; of the work each one's part of all.
fn rates(
    before: &HashMap<Arc<str>, Sample>,
    now: &HashMap<Arc<str>, Sample>,
    took: Duration,
) -> HashMap<Arc<str>, Rate> {
    let deltas = now.iter().map(|(uid, now)| {
        let before = before.get(uid).copied().unwrap_or_default();
        let since = |now: u64, before: u64| now.saturating_sub(before);
        (
            uid,
            since(now.sent, before.sent),
            since(now.received, before.received),
            since(now.work, before.work),
        )
    });
    let deltas: Vec<_> = deltas.collect();
    let all: u64 = deltas.iter().map(|(.., work)| work).sum();
    let a_second = |bytes: u64| (bytes as f64 / took.as_secs_f64().max(0.001)) as u64;
    let rates = deltas.into_iter().map(|(uid, sent, received, work)| {
        let work = if all == 0 { 0.0 } else { work as f64 / all as f64 };
        (uid.clone(), Rate { sent: a_second(sent), received: a_second(received), work })
    });
    rates.collect()
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Gone => "gone",
    }
}

/// The page as it is now.
pub(crate) fn page(agent: &Agent) -> Top {
    let rates = agent.rates.0.lock().unwrap_or_else(PoisonError::into_inner);
    let costs = |pod: &Arc<Pod>| {
        let account = &pod.account;
        let rate = rates.get(&pod.uid).copied().unwrap_or_default();
        Costs {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            phase: phase(pod.phase()).to_owned(),
            connections: account.connections(),
            tunnels: account.tunnels(),
            descriptors: account.descriptors(),
            buffered_bytes: account.buffered(),
            memory_bytes: account.memory(),
            sent_bytes: account.sent(),
            received_bytes: account.received(),
            sent_per_second: rate.sent,
            received_per_second: rate.received,
            work: rate.work,
            refused: account.refused(),
        }
    };
    let mut pods: Vec<Costs> = agent.pods().values().map(costs).collect();
    pods.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    Top {
        node: agent.node.clone(),
        memory_limit: agent.memory_limit,
        open_files_limit: agent.open_files,
        pods,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_was_added_a_second() {
        let sample = |sent, received, work| Sample { sent, received, work };
        let uid = |text: &str| Arc::<str>::from(text);
        let before = HashMap::from([(uid("a"), sample(100, 0, 10)), (uid("gone"), sample(9, 9, 9))]);
        let now = HashMap::from([(uid("a"), sample(300, 50, 40)), (uid("new"), sample(0, 20, 10))]);
        let found = rates(&before, &now, Duration::from_secs(2));
        assert_eq!(found.len(), 2);
        assert_eq!(found[&uid("a")], Rate { sent: 100, received: 25, work: 0.75 });
        assert_eq!(found[&uid("new")], Rate { sent: 0, received: 10, work: 0.25 });
        let quiet = rates(&now, &now, Duration::from_secs(2));
        assert_eq!(quiet[&uid("a")], Rate::default());
    }
}
