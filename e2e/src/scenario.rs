//! What a mesh makes of an application, written once and played on this machine and on a Kubernetes alike: a folder of
//! manifests, and beside them `scenario.yaml`, which says step by step what is in force and what then comes of whose request
//! (its form: [`form`]). The player knows of a mesh only what [`Stage`] has.

pub mod form;
mod judge;
mod kube;
mod local;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use self::form::{Expectation, Scenario, Step};
use crate::report::told;
use crate::{Outcome, lines, until};

pub use self::kube::OnCluster;

/// A mesh on which a scenario is played.
pub trait Stage {
    /// How long what was written may take to take effect.
    const PATIENCE: Duration;

    /// Puts a manifest in force.
    fn put(&self, file: &Path, manifest: &str);

    /// Takes it away.
    fn take(&self, file: &Path, manifest: &str);

    /// Runs a command inside a pod (`POD` or `deploy/NAME`).
    fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Outcome;

    /// `lateen ARGUMENTS` on this mesh.
    fn lateen(&self, arguments: &[&str]) -> Outcome;

    /// What all node agents have logged.
    fn agent_logs(&self) -> String;

    /// Waits until something holds.
    ///
    /// # Panics
    /// It does not in time.
    #[track_caller]
    fn until(&self, what: &str, check: impl FnMut() -> Result<(), String>) {
        if let Err(last) = until(Self::PATIENCE, check) {
            panic!("{what}: still not after {:?}: {last}", Self::PATIENCE);
        }
    }
}

/// A scenario that was read, with where it lies.
#[derive(Debug)]
pub struct Script {
    folder: PathBuf,
    scenario: Scenario,
}

impl Script {
    /// Reads `e2e/scenarios/NAME`.
    ///
    /// # Panics
    /// It is not there, or not in the form.
    pub fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name);
        let file = folder.join("scenario.yaml");
        let text = content(&file);
        let scenario = Scenario::read(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self { folder, scenario }
    }

    /// The application's manifests, by file and content, in the order of their names.
    ///
    /// # Panics
    /// One cannot be read.
    pub fn manifests(&self) -> Vec<(PathBuf, String)> {
        let files = |folder: &String| -> Vec<PathBuf> {
            let listed = std::fs::read_dir(self.folder.join(folder));
            let listed = listed.unwrap_or_else(|error| panic!("{folder}: {error}"));
            listed.map(|entry| entry.expect("a folder can be listed").path()).collect()
        };
        let mut files: Vec<PathBuf> = self.scenario.manifests.iter().flat_map(files).collect();
        files.sort();
        files.into_iter().map(|file| (file.clone(), content(&file))).collect()
    }

    /// Plays it step by step, with the time of each.
    ///
    /// # Panics
    /// Something comes otherwise than it is written.
    pub fn play(&self, stage: &impl Stage) {
        let mut before = &Vec::new();
        for (number, step) in self.scenario.steps.iter().enumerate() {
            let begun = Instant::now();
            self.change(stage, before, &step.with);
            let asked: u32 = step.expect.iter().map(|one| expect(stage, step, one)).sum();
            told(&format!("{}. {}, by {asked} requests", number + 1, step.name), begun);
            before = &step.with;
        }
    }

    /// Takes away what is in force no more, then puts what comes: an object may be in both.
    fn change(&self, stage: &impl Stage, before: &[String], after: &[String]) {
        let (gone, new) = differences(before, after);
        for file in gone {
            stage.take(Path::new(file), &content(&self.folder.join(file)));
        }
        for file in new {
            stage.put(Path::new(file), &content(&self.folder.join(file)));
        }
    }
}

/// What is only in the one, and what only in the other, in their order.
fn differences<'a>(before: &'a [String], after: &'a [String]) -> (Vec<&'a str>, Vec<&'a str>) {
    let only = |of: &'a [String], other: &[String]| {
        let other: BTreeSet<&str> = other.iter().map(String::as_str).collect();
        of.iter().map(String::as_str).filter(|file| !other.contains(file)).collect()
    };
    (only(before, after), only(after, before))
}

fn content(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Waits until a first answer is as expected, then asks as often as is said, which must hold at once. How many were asked.
fn expect(stage: &impl Stage, step: &Step, expected: &Expectation) -> u32 {
    let what = format!("{}: {expected}", step.name);
    // Few of a hundred may be what tells one step from the one before: so many that all versions are among them.
    let first = if expected.versions.is_empty() { 1 } else { expected.times.min(100) };
    stage.until(&what, || asked(stage, expected, first));
    if expected.times > first {
        let held = asked(stage, expected, expected.times);
        held.unwrap_or_else(|different| panic!("{what}: {different}"));
    }
    first.max(expected.times)
}

/// Asks so often, and judges all that can be known of it.
fn asked(stage: &impl Stage, expected: &Expectation, times: u32) -> Result<(), String> {
    let (namespace, pod) = expected.client();
    let id = crate::fresh_name();
    let proven = |ends| {
        let [client, server] = judge::proof(ends);
        lines(&stage.agent_logs(), &["connection complete", &client, &server]).len()
    };
    let before = expected.identities.as_ref().map_or(0, &proven);
    let begun = now();
    let command = judge::command(expected, &id, times);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let outcome = stage.exec(namespace, pod, &command);
    let answers = judge::answers(&outcome.stdout);
    judge::judge(expected, &answers, times)
        .map_err(|different| format!("{different}; {}", outcome.stderr.trim()))?;
    if expected.is_explained() {
        soon(|| explained(stage, expected, &id, begun))?;
    }
    let Some(ends) = &expected.identities else { return Ok(()) };
    soon(|| match proven(ends) {
        after if after > before => Ok(()),
        _ => Err(format!("no connection of the agents' logs is between {ends:?}")),
    })
}

/// Whether `lateen why` tells the reason of what was asked since then.
fn explained(stage: &impl Stage, expected: &Expectation, id: &str, begun: u64) -> Result<(), String> {
    let told = stage.lateen(&["why", "-A", "--since", "60s", "--limit", "1000", "-o", "json"]);
    let all: Value = serde_json::from_str(&told.stdout).map_err(|error| format!("{error}: {told}"))?;
    let records = all["records"].as_array().cloned().unwrap_or_default();
    match records.iter().any(|record| judge::is_reason(record, expected, id, begun)) {
        true => Ok(()),
        false => Err(format!("lateen why does not say {:?} of {id}: {told}", expected.why)),
    }
}

/// Microseconds since 1970, as proxies count them; all of them run on this machine.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// What is told of a request follows its answer by and by.
fn soon(check: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    until(Duration::from_secs(3), check)
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn what_stays_in_force_is_left_alone() {
        let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (before, after, gone, new) in [
            (&[][..], &["a"][..], &[][..], &["a"][..]),
            (&["a", "b"], &["a", "c"], &["b"], &["c"]),
            (&["b", "a"], &[], &["b", "a"], &[]),
            (&["a"], &["a"], &[], &[]),
        ] {
            let (before, after) = (files(before), files(after));
            assert_eq!(differences(&before, &after), (gone.to_vec(), new.to_vec()));
        }
    }
}
