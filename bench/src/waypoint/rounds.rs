//! Each protocol through each variant in turn, round after round: as fast as it goes, then all at the same pace.

use super::Running;
use super::ground::Load;
use crate::http::Protocol;
use crate::measure;
use crate::rounds::SampleError;
use crate::table::Sample;

/// How much to measure.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    pub rounds: usize,
    /// Of each sample.
    pub seconds: f64,
    pub protocols: Vec<Protocol>,
}

/// The paced load's share of what the slowest variant reached in the same round.
const PACE: f64 = 0.7;

/// The rows of a protocol: processor time and rate of the closed loop, p99 and processor time of the paced one.
fn rows(protocol: Protocol) -> [&'static str; 4] {
    match protocol {
        Protocol::H1 => ["h1.cpu", "h1.rate", "h1.tail", "h1.paced"],
        Protocol::H2 => ["h2.cpu", "h2.rate", "h2.tail", "h2.paced"],
        Protocol::Grpc => ["grpc.cpu", "grpc.rate", "grpc.tail", "grpc.paced"],
    }
}

/// All of it. What could not be measured goes to standard error and is missing in the table.
pub(super) fn loaded(variants: &[Running], extent: &Extent) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    for running in variants {
        for &protocol in &extent.protocols {
            // The first connections bring tunnels and certificates up.
            if let Err(error) = measured(running, protocol, 0.3, None) {
                eprintln!("bench: warming up {}: {error}", running.kind.name());
            }
        }
    }
    for round in 0..extent.rounds {
        for &protocol in &extent.protocols {
            let mut slowest = f64::INFINITY;
            for paced in [false, true] {
                if paced && !slowest.is_finite() {
                    continue;
                }
                for turn in 0..variants.len() {
                    let running = &variants[(round + turn) % variants.len()];
                    let rate = paced.then_some(PACE * slowest);
                    match measured(running, protocol, extent.seconds, rate) {
                        Ok(figures) => samples.extend(figures.into_iter().map(|(row, value)| {
                            if row.ends_with(".rate") {
                                slowest = slowest.min(value);
                            }
                            Sample { round, variant: running.kind.name(), row, value }
                        })),
                        Err(error) => {
                            let name = running.kind.name();
                            eprintln!("bench: {} through {name}: {error}", protocol.name());
                        }
                    }
                }
            }
        }
        eprintln!("bench: round {} of {} done", round + 1, extent.rounds);
    }
    samples
}

fn measured(
    running: &Running,
    protocol: Protocol,
    seconds: f64,
    rate: Option<f64>,
) -> Result<Vec<(&'static str, f64)>, SampleError> {
    let pids = [running.process().pid()];
    let before = measure::cpu(&pids);
    let seen = running.ground.measure(&Load { protocol, path: "/", seconds, rate })?;
    let cpu = measure::cpu(&pids).saturating_sub(before);
    let each = cpu.as_secs_f64() * 1e6 / seen.requests.max(1) as f64;
    let [of_cpu, of_rate, tail, paced] = rows(protocol);
    Ok(match rate {
        None => vec![(of_cpu, each), (of_rate, seen.per_second)],
        Some(_) => vec![(tail, seen.p99_us), (paced, each)],
    })
}
