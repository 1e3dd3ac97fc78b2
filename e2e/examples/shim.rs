//! A link that is not well: delays and loses packets from one node to others, in user space, because few kernels have
//! the means. It runs in the node's network.
//!
//! `shim SEED NETWORK…` says `ready` and then reads `DELAY_MS LOSS_PER_MILLE` from stdin, line by line; `0 0` lets packets go the way they went
//! without it. With the end of stdin it says how many it had and goes without a trace.
//!
//! Packets to these networks that came from pods of this node are routed into a device of this program, which writes
//! them back to be routed on; what the node itself says to its pods and what comes from other nodes is left alone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::chaos::Random;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Its device.
const DEVICE: &str = "delay0";
/// Packets that are held at most; what is more is lost, as on any link.
const HELD: usize = 20_000;
/// The table of routes that leads into it, and the order of the rules.
const TABLE: &str = "77";
const LEAD: &str = "120";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seed, networks @ ..] = arguments.as_slice() else {
        println!("shim SEED NETWORK…");
        std::process::exit(2);
    };
    let seed = seed.parse().expect("a number");
    let done = device().and_then(|device| {
        routes(true)?;
        let ran = Shim::new(device, seed, networks).run();
        routes(false)?;
        ran
    });
    if let Err(error) = done {
        println!("failed: {error}");
        std::process::exit(1);
    }
}

/// As `struct ifreq` of linux/if.h begins.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(
    /// Makes a file of `/dev/net/tun` a device's.
    attach,
    // TUNSETIFF of linux/if_tun.h
    0x4004_54ca,
    Request
);

/// A device whose packets are read and written.
fn device() -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags: 0x1001, rest: [0; 22] };
    request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    #[allow(unsafe_code)]
    // SAFETY: the kernel reads a `struct ifreq` of forty bytes from a pointer that is valid for the call.
    unsafe { attach(file.as_raw_fd(), &raw const request) }?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(file)
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let told = Command::new("ip").args(arguments).output()?;
    if told.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip {arguments:?}: {}", String::from_utf8_lossy(&told.stderr))))
}

/// What stays as long as the program runs: only its own packets, the node's and those of other nodes go past it, and
/// what comes back from it has had its connection followed already.
fn routes(begin: bool) -> io::Result<()> {
    if begin {
        ip(&["link", "set", DEVICE, "mtu", "1500", "up"])?;
    }
    for family in ["-4", "-6"] {
        let verb = if begin { "add" } else { "del" };
        for (order, from) in [("110", DEVICE), ("111", "lo"), ("112", "eth0")] {
            ip(&[family, "rule", verb, "pref", order, "iif", from, "lookup", "main"])?;
        }
        if begin {
            ip(&[family, "route", "add", "default", "dev", DEVICE, "table", TABLE])?;
        }
    }
    let rules = if begin {
        format!(
            "add table inet shim; add chain inet shim in {{ type filter hook prerouting priority raw; }}; \
             add rule inet shim in iifname {DEVICE} notrack"
        )
    } else {
        "delete table inet shim".to_owned()
    };
    let told = Command::new("nft").arg(rules).output()?;
    if told.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&told.stderr).into_owned()))
}

struct Shim<'a> {
    device: File,
    random: Random,
    networks: &'a [String],
    delay: Duration,
    loss: u64,
    leads: bool,
    held: VecDeque<(Instant, Vec<u8>)>,
    packets: u64,
    lost: u64,
}

impl<'a> Shim<'a> {
    fn new(device: File, seed: u64, networks: &'a [String]) -> Self {
        Self {
            device,
            random: Random::new(seed),
            networks,
            delay: Duration::ZERO,
            loss: 0,
            leads: false,
            held: VecDeque::new(),
            packets: 0,
            lost: 0,
        }
    }

    fn run(mut self) -> io::Result<()> {
        println!("ready");
        let stdin = io::stdin();
        let mut said_so_far = String::new();
        loop {
            let next = self.held.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
            // Rounded up: waking too early would be waking for nothing.
            let next = next.map(|time| time.as_millis() as u16 + 1).map_or(PollTimeout::NONE, Into::into);
            let mut waits = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waits, next) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [said, came] = waits.map(|wait| wait.any().unwrap_or(false));
            if came {
                self.take()?;
            }
            self.release(Instant::now());
            if said {
                let mut line = [0; 64];
                let read = nix::unistd::read(&stdin, &mut line)?;
                if read == 0 {
                    break;
                }
                said_so_far.push_str(&String::from_utf8_lossy(&line[..read]));
                // What is not a line yet waits for the rest of it.
                if let Some((lines, rest)) = said_so_far.rsplit_once('\n') {
                    let (lines, rest) = (lines.to_owned(), rest.to_owned());
                    self.order(&lines)?;
                    said_so_far = rest;
                }
            }
        }
        self.lead(false)?;
        self.release(Instant::now() + Duration::from_secs(60));
        println!("{{\"packets\":{},\"lost\":{}}}", self.packets, self.lost);
        Ok(())
    }

    /// From now on delay and loss are these; of several lines the last counts.
    fn order(&mut self, lines: &str) -> io::Result<()> {
        let last = lines.lines().last().unwrap_or_default();
        let mut numbers = last.split(' ').map_while(|number| number.parse().ok());
        let (Some(delay), Some(loss)) = (numbers.next(), numbers.next()) else {
            return Err(io::Error::other(format!("DELAY_MS LOSS_PER_MILLE, not {last:?}")));
        };
        (self.delay, self.loss) = (Duration::from_millis(delay), loss);
        self.lead(delay + loss > 0)
    }

    /// Has the node's packets go through here, or not.
    fn lead(&mut self, on: bool) -> io::Result<()> {
        if on == self.leads {
            return Ok(());
        }
        for network in self.networks {
            let family = if network.contains(':') { "-6" } else { "-4" };
            let verb = if on { "add" } else { "del" };
            ip(&[family, "rule", verb, "pref", LEAD, "to", network, "lookup", TABLE])?;
        }
        self.leads = on;
        Ok(())
    }

    fn take(&mut self) -> io::Result<()> {
        let mut packet = [0; 2048];
        loop {
            match self.device.read(&mut packet) {
                Ok(read) => {
                    self.packets += 1;
                    if self.held.len() >= HELD || self.random.within(0, 1000) < self.loss {
                        self.lost += 1;
                    } else {
                        self.held.push_back((Instant::now() + self.delay, packet[..read].to_vec()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn release(&mut self, now: Instant) {
        while self.held.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, packet)) = self.held.pop_front() {
                // What the kernel does not take is lost.
                if self.device.write(&packet).is_err() {
                    self.lost += 1;
                }
            }
        }
    }
}
