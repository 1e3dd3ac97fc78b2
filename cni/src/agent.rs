//! One request to the node's agent, over its Unix socket. HTTP/1.1 by hand: one request, one short answer, then the
//! connection closes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an agent that is just being replaced is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Not at all.
pub(crate) const NO_PATIENCE: Duration = Duration::ZERO;
/// How long its answer may take. Its own limit is shorter, so that it says why.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest answer read.
const LONGEST: u64 = 64 << 10;

/// How to find the agent, for who reads this in `kubectl describe pod`.
const FIND: &str = "`kubectl get pods -A -o wide -l app=lateen-node-agent` shows that of this pod's node";

/// Why the agent has not agreed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// It is not there.
    #[error(
        "the node agent of this node cannot be reached at {0}; a pod of the mesh starts only once it is captured; is the agent running? {FIND}"
    )]
    Away(String),
    /// It broke off.
    #[error("the node agent did not answer: {0}; its log says more: {FIND}")]
    Broke(#[from] io::Error),
    /// It said no.
    #[error("the node agent has not captured the pod: {0}; its log says more: {FIND}")]
    Refused(String),
}

/// Sends `message` and waits for the answer.
pub(crate) fn post(socket: &Path, path: &str, message: &Value, patience: Duration) -> Result<(), AgentError> {
    let mut stream = connect(socket, patience)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    let body = message.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    read(&String::from_utf8_lossy(&answer))
}

#[expect(clippy::disallowed_methods, reason = "a plugin is one thread, which waits")]
fn connect(socket: &Path, patience: Duration) -> Result<UnixStream, AgentError> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if begun.elapsed() >= patience => {
                return Err(AgentError::Away(format!("{} ({error})", socket.display())));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// What the answer comes to.
fn read(answer: &str) -> Result<(), AgentError> {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    match status {
        Some(200..=299) => Ok(()),
        Some(_) => {
            let value: Value = serde_json::from_str(body).unwrap_or_default();
            Err(AgentError::Refused(value["error"].as_str().unwrap_or(body).to_owned()))
        }
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{AgentError, NO_PATIENCE, connect, read};

    #[test]
    fn answers_are_understood() {
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_ok());
        let refused = read("HTTP/1.1 500 Internal Server Error\r\n\r\n{\"error\":\"no news of pod a/b\"}");
        assert!(matches!(refused, Err(AgentError::Refused(text)) if text == "no news of pod a/b"));
        assert!(
            matches!(read("HTTP/1.1 404 Not Found\r\n\r\nno"), Err(AgentError::Refused(text)) if text == "no")
        );
        assert!(matches!(read(""), Err(AgentError::Broke(_))));
    }

    #[test]
    fn whatever_is_wrong_it_is_said_where_the_agent_is() {
        let nobody = connect(Path::new("/nowhere/agent.sock"), NO_PATIENCE).unwrap_err();
        for error in [nobody, read("").unwrap_err(), read("HTTP/1.1 500 No\r\n\r\nno").unwrap_err()] {
            assert!(error.to_string().contains("-l app=lateen-node-agent"), "{error}");
        }
        // The label is the chart's.
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/lateen/templates/node-agent.yaml");
        assert!(std::fs::read_to_string(chart).unwrap().contains("app: lateen-node-agent\n"));
    }
}
