//! Traffic from a pod that goes on whatever happens, and tells of everything that went wrong and when
//! (`e2e/examples/traffic.rs`): who reads it says which of that was owed to what.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Mesh;
use crate::client::Client;
use crate::cluster::Cluster;

/// How many of what went wrong are told in one report at most; what is more is counted.
pub const MOST: usize = 5000;

/// An answer that took longer than this is told of, in milliseconds.
pub const SLOW: u64 = 1000;

/// Now, in milliseconds of the machine's clock, which is the same inside pods.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a pod is to do.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Long connections at any time; one that breaks is opened again.
    pub streams: usize,
    /// Milliseconds between the messages of one of them.
    pub every: u64,
    /// Requests a second, each on a connection of its own.
    pub requests: u64,
    /// Whether what is said has what must never be seen in the clear ([`crate::capture::MARKER`]).
    pub marked: bool,
}

impl Work {
    /// The same as arguments of the program.
    fn arguments(&self, targets: &[String]) -> Vec<String> {
        let numbers = [self.streams as u64, self.every, self.requests].map(|number| number.to_string());
        let marked = if self.marked { "marked" } else { "plain" };
        numbers.into_iter().chain([marked.to_owned()]).chain(targets.iter().cloned()).collect()
    }
}

/// Something that went wrong, or took long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trouble {
    /// When the connection, or the message on it, was begun.
    pub begun: u64,
    /// When it was over.
    pub ended: u64,
    /// To whom.
    pub target: String,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} to {}: {}", self.begun, self.ended, self.target, self.what)
    }
}

/// What a pod has seen since it began.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Long connections that are open.
    pub open: u64,
    /// Long connections that were opened, the first time or again.
    pub opened: u64,
    /// Messages answered on them.
    pub messages: u64,
    /// Bytes in these, each way.
    pub bytes: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests that were not sent because too many waited.
    pub skipped: u64,
    /// The slowest answer to a message, in milliseconds.
    pub slowest_message: u64,
    /// The slowest answer to a request, in milliseconds.
    pub slowest_request: u64,
    /// Long connections that broke.
    pub broken: Vec<Trouble>,
    /// Requests that failed, and long connections that could not be opened.
    pub failed: Vec<Trouble>,
    /// Answers that took longer than [`SLOW`].
    pub slow: Vec<Trouble>,
    /// What there was no more room to tell of.
    pub untold: u64,
}

impl Seen {
    /// The same without the troubles that were not over at that time (milliseconds since 1970).
    #[must_use]
    pub fn before(&self, time: u64) -> Self {
        let over =
            |troubles: &[Trouble]| troubles.iter().filter(|trouble| trouble.ended < time).cloned().collect();
        Self {
            broken: over(&self.broken),
            failed: over(&self.failed),
            slow: over(&self.slow),
            ..self.clone()
        }
    }
}

/// Traffic that runs.
#[derive(Debug)]
pub struct Traffic {
    client: Client,
    seen: Seen,
    /// Where it runs.
    pub pod: String,
}

impl Traffic {
    /// Starts it in a pod; returns when every connection has been opened once, or could not be.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start(mesh: &Mesh, namespace: &str, pod: &str, work: Work, targets: &[String]) -> Self {
        let traffic = Self::begin(mesh, namespace, pod, work, targets);
        traffic.client.wait_for("opened", crate::PATIENCE);
        traffic
    }

    /// The same without waiting.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn begin(mesh: &Mesh, namespace: &str, pod: &str, work: Work, targets: &[String]) -> Self {
        let arguments = work.arguments(targets);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let client = Client::start_example("traffic", mesh, namespace, pod, &arguments);
        Self { client, seen: Seen::default(), pod: pod.to_owned() }
    }

    /// Starts it in a pod of a cluster; returns when every connection has been opened once, or could not be.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start_on(cluster: &Cluster, namespace: &str, pod: &str, work: Work, targets: &[String]) -> Self {
        let arguments = work.arguments(targets);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let client = Client::start_on(cluster, "traffic", namespace, pod, &arguments);
        client.wait_for("opened", crate::PATIENCE);
        Self { client, seen: Seen::default(), pod: pod.to_owned() }
    }

    /// Waits until every connection has been opened once, or could not be.
    ///
    /// # Panics
    /// It does not say so.
    #[track_caller]
    pub fn opened(&self) {
        self.client.wait_for("opened", crate::PATIENCE);
    }

    /// What was seen so far. Asked now and then, it need not keep much.
    ///
    /// # Panics
    /// The program does not answer.
    #[track_caller]
    pub fn report(&mut self) -> &Seen {
        let news = seen(&self.client.ask("report"));
        self.seen.add(news);
        &self.seen
    }

    /// Ends it in order and says what was seen.
    ///
    /// # Panics
    /// The program does not answer.
    #[track_caller]
    pub fn finish(mut self) -> Seen {
        self.seen.add(seen(&self.client.finish()));
        self.seen
    }
}

impl Seen {
    /// A later report: its numbers are of all that was seen, its troubles only of what is new.
    fn add(&mut self, mut news: Self) {
        for (all, new) in [
            (&mut self.broken, &mut news.broken),
            (&mut self.failed, &mut news.failed),
            (&mut self.slow, &mut news.slow),
        ] {
            all.append(new);
            std::mem::swap(all, new);
        }
        *self = news;
    }
}

#[track_caller]
fn seen(line: &str) -> Seen {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{Seen, Trouble};

    #[test]
    fn reports_add_up() {
        let trouble = |begun| Trouble { begun, ended: begun, target: String::new(), what: String::new() };
        let mut all = Seen::default();
        all.add(Seen { requests: 3, failed: vec![trouble(1)], ..Seen::default() });
        all.add(Seen { requests: 5, failed: vec![trouble(2)], slow: vec![trouble(3)], ..Seen::default() });
        assert_eq!(all.requests, 5);
        assert_eq!(all.failed.iter().map(|trouble| trouble.begun).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(all.slow.len(), 1);
    }
}
