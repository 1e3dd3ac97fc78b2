//! `bench scale`: what large meshes cost, over the wire. A controller with 100,000 pods from manifests and an agent
//! that is told all of them; and agents that ask for 500 workloads of a million.
//!
//! The million is in the bench's own controller: ours keeps every object as it was written beside what it publishes,
//! which is not what is measured there.

mod demand;
mod told;
pub(crate) mod world;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nix::unistd::Pid;

use crate::isolate;
use crate::load::raise_descriptor_limit;
use crate::measure::{self, Memory};
use crate::process::pause;
use crate::variants::VariantError;
use crate::variants::beside;

/// How much there is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// A hundredth of everything: does it work? Its figures say little.
    #[arg(long)]
    quick: bool,
    /// Pods that the agent is told all of; 0 leaves that out.
    #[arg(long, default_value_t = 100_000)]
    workloads: u32,
    /// Changes whose way from the file to the agent is timed.
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// Workloads of which the agent asks for some.
    #[arg(long, default_value_t = 1_000_000)]
    crowd: u32,
    /// How many it asks for.
    #[arg(long, default_value_t = 500)]
    active: u32,
    /// Our node agent; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    lateen: Option<PathBuf>,
    /// Our controller; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    ctrl: Option<PathBuf>,
}

/// Runs both, in namespaces of its own.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    isolate::enter(false)?;
    raise_descriptor_limit();
    let mut options = options.clone();
    if options.quick {
        options.workloads /= 100;
        options.changes /= 20;
        options.crowd /= 100;
        options.active /= 10;
    }
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let folder = tempfile::Builder::new().prefix("lscale-").tempdir()?;
    isolate::end_on_signals(folder.path())?;
    let given = |path: &Option<PathBuf>, name: &str| {
        let found = path.clone().or_else(|| beside(name));
        found.ok_or_else(|| {
            io::Error::other(format!("{name} is not beside this program; build it, or give --{name}"))
        })
    };
    let (agent, ctrl) = (given(&options.lateen, "node-agent")?, given(&options.ctrl, "ctrl")?);
    println!("| | |\n|---|---|");
    if options.workloads > 0 {
        told::run(&options, folder.path(), &agent, &ctrl).map_err(io::Error::other)?;
    }
    demand::run(&options, folder.path(), &agent).map_err(io::Error::other)?;
    println!("\nload average before: {}", busy.split_whitespace().next().unwrap_or("unknown"));
    Ok(())
}

/// A line of the table.
pub(crate) fn row(what: &str, figure: impl std::fmt::Display) {
    println!("| {what} | {figure} |");
}

/// Least, middle, 99th of a hundred and greatest, in milliseconds.
pub(crate) fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| {
        let time = times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    format!("{:.2} / {:.2} / {:.2} / {:.2} ms", at(0), at(50), at(99), at(100))
}

pub(crate) fn megabytes(memory: Memory) -> String {
    let mb = |kib: u64| kib as f64 * 1024.0 / 1e6;
    format!("{:.1} MB (anonymous {:.1})", mb(memory.resident), mb(memory.anonymous))
}

pub(crate) fn memory(pid: Pid) -> Memory {
    measure::memory(&[pid])
}

/// Waits until a process has been still for a second, for two minutes at most.
pub(crate) fn settle(pid: Pid) {
    let (mut last, mut still) = (measure::cpu(&[pid]), 0);
    for _ in 0..600 {
        pause(Duration::from_millis(200));
        let now = measure::cpu(&[pid]);
        still = if now - last < Duration::from_millis(4) { still + 1 } else { 0 };
        last = now;
        if still >= 5 {
            return;
        }
    }
}

/// What cannot be written or read.
pub(crate) fn failed(doing: &str) -> impl FnOnce(io::Error) -> VariantError + '_ {
    move |source| VariantError::Io { doing: doing.to_owned(), source }
}
