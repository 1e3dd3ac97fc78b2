//! The mesh's end of `control.sock`: finds pods, runs commands in them with the caller's own streams, says what runs,
//! takes everything down.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pages::version::Versions;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::components::{ADMIN, ctrl_admin};
use super::containers::run::{self, Host, Streams};
use super::containers::spec::{JoinSpec, Place};
use super::http;
use super::logs;
use super::namespaces::Netns;
use super::nodes;
use super::pods::{display_name, worker};
use super::sys;
use super::upgrade::Upgrade;
use super::world::{Message, PodView};
use crate::control::{ExecRequest, Forward, Found, LARGEST_REQUEST, Reply, Request};

/// Before a node's name: its agent, as for `logs`.
const NODE_AGENT: &str = "node-agent/";

/// Clients served at once.
const CLIENTS: usize = 512;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long accepting pauses when the system has run out of something.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a command may go on when its client has gone.
const ORPHANED: Duration = Duration::from_secs(2);

/// A component, as its supervisor knows it.
#[derive(Debug)]
pub(crate) struct Supervised {
    pub(crate) name: String,
    /// What it was started as.
    pub(crate) program: PathBuf,
    pub(crate) upgrades: mpsc::Sender<Upgrade>,
}

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) host: Arc<Host>,
    pub(crate) world: mpsc::Sender<Message>,
    /// In the order in which they are upgraded.
    pub(crate) upgrades: Arc<[Supervised]>,
    /// Cancelled by a client that wants everything down.
    pub(crate) down: CancellationToken,
}

impl Server {
    /// Serves the socket until the daemon ends.
    pub(crate) async fn run(self, listener: UnixListener) {
        let clients = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Files have run out: those who are served end in time.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let server = self.clone();
            tokio::spawn(async move {
                if let Err(error) = server.serve(stream).await {
                    eprintln!("control socket: {error}");
                }
                drop(permit);
            });
        }
    }

    async fn serve(self, stream: UnixStream) -> io::Result<()> {
        let (request, descriptors, stream) =
            tokio::time::timeout(PATIENCE, receive(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let (reader, mut writer) = stream.into_split();
        match request {
            Request::Exec(request) => self.exec(request, descriptors, reader, writer).await,
            Request::Find { namespace, pod, container } => {
                let reply = match self.find(&namespace, &pod).await {
                    Ok(view) => found(&self.host, &view, container.as_deref()),
                    Err(reason) => Reply::Refused { reason },
                };
                send(&mut writer, &reply).await
            }
            Request::Status => {
                let (answer, status) = oneshot::channel();
                let _ = self.world.send(Message::Status { answer }).await;
                let mut status = status.await.map_err(io::Error::other)?;
                status.components.extend(versions(&self.host).await);
                send(&mut writer, &Reply::Status(status)).await
            }
            Request::Upgrade { binaries } => self.upgrade(&binaries, &mut writer).await,
            Request::Top => send(&mut writer, &top(&self.host).await).await,
            Request::Down => {
                send(&mut writer, &Reply::Going).await?;
                self.down.cancel();
                // The client sees the end of this stream when everything has gone.
                std::future::pending().await
            }
        }
    }

    /// Replaces the components, one after the other, and tells of each; the first that cannot be ends it.
    async fn upgrade(&self, binaries: &Path, writer: &mut OwnedWriteHalf) -> io::Result<()> {
        for component in self.upgrades.iter() {
            let program = binaries.join(component.program.file_name().unwrap_or_default());
            let (done, outcome) = oneshot::channel();
            let asked = component.upgrades.send(Upgrade { program, done }).await;
            let outcome = match asked {
                Ok(()) => outcome.await.unwrap_or_else(|_| Err("the mesh is going down".to_owned())),
                Err(_) => Err("the mesh is going down".to_owned()),
            };
            match outcome {
                Ok(detail) => {
                    send(writer, &Reply::Replaced { component: component.name.clone(), detail }).await?
                }
                Err(reason) => return send(writer, &Reply::Refused { reason }).await,
            }
        }
        match self.upgrade_waypoints(binaries).await {
            Ok(replaced) => {
                for (component, detail) in replaced {
                    send(writer, &Reply::Replaced { component, detail }).await?;
                }
                send(writer, &Reply::Upgraded).await
            }
            Err(reason) => send(writer, &Reply::Refused { reason }).await,
        }
    }

    /// Last, because they need certificates and configuration of a ctrl that is there.
    async fn upgrade_waypoints(&self, binaries: &Path) -> Result<Vec<(String, String)>, String> {
        let (done, outcome) = oneshot::channel();
        let _ = self.world.send(Message::UpgradeWaypoints { binaries: binaries.to_owned(), done }).await;
        outcome.await.unwrap_or_else(|_| Err("the mesh is going down".to_owned()))
    }

    async fn find(&self, namespace: &str, pod: &str) -> Result<PodView, String> {
        let (answer, view) = oneshot::channel();
        let message = Message::Find { namespace: namespace.to_owned(), pod: pod.to_owned(), answer };
        let _ = self.world.send(message).await;
        view.await.unwrap_or_else(|_| Err("the mesh is going down".to_owned()))
    }

    async fn exec(
        self,
        request: ExecRequest,
        descriptors: Vec<OwnedFd>,
        reader: OwnedReadHalf,
        mut writer: OwnedWriteHalf,
    ) -> io::Result<()> {
        let child = match request.pod.strip_prefix(NODE_AGENT).map(str::to_owned) {
            Some(node) => start_on(&self.host, &node, request, descriptors),
            None => match self.find(&request.namespace, &request.pod).await {
                Ok(view) => start(&self.host, &view, request, descriptors),
                Err(reason) => Err(reason),
            },
        };
        let reply = match child {
            Ok(child) => Reply::Exit { code: attend(child, reader).await? },
            Err(reason) => Reply::Refused { reason },
        };
        send(&mut writer, &reply).await
    }
}

/// What ctrl knows of itself and of the proxies connected to it; nothing while it does not answer.
async fn versions(host: &Host) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Ok(versions) = http::get_json::<Versions>(&ctrl_admin(&host.dir), "/version", PATIENCE).await else {
        return all;
    };
    all.insert("ctrl".to_owned(), versions.ctrl);
    for client in versions.clients {
        let whose = if client.role == "node-agent" { client.node.unwrap_or_default() } else { client.pod };
        all.insert(
            format!("{}/{whose}", client.role),
            client.version.unwrap_or_else(|| "unknown".to_owned()),
        );
    }
    all
}

