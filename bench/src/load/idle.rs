//! Idle: many open connections that say nothing, to see what one costs in memory.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::wire::Mode;
use super::{Idle, LoadError};

/// How many are being opened at a time: below the listeners' backlog of 128.
const AT_ONCE: usize = 64;

/// Opens all, prints a line of JSON, and holds them until the end of its standard input.
pub(crate) fn run(to: SocketAddr, connections: usize) -> Result<(), LoadError> {
    let begin = Instant::now();
    let mut held: Vec<TcpStream> = Vec::with_capacity(connections);
    while held.len() < connections {
        let first = held.len();
        for _ in first..connections.min(first + AT_ONCE) {
            held.push(ask(to)?);
        }
        for stream in &held[first..] {
            greeted(stream)?;
        }
    }
    let report = Idle { opened: held.len() as u64, seconds: begin.elapsed().as_secs_f64() };
    println!("{}", serde_json::to_string(&report).map_err(LoadError::io("writing the result"))?);
    io::stdout().flush().map_err(LoadError::io("writing the result"))?;
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(LoadError::io("waiting for the end of input"))?;
    Ok(())
}

fn ask(to: SocketAddr) -> Result<TcpStream, LoadError> {
    let failed = |source| LoadError::Connect { to, source };
    let mut stream = TcpStream::connect(to).map_err(failed)?;
    stream.write_all(&Mode::Hold.encode()).map_err(failed)?;
    Ok(stream)
}

/// The server's one byte: the connection is through, over every proxy on the way.
fn greeted(mut stream: &TcpStream) -> Result<(), LoadError> {
    stream.read_exact(&mut [0]).map_err(LoadError::io("waiting for the server's greeting"))
}
