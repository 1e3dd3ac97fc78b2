//! One call of a runtime: which it is, and what is answered (CNI specification 1.0, sections 2 and 5). The decisions are
//! pure; asking the agent is handed in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::agent::{self, AgentError};

/// Versions of the specification that are understood: those with a previous result.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Code of the specification: the version is not understood.
const WRONG_VERSION: u32 = 1;
/// Code of the specification: an environment variable is missing or wrong.
const WRONG_ENVIRONMENT: u32 = 4;
/// Code of the specification: the configuration cannot be read.
const WRONG_CONFIGURATION: u32 = 7;
/// Code of the specification: try again later.
const LATER: u32 = 11;

/// What a runtime says in the environment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    command: String,
    netns: String,
    /// `CNI_ARGS`: the pod's namespace, name and uid, if a kubelet asks.
    arguments: BTreeMap<String, String>,
}

impl Environment {
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| variable(name).unwrap_or_default();
        let pairs = text("CNI_ARGS");
        let pairs = pairs.split(';').filter_map(|pair| pair.split_once('='));
        Self {
            command: text("CNI_COMMAND"),
            netns: text("CNI_NETNS"),
            arguments: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    fn argument(&self, name: &str) -> &str {
        self.arguments.get(name).map_or("", String::as_str)
    }
}

/// What the runtime is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Result(String),
    Error(String),
}

/// What our entry in the node's configuration says.
#[derive(Debug)]
struct Configuration {
    version: String,
    /// Result of the plugins before this one.
    previous: Option<Value>,
    /// The agent's socket.
    socket: PathBuf,
    /// Namespaces whose pods start though no agent is there.
    exempt: Vec<String>,
}

impl Configuration {
    fn read(input: &str) -> Result<Self, (u32, String)> {
        let wrong = |what: String| (WRONG_CONFIGURATION, what);
        let given: Value = serde_json::from_str(input)
            .map_err(|error| wrong(format!("the configuration is no JSON: {error}")))?;
        let text = |name: &str| given[name].as_str().map(str::to_owned);
        let version = text("cniVersion").unwrap_or_default();
        if !VERSIONS.contains(&version.as_str()) {
            let known = VERSIONS.join(", ");
            return Err((WRONG_VERSION, format!("cniVersion {version:?} is none of {known}")));
        }
        let exempt = given["exempt"].as_array().into_iter().flatten();
        Ok(Self {
            version,
            previous: given.get("prevResult").filter(|result| !result.is_null()).cloned(),
            socket: text("socket").ok_or_else(|| wrong("the field socket is missing".into()))?.into(),
            exempt: exempt.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        })
    }
}

/// Answers a call.
pub(crate) fn answer(environment: &Environment, input: &str) -> Answer {
    match respond(environment, input) {
        Ok(answer) => answer,
        Err((code, message)) => {
            let given: Value = serde_json::from_str(input).unwrap_or_default();
            let version = given["cniVersion"].as_str().filter(|version| VERSIONS.contains(version));
            let version = version.unwrap_or(VERSIONS[3]);
            Answer::Error(json!({"cniVersion": version, "code": code, "msg": message}).to_string())
        }
    }
}

fn respond(environment: &Environment, input: &str) -> Result<Answer, (u32, String)> {
    match environment.command.as_str() {
        "VERSION" => {
            let given: Value = serde_json::from_str(input).unwrap_or_default();
            let version = given["cniVersion"].as_str().unwrap_or(VERSIONS[3]);
            Ok(Answer::Result(json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string()))
        }
        "ADD" => add(environment, &Configuration::read(input)?),
        "CHECK" => {
            let configuration = Configuration::read(input)?;
            ask(environment, &configuration, "/cmdcheck").map_err(|error| later(&error))?;
            Ok(Answer::Nothing)
        }
        // The agent learns from the API server that a pod is gone; a runtime must be able to take a pod down at any time.
        "DEL" | "GC" | "STATUS" => Ok(Answer::Nothing),
        other => Err((WRONG_ENVIRONMENT, format!("CNI_COMMAND {other:?} is not understood"))),
    }
}

/// Fails the pod's start, which its kubelet tries again, unless it is captured or none of the mesh's.
fn add(environment: &Environment, configuration: &Configuration) -> Result<Answer, (u32, String)> {
    let Some(previous) = &configuration.previous else {
        let what = "there is no prevResult: lateen-cni works only behind a plugin that connects the pod";
        return Err((WRONG_CONFIGURATION, what.to_owned()));
    };
    // Not a pod: nobody enrols it.
    if !environment.argument("K8S_POD_NAME").is_empty() {
        match ask(environment, configuration, "/cmdadd") {
            Ok(()) => {}
            Err(AgentError::Away(_))
                if is_apart(environment.argument("K8S_POD_NAMESPACE"), configuration) => {}
            Err(error) => return Err(later(&error)),
        }
    }
    let mut result = previous.clone();
    result["cniVersion"] = configuration.version.as_str().into();
    Ok(Answer::Result(result.to_string()))
}

fn later(error: &AgentError) -> (u32, String) {
    (LATER, error.to_string())
}

/// Whether pods of a namespace start without an agent: those that the agent was told to exempt (the cluster's own, and the
/// mesh's, without which no agent would come), and those that it knew to be none of the mesh's when it was there.
fn is_apart(namespace: &str, configuration: &Configuration) -> bool {
    configuration.exempt.iter().any(|exempt| exempt == namespace)
        || known_apart(&configuration.socket).iter().any(|apart| apart == namespace)
}

/// What the agent has written beside its socket. After a restart of the node there is nothing.
fn known_apart(socket: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(socket.with_file_name("namespaces-apart.json"));
    text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn ask(environment: &Environment, configuration: &Configuration, path: &str) -> Result<(), AgentError> {
    let namespace = environment.argument("K8S_POD_NAMESPACE");
    // Where it may start anyway, it does not wait for an agent to come.
    let patience = if is_apart(namespace, configuration) { agent::NO_PATIENCE } else { agent::PATIENCE };
    agent::post(&configuration.socket, path, &message(environment, configuration.previous.as_ref()), patience)
}

/// The message that istio-cni sends its agent as well, with the pod's uid.
fn message(environment: &Environment, previous: Option<&Value>) -> Value {
    let uid = Some(environment.argument("K8S_POD_UID")).filter(|uid| !uid.is_empty());
    let addresses = previous.and_then(|result| result["ips"].as_array()).into_iter().flatten();
    // As `ADDRESS/LENGTH`; the length is of no interest.
    let addresses = addresses.filter_map(|ip| ip["address"].as_str()?.split('/').next());
    json!({
        "Netns": environment.netns,
        "PodName": environment.argument("K8S_POD_NAME"),
        "PodNamespace": environment.argument("K8S_POD_NAMESPACE"),
        "PodUID": uid,
        "IPs": addresses.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
