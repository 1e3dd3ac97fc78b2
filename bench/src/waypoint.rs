//! `bench waypoint`: our waypoint beside its peers in the same job, and what routes and services cost it.

mod agentgateway;
pub(crate) mod ground;
mod memory;
pub(crate) mod mesh;
pub(crate) mod ours;
mod rounds;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};
use testkit::envoy::{Waypoint, waypoint};

use self::agentgateway::Agentgateway;
use self::ground::{Ground, HBONE, SERVER, WAYPOINT};
use self::ours::{Ours, Programs};
use crate::http::Protocol;
use crate::isolate;
use crate::load::raise_descriptor_limit;
use crate::process::Process;
use crate::table::{Figures, Row, Target, render_rows, row};
use crate::variants::{VariantError, beside};

/// Waypoint beside Envoy and agentgateway.
///
/// All take HBONE (mutual TLS 1.3, HTTP/2 CONNECT) from one client over four tunnels, route each request of HTTP/1.1, HTTP/2
/// or gRPC, and send it on through tunnels of their own to one server that answers with 1 KB. Ours is told by our
/// controller, from files. Least / middle / greatest of the ratios of one round; CPU is the waypoint's alone, p99 at 70 %
/// of what the slowest reached in that round. With its defaults it takes some six minutes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// One round of half a second each, and a fiftieth of the routes: does everything work? Its figures say little.
    #[arg(long)]
    quick: bool,
    /// Rounds; in each, every variant runs every load once, the order rotated.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of each sample.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these protocols.
    #[arg(long, value_enum, value_delimiter = ',')]
    protocols: Vec<Protocol>,
    /// Threads of each proxy; all cores when not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Routes whose memory is measured, 100 a host; 0 leaves one out, and all of them services as well.
    #[arg(long, value_delimiter = ',', default_value = "5000,40000")]
    routes: Vec<usize>,
    /// Services more whose memory is measured.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// No access log, neither of ours nor of the others'. As it is, each writes a line for each request to a file.
    #[arg(long)]
    no_access_log: bool,
    /// An Envoy; else the variable ENVOY, else what scripts/peers has fetched, else `envoy` on the PATH.
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// An agentgateway; without it, it is left out. It gets its certificate from our controller.
    #[arg(long, value_name = "PATH")]
    agentgateway: Option<PathBuf>,
    /// Another build of our waypoint, set beside this one.
    #[arg(long, value_name = "PATH")]
    other: Option<PathBuf>,
    /// Our waypoint; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    lateen: Option<PathBuf>,
    /// Our controller; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    ctrl: Option<PathBuf>,
    /// Round-robin real-time scheduling for all, which keeps a machine's other work out of the figures.
    #[arg(long)]
    real_time: bool,
    /// Keep the logs and configuration of all processes in this folder.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

/// What is set side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lateen,
    /// Another build of it.
    Other,
    Envoy,
    Agentgateway,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Lateen => "lateen",
            Self::Other => "other",
            Self::Envoy => "envoy",
            Self::Agentgateway => "agentgateway",
        }
    }
}

/// What every variant is given.
#[derive(Debug, Clone)]
struct Setting {
    folder: PathBuf,
    threads: usize,
    access_log: bool,
    programs: Option<Programs>,
    other: Option<PathBuf>,
    envoy: Option<PathBuf>,
    agentgateway: Option<PathBuf>,
}

impl Setting {
    /// Our programs.
    fn programs(&self) -> Result<&Programs, VariantError> {
        self.programs
            .as_ref()
            .ok_or(VariantError::NotGiven("waypoint and ctrl (cargo build --release --bins)"))
    }
}

/// A variant that is up. Processes are declared, and so end, before the ground.
struct Running {
    kind: Kind,
    proxy: Proxy,
    ground: Ground,
}

enum Proxy {
    Ours(Ours),
    Envoy(Process),
    Agentgateway(Agentgateway),
}

impl Running {
    fn process(&self) -> &Process {
        match &self.proxy {
            Proxy::Ours(ours) => &ours.process,
            Proxy::Envoy(process) => process,
            Proxy::Agentgateway(gateway) => &gateway.process,
        }
    }
}

