//! `bench agents`: a controller with as many agents as a large cluster has nodes. What telling all of them costs, how soon a
//! change is at every one, and what it costs when all of them come back to find that nothing has changed (targets C2, C3).
//!
//! The agents are simulated: each has a connection, a certificate to verify and a token of its own and speaks the protocol as
//! ours do, but decodes nothing and carries nothing. All of them are one thread.

mod board;
mod kubernetes;
mod simulated;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use nix::unistd::Pid;
use testkit::netns::Netns;

use self::board::{Board, Bytes};
use self::kubernetes::ApiServer;
use self::simulated::{Agents, Credentials, node};
use crate::isolate;
use crate::load::raise_descriptor_limit;
use crate::measure;
use crate::process::Process;
use crate::scale::world::World;
use crate::scale::{failed, megabytes, memory, row, settle, spread};
use crate::variants::{VariantError, beside};

/// Where the controller is.
const CTRL: &str = "127.0.0.1:15012";
/// How long the controller may take to read all there is.
const LOADING: Duration = Duration::from_secs(300);

/// How much there is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// A twentieth of everything: does it work? Its figures say little.
    #[arg(long)]
    quick: bool,
    /// Agents.
    #[arg(long, default_value_t = 1000)]
    agents: u32,
    /// Pods that they are told of.
    #[arg(long, default_value_t = 1000)]
    pods: u32,
    /// Pods of a service.
    #[arg(long, default_value_t = 5)]
    per_service: u32,
    /// Changes whose way from the file to every agent is timed.
    #[arg(long, default_value_t = 100)]
    changes: u32,
    /// The controller has the objects from a real API server, which is started for it (`e2e/cluster`, root only).
    #[arg(long)]
    kubernetes: bool,
    /// Our controller; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    ctrl: Option<PathBuf>,
}

/// Where the controller has its objects from: files, or whatever else can be told the same.
trait Source {
    /// What a change is, for people.
    const CHANGE: &str;
    /// Tells the controller where that is.
    fn configure(&self, folder: &Path, controller: &mut Command);
    /// What agents prove who they are with; the controller is not there yet.
    fn credentials(&self, folder: &Path, agents: u32) -> Result<Credentials, VariantError>;
    /// The controller is ready.
    fn ready(&self) -> Result<(), VariantError>;
    /// Changes whether a pod is ready.
    fn set_ready(&self, pod: u32, ready: bool) -> Result<(), VariantError>;
}

impl Source for World {
    const CHANGE: &str = "one changed file";

    fn configure(&self, folder: &Path, controller: &mut Command) {
        controller.env("OBJECTS", self.objects()).env("TOKENS", folder.join("tokens"));
    }

    fn credentials(&self, folder: &Path, agents: u32) -> Result<Credentials, VariantError> {
        let tokens = folder.join("tokens");
        fs::create_dir_all(&tokens).map_err(failed("making a folder"))?;
        let write = |number| {
            let token = format!("token-of-this-bench-alone-{number}");
            fs::write(tokens.join(node(number)), &token).map(|()| token)
        };
        let tokens = (0..agents).map(write).collect::<Result<_, _>>().map_err(failed("writing tokens"))?;
        Ok(Credentials { tokens, roots: folder.join("state/root-cert.pem") })
    }

    fn ready(&self) -> Result<(), VariantError> {
        Ok(())
    }

    fn set_ready(&self, pod: u32, ready: bool) -> Result<(), VariantError> {
        World::set_ready(self, pod, ready)
    }
}

/// Runs it, in namespaces of its own.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    if options.kubernetes && !kubernetes::is_inside() {
        return kubernetes::around();
    }
    isolate::enter(false)?;
    raise_descriptor_limit();
    let mut options = options.clone();
    if options.quick {
        options.agents = (options.agents / 20).max(1);
        options.pods = (options.pods / 20).max(1);
        options.changes = (options.changes / 20).max(1);
    }
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let folder = tempfile::Builder::new().prefix("lagents-").tempdir()?;
    isolate::end_on_signals(folder.path())?;
    let ctrl = options.ctrl.clone().or_else(|| beside("ctrl"));
    let ctrl =
        ctrl.ok_or_else(|| io::Error::other("ctrl is not beside this program; build it, or give --ctrl"))?;
    if options.kubernetes {
        let namespace = Netns::here()?;
        let server = ApiServer::fill(folder.path(), &namespace, options.pods, options.per_service);
        let server = server.map_err(io::Error::other)?;
        measure_all(&options, folder.path(), &ctrl, &namespace, &server).map_err(io::Error::other)?;
    } else {
        let namespace = Netns::new(&format!("lagents-{}", std::process::id())).map_err(io::Error::other)?;
        let world =
            World::write(folder.path(), options.pods, options.per_service).map_err(io::Error::other)?;
        measure_all(&options, folder.path(), &ctrl, &namespace, &world).map_err(io::Error::other)?;
    }
    println!("\nload average before: {}", busy.split_whitespace().next().unwrap_or("unknown"));
    Ok(())
}

