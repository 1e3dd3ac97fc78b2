//! Somebody with the rights of the agent on its node who speaks nonsense on the agent's own sockets (ZDS and the
//! private one): garbage, messages of any length, lengths that lie, and descriptors that nobody asked for.

use std::fs::{self, File};
use std::io::IoSlice;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::strike::{Done, Pace, Strike};

/// Connections that are kept and say nothing more.
const KEPT: usize = 16;
/// How long the sink waits for more.
const SILENT: Duration = Duration::from_millis(10);
/// The kernel takes 253 descriptors with a message.
const DESCRIPTORS: usize = 253;

/// The agent's sockets, by their names in its folder.
pub(super) const NAMES: [&str; 2] = ["zds.sock", "redirect.sock"];

/// Connects at the pace and says something that makes no sense.
pub(super) async fn storm(strike: &Strike, until: Instant) -> io::Result<Done> {
    let folder = strike.sockets.as_deref().ok_or_else(|| io::Error::other("--sockets FOLDER is missing"))?;
    let nothing = File::open("/dev/null")?;
    let descriptors: Vec<_> = (0..DESCRIPTORS).map(|_| nothing.as_raw_fd()).collect();
    let (mut done, mut kept) = (Done::default(), Vec::new());
    let mut pace = Pace::new(f64::from(strike.rate()));
    let mut tick = interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while Instant::now() < until {
        tick.tick().await;
        for _ in 0..pace.due() {
            let path = folder.join(NAMES[done.steps as usize % NAMES.len()]);
            done.steps += 1;
            match speak(&path, done.steps, &descriptors) {
                Ok(socket) => {
                    done.opened += 1;
                    if kept.len() < KEPT {
                        kept.push(socket);
                    }
                }
                // Its queue is full: it takes them one by one.
                Err(_) => done.refused += 1,
            }
        }
    }
    Ok(done)
}

/// Makes such sockets in a folder, and takes whatever is said there, one after the other, as the agent does.
pub(super) fn swallow(folder: &Path) -> io::Result<()> {
    for name in NAMES {
        let path = folder.join(name);
        // That of an earlier sink.
        let _ = fs::remove_file(&path);
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        listener.bind(&SockAddr::unix(path)?)?;
        listener.listen(128)?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                // Gone before its turn, or out of descriptors: the others go on. Who says nothing more is let go.
                let Ok((mut socket, _)) = listener.accept() else { continue };
                let patient = socket.set_read_timeout(Some(SILENT));
                while patient.is_ok() && matches!(socket.read(&mut buffer), Ok(1..)) {}
            }
        });
    }
    Ok(())
}

fn speak(path: &Path, number: u64, descriptors: &[i32]) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    let socket = OwnedFd::from(socket);
    let (bytes, count): (Vec<u8>, usize) = match number % 6 {
        0 => (vec![0xff; 60_000], 0),
        1 => (vec![0x0a; 4], descriptors.len()),
        // A field that says it is four gigabytes long.
        2 => (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1], 1),
        // A hello of version 0 to 4,294,967,295, and then a flood of "received".
        3 => (vec![0x0a, 0x06, 0x10, 0xff, 0xff, 0xff, 0xff, 0x0f], 3),
        // Messages nested in one another.
        4 => ([0x0a, 0x7e].repeat(500), 0),
        _ => (Vec::new(), 1),
    };
    let rights = [ControlMessage::ScmRights(&descriptors[..count])];
    let control = if count == 0 { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    for _ in 0..3 {
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None)?;
    }
    Ok(socket)
}
