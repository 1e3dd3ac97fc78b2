//! Our controller with all pods from files, and an agent that is told all of them: memory of both, the time of the first
//! loading, and the time of one change from the file to the agent.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::netns::Netns;

use super::world::{PER_DEPLOYMENT, World};
use super::{Options, failed, megabytes, memory, row, settle, spread};
use crate::measure;
use crate::process::{Process, pause};
use crate::variants::VariantError;

/// Where the controller is.
const CTRL: &str = "127.0.0.1:15012";
/// How long the controller may take to read all there is.
const LOADING: Duration = Duration::from_secs(300);
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs it.
pub(super) fn run(options: &Options, folder: &Path, agent: &Path, ctrl: &Path) -> Result<(), VariantError> {
    let folder = folder.join("told");
    let tokens = folder.join("tokens");
    fs::create_dir_all(&tokens).map_err(failed("making a folder"))?;
    fs::write(tokens.join("scale"), "token-of-this-bench-alone").map_err(failed("writing a token"))?;
    let world = World::write(&folder, options.workloads, PER_DEPLOYMENT)?;
    let namespace = Netns::new(&format!("lscale-{}-told", std::process::id()))?;

    let mut command = Command::new(ctrl);
    command.env_clear().env("OBJECTS", world.objects()).env("STATE", folder.join("state"));
    command.env("LISTEN", CTRL).env("TOKENS", &tokens).env("POD_CIDRS", "11.0.0.0/8");
    let controller = Process::start("ctrl", &mut command, &namespace, &folder)?;
    let mut controller = controller.patient(LOADING);
    let took = controller.wait_ready_http(&namespace, 15014, "/healthz/ready")?;
    settle(controller.pid());
    row(&format!("ctrl: {} pods from as many files, until ready", options.workloads), format!("{took:.2?}"));
    row("ctrl: memory with them", megabytes(memory(controller.pid())));

    // One that asks for nothing is what an agent costs without them.
    let empty = Agent::start(agent, &folder, &namespace, true)?;
    let before = memory(empty.proxy.pid());
    let cpu_before = measure::cpu(&[empty.proxy.pid()]);
    row("agent on demand, asking for nothing", megabytes(before));
    drop(empty);

    let told = Agent::start(agent, &folder, &namespace, false)?;
    let (took, pid) = (told.ready, told.proxy.pid());
    settle(pid);
    let (after, cpu) = (memory(pid), measure::cpu(&[pid]).saturating_sub(cpu_before));
    let each = |sum: f64| sum / f64::from(options.workloads);
    row("agent told all, from its start until ready", format!("{took:.2?}"));
    row("agent: memory", megabytes(after));
    let bytes = (after.resident as f64 - before.resident as f64) * 1024.0;
    row("agent: memory a workload", format!("{:.0} B", each(bytes)));
    row("agent: CPU to load a workload", format!("{:.2} µs", each(cpu.as_secs_f64() * 1e6)));
    row("ctrl: memory with its client", megabytes(memory(controller.pid())));

    let mut times = Vec::new();
    for number in 0..options.changes {
        // Each is back as it was after the next round, so that none of them is said for nothing.
        let (pod, ready) = (number / 2 * 7 % options.workloads, number % 2 == 1);
        let heard = namespace.run(messages)?.map_err(failed("asking the agent"))?;
        let begun = Instant::now();
        world.set_ready(pod, ready)?;
        namespace.run(|| wait_for_message(heard, begun))?.map_err(failed("waiting for a change"))?;
        times.push(begun.elapsed());
    }
    row("one changed file until the agent has it: least, middle, 99 of 100, greatest", spread(times));
    settle(pid);
    row("agent: memory after the changes", megabytes(memory(pid)));
    Ok(())
}

/// An agent without pods: both roles, of which the proxying one is measured.
struct Agent {
    proxy: Process,
    ready: Duration,
    _redirect: Process,
}

impl Agent {
    fn start(binary: &Path, folder: &Path, namespace: &Netns, on_demand: bool) -> Result<Self, VariantError> {
        let run_dir = folder.join(format!("agent-{on_demand}"));
        let objects = run_dir.join("objects");
        fs::create_dir_all(&objects).map_err(failed("making a folder"))?;
        let role = |role: &str| {
            let mut command = Command::new(binary);
            command.arg(role).env_clear().env("NODE_NAME", "scale").env("RUN_DIR", &run_dir);
            command
        };
        let mut command = role("redirect");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("OBJECTS", &objects).env("START_PROXY", "false");
        let mut redirect = Process::start("redirect", &mut command, namespace, &run_dir)?;
        let sockets = ["zds.sock", "redirect.sock"].map(|socket| run_dir.join(socket));
        redirect.wait_until(|| sockets.iter().all(|socket| socket.exists()))?;
        let mut command = role("proxy");
        for name in ["XDS_ADDRESS", "CA_ADDRESS"] {
            command.env(name, format!("https://{CTRL}"));
        }
        for name in ["XDS_ROOT_CA", "CA_ROOT_CA"] {
            command.env(name, folder.join("state/root-cert.pem"));
        }
        command
            .env("INPOD_UDS", &sockets[0])
            .env("REDIRECT_UDS", &sockets[1])
            .env("TOKEN_FILE", folder.join("tokens/scale"))
            .env("XDS_ON_DEMAND", on_demand.to_string());
        let mut proxy = Process::start("proxy", &mut command, namespace, &run_dir)?;
        let ready = proxy.wait_ready_http(namespace, 15021, "/healthz/ready")?;
        Ok(Self { proxy, ready, _redirect: redirect })
    }
}

/// How many messages about addresses the agent of this namespace has had.
fn messages() -> io::Result<u64> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 15020))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let line = page
        .lines()
        .find(|line| line.starts_with("istio_xds_message_total") && line.contains("istio.workload.Address"));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    count.ok_or_else(|| io::Error::other("the agent does not count what it is told"))
}

fn wait_for_message(heard: u64, begun: Instant) -> io::Result<()> {
    while messages()? == heard {
        if begun.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        pause(Duration::from_micros(300));
    }
    Ok(())
}
