//! `bench attack`: each attack on each variant, with a bystander who should not notice. What the attacker costs by
//! being on the same machine shows in a control: the same attacker at the same pace, on a sink in the proxy's place.

mod credentials;
mod dns;
mod kinds;
mod raw;
mod report;
pub(crate) mod sink;
mod sockets;
pub(crate) mod strike;
mod trial;
mod tunnel;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::kinds::Attack;
use self::report::{Trial, Verdict, render};
use crate::isolate;
use crate::load::raise_descriptor_limit;
use crate::variants::{Kind, Setting};

/// What to attack, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// One second each, and only ours: does it survive, within its memory, and are its limits hit? Times do not count.
    #[arg(long)]
    quick: bool,
    /// Rounds of quiet, control and attack for each attack on each variant, at least.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Rounds at most, where these do not make clear on which side of what it may be a bystander's p99 is.
    #[arg(long, default_value_t = 15)]
    most: usize,
    /// Seconds of each stretch.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only these attacks.
    #[arg(long, value_enum, value_delimiter = ',')]
    attacks: Vec<Attack>,
    /// Only these variants: those of the tunnels that others speak too, unless said.
    #[arg(long, value_enum, value_delimiter = ',')]
    variants: Vec<Kind>,
    /// Threads of each proxy, all alike; all cores when not given.
    #[arg(long)]
    threads: Option<usize>,
    /// A ztunnel.
    #[arg(long, value_name = "PATH")]
    ztunnel: Option<PathBuf>,
    /// An Envoy; else the variable ENVOY, else `envoy` on the PATH.
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// Our node agent; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    lateen: Option<PathBuf>,
    /// Keep the logs and configuration of all processes in this folder.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Everything that was seen, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Extent {
    quick: bool,
    rounds: usize,
    most: usize,
    seconds: Duration,
}

/// Runs it, in namespaces of its own; an error if anything of ours did not hold.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    isolate::enter(false)?;
    raise_descriptor_limit();
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let folder = tempfile::Builder::new().prefix("lattack-").tempdir()?;
    isolate::end_on_signals(folder.path())?;
    let kept = options.logs.clone().unwrap_or_else(|| folder.path().to_owned());
    fs::create_dir_all(&kept)?;
    let setting = setting(options, kept)?;
    let extent = extent(options);
    let (mut trials, mut absent) = (Vec::new(), Vec::new());
    for attack in chosen(&options.attacks, Attack::value_variants()) {
        for &kind in &variants(options) {
            if kind != Kind::Lateen && !attack.concerns_peers() {
                continue;
            }
            match trial::run(kind, attack, &extent, &setting) {
                Ok(trial) => trials.push(trial),
                Err(error) => absent.push((kind, attack, error.to_string())),
            }
            eprintln!("bench: {} on {} done", attack.name(), kind.name());
        }
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string(&trials)?)?;
    }
    let timed = !extent.quick;
    print!("{}", render(&trials, timed));
    for trial in trials.iter().filter(|trial| !trial.ended.is_empty()) {
        println!("\n{} after {}{}", trial.variant, trial.attack, trial.ended);
    }
    for (kind, attack, reason) in &absent {
        println!("\n{} on {}: not measured: {reason}", attack.name(), kind.name());
    }
    println!("\n{}", conditions(&extent, &setting, &busy));
    let missed = |trial: &&Trial| {
        trial.variant == Kind::Lateen.name() && matches!(trial.verdict(timed), Verdict::Missed(_))
    };
    let missed = trials.iter().filter(missed).count()
        + absent.iter().filter(|(kind, ..)| *kind == Kind::Lateen).count();
    if missed == 0 { Ok(()) } else { Err(io::Error::other(format!("{missed} attacks did not hold"))) }
}

fn chosen<T: Copy>(asked: &[T], all: &[T]) -> Vec<T> {
    if asked.is_empty() { all.to_vec() } else { asked.to_vec() }
}

fn variants(options: &Options) -> Vec<Kind> {
    if options.quick {
        return vec![Kind::Lateen];
    }
    chosen(&options.variants, &[Kind::Lateen, Kind::Ztunnel, Kind::EnvoyHbone])
}

fn extent(options: &Options) -> Extent {
    let (rounds, most, seconds) = match options.quick {
        true => (1, 1, 1.0),
        false => (options.rounds.max(1), options.most.max(options.rounds), options.seconds),
    };
    Extent {
        quick: options.quick,
        rounds,
        most,
        seconds: Duration::from_secs_f64(seconds.clamp(0.1, 3600.0)),
    }
}

fn setting(options: &Options, folder: PathBuf) -> io::Result<Setting> {
    let Options { threads, envoy, ztunnel, lateen, .. } = options;
    let usual = Setting::of(folder, None, *threads, envoy.clone(), ztunnel.clone(), lateen.clone())?;
    Ok(Setting { attacked: true, ..usual })
}

/// Under what conditions the table came about, and what its figures are.
fn conditions(extent: &Extent, setting: &Setting, busy: &str) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = available_parallelism().map_or(0, usize::from);
    format!(
        "{} to {} rounds of {} s each in quiet, beside the control and under attack; ratios within a round, least / middle \
         / greatest. p99: of the bystander's 500 requests a second of 1 KB over 16 connections that stay open, from when \
         one was due; fresh: of 20 new connections a second. Memory and processors (1 is one) of the proxy aimed at. \
         The attacker runs when nobody else wants a processor. {} threads a proxy, {cores} cores, Linux {}; load average \
         before: {}",
        extent.rounds,
        extent.most,
        extent.seconds.as_secs_f64(),
        setting.threads,
        kernel.trim(),
        busy.split_whitespace().next().unwrap_or("unknown"),
    )
}
