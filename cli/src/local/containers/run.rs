//! Starting a container and commands in it, from the daemon: what they are told, their pipes, their first words.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use nix::fcntl::OFlag;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::env::{EnvSource, command_line, environment};
use super::spec::{ContainerSpec, JoinSpec, Mount, User};
use super::user::capabilities;
use super::volumes::{self, VolumeFolders};
use crate::local::logs::LogFile;
use crate::local::manifests::Manifests;
use crate::state::{MeshDir, MeshFile, write_private};

/// How long a container's process may take to become its command.
const START: Duration = Duration::from_secs(20);

/// What every container of a mesh needs to be started.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) dir: MeshDir,
    pub(crate) file: MeshFile,
    /// The whole mesh is going down.
    pub(crate) going: AtomicBool,
}

impl Host {
    /// The most time a container gets to end: when everything goes down, less than it may ask for.
    pub(crate) fn longest_grace(&self) -> Duration {
        const GOING: Duration = Duration::from_secs(5);
        if self.going.load(Ordering::Relaxed) { GOING } else { Duration::MAX }
    }
}

/// A container that has become its command.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) process: u32,
    /// Inode of its mount namespace, by which all its processes are known.
    pub(crate) mounts: u64,
}

/// Everything known about a container before it starts.
pub(crate) struct Order<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) manifests: &'a Manifests,
    pub(crate) netns: &'a Path,
    pub(crate) log: LogFile,
}

/// As whom a container runs.
pub(crate) fn user(host: &Host, pod: &Pod, container: &Container) -> User {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let number = |own: Option<i64>, pod: Option<i64>| own.or(pod).and_then(|id| u32::try_from(id).ok());
    let uid = number(own.and_then(|c| c.run_as_user), of_pod.and_then(|c| c.run_as_user));
    let gid = number(own.and_then(|c| c.run_as_group), of_pod.and_then(|c| c.run_as_group));
    let mapped = match (uid, gid) {
        (Some(uid), gid) => Some((uid, gid.unwrap_or(uid))),
        // PostgreSQL and others refuse to run as root; an ordinary user's containers run as that user.
        (None, gid) if host.file.rootless => Some((host.file.uid, gid.unwrap_or(host.file.gid))),
        (None, _) => None,
    };
    let wanted = own.and_then(|c| c.capabilities.clone()).unwrap_or_default();
    let privileged = own.and_then(|c| c.privileged) == Some(true);
    let capabilities = match privileged {
        true => None,
        false => capabilities(&wanted.add.unwrap_or_default(), &wanted.drop.unwrap_or_default()),
    };
    User { mapped: mapped.filter(|_| !privileged), capabilities }
}

/// Starts a container; its words on the way there are the error.
pub(crate) async fn start(host: &Host, order: &Order<'_>) -> Result<Started, String> {
    let spec = describe(host, order)?;
    let path = write_spec(&folder(host, order.pod), &spec).map_err(|error| error.to_string())?;
    let pipe = |error: io::Error| format!("pipe: {error}");
    let (report, report_end) = make_pipe().map_err(pipe)?;
    let (output, output_end) = make_pipe().map_err(pipe)?;
    let second = output_end.try_clone().map_err(pipe)?;
    let mut child = Command::new("/proc/self/exe")
        .arg("__container")
        .arg(&path)
        .stdin(Stdio::from(report_end))
        .stdout(Stdio::from(output_end))
        .stderr(Stdio::from(second))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start a process: {error}"))?;
    order.log.clone().collect(pipe::Receiver::from_owned_fd(output).map_err(pipe)?);
    let words = read_report(report).await;
    match words {
        Ok(words) if words.is_empty() => {
            let process = child.id().unwrap_or_default();
            let mounts = namespace_inode(process, "mnt").unwrap_or_default();
            Ok(Started { child, process, mounts })
        }
        Ok(words) => {
            let _ = child.wait().await;
            Err(words)
        }
        Err(reason) => {
            let _ = child.kill().await;
            Err(reason)
        }
    }
}

async fn read_report(report: OwnedFd) -> Result<String, String> {
    let mut report = pipe::Receiver::from_owned_fd(report).map_err(|error| error.to_string())?;
    let mut words = String::new();
    match tokio::time::timeout(START, report.read_to_string(&mut words)).await {
        Ok(Ok(_)) => Ok(words),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the container did not start within {} s", START.as_secs())),
    }
}

