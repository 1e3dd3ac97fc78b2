//! `lateen exec`: hands its own streams to the mesh, which runs the command inside the pod; passes signals on, ends
//! with the command's exit code.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Outcome;
use crate::args::ExecArgs;
use crate::control::{self, ControlError, ExecRequest, Forward, Reply, Request};
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::state;

/// Variables of the caller that the command gets.
const PASSED: [&str; 6] = ["PATH", "TERM", "COLORTERM", "LANG", "LC_ALL", "LC_CTYPE"];

/// Runs `exec`.
pub(crate) fn run(mesh: Option<&str>, namespace: Option<&str>, args: &ExecArgs) -> Outcome {
    let mesh = state::select(mesh)?;
    let environment: BTreeMap<String, String> =
        PASSED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    let request = Request::Exec(ExecRequest {
        namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        pod: args.pod.clone(),
        container: args.container.clone(),
        command: args.command.iter().cloned().map(OsStringExt::into_vec).collect(),
        folder: std::env::current_dir().unwrap_or_else(|_| "/".into()),
        environment,
        privileged: args.privileged,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reply = runtime.block_on(async {
        // Signals are caught before there is a command that could miss them.
        let signals = signals()?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let stream = control::send(&mesh, &request, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
        wait(stream, signals, mesh.name()).await
    })?;
    match reply {
        Reply::Exit { code } => Ok(ExitCode::from(code)),
        Reply::Refused { reason } => Err(ControlError::Refused(reason).into()),
        other => Err(ControlError::Malformed(format!("{other:?}")).into()),
    }
}

fn signals() -> io::Result<Vec<(i32, Signal)>> {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::window_change(),
    ];
    kinds.into_iter().map(|kind| Ok((kind.as_raw_value(), signal(kind)?))).collect()
}

/// Waits for the answer, passing on every signal that arrives meanwhile.
async fn wait(
    stream: UnixStream,
    mut signals: Vec<(i32, Signal)>,
    mesh: &str,
) -> Result<Reply, Box<dyn std::error::Error>> {
    stream.set_nonblocking(true)?;
    let (reader, mut writer) = tokio::net::UnixStream::from_std(stream)?.into_split();
    let mut lines = BufReader::new(reader).lines();
    loop {
        let next_signal = std::future::poll_fn(|context| {
            for (number, signal) in &mut signals {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        });
        tokio::select! {
            line = lines.next_line() => {
                let line = line?.ok_or_else(|| ControlError::Ended(mesh.to_owned()))?;
                return Ok(control::parse_reply(&line)?);
            }
            number = next_signal => {
                let mut line = serde_json::to_vec(&Forward { signal: number })?;
                line.push(b'\n');
                writer.write_all(&line).await?;
            }
        }
    }
}
