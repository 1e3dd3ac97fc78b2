//! A component's process: started in its namespace with its output kept, asked whether it is ready, ended.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::components::{Component, Ready};
use super::http;
use super::logs::LogFile;

/// How long a component may take to end when asked to.
const GRACE: Duration = Duration::from_secs(6);

/// Starts it.
///
/// # Errors
/// There is no such program, or no descriptor is left.
pub(super) async fn start(component: &Component, log: &LogFile) -> io::Result<Child> {
    let (output, end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let second = end.try_clone()?;
    let mut command = Command::new(&component.program);
    command
        .args(&component.arguments)
        .envs(component.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::from(end))
        .stderr(Stdio::from(second))
        .kill_on_drop(true)
        .process_group(0);
    let runtime = tokio::runtime::Handle::current();
    // A child belongs to the namespace of the thread that starts it.
    let child = component.netns.run(move || {
        let _entered = runtime.enter();
        command.spawn()
    });
    let child = child.await??;
    log.clone().collect(pipe::Receiver::from_owned_fd(output)?);
    Ok(child)
}

/// Ends it: asks, waits, kills.
pub(super) async fn end(child: &mut Child) {
    let Some(process) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = kill(Pid::from_raw(-process), Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

/// Asks whether it is ready.
///
/// # Errors
/// That it is not, and why.
pub(super) async fn ask(ready: &Ready) -> io::Result<()> {
    match ready {
        Ready::Socket(path) => get_ready(UnixStream::connect(path).await?).await,
        Ready::Tcp(netns, address) => get_ready(netns.connect(*address).await?).await,
    }
}

async fn get_ready(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<()> {
    let (status, _) = http::call(stream, Method::GET, "/healthz/ready", String::new()).await?;
    if status.is_success() { Ok(()) } else { Err(io::Error::other(format!("answers {status}"))) }
}
