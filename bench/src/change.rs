//! `bench change`: the time from a file written to the first request that is routed by it (target C1), with few and many
//! routes, beside other requests and other changes, and whether anything else was answered meanwhile.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::http::exchange::{Slot, Wanted};
use crate::http::{Protocol, Seen, client};
use crate::isolate;
use crate::load::raise_descriptor_limit;
use crate::measure;
use crate::process::pause;
use crate::rounds::answer;
use crate::table::lay_out;
use crate::variants::beside;
use crate::waypoint::ground::{Ground, HBONE, Load, WAYPOINT};
use crate::waypoint::mesh::{self, Mesh};
use crate::waypoint::ours::{self, Programs};

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The service that is changed, and asked.
const SERVICE: &str = "app";
/// Target C1, milliseconds.
const TARGET: f64 = 15.0;

/// A file written, until requests go by it.
///
/// Our controller and our waypoint, with so many routes: spread over as many hosts, one each, and all of them on one host, in
/// one VirtualService. One file is written again with another version of its last route; requests for that route are
/// asked one after the other until the new version answers. Beside it run 500 requests a second, whose every answer has
/// to be 200, and (where routes are spread) changes of other hosts. It takes some two minutes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// A tenth of the routes and of the changes: does everything work? Its figures say little.
    #[arg(long)]
    quick: bool,
    /// Numbers of routes.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,3000")]
    routes: Vec<usize>,
    /// Changes that are timed, for each.
    #[arg(long, default_value_t = 200)]
    changes: u64,
    /// Requests a second beside them.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Changes of other hosts a second, where routes are spread.
    #[arg(long, default_value_t = 10.0)]
    churn: f64,
    /// Our waypoint; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    lateen: Option<PathBuf>,
    /// Our controller; else the one beside this program.
    #[arg(long, value_name = "PATH")]
    ctrl: Option<PathBuf>,
}

/// Where the routes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Spread,
    OneHost,
}

/// Runs it, in namespaces of its own.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    isolate::enter(false)?;
    raise_descriptor_limit();
    let mut options = options.clone();
    if options.quick {
        options.changes = (options.changes / 10).max(1);
        options.routes.iter_mut().for_each(|routes| *routes = (*routes / 10).max(2));
    }
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let folder = tempfile::Builder::new().prefix("lchange-").tempdir()?;
    isolate::end_on_signals(folder.path())?;
    let waypoint = options.lateen.clone().or_else(|| beside("waypoint"));
    let ctrl = options.ctrl.clone().or_else(|| beside("ctrl"));
    let programs = waypoint.zip(ctrl).map(|(waypoint, ctrl)| Programs { waypoint, ctrl });
    let programs = programs.ok_or_else(|| {
        io::Error::other(
            "waypoint and ctrl are not beside this program; build them, or give --lateen and --ctrl",
        )
    })?;
    let head = [
        "",
        "file written → routed by it",
        "p50",
        "p99",
        "greatest",
        "wrong answers",
        "target: p99",
        "CPU a change: controller",
        "waypoint",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut wrong = 0;
    for &routes in &options.routes {
        for shape in [Shape::Spread, Shape::OneHost] {
            let found = one(&options, &programs, folder.path(), routes, shape)?;
            wrong += found.wrong;
            lines.push(found.line(routes, shape));
            eprintln!("bench: {routes} routes, {shape:?} done");
        }
    }
    print!("{}", lay_out(&lines));
    println!(
        "\n{} changes each, {} requests a second beside them (part of the waypoint's CPU); load average before: {}",
        options.changes,
        options.rate,
        busy.split_whitespace().next().unwrap_or("unknown")
    );
    if wrong == 0 { Ok(()) } else { Err(io::Error::other(format!("{wrong} answers were wrong; see above"))) }
}

/// What one row found.
struct Found {
    times: Vec<Duration>,
    wrong: u64,
    first_wrong: Option<String>,
    /// Processor time of the controller and of the waypoint while changes were made.
    used: [Duration; 2],
}

