//! `lateen echo`: an HTTP and TCP server that reports what it saw, for demonstrations and tests.

mod http;
mod tcp;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::EchoArgs;
use crate::{Outcome, say};

/// Port without any option.
const DEFAULT_PORT: u16 = 8080;

/// How long accepting pauses when the system has run out of something.
const PAUSE: Duration = Duration::from_millis(50);

/// What the server says of itself.
#[derive(Debug)]
struct Identity {
    name: String,
    version: String,
}

/// Runs `echo` until it is told to end.
pub(crate) fn run(args: &EchoArgs) -> Outcome {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
    };
    let identity = Arc::new(Identity { name, version: args.reported.clone() });
    let by_default = if args.tcp.is_empty() { vec![DEFAULT_PORT] } else { Vec::new() };
    let http = if args.http.is_empty() { by_default } else { args.http.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        for port in &http {
            tokio::spawn(http::serve(listen(*port)?, Arc::clone(&identity)));
        }
        for port in &args.tcp {
            tokio::spawn(tcp::serve(listen(*port)?, Arc::clone(&identity)));
        }
        say(&format!("{} listens: http {http:?}, tcp {:?}", identity.name, args.tcp));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The next client. What one did to its connection is no concern of the next; if files have run out, those who are there
/// end in time.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A listener for both families, or for IPv4 where there is no IPv6.
fn listen(port: u16) -> Result<TcpListener, io::Error> {
    let bind = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    let says = |error: io::Error| io::Error::new(error.kind(), format!("port {port}: {error}"));
    match bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).map_err(says)
        }
        other => other.map_err(says),
    }
}

/// The address as a person writes it: IPv4 clients of a socket for both families are IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
