//! `lateen capture`: looks at the packets of the network it runs in, counts them by port and searches them for a
//! marker: how a person sees for himself what crosses a link in the clear. Run it inside a node by
//! `lateen exec --privileged`.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Outcome;

/// Every protocol (`ETH_P_ALL` of linux/if_ether.h).
const ETH_P_ALL: u16 = 0x0003;
/// The largest packet looked at, in bytes; segments that the kernel has joined are this large.
const MAX_PACKET: usize = 1 << 16;
/// What the kernel keeps for us while we are not looking, in bytes.
const BUFFER: usize = 8 << 20;
/// How long one look waits before the time is checked.
const LOOK: Duration = Duration::from_millis(100);
/// IP protocol number of TCP.
const TCP: u8 = 6;

/// `lateen capture`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen capture --seconds 5
  lateen exec --privileged -n kube-system watch -- lateen capture --marker 6c617465656e --seconds 3

Exit codes: 0 captured; what was found is in the output.")]
pub(crate) struct CaptureArgs {
    /// Bytes to search every packet for, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    marker: Option<Marker>,

    /// How long to look; Ctrl-C ends it before
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

/// Bytes to search for.
#[derive(Debug, Clone)]
struct Marker(Vec<u8>);

fn bytes(text: &str) -> Result<Marker, String> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    let bytes = bytes.filter(|bytes| bytes.len() >= 4);
    bytes.map(Marker).ok_or_else(|| "give at least four bytes as hexadecimal digits".to_owned())
}

/// What was seen.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    /// Packets.
    packets: u64,
    /// TCP packets with content, by the server's port as far as it can be told: the lower of the two.
    tcp_by_port: BTreeMap<u16, u64>,
    /// Packets with the marker in them.
    marked: u64,
    /// When and between whom some of them were seen: at most one a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sightings: Vec<Sighting>,
}

/// A packet with the marker.
#[derive(Debug, Serialize)]
struct Sighting {
    /// Milliseconds since 1970.
    at: u64,
    from: IpAddr,
    to: IpAddr,
}

/// Sightings that are kept.
const SIGHTINGS: usize = 256;
/// Between two of them.
const APART: u64 = 1000;

/// Captures, and prints what was seen as JSON.
pub(crate) fn run(args: &CaptureArgs) -> Outcome {
    let mut socket = open().map_err(|error| {
        format!("cannot capture packets: {error}; it takes CAP_NET_RAW: inside a mesh use `lateen exec --privileged`")
    })?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    eprintln!("capturing for {} s", args.seconds);
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let mut seen = Seen::default();
    let mut packet = vec![0; MAX_PACKET];
    while Instant::now() < until && signals.read_signal()?.is_none() {
        match socket.read(&mut packet) {
            Ok(length) => seen.take(&packet[..length], args.marker.as_ref()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("{}", serde_json::to_string(&seen)?);
    Ok(ExitCode::SUCCESS)
}

fn open() -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
    // Without a link header, so that every kind of link looks alike: packets begin with IP.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
    // A small default is kept where more is not allowed.
    let _ = socket.set_recv_buffer_size(BUFFER);
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

impl Seen {
    fn take(&mut self, packet: &[u8], marker: Option<&Marker>) {
        self.packets += 1;
        if let Some(Marker(wanted)) = marker
            && packet.windows(wanted.len()).any(|window| window == wanted)
        {
            self.marked += 1;
            self.sighted(packet, SystemTime::now());
        }
        if let Some(port) = server_port(packet) {
            *self.tcp_by_port.entry(port).or_default() += 1;
        }
    }
}

impl Seen {
    fn sighted(&mut self, packet: &[u8], now: SystemTime) {
        let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let is_new = self.sightings.last().is_none_or(|last| at >= last.at + APART);
        if is_new
            && self.sightings.len() < SIGHTINGS
            && let Some((from, to)) = ends(packet)
        {
            self.sightings.push(Sighting { at, from, to });
        }
    }
}

/// The addresses of an IP packet.
fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn address<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
        packet.get(at..at + N)?.try_into().ok()
    }
    match packet.first()? >> 4 {
        4 => Some((address::<4>(packet, 12)?.into(), address::<4>(packet, 16)?.into())),
        6 => Some((address::<16>(packet, 8)?.into(), address::<16>(packet, 24)?.into())),
        _ => None,
    }
}

/// The lower port of a TCP packet that carries something.
fn server_port(packet: &[u8]) -> Option<u16> {
    let (segment, total) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            (*packet.get(9)? == TCP)
                .then(|| packet.get(header..))
                .flatten()
                .map(|rest| (rest, total - header.min(total)))?
        }
        6 => {
            let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            (*packet.get(6)? == TCP).then(|| packet.get(40..)).flatten().map(|rest| (rest, length))?
        }
        _ => return None,
    };
    let offset = usize::from(*segment.get(12)? >> 4) * 4;
    if total <= offset {
        return None;
    }
    let source = u16::from_be_bytes([segment[0], segment[1]]);
    let destination = u16::from_be_bytes([segment[2], segment[3]]);
    Some(source.min(destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(40 + payload.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&total.to_be_bytes());
        packet.extend_from_slice(&[0; 5]);
        packet.push(protocol);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(&source.to_be_bytes());
        packet.extend_from_slice(&destination.to_be_bytes());
        packet.extend_from_slice(&[0; 8]);
        packet.push(5 << 4);
        packet.extend_from_slice(&[0; 7]);
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn counts_what_carries_something() {
        let mut seen = Seen::default();
        seen.take(&v4(TCP, 40000, 15008, b"x"), None);
        seen.take(&v4(TCP, 15008, 40000, b"x"), None);
        seen.take(&v4(TCP, 40000, 15008, b""), None);
        seen.take(&v4(17, 40000, 53, b"x"), None);
        assert_eq!(seen.packets, 4);
        assert_eq!(seen.tcp_by_port, BTreeMap::from([(15008, 2)]));
    }

    #[test]
    fn finds_the_marker() {
        let marker = bytes("6c617465656e").unwrap();
        let mut seen = Seen::default();
        seen.take(&v4(TCP, 1, 2, b"the lateen sail"), Some(&marker));
        seen.take(&v4(TCP, 1, 2, b"a square sail"), Some(&marker));
        assert_eq!(seen.marked, 1);
        let second = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let mut seen = Seen::default();
        for at in [5, 5, 6, 9] {
            seen.sighted(&v4(TCP, 1, 2, b""), second(at));
        }
        let at: Vec<u64> = seen.sightings.iter().map(|sighting| sighting.at).collect();
        assert_eq!(at, [5000, 6000, 9000]);
        assert!(bytes("6c6").is_err());
        assert!(bytes("zz000000").is_err());
    }

    #[test]
    fn truncated_packets_are_only_counted() {
        let whole = v4(TCP, 1, 2, b"x");
        for length in 0..whole.len() {
            let _ = server_port(&whole[..length]);
        }
    }
}
