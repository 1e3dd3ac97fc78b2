//! One attack on one variant: quiet, control and attack in turn, with a bystander in each; then whether it still serves.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use testkit::netns::Netns;

use super::kinds::{Aim, Attack, Door, Plan};
use super::report::{Phase, Round, Trial};
use super::strike::Done;
use super::{Extent, credentials};
use crate::control::hostile::Harm;
use crate::load::bystander::Seen;
use crate::measure::{self, Memory};
use crate::process::{Process, pause};
use crate::rounds::{SampleError, answer, load};
use crate::topology::{PREY, SERVER, SINK, Strangers};
use crate::variants::{self, Kind, Running, Setting, VariantError};

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(10);
/// After an attack: what it holds is let go of.
const CALM: Duration = Duration::from_millis(500);
/// After the last one, before memory is looked at.
const AFTER: Duration = Duration::from_secs(3);
/// Of a bystander who is only to see whether it is served.
const BRIEFLY: Duration = Duration::from_millis(500);
/// The tunnel's port.
const TUNNEL: SocketAddr = SocketAddr::new(SERVER, 15008);
/// A name server; queries for any are captured.
const NAME_SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 9, 3, 1)), 53);
/// Attacks more, in the short form, until a limit's counter has moved: a busy machine may take a while.
const PATIENCE: usize = 10;

/// Runs it on fresh proxies.
pub(super) fn run(
    kind: Kind,
    attack: Attack,
    extent: &Extent,
    setting: &Setting,
) -> Result<Trial, VariantError> {
    let plan = attack.plan();
    let setting = Setting { on_demand: attack == Attack::DnsNames, ..setting.clone() };
    let mut running = variants::start(kind, &setting)?;
    let ground = Ground::new(&running, &setting)?;
    let mut trial = Trial::new(attack, kind);
    // Tunnels and certificates come up.
    bystander(&running, BRIEFLY).map_err(failed)?;
    pause(CALM);
    let aim = aimed(&running, plan);
    trial.memory.before = measure::memory(&aim);
    trial.memory.peak = trial.memory.before;
    let hits = hits(&running, plan);
    while !trial.is_enough(extent.rounds, extent.most) {
        let peak = &mut trial.memory.peak;
        let round = match plan.door {
            Door::Controller => possessed(&mut running, attack, extent, peak)?,
            _ => round(&running, &ground, attack, extent, peak)?,
        };
        trial.rounds.push(round);
    }
    if extent.quick {
        insist(&running, &ground, attack, hits)?;
    }
    pause(if extent.quick { CALM } else { AFTER });
    trial.memory.after = measure::memory(&aim);
    trial.hits = self::hits(&running, plan).zip(hits).map(|(now, then)| now.saturating_sub(then));
    trial.ended = running.post_mortem();
    trial.log_lines = log_lines(&running, plan);
    trial.afterwards = bystander(&running, BRIEFLY).ok().map(Phase::of);
    Ok(trial)
}

/// Where attacks come from, and what the control attacks.
struct Ground {
    folder: std::path::PathBuf,
    run_dir: std::path::PathBuf,
    program: std::path::PathBuf,
    _sink: Process,
}