impl Found {
    fn line(mut self, routes: usize, shape: Shape) -> Vec<String> {
        self.times.sort();
        let at = |part: usize| {
            let index = (self.times.len() * part / 100).min(self.times.len().saturating_sub(1));
            self.times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let what = match shape {
            Shape::Spread => format!("{routes} routes on as many hosts"),
            Shape::OneHost => format!("{routes} routes on one host"),
        };
        let verdict = if at(99) <= TARGET { "met" } else { "MISSED" };
        let wrong = match &self.first_wrong {
            Some(first) => format!("{}: {first}", self.wrong),
            None => self.wrong.to_string(),
        };
        let ms = |time: f64| format!("{time:.1} ms");
        let target = format!("≤ {TARGET} ms: {verdict}");
        let changes = self.times.len().max(1) as f64;
        let [ctrl, waypoint] = self.used.map(|used| ms(used.as_secs_f64() * 1e3 / changes));
        vec!["C1".to_owned(), what, ms(at(50)), ms(at(99)), ms(at(100)), wrong, target, ctrl, waypoint]
    }
}

fn one(
    options: &Options,
    programs: &Programs,
    folder: &Path,
    routes: usize,
    shape: Shape,
) -> io::Result<Found> {
    let ground =
        Ground::build(&format!("{shape:?}-{routes}").to_lowercase(), folder).map_err(io::Error::other)?;
    let others = if shape == Shape::Spread { routes - 1 } else { 0 };
    let changed = routes - others;
    let furnish = |mesh: &Mesh| {
        mesh.services(others)?;
        (0..others).try_for_each(|number| mesh.routes(&format!("host-{number}"), 1, 0))?;
        mesh.routes(SERVICE, changed, 0)
    };
    let running = ours::start(&ground, programs, 2, true, furnish).map_err(io::Error::other)?;
    let mesh = &running.mesh;
    let path = mesh::last_path(changed);
    ground.wait_served(&path, Duration::from_secs(20)).map_err(io::Error::other)?;
    let seconds = 60.0 + options.changes as f64;
    let load = Load { protocol: Protocol::H1, path: &path, seconds, rate: Some(options.rate) };
    let beside = Beside::start(&ground, &load)?;
    let stop = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        if others > 0 {
            scope.spawn(|| churn(mesh, others, options.churn, &stop));
        }
        let pids = [running.ctrl.pid(), running.process.pid()];
        let used = || pids.map(|pid| measure::cpu(&[pid]));
        let found = ground.client.run(|| {
            let before = used();
            let mut found = probe(&ground, mesh, changed, options.changes)?;
            let after = used();
            found.used = std::array::from_fn(|who| after[who].saturating_sub(before[who]));
            Ok::<_, io::Error>(found)
        });
        stop.store(true, Ordering::Relaxed);
        found
    });
    let mut found = found.map_err(io::Error::other)??;
    let seen = beside.end()?;
    found.wrong += seen.wrong;
    found.first_wrong = found.first_wrong.or(seen.first_wrong);
    Ok(found)
}

/// Changes other hosts' routes in turn until it is told to stop.
fn churn(mesh: &Mesh, others: usize, rate: f64, stop: &AtomicBool) {
    let mut version = 1;
    while !stop.load(Ordering::Relaxed) {
        let host = format!("host-{}", version as usize * 7919 % others);
        if let Err(error) = mesh.routes(&host, 1, version) {
            eprintln!("bench: changing {host}: {error}");
        }
        version += 1;
        pause(Duration::from_secs_f64(1.0 / rate.max(0.1)));
    }
}

/// Writes the file again and again, and asks each time until the answer is by it.
fn probe(ground: &Ground, mesh: &Mesh, routes: usize, changes: u64) -> io::Result<Found> {
    let options = client::Options {
        connect: std::net::SocketAddr::new(WAYPOINT, HBONE),
        service: mesh::service(Protocol::H1),
        host: mesh::HOST.to_owned(),
        path: mesh::last_path(routes),
        credentials: ground.folder.clone(),
        protocol: Protocol::H1,
        tunnels: 1,
        slots: 1,
        streams: 1,
        seconds: Duration::ZERO,
        rate: None,
        size: 0,
        until_input_ends: false,
    };
    crate::http::runtime()?.block_on(async {
        let tunnel = client::tunnel(&options).await.map_err(io::Error::other)?;
        let mut slots = client::connection(&tunnel, &options).await.map_err(io::Error::other)?;
        let slot = slots.first_mut().ok_or_else(|| io::Error::other("no connection"))?;
        let wanted = Wanted { host: options.host.clone(), path: options.path.clone() };
        let mut found = Found { times: Vec::new(), wrong: 0, first_wrong: None, used: Default::default() };
        for version in 1..=changes {
            let begun = Instant::now();
            mesh.routes(SERVICE, routes, version)?;
            until(slot, &wanted, version, begun, &mut found).await?;
            // What one change leaves to do is not to be the next one's.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(found)
    })
}

/// Asks until this version answers; only the one before may answer meanwhile.
async fn until(
    slot: &mut Slot,
    wanted: &Wanted,
    version: u64,
    begun: Instant,
    found: &mut Found,
) -> io::Result<()> {
    loop {
        let answer = slot.ask(wanted).await.map_err(io::Error::other)?;
        match (answer.status, answer.version) {
            (200, Some(seen)) if seen == version => {
                found.times.push(begun.elapsed());
                return Ok(());
            }
            (200, Some(seen)) if seen + 1 == version => {}
            _ => {
                found.wrong += 1;
                found.first_wrong.get_or_insert(format!("{answer:?}"));
            }
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("version {version} is not in force after {PATIENCE:?}")));
        }
    }
}

/// A load beside the changes.
struct Beside(Child);

impl Beside {
    fn start(ground: &Ground, load: &Load<'_>) -> io::Result<Self> {
        let mut command = ground.load(load);
        command.arg("--until-input-ends").stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(ground.client.spawn(&mut command).map_err(io::Error::other)?))
    }

    fn end(mut self) -> io::Result<Seen> {
        drop(self.0.stdin.take());
        let mut line = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            io::Read::read_to_string(&mut output, &mut line)?;
        }
        answer(&line).map_err(io::Error::other)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
