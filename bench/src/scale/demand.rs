//! Agents of a large mesh that ask for what their pods use: memory, and the first connection to an address beside the
//! following ones.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Options, failed, megabytes, memory, row, settle, spread};
use crate::control::mesh::crowded_at;
use crate::load::wire::Mode;
use crate::process::pause;
use crate::topology::{OUTSIDE, PORT};
use crate::variants::{self, Kind, Running, Setting, VariantError};

/// Addresses that are connected to for the first time.
const FIRST: u8 = 100;
/// How long the agent may take to know what it asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it.
pub(super) fn run(options: &Options, folder: &Path, agent: &Path) -> Result<(), VariantError> {
    let usual = Setting::of(folder.to_owned(), None, None, None, None, Some(agent.to_owned()))
        .map_err(failed("the conditions"))?;
    let setting = |on_demand| Setting { on_demand, ..usual.clone() };
    let small = variants::start(Kind::Lateen, &setting(false))?;
    first_connections(&small, "told all, a mesh of few")?;
    drop(small);

    let running = variants::start(Kind::Lateen, &setting(true))?;
    let pid = running.client_side.processes[0].pid();
    row("agent on demand, a mesh of few", megabytes(memory(pid)));
    let Some(controller) = &running.controller else { return Ok(()) };
    controller.crowd(options.crowd);
    settle(pid);
    row(&format!("agent on demand, {} workloads more", options.crowd), megabytes(memory(pid)));
    let step = (options.crowd / options.active).max(1);
    let wanted: Vec<IpAddr> = (0..options.active).map(|number| crowded_at(number * step)).collect();
    let took = activate(&running, &wanted)?;
    row(&format!("{} asked for one after the other", options.active), format!("{took:.2?}"));
    settle(pid);
    row(&format!("agent on demand, {} of {} active", options.active, options.crowd), megabytes(memory(pid)));
    first_connections(&running, &format!("on demand of {}", options.crowd))?;
    row(&format!("agent on demand, with {FIRST} tunnels besides"), megabytes(memory(pid)));
    Ok(())
}

/// The first connection to each of some addresses, and the second: in plain to what is in no mesh, and by a tunnel.
fn first_connections(running: &Running, what: &str) -> Result<(), VariantError> {
    let topology = &running.topology;
    let outside: Vec<IpAddr> = (0..FIRST).map(|last| Ipv4Addr::new(10, 9, 1, 10 + last).into()).collect();
    let pods: Vec<IpAddr> = (0..FIRST).map(|last| Ipv4Addr::new(10, 9, 0, 10 + last).into()).collect();
    for ip in &outside {
        topology.outside.ip(&format!("address add {ip}/24 dev eth0"))?;
    }
    for ip in &pods {
        topology.server.ip(&format!("address add {ip}/24 dev eth0"))?;
    }
    if let Some(controller) = &running.controller {
        controller.replicas(&pods);
    }
    settle(running.client_side.processes[0].pid());
    for (to, ips) in [("in plain", &outside), ("by a new tunnel", &pods)] {
        let [first, second] =
            topology.client.run(|| [connect_to_all(ips), connect_to_all(ips)])?.map(|times| times);
        row(&format!("first connection {to}, {what}"), spread(first.map_err(failed("connecting"))?));
        row(&format!("second connection {to}, {what}"), spread(second.map_err(failed("connecting"))?));
    }
    Ok(())
}

/// How long each takes from the beginning until a byte has come back.
fn connect_to_all(ips: &[IpAddr]) -> io::Result<Vec<Duration>> {
    let one = |ip: &IpAddr| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(SocketAddr::new(*ip, PORT))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&Mode::Echo(1).encode())?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        Ok(begun.elapsed())
    };
    ips.iter().map(one).collect()
}

/// Connects to many that are not there; returns how long it took until the agent knew all of them.
fn activate(running: &Running, wanted: &[IpAddr]) -> Result<Duration, VariantError> {
    let topology = &running.topology;
    topology.client.ip(&format!("route add default via {OUTSIDE}"))?;
    // Refused at once instead of not answered.
    topology.outside.ip("route add local 11.0.0.0/8 dev lo")?;
    let node = running.client_side.namespace().ok_or(VariantError::NotGiven("namespace of the agent"))?;
    let known = || node.run(workloads).map_err(VariantError::from)?.map_err(failed("asking the agent"));
    let before = known()?;
    let begun = Instant::now();
    let connected = topology.client.run(|| {
        // One after the other: what the agent keeps is measured, not what many connections at once take for a moment.
        let connect = |ip: &IpAddr| {
            let mut stream = TcpStream::connect(SocketAddr::new(*ip, PORT))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            // There is nobody: it ends with a reset.
            let _ = stream.read(&mut [0]);
            Ok(())
        };
        wanted.iter().try_for_each(connect)
    })?;
    connected.map_err(failed("connecting"))?;
    while known()? < before + wanted.len() {
        if begun.elapsed() > PATIENCE {
            return Err(failed("waiting for what was asked for")(io::ErrorKind::TimedOut.into()));
        }
        pause(Duration::from_millis(5));
    }
    Ok(begun.elapsed())
}

/// How many workloads the agent of this namespace knows.
fn workloads() -> io::Result<usize> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 15000))?;
    stream.write_all(b"GET /config_dump HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    let text = String::from_utf8_lossy(&page);
    let (Some(from), Some(to)) = (text.find('{'), text.rfind('}')) else {
        return Err(io::Error::other("no page"));
    };
    let page: Value = serde_json::from_str(&text[from..=to]).map_err(io::Error::other)?;
    Ok(page["workloads"].as_array().map_or(0, Vec::len))
}