const ROWS: &[Row] = &[
    row("h1.cpu", "P8", "HTTP/1.1, 64 at once: CPU", "µs/req", Target::AtMost(0.6)),
    row("h1.rate", "P8", "HTTP/1.1, 64 at once", "req/s", Target::AtLeast(1.6)),
    row("h1.tail", "P9", "HTTP/1.1, same paced rate: p99", "µs", Target::AtMost(0.30)),
    row("h1.paced", "", "HTTP/1.1, same paced rate: CPU", "µs/req", Target::Open),
    row("h2.cpu", "P8", "HTTP/2, 64 at once: CPU", "µs/req", Target::AtMost(0.6)),
    row("h2.rate", "P8", "HTTP/2, 64 at once", "req/s", Target::AtLeast(1.6)),
    row("h2.tail", "P9", "HTTP/2, same paced rate: p99", "µs", Target::AtMost(0.30)),
    row("h2.paced", "", "HTTP/2, same paced rate: CPU", "µs/req", Target::Open),
    row("grpc.cpu", "P8", "gRPC, 64 at once: CPU", "µs/req", Target::AtMost(0.6)),
    row("grpc.rate", "P8", "gRPC, 64 at once", "req/s", Target::AtLeast(1.6)),
    row("grpc.tail", "P9", "gRPC, same paced rate: p99", "µs", Target::AtMost(0.30)),
    row("grpc.paced", "", "gRPC, same paced rate: CPU", "µs/req", Target::Open),
];

/// The same rows beside agentgateway: only the rates have a target there (P8).
fn rows_beside_agentgateway() -> Vec<Row> {
    let target = |row: &Row| if row.key.ends_with(".rate") { Target::AtLeast(1.1) } else { Target::Open };
    ROWS.iter().map(|row| Row { target: target(row), ..*row }).collect()
}

/// Runs the comparison, in namespaces of its own.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    isolate::enter(options.real_time)?;
    raise_descriptor_limit();
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let folder = tempfile::Builder::new().prefix("lwp-").tempdir()?;
    isolate::end_on_signals(folder.path())?;
    let kept = options.logs.clone().unwrap_or_else(|| folder.path().to_owned());
    let setting = setting(options, kept)?;
    let mut kinds = vec![Kind::Lateen, Kind::Envoy];
    if options.other.is_some() {
        kinds.insert(1, Kind::Other);
    }
    if options.agentgateway.is_some() {
        kinds.push(Kind::Agentgateway);
    }
    let (mut running, mut absent) = (Vec::new(), Vec::new());
    for kind in kinds {
        match start(kind, &setting, kind.name(), &[]) {
            Ok(up) => running.push(up),
            Err(error) => absent.push(format!("{}: not measured: {error}", kind.name())),
        }
    }
    let samples = rounds::loaded(&running, &extent(options));
    let names: Vec<_> = running.iter().map(|running| running.kind.name()).collect();
    let base = if names.contains(&"envoy") { "envoy" } else { "lateen" };
    let figures = Figures::new(&samples);
    print!("{}", render_rows(ROWS, &figures, &names, base, base == "envoy"));
    if names.contains(&"agentgateway") {
        let names: Vec<_> = names.iter().copied().filter(|name| *name != "envoy").collect();
        let rows = rows_beside_agentgateway();
        print!("\n{}", render_rows(&rows, &figures, &names, "agentgateway", true));
    }
    drop(running);
    let routes: Vec<usize> = options.routes.iter().copied().filter(|routes| *routes > 0).collect();
    if !routes.is_empty() {
        let part = if options.quick { 50 } else { 1 };
        let routes: Vec<_> = routes.iter().map(|routes| routes / part).collect();
        print!("\n{}", memory::table(&setting, &routes, options.services / part));
    }
    absent.iter().for_each(|line| println!("\n{line}"));
    println!("\n{}", conditions(options, &setting, &busy));
    let measured = samples.iter().any(|sample| sample.variant == "lateen");
    if measured { Ok(()) } else { Err(io::Error::other("our waypoint was not measured; see above")) }
}

fn setting(options: &Options, folder: PathBuf) -> io::Result<Setting> {
    fs::create_dir_all(&folder)?;
    let threads = match options.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get(),
    };
    let waypoint = options.lateen.clone().or_else(|| beside("waypoint"));
    let ctrl = options.ctrl.clone().or_else(|| beside("ctrl"));
    let programs = waypoint.zip(ctrl).map(|(waypoint, ctrl)| Programs { waypoint, ctrl });
    Ok(Setting {
        folder,
        threads,
        access_log: !options.no_access_log,
        programs,
        other: options.other.clone(),
        envoy: options.envoy.clone().or_else(testkit::envoy::binary),
        agentgateway: options.agentgateway.clone(),
    })
}