/// What every node's agent says of what its pods cost.
async fn top(host: &Host) -> Reply {
    let mut asked = JoinSet::new();
    for node in (1..=host.file.nodes).map(nodes::name) {
        let netns = Netns::open(&host.dir.netns().join(&node));
        asked.spawn(async move {
            let answer = match netns {
                Ok(netns) => http::get_json_over(netns.connect(ADMIN), "/top", PATIENCE).await,
                Err(error) => Err(error),
            };
            (node, answer)
        });
    }
    let (mut nodes, mut silent) = (BTreeMap::new(), BTreeMap::new());
    while let Some(Ok((node, answer))) = asked.join_next().await {
        match answer {
            Ok(told) => drop(nodes.insert(node, told)),
            Err(error) => drop(silent.insert(node, error.to_string())),
        }
    }
    Reply::Top { nodes, silent }
}

/// Reads a request and the descriptors beside its first byte.
async fn receive(stream: UnixStream) -> io::Result<(Request, Vec<OwnedFd>, UnixStream)> {
    let mut length = [0; 4];
    let (read, descriptors) = loop {
        stream.readable().await?;
        let result = stream.try_io(tokio::io::Interest::READABLE, || receive_now(&stream, &mut length));
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => break other?,
        }
    };
    let length = u32::from_be_bytes(length);
    if read != 4 || length > LARGEST_REQUEST {
        return Err(io::Error::other("a request that does not begin with its length"));
    }
    let mut stream = stream;
    let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut body).await?;
    Ok((serde_json::from_slice(&body).map_err(io::Error::other)?, descriptors, stream))
}

fn receive_now(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    sys::receive(stream, buffer)
}

async fn send(writer: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// The container meant: the one named, or the first.
fn choose<'a>(view: &'a PodView, wanted: Option<&str>) -> Result<&'a Container, String> {
    let spec = view.pod.spec.as_ref();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let Some(wanted) = wanted else {
        return main.first().ok_or_else(|| "the pod has no container".to_owned());
    };
    main.iter().chain(init).find(|container| container.name == wanted).ok_or_else(|| {
        let names =
            main.iter().chain(init).map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ");
        format!("pod {} has no container {wanted:?}; it has: {names}", display_name(&view.pod))
    })
}

