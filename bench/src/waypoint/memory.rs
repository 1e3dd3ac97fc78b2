//! What routes and services cost a waypoint in memory: of fresh processes, none of which has seen but a few requests.

use super::{Kind, Running, Setting, start};
use crate::measure;
use crate::process::pause;
use crate::table::lay_out;
use crate::variants::VariantError;
use std::time::Duration;

/// Routes of one host.
const PER_HOST: usize = 100;
/// Our targets, by number of routes (P10), in megabytes.
const TARGETS: [(usize, f64); 2] = [(5_000, 25.0), (40_000, 150.0)];
/// Our target for a service, in bytes.
const A_SERVICE: f64 = 300.0;

/// The table: resident memory with so many routes, of each variant, and what a service more is.
pub(super) fn table(setting: &Setting, routes: &[usize], services: usize) -> String {
    let mut variants = vec![Kind::Lateen, Kind::Envoy];
    variants.extend(setting.agentgateway.is_some().then_some(Kind::Agentgateway));
    let mut lines = vec![vec![String::new(), "resident memory".to_owned(), "target".to_owned()]];
    lines[0].extend(variants.iter().map(|kind| kind.name().to_owned()));
    let mut empty = None;
    for &count in [0].iter().chain(routes) {
        let hosts: Vec<_> = (0..count.div_ceil(PER_HOST)).map(|n| (format!("host-{n}"), PER_HOST)).collect();
        let target = TARGETS.iter().find(|(routes, _)| *routes == count);
        let mut line = vec!["P10".to_owned(), format!("{count} routes, {PER_HOST} a host")];
        line.push(target.map(|(_, most)| format!("≤ {most} MB")).unwrap_or_default());
        for &kind in &variants {
            let taken = resident(kind, setting, &format!("{}-{count}", kind.name()), &hosts);
            if kind == Kind::Lateen && count == 0 {
                empty = taken.as_ref().ok().copied();
            }
            line.push(taken.map_or_else(|error| error.to_string(), |bytes| format!("{:.1} MB", bytes / 1e6)));
        }
        lines.push(line);
        eprintln!("bench: memory with {count} routes done");
    }
    if let Some(empty) = empty.filter(|_| services > 0) {
        let hosts: Vec<_> = (0..services).map(|number| (format!("host-{number}"), 0)).collect();
        let taken = resident(Kind::Lateen, setting, "lateen-services", &hosts);
        let figure = taken.map_or_else(
            |error| error.to_string(),
            |bytes| format!("{:.0} B each", (bytes - empty) / services as f64),
        );
        let what = format!("{services} services more, without routes");
        let mut line = vec!["P10".to_owned(), what, format!("≤ {A_SERVICE} B"), figure];
        line.resize(lines[0].len(), "–".to_owned());
        lines.push(line);
    }
    lay_out(&lines)
}

/// Bytes resident once it is still.
fn resident(
    kind: Kind,
    setting: &Setting,
    name: &str,
    hosts: &[(String, usize)],
) -> Result<f64, VariantError> {
    let running = start(kind, setting, name, hosts)?;
    settle(&running);
    let memory = measure::memory(&[running.process().pid()]);
    Ok(memory.resident as f64 * 1024.0)
}

/// Waits until it has been still for two seconds, half a minute at most: ours returns what it does not need after that.
fn settle(running: &Running) {
    let pids = [running.process().pid()];
    let (mut last, mut still) = (measure::cpu(&pids), 0);
    for _ in 0..150 {
        pause(Duration::from_millis(200));
        let now = measure::cpu(&pids);
        still = if now - last < Duration::from_millis(4) { still + 1 } else { 0 };
        last = now;
        if still >= 12 {
            return;
        }
    }
}
