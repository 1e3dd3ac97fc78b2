//! What each call answers, with and without an agent behind the socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::{Answer, Environment, answer};

fn environment(command: &str, namespace: &str) -> Environment {
    let arguments =
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=reviews;K8S_POD_UID=u-1");
    Environment::read(|name| match name {
        "CNI_COMMAND" => Some(command.to_owned()),
        "CNI_NETNS" => Some("/var/run/netns/cni-1".to_owned()),
        "CNI_ARGS" => Some(arguments.clone()),
        _ => None,
    })
}

fn configuration(folder: &Path) -> Value {
    json!({
        "cniVersion": "0.4.0", "name": "pods", "type": "lateen-cni",
        "socket": folder.join("cni.sock"), "exempt": ["kube-system"],
        "prevResult": {"ips": [{"version": "4", "address": "10.244.1.2/32"}], "dns": {}},
    })
}

/// An agent that answers one request with `status` and `body`; it returns what it was asked.
fn agent(folder: &Path, status: &str, body: &str) -> JoinHandle<String> {
    let listener = UnixListener::bind(folder.join("cni.sock")).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        let mut part = [0; 1024];
        while !asked.ends_with('}') {
            let length = stream.read(&mut part).unwrap();
            asked.push_str(&String::from_utf8_lossy(&part[..length]));
        }
        stream.write_all(answer.as_bytes()).unwrap();
        asked
    })
}

fn error(answer: Answer) -> (u64, String) {
    let Answer::Error(text) = answer else { panic!("{answer:?}") };
    let value: Value = serde_json::from_str(&text).unwrap();
    (value["code"].as_u64().unwrap(), value["msg"].as_str().unwrap().to_owned())
}

#[test]
fn the_agent_is_told_which_pod_it_is_and_the_result_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let asked = agent(folder.path(), "200 OK", "");
    let answered = answer(&environment("ADD", "books"), &configuration(folder.path()).to_string());
    let Answer::Result(text) = answered else { panic!("{answered:?}") };
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["cniVersion"], "0.4.0");
    assert_eq!(result["ips"][0]["address"], "10.244.1.2/32");
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /cmdadd HTTP/1.1\r\n"), "{asked}");
    let message: Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        message,
        json!({"Netns": "/var/run/netns/cni-1", "PodName": "reviews", "PodNamespace": "books", "PodUID": "u-1",
            "IPs": ["10.244.1.2"]})
    );
}

#[test]
fn a_pod_that_the_agent_refuses_does_not_start_whoevers_it_is() {
    for namespace in ["books", "kube-system"] {
        let folder = tempfile::tempdir().unwrap();
        let asked = agent(folder.path(), "500 Internal Server Error", "{\"error\": \"no proxy\"}");
        let (code, message) =
            error(answer(&environment("ADD", namespace), &configuration(folder.path()).to_string()));
        assert!(code == 11 && message.contains(": no proxy;"), "{code} {message}");
        asked.join().unwrap();
    }
}

#[test]
fn without_an_agent_only_pods_start_that_are_none_of_the_meshs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("namespaces-apart.json"), "[\"monitoring\"]").unwrap();
    let configuration = configuration(folder.path()).to_string();
    for namespace in ["kube-system", "monitoring"] {
        let answered = answer(&environment("ADD", namespace), &configuration);
        assert!(matches!(answered, Answer::Result(_)), "{namespace}: {answered:?}");
    }
    let (code, message) = error(answer(&environment("ADD", "books"), &configuration));
    assert!(code == 11 && message.contains("cannot be reached"), "{code} {message}");
    // Taking a pod down never waits for anybody.
    assert_eq!(answer(&environment("DEL", "books"), &configuration), Answer::Nothing);
}

#[test]
fn calls_that_make_no_sense_are_refused_by_the_specifications_codes() {
    let folder = tempfile::tempdir().unwrap();
    let good = configuration(folder.path());
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed.to_string()
    };
    for (command, input, code) in [
        ("ADD", "no json".to_owned(), 7),
        ("ADD", with("cniVersion", "0.2.0".into()), 1),
        ("ADD", with("socket", Value::Null), 7),
        ("ADD", with("prevResult", Value::Null), 7),
        ("MAKE", good.to_string(), 4),
    ] {
        let (found, message) = error(answer(&environment(command, "books"), &input));
        assert_eq!(found, code, "{command} {message}");
    }
    let answered = answer(&environment("VERSION", ""), r#"{"cniVersion": "1.0.0"}"#);
    let Answer::Result(text) = answered else { panic!("{answered:?}") };
    assert!(text.contains("\"supportedVersions\"") && text.contains("\"1.0.0\""), "{text}");
}
