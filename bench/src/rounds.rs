//! The measuring: each load through each variant in turn, round after round, the order rotated.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use testkit::netns::NetnsError;
use thiserror::Error;

use crate::load::{Bulk, Idle, Requests};
use crate::measure;
use crate::process::pause;
use crate::table::Sample;
use crate::variants::{Running, Side};

/// One kind of load through the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// One keep-alive connection, 1 KB requests (P4).
    C1,
    /// 64 of them, closed loop (P4b).
    C64,
    /// 64 of them at the same rate for all: a quarter of what the slowest reached (P4b).
    Tail,
    /// A new connection for each request (P5).
    Conn,
    /// One bulk stream (P1).
    Bulk1,
    /// Eight (P2).
    Bulk8,
    /// One bulk stream to a host outside the mesh (P3).
    Pass,
    /// One keep-alive connection beside a bulk stream: is the small delayed by the large?
    Mixed,
}

/// The paced load's share of what the slowest variant reached: below it nothing but latency differs.
const PACE: f64 = 0.25;

/// How much to measure.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub rounds: usize,
    /// Of each sample.
    pub seconds: f64,
    pub measures: Vec<Measure>,
    /// Idle connections opened; 0 leaves that out.
    pub idle: usize,
}

/// Why one sample is missing.
#[derive(Debug, Error)]
pub(crate) enum SampleError {
    /// The load generator failed.
    #[error(transparent)]
    Load(#[from] NetnsError),
    /// It said something else than expected.
    #[error("the load generator's answer: {0}")]
    Answer(String),
}

/// What fresh proxies are like: memory, time to ready, the cost of idle connections. They are of no use for
/// [`loaded`] afterwards: the idle connections leave tunnels behind that one load would use and another not.
pub(crate) fn fresh(variants: &[Running], extent: &Extent) -> Vec<Sample> {
    let mut samples: Vec<_> = variants.iter().flat_map(at_start).collect();
    if extent.idle > 0 {
        samples.extend(idle(variants, extent.idle));
    }
    samples
}

/// Every load through every variant, in turns. What could not be measured goes to standard error and is missing
/// in the table.
pub(crate) fn loaded(variants: &[Running], extent: &Extent) -> Vec<Sample> {
    let mut samples = Vec::new();
    for running in variants {
        // The first connection brings tunnels and certificates up; that is P5's cold case, not these.
        if let Err(error) = measured(running, Measure::C64, 0.3, 0.0) {
            eprintln!("bench: warming up {}: {error}", running.kind.name());
        }
    }
    for round in 0..extent.rounds {
        for &measure in &extent.measures {
            let paced = PACE * slowest(&samples, round);
            for turn in 0..variants.len() {
                let running = &variants[(round + turn) % variants.len()];
                let name = running.kind.name();
                match measured(running, measure, extent.seconds, paced) {
                    Ok(figures) => samples.extend(figures.into_iter().map(|(row, value)| Sample {
                        round,
                        variant: name,
                        row,
                        value,
                    })),
                    Err(error) => {
                        eprintln!("bench: {measure:?} through {name}: {error}{}", running.post_mortem())
                    }
                }
            }
            eprintln!("bench: round {} of {}: {measure:?} done", round + 1, extent.rounds);
        }
    }
    samples
}

/// The fewest requests a second that a proxy reached at 64 connections in this round.
fn slowest(samples: &[Sample], round: usize) -> f64 {
    let rates = samples.iter().filter(|sample| sample.round == round && sample.row == "c64.rate");
    rates.map(|sample| sample.value).fold(f64::INFINITY, f64::min)
}

/// One load through one variant: row keys and figures. Empty when the variant does not do that.
fn measured(
    running: &Running,
    measure: Measure,
    seconds: f64,
    paced: f64,
) -> Result<Vec<(&'static str, f64)>, SampleError> {
    let target = match measure {
        Measure::Pass => match running.outside {
            Some(outside) => outside,
            None => return Ok(Vec::new()),
        },
        Measure::Tail if !paced.is_finite() => return Ok(Vec::new()),
        _ => running.target,
    };
    let words = match measure {
        Measure::C1 | Measure::Mixed => "rr --connections 1".to_owned(),
        Measure::C64 => "rr --connections 64".to_owned(),
        Measure::Tail => format!("rr --connections 64 --rate {paced:.0}"),
        Measure::Conn => "conn --connections 16".to_owned(),
        Measure::Bulk1 | Measure::Pass => "bulk --streams 1".to_owned(),
        Measure::Bulk8 => "bulk --streams 8".to_owned(),
    };
    let pids = running.pids();
    let _beside = match measure {
        // Half a second longer, so that there is never a moment without.
        Measure::Mixed => Some(Beside::start(running, seconds + 0.5)?),
        _ => None,
    };
    let before = measure::cpu(&pids);
    let output =
        running.topology.client.exec(load(&words, target).args(["--seconds", &seconds.to_string()]))?;
    let cpu = measure::cpu(&pids).saturating_sub(before);
    let mut figures = match measure {
        Measure::C1 | Measure::C64 | Measure::Tail | Measure::Conn | Measure::Mixed => {
            requests(measure, &answer(&output)?, cpu)
        }
        Measure::Bulk1 | Measure::Bulk8 | Measure::Pass => bulk(measure, &answer(&output)?, cpu),
    };
    if pids.is_empty() {
        // No proxy: no processor time of one.
        figures.retain(|(row, _)| !row.ends_with(".cpu"));
    }
    Ok(figures)
}

fn requests(measure: Measure, seen: &Requests, cpu: Duration) -> Vec<(&'static str, f64)> {
    let each = cpu.as_secs_f64() * 1e6 / seen.requests.max(1) as f64;
    match measure {
        Measure::C1 => vec![("c1.cpu", each), ("c1.p50", seen.p50_us), ("c1.rate", seen.per_second)],
        Measure::C64 => vec![
            ("c64.cpu", each),
            ("c64.p50", seen.p50_us),
            ("c64.p99", seen.p99_us),
            ("c64.rate", seen.per_second),
        ],
        Measure::Tail => vec![("tail.cpu", each), ("tail.p99", seen.p99_us)],
        Measure::Mixed => vec![("mixed.p50", seen.p50_us), ("mixed.p99", seen.p99_us)],
        _ => vec![("conn.cpu", each), ("conn.p50", seen.p50_us), ("conn.rate", seen.per_second)],
    }
}

fn bulk(measure: Measure, seen: &Bulk, cpu: Duration) -> Vec<(&'static str, f64)> {
    let each = cpu.as_secs_f64() * 1e9 / seen.bytes.max(1) as f64;
    let (cpu, rate) = match measure {
        Measure::Bulk1 => ("bulk1.cpu", "bulk1.rate"),
        Measure::Bulk8 => ("bulk8.cpu", "bulk8.rate"),
        _ => ("pass.cpu", "pass.rate"),
    };
    vec![(cpu, each), (rate, seen.gbit_per_second)]
}

/// What one proxy is like before any load: memory, and how long it took to be ready.
fn at_start(running: &Running) -> Vec<Sample> {
    let pids = running.pids();
    let sides = [&running.client_side, &running.server_side];
    let ready: Vec<_> = sides.iter().filter_map(|side| side.ready).collect();
    if pids.is_empty() || ready.is_empty() {
        return Vec::new();
    }
    let memory = measure::memory(&pids);
    let mean = |kib: u64| kib as f64 / 1024.0 / sides.len() as f64;
    let millis = ready.iter().map(Duration::as_secs_f64).sum::<f64>() * 1e3 / ready.len() as f64;
    [("start.rss", mean(memory.resident)), ("start.anon", mean(memory.anonymous)), ("start.ready", millis)]
        .map(|(row, value)| Sample { round: 0, variant: running.kind.name(), row, value })
        .to_vec()
}

/// Memory of idle connections: opened through one variant after another, all closed, looked at 30 s later.
fn idle(variants: &[Running], connections: usize) -> Vec<Sample> {
    let resident = |side: &Side| measure::memory(&side.pids()).resident as f64;
    let sides = |running: &Running| [resident(&running.client_side), resident(&running.server_side)];
    let mut samples = Vec::new();
    let mut before = Vec::new();
    for running in variants.iter().filter(|running| !running.pids().is_empty()) {
        let empty = sides(running);
        match held(running, connections, || sides(running)) {
            Ok(full) => {
                let each = |side: usize| (full[side] - empty[side]) / connections as f64;
                for (row, value) in [("idle.client", each(0)), ("idle.server", each(1))] {
                    samples.push(Sample { round: 0, variant: running.kind.name(), row, value });
                }
                before.push((running, empty));
            }
            Err(error) => {
                let (name, why) = (running.kind.name(), running.post_mortem());
                eprintln!("bench: idle connections through {name}: {error}{why}");
            }
        }
    }
    if !before.is_empty() {
        pause(Duration::from_secs(30));
    }
    samples.extend(before.into_iter().map(|(running, empty)| {
        let value = sides(running).iter().sum::<f64>() / empty.iter().sum::<f64>();
        Sample { round: 0, variant: running.kind.name(), row: "idle.back", value }
    }));
    samples
}

/// What a workload more costs a node proxy, in memory and to take in; of fresh proxies.
pub(crate) fn crowded(variants: &[Running], workloads: u32) -> Vec<Sample> {
    let mut samples = Vec::new();
    for running in variants {
        let Some(controller) = &running.controller else { continue };
        let pids = running.pids();
        let (memory, cpu) = (measure::memory(&pids), measure::cpu(&pids));
        controller.crowd(workloads);
        settle(&pids);
        let each = 1.0 / f64::from(workloads) / pids.len() as f64;
        let grown = (measure::memory(&pids).resident as f64 - memory.resident as f64) * 1024.0 * each;
        let spent = (measure::cpu(&pids) - cpu).as_secs_f64() * 1e6 * each;
        for (row, value) in [("workloads.memory", grown), ("workloads.cpu", spent)] {
            samples.push(Sample { round: 0, variant: running.kind.name(), row, value });
        }
    }
    samples
}

/// Waits until the proxies have been still for a second, after work, for a minute at most.
fn settle(pids: &[Pid]) {
    let begun = measure::cpu(pids);
    let (mut last, mut still) = (begun, 0);
    for _ in 0..300 {
        pause(Duration::from_millis(200));
        let now = measure::cpu(pids);
        still = if now - last < Duration::from_millis(4) { still + 1 } else { 0 };
        last = now;
        // The controller needs a while before there is anything to take in.
        if still >= 5 && now - begun > Duration::from_millis(20) {
            return;
        }
    }
}

/// Opens the connections, looks, closes them.
fn held<T>(running: &Running, connections: usize, look: impl FnOnce() -> T) -> Result<T, SampleError> {
    let mut command = load(&format!("idle --connections {connections}"), running.target);
    let mut child = running.topology.client.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        // An empty line, when the generator gave up, fails as an answer below.
        let _ = BufReader::new(output).read_line(&mut line);
    }
    let opened = answer::<Idle>(&line);
    let seen = look();
    drop(child.stdin.take());
    // Its exit status says nothing that the line has not.
    let _ = child.wait();
    opened.map(|_| seen)
}

/// A bulk stream that runs while something else is measured; dropping it ends it.
struct Beside(Child);

impl Beside {
    fn start(running: &Running, seconds: f64) -> Result<Self, SampleError> {
        let mut command = load(&format!("bulk --streams 1 --seconds {seconds}"), running.target);
        Ok(Self(running.topology.client.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `bench load WORDS --connect TARGET`, to be run inside the client pod.
pub(crate) fn load(words: &str, target: SocketAddr) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("load").args(words.split_whitespace()).args(["--connect", &target.to_string()]);
    command
}

/// What a load generator printed.
pub(crate) fn answer<T: DeserializeOwned>(line: &str) -> Result<T, SampleError> {
    serde_json::from_str(line.trim()).map_err(|error| SampleError::Answer(format!("{error}: {line:?}")))
}
