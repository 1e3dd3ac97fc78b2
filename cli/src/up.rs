//! `lateen up`: checks the machine, starts the keeper of a mesh, prints what becomes ready, and stays in front of it
//! or leaves it behind.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::UpArgs;
use crate::control::{self, Event, Reply, Request};
use crate::local::keeper::DETACH;
use crate::local::{components, preflight};
use crate::state::{DEFAULT_MESH, MeshDir, MeshFile, StateError};
use crate::{Outcome, complain, say};

/// Variables of the caller that containers get; everything else of the caller's environment stays outside.
const PASSED: [&str; 7] = ["HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ"];

/// Runs `up`.
pub(crate) fn run(mesh: Option<&str>, args: &UpArgs) -> Outcome {
    let mesh = MeshDir::named(mesh.unwrap_or(DEFAULT_MESH))?;
    if mesh.is_running() {
        return Err(StateError::AlreadyRunning(mesh.name().to_owned()).into());
    }
    let file = match prepare(&mesh, args) {
        Ok(file) => file,
        Err(missing @ preflight::Missing::Source { .. }) => return Err(missing.into()),
        Err(missing) => {
            complain(&format!("lateen: {missing}"));
            return Ok(ExitCode::from(preflight::UNSUITABLE));
        }
    };
    // The keeper starts before there is a second thread, which is how it likes to be started.
    let mut keeper = start_keeper(&mesh, &file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(follow(&mesh, &mut keeper, args))?;
    finish(&mesh, keeper, end)
}

/// How following a mesh ended.
enum End {
    /// It goes on without us.
    Detached,
    /// We want it gone.
    TakeDown(ExitCode),
    /// It said why it cannot start.
    Failed(String, u8),
    /// It ended without a word.
    Vanished,
}

fn prepare(mesh: &MeshDir, args: &UpArgs) -> Result<MeshFile, preflight::Missing> {
    let source = |path: &Path, error| preflight::Missing::Source { path: path.to_owned(), error };
    let mut sources = Vec::new();
    for path in &args.files {
        let absolute = path.canonicalize().map_err(|error| source(path, error))?;
        std::fs::metadata(&absolute).map_err(|error| source(path, error))?;
        sources.push(absolute);
    }
    let rootless = !preflight::is_privileged();
    let path = preflight::search_path(&std::env::var("PATH").unwrap_or_default());
    let executable = std::env::current_exe().map_err(|error| source(Path::new("/proc/self/exe"), error))?;
    let binaries = executable.parent().map(Path::to_owned).unwrap_or_else(|| PathBuf::from("/"));
    preflight::check_programs(&path, &binaries, components::needed())?;
    if rootless {
        preflight::check_user_namespaces()?;
    }
    let mut environment = vec![("PATH".to_owned(), path)];
    environment
        .extend(PASSED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))));
    Ok(MeshFile {
        name: mesh.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: args.nodes,
        sources,
        rootless,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        binaries,
        environment,
        settings: args.settings.clone(),
        keeper: None,
    })
}

fn start_keeper(mesh: &MeshDir, file: &MeshFile) -> Result<Child, Box<dyn std::error::Error>> {
    let mut keeper = Command::new("/proc/self/exe")
        .arg("__keeper")
        .arg(mesh.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut orders = serde_json::to_vec(file)?;
    orders.push(b'\n');
    keeper.stdin.as_mut().ok_or("the keeper has no stdin")?.write_all(&orders)?;
    Ok(keeper)
}

/// Prints events until the mesh is to be left or taken down.
async fn follow(
    mesh: &MeshDir,
    keeper: &mut Child,
    args: &UpArgs,
) -> Result<End, Box<dyn std::error::Error>> {
    let stdout = keeper.stdout.take().ok_or("the keeper has no stdout")?;
    let stdout = tokio::process::ChildStdout::from_std(stdout)?;
    let mut events = BufReader::new(stdout).lines();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let deadline = tokio::time::sleep(Duration::from_secs(args.timeout));
    tokio::pin!(deadline);
    loop {
        let line = tokio::select! {
            line = events.next_line() => line?,
            _ = interrupt.recv() => return Ok(End::TakeDown(ExitCode::from(130))),
            _ = terminate.recv() => return Ok(End::TakeDown(ExitCode::from(143))),
            _ = hangup.recv() => return Ok(End::TakeDown(ExitCode::from(129))),
            () = &mut deadline, if args.detach => {
                return Ok(End::Failed(late(mesh, args.timeout), 1));
            }
        };
        let Some(line) = line else { return Ok(End::Vanished) };
        match serde_json::from_str(&line)? {
            Event::Ready { what, detail } => {
                say(&format!("{what:<32} ready{}{detail}", if detail.is_empty() { "" } else { "   " }))
            }
            Event::Note { text } => complain(&text),
            Event::Stuck { text } if args.detach => return Ok(End::Failed(text, 1)),
            Event::Stuck { text } => complain(&text),
            Event::Failed { reason, code } => return Ok(End::Failed(reason, code)),
            Event::Up { summary } if args.detach => {
                say(&summary);
                return Ok(End::Detached);
            }
            Event::Up { summary } => {
                let hint = if io::stdout().is_terminal() { "; Ctrl-C takes it down" } else { "" };
                say(&format!("{summary}{hint}"));
            }
        }
    }
}

/// What is missing when time is up.
fn late(mesh: &MeshDir, seconds: u64) -> String {
    let waiting = match control::ask(mesh, &Request::Status) {
        Ok(Reply::Status(status)) => status.waiting.join("\n  "),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    };
    format!("not ready after {seconds} s (more with --timeout); waiting for:\n  {waiting}")
}

/// Lets the keeper go, or waits until it has taken everything down.
fn finish(mesh: &MeshDir, mut keeper: Child, end: End) -> Outcome {
    let stdin = keeper.stdin.take();
    if let End::Detached = end {
        stdin.ok_or("the keeper has no stdin")?.write_all(&[DETACH])?;
        return Ok(ExitCode::SUCCESS);
    }
    // The end of this stream is what tells the keeper to take everything down.
    drop(stdin);
    let status = keeper.wait()?;
    match end {
        End::Detached => Ok(ExitCode::SUCCESS),
        End::TakeDown(code) => Ok(code),
        End::Failed(reason, code) => {
            complain(&format!("lateen: {reason}"));
            Ok(ExitCode::from(code))
        }
        // `lateen down` from elsewhere ends it properly.
        End::Vanished if status.success() => Ok(ExitCode::SUCCESS),
        End::Vanished => Err(format!("mesh {:?} ended unexpectedly ({status})", mesh.name()).into()),
    }
}