fn extent(options: &Options) -> rounds::Extent {
    let (rounds, seconds) = if options.quick { (1, 0.5) } else { (options.pairs.max(1), options.seconds) };
    let protocols = match options.protocols.is_empty() {
        true => Protocol::value_variants().to_vec(),
        false => options.protocols.clone(),
    };
    rounds::Extent { rounds, seconds, protocols }
}

/// Hosts beside the service's own, each with so many routes.
type Hosts<'a> = &'a [(String, usize)];

/// Starts a variant with these hosts from the beginning, and waits until it answers.
fn start(kind: Kind, setting: &Setting, name: &str, hosts: Hosts<'_>) -> Result<Running, VariantError> {
    let ground = Ground::build(name, &setting.folder)?;
    let proxy = match kind {
        Kind::Envoy => Proxy::Envoy(envoy(&ground, setting, hosts)?),
        Kind::Agentgateway => Proxy::Agentgateway(agentgateway::start(&ground, setting, hosts)?),
        Kind::Lateen | Kind::Other => {
            let mut programs = setting.programs()?.clone();
            if kind == Kind::Other {
                programs.waypoint = setting.other.clone().ok_or(VariantError::NotGiven("--other PATH"))?;
            }
            Proxy::Ours(ours::start(&ground, &programs, setting.threads, setting.access_log, |mesh| {
                mesh.services(hosts.len())?;
                hosts
                    .iter()
                    .filter(|(_, routes)| *routes > 0)
                    .try_for_each(|(service, routes)| mesh.routes(service, *routes, 0))
            })?)
        }
    };
    let running = Running { kind, proxy, ground };
    running.ground.wait_served("/", std::time::Duration::from_secs(20)).map_err(|error| {
        VariantError::Io { doing: running.process().tail(), source: io::Error::other(error) }
    })?;
    Ok(running)
}

fn envoy(ground: &Ground, setting: &Setting, hosts: Hosts<'_>) -> Result<Process, VariantError> {
    let binary = setting.envoy.as_deref().ok_or(VariantError::NotGiven("--envoy PATH"))?;
    let listen = std::net::SocketAddr::new(WAYPOINT, HBONE);
    let routes = |count: usize| (0..count).map(mesh::prefix).collect::<Vec<_>>();
    let mut all = vec![(mesh::HOST.to_owned(), Vec::new())];
    all.extend(hosts.iter().map(|(service, count)| (mesh::host(service), routes(*count))));
    let of = Waypoint {
        listen,
        peer: std::net::SocketAddr::new(SERVER, HBONE),
        endpoint: std::net::SocketAddr::new(SERVER, mesh::PORT),
        hosts: all,
        access_log: setting.access_log,
    };
    let config = waypoint(
        &of,
        &ground.credentials("waypoint", &["client"]),
        &ground.credentials("waypoint", &["server"]),
    );
    let path = ground.folder.join("envoy.json");
    fs::write(&path, config)
        .map_err(|source| VariantError::Io { doing: format!("writing {}", path.display()), source })?;
    let mut command = Command::new(binary);
    command.arg("--config-path").arg(&path);
    command.args(["--concurrency", &setting.threads.to_string()]);
    command.args(["--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "warning"]);
    let process = Process::start("envoy", &mut command, &ground.waypoint, &ground.folder)?;
    let mut process = process.patient(std::time::Duration::from_secs(120));
    process.wait_listening(&ground.waypoint, listen)?;
    Ok(process)
}

/// Under what conditions the table came about: it is worth little without.
fn conditions(options: &Options, setting: &Setting, busy: &str) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let scheduler = if options.real_time { "SCHED_RR" } else { "the normal scheduler" };
    let rounds::Extent { rounds, seconds, .. } = extent(options);
    format!(
        "{rounds} rounds of {seconds} s, {} threads a proxy, {cores} cores shared by client, proxy and server, Linux {}, \
         {scheduler}, access log {}; load average before: {}{}",
        setting.threads,
        kernel.trim(),
        if setting.access_log { "to a file" } else { "off" },
        busy.split_whitespace().next().unwrap_or("unknown"),
        if rounds < 5 { "; fewer than five rounds: only a sign that all works" } else { "" },
    )
}
