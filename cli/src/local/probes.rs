//! Probes: what the kubelet asks of containers. They come from the node with the probe address as their source, which
//! a captured pod lets pass.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::addresses;
use super::containers::run::{self, Host, Streams};
use super::containers::spec::{JoinSpec, Place};
use super::nodes::Node;

/// How often a container that has never answered is asked in between: a server that is up after 300 ms should not
/// count as unready for its whole period.
const EAGER: Duration = Duration::from_millis(200);

/// Longest body read of an answer.
const LONGEST_ANSWER: usize = 64 << 10;

/// From where and to where probes go.
pub(crate) struct Prober {
    pub(crate) host: Arc<Host>,
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Pod,
    pub(crate) address: IpAddr,
    /// The pod is on its node's network.
    pub(crate) on_node: bool,
}

/// One probe of one running container.
pub(crate) struct Check<'a> {
    pub(crate) prober: &'a Prober,
    pub(crate) probe: &'a Probe,
    pub(crate) container: &'a Container,
    pub(crate) process: u32,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(default))
}

fn count(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
}

impl Check<'_> {
    fn period(&self) -> Duration {
        seconds(self.probe.period_seconds, 10)
    }

    async fn initial_delay(&self) {
        let delay = self.probe.initial_delay_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(delay)).await;
    }

    /// Asks once.
    async fn ask(&self) -> bool {
        let patience = seconds(self.probe.timeout_seconds, 1);
        matches!(tokio::time::timeout(patience, self.try_once()).await, Ok(Ok(())))
    }

    /// Asks once, for as long as it takes.
    pub(crate) async fn try_once(&self) -> io::Result<()> {
        if let Some(action) = &self.probe.exec {
            return self.exec(action.command.as_deref().unwrap_or_default()).await;
        }
        if let Some(action) = &self.probe.http_get {
            return self.http(action).await;
        }
        if let Some(action) = &self.probe.tcp_socket {
            return self.connect(self.port(&action.port)?).await.map(drop);
        }
        if let Some(action) = &self.probe.grpc {
            let port = u16::try_from(action.port).map_err(io::Error::other)?;
            return self.grpc(port, action.service.as_deref().unwrap_or_default()).await;
        }
        Ok(())
    }

    fn port(&self, port: &IntOrString) -> io::Result<u16> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => name.parse().ok().or_else(|| {
                let mut ports = self.container.ports.iter().flatten();
                ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port)
            }),
        };
        number
            .and_then(|n| u16::try_from(n).ok())
            .ok_or_else(|| io::Error::other("the probe names no port of the container"))
    }

    /// Connects from the node, with the source address that is let through.
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let target = SocketAddr::new(self.prober.address, port);
        let on_node = self.prober.on_node;
        let socket = self.prober.node.netns.run(move || -> io::Result<_> {
            let domain = socket2::Domain::for_address(target);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let source =
                if target.is_ipv6() { IpAddr::V6(addresses::PROBE_V6) } else { addresses::PROBE_V4.into() };
            if !on_node {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            Ok(socket)
        });
        TcpSocket::from_std_stream(socket.await??.into()).connect(target).await
    }

    async fn http(&self, action: &HTTPGetAction) -> io::Result<()> {
        let port = self.port(&action.port)?;
        let stream = self.connect(port).await?;
        if action.scheme.as_deref() == Some("HTTPS") {
            // The kubelet checks no certificate either; that somebody listens is what is left.
            return Ok(());
        }
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let mut request =
            Request::get(path).header("user-agent", "kube-probe/lateen").header("connection", "close");
        let headers = action.http_headers.iter().flatten();
        let names_host = headers.clone().any(|header| header.name.eq_ignore_ascii_case("host"));
        if !names_host {
            request = request.header("host", SocketAddr::new(self.prober.address, port).to_string());
        }
        for header in headers {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other);
        driver.abort();
        match answer?.status().as_u16() {
            200..400 => Ok(()),
            status => Err(io::Error::other(format!("HTTP {status}"))),
        }
    }

    async fn grpc(&self, port: u16, service: &str) -> io::Result<()> {
        let stream = self.connect(port).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let request =
            Request::post(format!("http://{}:{port}/grpc.health.v1.Health/Check", self.prober.address))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(health_request(service)))
                .map_err(io::Error::other)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            Limited::new(response.into_body(), LONGEST_ANSWER).collect().await.map_err(io::Error::other)
        };
        let answer = answer.await;
        driver.abort();
        // Field 1 (status) = 1 (SERVING), in one gRPC frame.
        if answer?.to_bytes().ends_with(&[0x08, 0x01]) {
            Ok(())
        } else {
            Err(io::Error::other("not serving"))
        }
    }

    async fn exec(&self, command: &[String]) -> io::Result<()> {
        let spec = JoinSpec {
            place: Place::Container(self.process),
            user: run::user(&self.prober.host, &self.prober.pod, self.container),
            command: command.iter().map(|word| word.clone().into_bytes()).collect(),
            environment: run::inherited(&self.prober.host),
            folders: self.container.working_dir.iter().map(Into::into).collect(),
        };
        let streams = Streams { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() };
        let status = run::join(&self.prober.host, &self.prober.pod, &spec, streams)?.wait().await?;
        if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
    }
}

/// A gRPC frame with a HealthCheckRequest: field 1, the service's name.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let Some(length) = u8::try_from(service.len()).ok().filter(|length| (1..128).contains(length)) {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

/// Asks until it succeeds (true) or has failed too often.
pub(crate) async fn until_success(check: &Check<'_>) -> bool {
    check.initial_delay().await;
    let most = count(check.probe.failure_threshold, 3);
    let mut failures = 0;
    let mut counted = Instant::now();
    loop {
        if check.ask().await {
            return true;
        }
        if counted.elapsed() >= check.period() {
            counted = Instant::now();
            failures += 1;
        }
        if failures >= most {
            return false;
        }
        tokio::time::sleep(check.period().min(EAGER)).await;
    }
}

/// Asks until it has failed too often in a row.
pub(crate) async fn until_failure(check: &Check<'_>) {
    check.initial_delay().await;
    let most = count(check.probe.failure_threshold, 3);
    let mut failures = 0;
    while failures < most {
        tokio::time::sleep(check.period()).await;
        failures = if check.ask().await { 0 } else { failures + 1 };
    }
}

/// A probe asked again and again.
pub(crate) struct Watch<'a> {
    check: Check<'a>,
    holds: bool,
    against: u32,
    begun: bool,
}

impl<'a> Watch<'a> {
    /// Begins with an answer taken for granted.
    pub(crate) fn new(check: Check<'a>, holds: bool) -> Self {
        Self { check, holds, against: 0, begun: false }
    }

    /// Waits until the answer has changed for as many times as the thresholds say, and returns the new one.
    pub(crate) async fn change(&mut self) -> bool {
        let probe = self.check.probe;
        let (rise, fall) = (count(probe.success_threshold, 1), count(probe.failure_threshold, 3));
        if !self.begun {
            self.begun = true;
            self.check.initial_delay().await;
        } else {
            self.pause().await;
        }
        loop {
            self.against = if self.check.ask().await == self.holds { 0 } else { self.against + 1 };
            if self.against >= if self.holds { fall } else { rise } {
                self.holds = !self.holds;
                self.against = 0;
                return self.holds;
            }
            self.pause().await;
        }
    }

    async fn pause(&self) {
        let period = self.check.period();
        tokio::time::sleep(if self.holds { period } else { period.min(EAGER) }).await;
    }
}