fn measure_all<S: Source>(
    options: &Options,
    folder: &Path,
    ctrl: &Path,
    namespace: &Netns,
    source: &S,
) -> Result<(), VariantError> {
    println!("| | |\n|---|---|");
    let credentials = source.credentials(folder, options.agents)?;
    let mut command = Command::new(ctrl);
    command.env_clear().env("STATE", folder.join("state"));
    command.env("LISTEN", CTRL).env("POD_CIDRS", "11.0.0.0/8");
    source.configure(folder, &mut command);
    let controller = Process::start("ctrl", &mut command, namespace, folder)?;
    let mut controller = controller.patient(LOADING);
    controller.wait_ready_http(namespace, 15014, "/healthz/ready")?;
    source.ready()?;
    settle(controller.pid());
    let pid = controller.pid();
    row(&format!("ctrl with {} pods: memory", options.pods), megabytes(memory(pid)));
    let board = Board::default();
    let agents = namespace.run(|| Agents::start(&credentials, &board))?;
    let agents = agents.map_err(failed("starting the agents"))?;
    let full = told(options, pid, &board)?;
    changes(options, pid, source, &board)?;
    came_back(options, pid, &agents, &board, full)?;
    row("ctrl: memory afterwards", megabytes(memory(pid)));
    Ok(())
}

/// All of them connect and are told everything; how many bytes that is.
fn told(options: &Options, ctrl: Pid, board: &Board) -> Result<Bytes, VariantError> {
    let before = measure::cpu(&[ctrl]);
    board.wait_told(options.agents).map_err(failed("telling all agents everything"))?;
    settle(ctrl);
    let (bytes, cpu) = (board.take_bytes(), measure::cpu(&[ctrl]).saturating_sub(before));
    row(&format!("{} agents told everything: received by each", options.agents), bytes.each(options.agents));
    row(
        "ctrl: CPU for each of them",
        format!("{:.2} ms", cpu.as_secs_f64() * 1e3 / f64::from(options.agents)),
    );
    row("ctrl: memory with them", megabytes(memory(ctrl)));
    Ok(bytes)
}

fn changes<S: Source>(options: &Options, ctrl: Pid, source: &S, board: &Board) -> Result<(), VariantError> {
    let (before, mut each, mut last) = (measure::cpu(&[ctrl]), Vec::new(), Vec::new());
    for number in 0..options.changes {
        // Each is back as it was after the next round, so that none of them is said for nothing.
        let (pod, ready) = (number / 2 * 7 % options.pods, number % 2 == 1);
        let begun = board.expect(options.agents);
        source.set_ready(pod, ready)?;
        let heard = board.wait_heard(options.agents).map_err(failed("waiting for a change"))?;
        let times = heard.iter().map(|heard| heard.saturating_duration_since(begun));
        last.extend(times.clone().max());
        each.extend(times);
    }
    let what = format!("{} until an agent has it: least, middle, 99 of 100, greatest", S::CHANGE);
    row(&what, spread(each));
    row("until all of them have it", spread(last));
    let cpu = measure::cpu(&[ctrl]).saturating_sub(before);
    let told = f64::from(options.changes) * f64::from(options.agents);
    row("ctrl: CPU for a change and an agent", format!("{:.1} µs", cpu.as_secs_f64() * 1e6 / told));
    Ok(())
}

/// All of them lose their connections and come back; nothing has changed.
fn came_back(
    options: &Options,
    ctrl: Pid,
    agents: &Agents,
    board: &Board,
    full: Bytes,
) -> Result<(), VariantError> {
    board.take_bytes();
    let before = measure::cpu(&[ctrl]);
    board.forget_told();
    agents.reconnect();
    board.wait_told(options.agents).map_err(failed("waiting for agents to come back"))?;
    settle(ctrl);
    let (bytes, cpu) = (board.take_bytes(), measure::cpu(&[ctrl]).saturating_sub(before));
    row("all came back, nothing had changed: received and sent by each", bytes.each(options.agents));
    row("that is of what each received at first", format!("{:.2} %", bytes.sum() / full.sum() * 100.0));
    row(
        "ctrl: CPU for each of them",
        format!("{:.2} ms", cpu.as_secs_f64() * 1e3 / f64::from(options.agents)),
    );
    Ok(())
}