impl Ground {
    fn new(running: &Running, setting: &Setting) -> Result<Self, VariantError> {
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |source| VariantError::Io { doing, source }
        };
        let (Some(strangers), Some(attacker)) = (&running.topology.strangers, &running.attacker) else {
            return Err(VariantError::NotGiven("attacker"));
        };
        let folder = setting.folder.join(format!("{}-attacker", running.kind.name()));
        credentials::write(&folder, attacker).map_err(io("writing the attacker's credentials"))?;
        let program = std::env::current_exe().map_err(io("finding this program"))?;
        let mut command = Command::new(&program);
        command.args(["sink", "--listen", &SINK.to_string(), "--credentials"]).arg(&folder);
        command.arg("--sockets").arg(&folder);
        let mut sink = Process::start("sink", &mut command, &strangers.sink, &setting.folder)?;
        sink.wait_listening(&strangers.sink, SINK)?;
        let run_dir = setting.folder.join(format!("{}-server", running.kind.name()));
        Ok(Self { folder, run_dir, program, _sink: sink })
    }

    /// The attacker's process, on the proxy or on the sink. It is scheduled when nobody else wants a processor, as if
    /// it had a machine of its own.
    fn strike(
        &self,
        running: &Running,
        attack: Attack,
        seconds: Duration,
        sink: bool,
    ) -> Result<Child, VariantError> {
        let plan = attack.plan();
        let Some(strangers) = &running.topology.strangers else {
            return Err(VariantError::NotGiven("attacker"));
        };
        let (from, to) = if sink { (&strangers.attacker, SINK) } else { way(running, strangers, plan.door) };
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(&self.program).args(["strike", &attack.name()]);
        command.args(["--connect", &to.to_string(), "--seconds", &seconds.as_secs_f64().to_string()]);
        command.args(["--app", &PREY.to_string(), "--credentials"]).arg(&self.folder);
        command.arg("--sockets").arg(if sink { &self.folder } else { &self.run_dir });
        if sink {
            command.arg("--sink");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(from.spawn(&mut command)?)
    }
}

/// From where to where.
fn way<'a>(running: &'a Running, strangers: &'a Strangers, door: Door) -> (&'a Netns, SocketAddr) {
    match door {
        // One that captures nothing listens on the client's own loopback.
        Door::Pod if running.controller.is_none() => (&running.topology.client, running.target),
        Door::Pod => (&strangers.neighbour, PREY),
        Door::Dns => (&strangers.neighbour, NAME_SERVER),
        Door::Tunnel | Door::Tcp | Door::Sockets | Door::Controller => (&strangers.attacker, TUNNEL),
    }
}

/// The processes that an attack is aimed at.
fn aimed(running: &Running, plan: Plan) -> Vec<Pid> {
    match (plan.door, plan.aim) {
        (Door::Sockets, _) => running.server_side.capturing().map(Process::pid).into_iter().collect(),
        (_, Aim::Server) => running.server_side.pids(),
        (_, Aim::Client) => running.client_side.pids(),
    }
}

fn round(
    running: &Running,
    ground: &Ground,
    attack: Attack,
    extent: &Extent,
    peak: &mut Memory,
) -> Result<Round, VariantError> {
    let plan = attack.plan();
    let pids = aimed(running, plan);
    let seconds = extent.seconds;
    let length = plan.lead + seconds + CALM;
    // Where times do not count, it need not be known what they are in quiet.
    let in_quiet = if extent.quick { BRIEFLY } else { seconds };
    let quiet = measured(running, &pids, in_quiet, &mut Memory::default())?;
    let control = if extent.quick {
        None
    } else {
        let attacker = ground.strike(running, attack, length, true)?;
        pause(plan.lead);
        let seen = measured(running, &pids, seconds, &mut Memory::default())?;
        finish(attacker).map_err(failed)?;
        pause(CALM);
        Some(seen)
    };
    let attacker = ground.strike(running, attack, length, false)?;
    watch(&pids, plan.lead, peak);
    let attacked = measured(running, &pids, seconds, peak)?;
    let done = finish(attacker).map_err(failed)?;
    pause(CALM);
    Ok(Round { quiet, control, attacked, done })
}

/// The controller itself is the attacker: what is in force stays so. The control is a controller that goes on as it was, which
/// is quiet once more: what differs then is the machine's doing.
fn possessed(
    running: &mut Running,
    attack: Attack,
    extent: &Extent,
    peak: &mut Memory,
) -> Result<Round, VariantError> {
    let plan = attack.plan();
    let pids = aimed(running, plan);
    let harm = if attack == Attack::Controller { Harm::Garbage } else { Harm::Silence };
    let still = |running: &Running| measured(running, &pids, extent.seconds, &mut Memory::default());
    let quiet = still(running)?;
    let control = if extent.quick { None } else { Some(still(running)?) };
    turn(running, Some(harm))?;
    watch(&pids, plan.lead, peak);
    let attacked = measured(running, &pids, extent.seconds, peak)?;
    turn(running, None)?;
    pause(if extent.quick { CALM } else { AFTER });
    Ok(Round { quiet, control, attacked, done: Done::default() })
}

