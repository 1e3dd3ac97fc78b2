//! `node-agent ready`: whether this pod's agent has its node, and its own proxy serves.
//!
//! While an agent is replaced, its node has two, with one address: a probe of a port is answered by whoever has the port,
//! which is the old one as long as the new one does not serve. A broken version would count as ready, and go on to the next
//! node.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use daemon::settings::Settings;
use serde::Deserialize;

use crate::config::{self, name};

/// How long one answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// The longest answer that is read, bytes.
const LONGEST: u64 = 64 << 10;

/// What the redirecting role says of itself (`GET /status` on its socket).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    /// The pod that it belongs to.
    pod: String,
    /// The proxy that has the node's pods, by its process.
    proxy: Option<i32>,
    /// Whether it has started that one itself, and not taken it over from another.
    proxy_is_own: bool,
}

/// Whether this pod's agent has its node, and its own proxy serves.
///
/// # Errors
/// Why not.
pub fn check(settings: &Settings) -> Result<(), String> {
    let [_, _, socket] = config::sockets(settings);
    let at = |error: io::Error| format!("no redirecting role answers on {}: {error}", socket.display());
    let stream = UnixStream::connect(&socket).map_err(at)?;
    stream.set_read_timeout(Some(ANSWER_TIME)).map_err(at)?;
    let (_, body) = get(stream, "/status").map_err(at)?;
    let status = serde_json::from_str(&body).map_err(|error| format!("{}: {error}", socket.display()))?;
    let proxy = in_charge(&status, settings.text(name::POD_NAME))?;

    let port = settings.parse(name::READINESS_PORT, "a port").map_err(|error| error.to_string())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let at = |error: io::Error| format!("no proxy answers on {address}: {error}");
    let stream = TcpStream::connect_timeout(&address, ANSWER_TIME).map_err(at)?;
    stream.set_read_timeout(Some(ANSWER_TIME)).map_err(at)?;
    match get(stream, &format!("/healthz/ready?process={proxy}")).map_err(at)? {
        (200, _) => Ok(()),
        (_, body) => Err(body.trim().to_owned()),
    }
}

/// The process of the proxy to ask, if the redirecting role is this pod's and has one of its own.
fn in_charge(status: &Status, pod: &str) -> Result<i32, String> {
    match status.proxy {
        _ if status.pod != pod => Err(format!("the agent of pod {} still has this node", status.pod)),
        Some(proxy) if status.proxy_is_own => Ok(proxy),
        _ => Err("its own proxy has not connected yet; see the log of this pod".to_owned()),
    }
}

/// Status and body of an answer.
fn get(mut stream: impl Read + Write, path: &str) -> io::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    read(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no answer of HTTP"))
}

fn read(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_pods_agent_with_a_proxy_of_its_own_is_ready() {
        let status = |pod: &str, proxy, proxy_is_own| Status { pod: pod.to_owned(), proxy, proxy_is_own };
        for (status, expected) in [
            (status("agent-2", Some(7), true), Ok(7)),
            (status("agent-1", Some(7), true), Err("the agent of pod agent-1 still has this node")),
            (status("agent-2", Some(5), false), Err("its own proxy has not connected yet")),
            (status("agent-2", None, false), Err("its own proxy has not connected yet")),
        ] {
            match (in_charge(&status, "agent-2"), expected) {
                (Ok(proxy), Ok(expected)) => assert_eq!(proxy, expected),
                (Err(why), Err(expected)) => assert!(why.starts_with(expected), "{why}"),
                (told, expected) => panic!("{status:?}: {told:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn an_answer_is_read() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n", Some((200, "ready\n".to_owned()))),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\nnot yet", Some((503, "not yet".to_owned()))),
            ("HTTP/1.1 20", None),
            ("SSH-2.0-x\r\n\r\n", None),
        ] {
            assert_eq!(read(answer), expected, "{answer:?}");
        }
    }
}
