//! Long-lived connections between pods whose every byte is checked, while a test does something to the mesh
//! (`e2e/examples/streams.rs`).

use std::time::Duration;

use serde::Deserialize;

use crate::Mesh;
use crate::client::Client;

/// Connections that are open and busy.
#[derive(Debug)]
pub struct Streams(Client);

/// What they have seen.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// How many were opened.
    pub opened: u64,
    /// Messages answered so far, on all of them.
    pub messages: u64,
    /// Bytes in them, each way.
    pub bytes: u64,
    /// Connections that broke, were stuck, or brought something that was not sent.
    pub failed: u64,
    /// Of each connection the slowest answer since the last report: the middle one of these, in milliseconds.
    pub p50_ms: f64,
    /// The one that one in a hundred exceeds.
    pub p99_ms: f64,
    /// The slowest of all.
    pub max_ms: f64,
    /// What became of the first that failed.
    pub failures: Vec<String>,
}

/// The inside of a YAML list: the command of a pod that answers them.
pub fn server(port: u16) -> String {
    format!("{}, serve, \"{port}\"", crate::example("streams"))
}

impl Streams {
    /// Opens so many connections from a pod, spread over the targets, each with a message every so often; returns when all
    /// are open.
    ///
    /// # Panics
    /// Not all can be opened.
    #[track_caller]
    pub fn start(mesh: &Mesh, at: (&str, &str), count: usize, every: Duration, targets: &[&str]) -> Self {
        let (count, every) = (count.to_string(), every.as_millis().to_string());
        let arguments = [&["run", &count, &every], targets].concat();
        let client = Client::start_example("streams", mesh, at.0, at.1, &arguments);
        client.wait_for("opened", crate::PATIENCE);
        Self(client)
    }

    /// What they have seen so far.
    ///
    /// # Panics
    /// The program does not answer.
    #[track_caller]
    pub fn report(&mut self) -> Seen {
        seen(&self.0.ask("report"))
    }

    /// Ends them in order and says what they have seen.
    ///
    /// # Panics
    /// The program does not answer.
    #[track_caller]
    pub fn finish(self) -> Seen {
        seen(&self.0.finish())
    }
}

#[track_caller]
fn seen(line: &str) -> Seen {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}