/// A pipe whose ends close by themselves in other programs.
fn make_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Inode of a namespace of a process, by which processes of one container or pod are known.
pub(crate) fn namespace_inode(process: u32, kind: &str) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(format!("/proc/{process}/ns/{kind}"))?.ino())
}

/// Kills every process whose namespace of a kind has this inode, until none is left.
pub(crate) fn kill_namespace(kind: &str, inode: u64) {
    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        let mut found = false;
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        for process in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
            if namespace_inode(process, kind).is_ok_and(|own| own == inode) {
                found = true;
                if let Ok(pid) = i32::try_from(process) {
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
            }
        }
        if !found {
            return;
        }
    }
}

fn describe(host: &Host, order: &Order<'_>) -> Result<ContainerSpec, String> {
    let (pod, container) = (order.pod, order.container);
    let folder = host.dir.pod(pod.metadata.uid.as_deref().unwrap_or_default());
    let claims = host.dir.root().join("claims");
    let folders = VolumeFolders { pod: &folder, claims: &claims };
    let inherited = inherited(host);
    let source = EnvSource { pod, manifests: order.manifests, inherited: &inherited };
    let environment = environment(&source, container)?;
    let command = command_line(container, &environment);
    if command.is_empty() {
        return Err(format!(
            "has no command; images are not pulled ({}), so the manifest must give command or args",
            container.image.as_deref().unwrap_or("none given")
        ));
    }
    let mut mounts: Vec<Mount> = ["resolv.conf", "hosts", "hostname"]
        .iter()
        .map(|name| (folder.join(name), Path::new("/etc").join(name)))
        .map(|(source, target)| Mount { source, target, read_only: false })
        .collect();
    mounts.extend(volumes::mounts(&folders, pod, container)?);
    let root = folder.join("root");
    std::fs::create_dir_all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    Ok(ContainerSpec {
        netns: order.netns.to_owned(),
        hostname: super::super::pods::hostname(pod),
        root,
        private: ["/tmp", "/run"].map(PathBuf::from).to_vec(),
        secret: host.dir.base().to_owned(),
        visible: visible(&host.file),
        mounts,
        user: user(host, pod, container),
        command,
        environment,
        folder: container.working_dir.as_ref().map(PathBuf::from),
    })
}

/// Folders of `-f` and of the binaries: they stay where they are, also below /tmp. Of a file, its folder, unless that
/// is all of /tmp.
fn visible(file: &MeshFile) -> Vec<PathBuf> {
    let folder = |path: &PathBuf| match path.parent() {
        Some(parent) if path.is_file() && parent != Path::new("/tmp") && parent != Path::new("/run") => {
            parent.to_owned()
        }
        _ => path.clone(),
    };
    let mut all: Vec<PathBuf> = file.sources.iter().map(folder).chain([file.binaries.clone()]).collect();
    all.sort();
    all.dedup();
    all
}

/// What every container's environment starts with; `lateen` itself can be a container's command.
pub(crate) fn inherited(host: &Host) -> Vec<(String, String)> {
    let add_binaries = |(name, value): &(String, String)| match name.as_str() {
        "PATH" => (name.clone(), format!("{value}:{}", host.file.binaries.display())),
        _ => (name.clone(), value.clone()),
    };
    host.file.environment.iter().map(add_binaries).collect()
}

/// The folder of a pod's own files.
fn folder(host: &Host, pod: &Pod) -> PathBuf {
    host.dir.pod(pod.metadata.uid.as_deref().unwrap_or_default())
}

fn write_spec(folder: &Path, spec: &impl serde::Serialize) -> io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("spec-{number}.json"));
    write_private(&path, &serde_json::to_vec(spec).map_err(io::Error::other)?)?;
    Ok(path)
}

/// Standard streams of a command run in a container.
pub(crate) struct Streams {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// Runs a command in a running container, in a session of its own.
pub(crate) fn join(host: &Host, pod: &Pod, spec: &JoinSpec, streams: Streams) -> io::Result<Child> {
    join_by(&folder(host, pod), spec, streams)
}

/// Runs a command on a node, in a session of its own.
pub(crate) fn join_node(host: &Host, node: &str, spec: &JoinSpec, streams: Streams) -> io::Result<Child> {
    join_by(&host.dir.node(node), spec, streams)
}

fn join_by(folder: &Path, spec: &JoinSpec, streams: Streams) -> io::Result<Child> {
    let path = write_spec(folder, spec)?;
    Command::new("/proc/self/exe")
        .arg("__join")
        .arg(path)
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr)
        .kill_on_drop(true)
        .spawn()
}