fn found(host: &Host, view: &PodView, container: Option<&str>) -> Reply {
    let container = match choose(view, container) {
        Ok(container) => container.name.clone(),
        Err(reason) => return Reply::Refused { reason },
    };
    let log = worker::log_path(host, &view.pod, &container);
    Reply::Found(Found {
        namespace: view.pod.metadata.namespace.clone().unwrap_or_default(),
        pod: view.pod.metadata.name.clone().unwrap_or_default(),
        previous: logs::previous(&log),
        container,
        log,
    })
}

fn start(
    host: &Arc<Host>,
    view: &PodView,
    request: ExecRequest,
    descriptors: Vec<OwnedFd>,
) -> Result<Child, String> {
    let container = choose(view, request.container.as_deref())?;
    let process = view.live.process(&container.name).ok_or_else(|| {
        let why = super::pods::trouble(&view.pod).unwrap_or_else(|| "it has done its work".to_owned());
        format!("container {} of pod {} is not running: {why}", container.name, display_name(&view.pod))
    })?;
    let mut user = run::user(host, &view.pod, container);
    if request.privileged {
        user = Default::default();
    }
    let folders: Vec<PathBuf> =
        container.working_dir.iter().map(PathBuf::from).chain([request.folder]).collect();
    let environment = with_callers(host, own_environment(process), request.environment);
    let place = Place::Container(process);
    let spec = JoinSpec { place, user, command: request.command, environment, folders };
    run::join(host, &view.pod, &spec, streams(descriptors)?)
        .map_err(|error| format!("cannot start a process: {error}"))
}

/// Runs a command on a node, beside its agent.
fn start_on(
    host: &Host,
    node: &str,
    request: ExecRequest,
    descriptors: Vec<OwnedFd>,
) -> Result<Child, String> {
    let nodes: Vec<String> = (1..=host.file.nodes).map(nodes::name).collect();
    if !nodes.iter().any(|known| known == node) {
        return Err(format!("there is no node {node:?}; what there is: {}", nodes.join(", ")));
    }
    let environment = with_callers(host, run::inherited(host).into_iter().collect(), request.environment);
    let place = Place::Node(host.dir.netns().join(node));
    let folders = vec![request.folder];
    let spec = JoinSpec { place, user: Default::default(), command: request.command, environment, folders };
    run::join_node(host, node, &spec, streams(descriptors)?)
        .map_err(|error| format!("cannot start a process: {error}"))
}

fn streams(descriptors: Vec<OwnedFd>) -> Result<Streams, String> {
    let [stdin, stdout, stderr]: [OwnedFd; 3] =
        descriptors.try_into().map_err(|_| "exec came without its three streams".to_owned())?;
    Ok(Streams { stdin: Stdio::from(stdin), stdout: Stdio::from(stdout), stderr: Stdio::from(stderr) })
}

/// What is there, and over it what the caller passes on; the mesh's own commands can be called.
fn with_callers(
    host: &Host,
    mut environment: BTreeMap<String, String>,
    callers: BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let binaries = host.file.binaries.display();
    environment.extend(callers.into_iter().map(|(name, value)| match name.as_str() {
        "PATH" => (name, format!("{value}:{binaries}")),
        _ => (name, value),
    }));
    environment.into_iter().collect()
}

/// The environment the container was started with.
fn own_environment(process: u32) -> BTreeMap<String, String> {
    let bytes = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let entries = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    entries
        .filter_map(|entry| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}

/// Waits for a command, passing on the signals of its client; ends it when the client goes.
async fn attend(mut child: Child, reader: OwnedReadHalf) -> io::Result<u8> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(|id| Pid::from_raw(-id));
    let signal = |signal: Signal| {
        if let Some(group) = group {
            // It leads a session of its own as soon as it has started; a moment earlier only the process is there.
            let _ = kill(group, signal).or_else(|_| kill(Pid::from_raw(-group.as_raw()), signal));
        }
    };
    let mut lines = BufReader::new(reader).lines();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            line = lines.next_line() => match line {
                Ok(Some(line)) => {
                    let forward: Forward = serde_json::from_str(&line).map_err(io::Error::other)?;
                    if let Ok(number) = Signal::try_from(forward.signal) {
                        signal(number);
                    }
                }
                _ => {
                    signal(Signal::SIGHUP);
                    if let Ok(status) = tokio::time::timeout(ORPHANED, child.wait()).await {
                        break status?;
                    }
                    signal(Signal::SIGKILL);
                    break child.wait().await?;
                }
            },
        }
    };
    let by_signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|number| 128 + number);
    let code = status.code().or(by_signal).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Binds the control socket.
pub(crate) fn bind(host: &Host) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind(host.dir.control_socket())?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
