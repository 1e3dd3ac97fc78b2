//! The form of `scenario.yaml`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// An application, and what is expected of it step by step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Folders of the application's manifests, from the scenario's own.
    pub manifests: Vec<String>,
    /// One after the other, on the same mesh.
    pub steps: Vec<Step>,
}

/// What is in force, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is about, in words.
    pub name: String,
    /// Files that are in force beside the application's: these, and no others.
    #[serde(default)]
    pub with: Vec<String>,
    /// What comes of requests, in their order.
    pub expect: Vec<Expectation>,
}

/// A request, and what comes of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// `NAMESPACE/POD` of who asks, which has curl.
    pub from: String,
    /// What is asked for.
    pub url: String,
    /// The request's method.
    #[serde(default = "get")]
    pub method: String,
    /// The request's headers, besides an `x-request-id` of its own.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How many such requests are made, once the first have come out right; every one of them counts.
    #[serde(default = "once")]
    pub times: u32,
    /// What each is answered.
    #[serde(default)]
    pub answer: Answer,
    /// What each answer's body has in it.
    #[serde(default)]
    pub body: String,
    /// How many percent of the answers are of which version; none of any other.
    #[serde(default)]
    pub versions: BTreeMap<String, u32>,
    /// `NAMESPACE/ACCOUNT` of client and server, as a node agent has them proven in a tunnel.
    #[serde(default)]
    pub identities: Option<[String; 2]>,
    /// Part of what `lateen why` says decided: a policy with its rule, or a route.
    #[serde(default)]
    pub why: String,
    /// The beginning of the proxy's name that `lateen why` says it was.
    #[serde(default)]
    pub by: String,
}

/// What a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// Nothing: its connection is.
    Connection(Connection),
}

/// What becomes of a connection that carries no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Not taken, or ended before an answer.
    Refused,
}

impl Default for Answer {
    fn default() -> Self {
        Self::Status(200)
    }
}

fn get() -> String {
    String::from("GET")
}

fn once() -> u32 {
    1
}

impl Scenario {
    /// Reads one.
    ///
    /// # Errors
    /// It is not in this form, or cannot be played: what is wrong, and with which step.
    pub fn read(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        for step in &scenario.steps {
            for one in &step.expect {
                one.check().map_err(|wrong| format!("{}: {one}: {wrong}", step.name))?;
            }
        }
        Ok(scenario)
    }
}

impl Expectation {
    /// Namespace and pod of who asks.
    pub fn client(&self) -> (&str, &str) {
        self.from.split_once('/').unwrap_or(("default", &self.from))
    }

    /// Whether `lateen why` is asked.
    pub fn is_explained(&self) -> bool {
        !self.why.is_empty() || !self.by.is_empty()
    }

    fn check(&self) -> Result<(), &'static str> {
        let shares: u32 = self.versions.values().sum();
        match self {
            _ if !self.from.contains('/') => Err("`from` is NAMESPACE/POD"),
            _ if self.times == 0 => Err("`times` is 1 at least"),
            _ if !self.versions.is_empty() && shares != 100 => Err("`versions` are 100 percent together"),
            _ if self.url.contains(['#', '[', '{']) => Err("`url` has what curl would make many of"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from {}", self.method, self.url, self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Connection, Scenario};

    fn read(expectation: &str) -> Result<Scenario, String> {
        Scenario::read(&format!("manifests: []\nsteps: [{{name: s, expect: [{{{expectation}}}]}}]"))
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let scenario = read("from: a/b, url: 'http://c/'").unwrap();
        let one = &scenario.steps[0].expect[0];
        assert_eq!((one.client(), &*one.method, one.times), (("a", "b"), "GET", 1));
        assert_eq!(one.answer, Answer::Status(200));
        let refused = read("from: a/b, url: 'http://c/', answer: refused").unwrap();
        assert_eq!(refused.steps[0].expect[0].answer, Answer::Connection(Connection::Refused));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_step() {
        for (expectation, part) in [
            ("from: a, url: u", "NAMESPACE/POD"),
            ("from: a/b, url: u, times: 0", "1 at least"),
            ("from: a/b, url: u, versions: {v1: 90, v2: 5}", "100 percent"),
            ("from: a/b, url: 'u#[1-2]'", "many"),
        ] {
            let refused = read(expectation).unwrap_err();
            assert!(refused.contains(part) && refused.starts_with("s: "), "{refused}");
        }
        for unread in ["from: a/b, url: u, status: 200", "from: a/b", "from: a/b, url: u, answer: perhaps"] {
            assert!(read(unread).is_err(), "{unread}");
        }
    }
}