/// From now on the controller means harm, or none.
fn turn(running: &mut Running, harm: Option<Harm>) -> Result<(), VariantError> {
    let nodes = [&running.client_side, &running.server_side].map(variants::Side::namespace);
    let nodes: Vec<_> = nodes.into_iter().flatten().collect();
    match &mut running.controller {
        Some(controller) => Ok(controller.turn(harm, &nodes)?),
        None => Ok(()),
    }
}

/// In the short form: again, until the limit has been hit.
fn insist(
    running: &Running,
    ground: &Ground,
    attack: Attack,
    before: Option<u64>,
) -> Result<(), VariantError> {
    let plan = attack.plan();
    let Some(before) = before else { return Ok(()) };
    for _ in 0..PATIENCE {
        if hits(running, plan).is_some_and(|now| now > before) {
            break;
        }
        finish(ground.strike(running, attack, Duration::from_secs(1), false)?).map_err(failed)?;
    }
    Ok(())
}

/// A bystander for so long, and what the proxies used meanwhile.
fn measured(
    running: &Running,
    pids: &[Pid],
    seconds: Duration,
    peak: &mut Memory,
) -> Result<Phase, VariantError> {
    let before = measure::cpu(pids);
    let begun = Instant::now();
    let child = begin(running, seconds)?;
    watch(pids, seconds, peak);
    let seen = output(child).and_then(|text| answer::<Seen>(&text)).map_err(failed)?;
    let cpu = measure::cpu(pids).saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(Phase { cpu, ..Phase::of(seen) })
}

fn bystander(running: &Running, seconds: Duration) -> Result<Seen, SampleError> {
    output(begin(running, seconds)?).and_then(|text| answer(&text))
}

fn begin(running: &Running, seconds: Duration) -> Result<Child, testkit::netns::NetnsError> {
    let mut command = load(&format!("bystander --seconds {}", seconds.as_secs_f64()), running.target);
    running.topology.client.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))
}

fn finish(child: Child) -> Result<Done, SampleError> {
    output(child).and_then(|text| answer(&text))
}

fn output(child: Child) -> Result<String, SampleError> {
    let output = child.wait_with_output().map_err(|error| SampleError::Answer(error.to_string()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Looks at the memory for so long, and keeps the most.
fn watch(pids: &[Pid], time: Duration, peak: &mut Memory) {
    let begun = Instant::now();
    loop {
        let now = measure::memory(pids);
        peak.resident = peak.resident.max(now.resident);
        peak.anonymous = peak.anonymous.max(now.anonymous);
        if begun.elapsed() >= time {
            return;
        }
        pause(LOOK);
    }
}

/// How often the attack's limit was hit, where the proxy is ours.
fn hits(running: &Running, plan: Plan) -> Option<u64> {
    let limit = plan.limit.filter(|_| running.kind == Kind::Lateen)?;
    let side = match plan.aim {
        Aim::Server => &running.server_side,
        Aim::Client => &running.client_side,
    };
    let page = side.namespace()?.run(metrics).ok()?.ok()?;
    let of = |limit: &str| -> u64 {
        let wanted = format!("lateen_limit_hits_total{{limit=\"{limit}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&wanted));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    Some(limit.split('|').map(of).sum())
}

fn metrics() -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 15020))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// How much the proxy that was aimed at has written.
fn log_lines(running: &Running, plan: Plan) -> usize {
    let side = match plan.aim {
        Aim::Server => &running.server_side,
        Aim::Client => &running.client_side,
    };
    let capturing = side.capturing().filter(|_| plan.door == Door::Sockets);
    let process = capturing.or(side.processes.first());
    process.map_or(0, Process::log_lines)
}

fn failed(error: SampleError) -> VariantError {
    VariantError::Io { doing: "measuring".to_owned(), source: io::Error::other(error) }
}
