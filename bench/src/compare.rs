//! `bench table`: starts the variants, runs the rounds, prints the table and what it does not say.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::isolate;
use crate::load::raise_descriptor_limit;
use crate::rounds::{self, Extent, Measure};
use crate::table::{Figures, Sample, render};
use crate::variants::{self, Kind, Running, Setting, beside};

/// What to compare, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// One round of one second each: does everything work? Its figures say little.
    #[arg(long)]
    quick: bool,
    /// Rounds; in each, every variant runs every load once.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of each sample.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only these loads.
    #[arg(long, value_enum, value_delimiter = ',')]
    measures: Vec<Measure>,
    /// Only these variants.
    #[arg(long, value_enum, value_delimiter = ',')]
    variants: Vec<Kind>,
    /// Threads of each proxy, all alike; all cores when not given.
    #[arg(long)]
    threads: Option<usize>,
    /// TCP congestion control, the same for all; cubic, Linux's own default, where this machine allows it.
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,
    /// Idle connections for the memory of one; 0 leaves that out.
    #[arg(long)]
    idle: Option<usize>,
    /// Workloads more, for the memory of one; 0 leaves that out.
    #[arg(long, default_value_t = 100_000)]
    workloads: u32,
    /// A ztunnel.
    #[arg(long, value_name = "PATH")]
    ztunnel: Option<PathBuf>,
    /// An Envoy; else the variable ENVOY, else `envoy` on the PATH.
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// The example `tunnel_end` of mesh/hbone; else the one beside this program, under examples/.
    #[arg(long, value_name = "PATH")]
    bare: Option<PathBuf>,
    /// Our node agent; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    lateen: Option<PathBuf>,
    /// Round-robin real-time scheduling for all, which keeps a machine's other work out of the figures.
    #[arg(long)]
    real_time: bool,
    /// Keep the logs and configuration of all processes in this folder.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Every sample, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the comparison, in namespaces of its own.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    isolate::enter(options.real_time)?;
    raise_descriptor_limit();
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let folder = tempfile::Builder::new().prefix("lbench-").tempdir()?;
    isolate::end_on_signals(folder.path())?;
    let kept = options.logs.clone().unwrap_or_else(|| folder.path().to_owned());
    fs::create_dir_all(&kept)?;
    let setting = setting(options, kept)?;
    let (kinds, extent) = (chosen(&options.variants), extent(options));
    let (running, _) = start(&kinds, &setting);
    let mut samples = rounds::fresh(&running, &extent);
    drop(running);
    if options.workloads > 0 {
        let (running, _) = start(&kinds, &setting);
        samples.extend(rounds::crowded(&running, options.workloads));
    }
    let (running, absent) = start(&kinds, &setting);
    samples.extend(rounds::loaded(&running, &extent));
    if let Some(path) = &options.json {
        fs::write(path, as_json(&samples))?;
    }
    let names: Vec<_> = running.iter().map(|running| running.kind.name()).collect();
    let base = if names.contains(&"ztunnel") { "ztunnel" } else { "plain" };
    print!("{}", render(&Figures::new(&samples), &names, base));
    for (name, reason) in absent {
        println!("\n{name}: not measured: {reason}");
    }
    println!("\n{}", conditions(options, &setting, &busy));
    Ok(())
}

fn setting(options: &Options, folder: PathBuf) -> io::Result<Setting> {
    let Options { threads, envoy, ztunnel, lateen, .. } = options;
    let asked = options.congestion_control.clone();
    let usual = Setting::of(folder, asked, *threads, envoy.clone(), ztunnel.clone(), lateen.clone())?;
    Ok(Setting { bare: options.bare.clone().or_else(|| beside("examples/tunnel_end")), ..usual })
}

fn extent(options: &Options) -> Extent {
    let (rounds, seconds, idle) =
        if options.quick { (1, 1.0, 1_000) } else { (options.pairs, options.seconds, 9_000) };
    let measures = if options.measures.is_empty() {
        Measure::value_variants().to_vec()
    } else {
        options.measures.clone()
    };
    Extent { rounds, seconds, measures, idle: options.idle.unwrap_or(idle) }
}

fn chosen(asked: &[Kind]) -> Vec<Kind> {
    if asked.is_empty() { Kind::value_variants().to_vec() } else { asked.to_vec() }
}

/// Starts what can be started; the others with the reason.
fn start(kinds: &[Kind], setting: &Setting) -> (Vec<Running>, Vec<(&'static str, String)>) {
    let (mut running, mut absent) = (Vec::new(), Vec::new());
    for &kind in kinds {
        match variants::start(kind, setting) {
            Ok(up) => running.push(up),
            Err(error) => absent.push((kind.name(), error.to_string())),
        }
    }
    (running, absent)
}

fn as_json(samples: &[Sample]) -> String {
    let all: Vec<_> = samples
        .iter()
        .map(|sample| {
            let Sample { round, variant, row, value } = sample;
            json!({ "round": round, "variant": variant, "row": row, "value": value })
        })
        .collect();
    json!(all).to_string()
}

/// Under what conditions the table came about: it is worth little without.
fn conditions(options: &Options, setting: &Setting, busy: &str) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = available_parallelism().map_or(0, usize::from);
    let scheduler = if options.real_time { "SCHED_RR" } else { "the normal scheduler" };
    let load = busy.split_whitespace().next().unwrap_or("unknown");
    let extent = extent(options);
    format!(
        "{} rounds of {} s, {} threads a proxy, {cores} cores, Linux {}, {}, {scheduler}; load average before: {load}{}",
        extent.rounds,
        extent.seconds,
        setting.threads,
        kernel.trim(),
        setting.congestion_control,
        if extent.rounds < 5 { "; fewer than five rounds: only a sign that all works" } else { "" },
    )
}
