//! The load: tunnels to a waypoint, connections in them, and requests on those, in a closed or an open loop.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hbone::account::{Account, AccountLimits};
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::transport::Tls;
use hbone::tunnel;
use identity::tls::no_server_name;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::credentials;
use super::exchange::{Slot, Wanted};
use super::pace::{Due, deal};
use super::{Protocol, Seen};
use crate::load::histogram::Histogram;
use crate::load::raise_descriptor_limit;

/// How long everything may take to be open.
const OPENING: Duration = Duration::from_secs(10);

/// What is to be driven.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The waypoint.
    #[arg(long, value_name = "ADDR")]
    pub connect: SocketAddr,
    /// The service's address and port: what tunnels' streams are asked for.
    #[arg(long, value_name = "ADDR")]
    pub service: SocketAddr,
    /// The request's host.
    #[arg(long)]
    pub host: String,
    /// The request's path.
    #[arg(long, default_value = "/")]
    pub path: String,
    /// Folder of certificates.
    #[arg(long, value_name = "FOLDER")]
    pub credentials: PathBuf,
    /// What is spoken.
    #[arg(long, value_enum, default_value = "h1")]
    pub protocol: Protocol,
    /// Tunnels: an agent has one for each of its clients' identities and threads.
    #[arg(long, default_value_t = 4)]
    pub tunnels: usize,
    /// Requests under way at most, over all tunnels.
    #[arg(long, default_value_t = 64)]
    pub slots: usize,
    /// Of these on one connection, in HTTP/2.
    #[arg(long, default_value_t = 8)]
    pub streams: usize,
    /// For how long.
    #[arg(long, value_parser = crate::load::seconds, default_value = "2")]
    pub seconds: Duration,
    /// Open loop: so many requests a second, latency counted from when each was due.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Bytes of body that an answer has to have.
    #[arg(long, default_value_t = 1024)]
    pub size: usize,
    /// End before, when the standard input does.
    #[arg(long)]
    pub until_input_ends: bool,
}

/// Runs the load and prints one line of JSON.
pub(crate) fn print(options: &Options) -> io::Result<()> {
    raise_descriptor_limit();
    let seen = super::runtime()?.block_on(drive(options))?;
    println!("{}", serde_json::to_string(&seen)?);
    // A thread may be waiting for input still.
    io::Write::flush(&mut io::stdout())?;
    std::process::exit(0)
}

/// Waits for the end of the time, or of the input.
async fn end(options: &Options) {
    if !options.until_input_ends {
        return tokio::time::sleep(options.seconds).await;
    }
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = timeout(options.seconds, end).await;
}

/// A tunnel to a waypoint, as an agent has it.
pub(crate) async fn tunnel(options: &Options) -> Result<tunnel::Client, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the tunnel to {}: {error}", options.connect);
    let own = credentials::read(&options.credentials, "client").map_err(|error| failed(&error))?;
    let config = own.client_config(Arc::from([credentials::identity("waypoint")]));
    let socket = TcpStream::connect(options.connect).await.map_err(|error| failed(&error))?;
    socket.set_nodelay(true).map_err(|error| failed(&error))?;
    let (limits, account) = (Limits::default(), Account::new(AccountLimits::default()));
    let transport = Tls::connect(socket, config, no_server_name(), &limits, &account);
    let transport = transport.await.map_err(|error| failed(&error))?;
    let (client, driver) = tunnel::client(transport, limits);
    tokio::task::spawn_local(async move {
        let _ = driver.await;
    });
    Ok(client)
}

/// A connection inside a tunnel.
pub(crate) async fn connection(tunnel: &tunnel::Client, options: &Options) -> Result<Vec<Slot>, String> {
    let opened = tunnel.connect(&options.service.to_string(), &Headers::new()).await;
    let stream = opened.map_err(|error| error.to_string())?.stream;
    Ok(Slot::open(stream, options.protocol, options.streams))
}

async fn drive(options: &Options) -> io::Result<Seen> {
    let opened = timeout(OPENING, open(options)).await;
    let (slots, tunnels) = opened.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let dues: Vec<Rc<Due>> = slots.iter().map(|_| Rc::default()).collect();
    let begin = Instant::now();
    let tally = Rc::new(Tally {
        count_from: begin + options.seconds / 10,
        size: options.size,
        inner: RefCell::new(Inner { latencies: Histogram::new(), done: 0, wrong: 0, first_wrong: None }),
    });
    let wanted = Rc::new(Wanted { host: options.host.clone(), path: options.path.clone() });
    let mut tasks = JoinSet::new();
    for (slot, due) in slots.into_iter().zip(&dues) {
        let due = options.rate.is_some().then(|| due.clone());
        tasks.spawn_local(work(slot, due, wanted.clone(), tally.clone()));
    }
    let dealing = async {
        match options.rate {
            Some(rate) => deal(&dues, rate).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        failed = dealing => failed?,
        () = end(options) => {}
    }
    let elapsed = begin.elapsed();
    tasks.shutdown().await;
    drop(tunnels);
    let inner = tally.inner.borrow();
    Ok(Seen {
        requests: inner.done,
        per_second: inner.done as f64 / elapsed.as_secs_f64(),
        p50_us: inner.latencies.quantile_us(0.50),
        p99_us: inner.latencies.quantile_us(0.99),
        wrong: inner.wrong,
        first_wrong: inner.first_wrong.clone(),
    })
}

async fn open(options: &Options) -> Result<(Vec<Slot>, Vec<tunnel::Client>), String> {
    let (mut slots, mut tunnels) = (Vec::new(), Vec::new());
    for _ in 0..options.tunnels.max(1) {
        tunnels.push(tunnel(options).await?);
    }
    for tunnel in tunnels.iter().cycle() {
        if slots.len() >= options.slots {
            break;
        }
        slots.extend(connection(tunnel, options).await?);
    }
    slots.truncate(options.slots);
    Ok((slots, tunnels))
}

/// What all slots have seen.
struct Tally {
    count_from: Instant,
    size: usize,
    inner: RefCell<Inner>,
}

struct Inner {
    latencies: Histogram,
    done: u64,
    wrong: u64,
    first_wrong: Option<String>,
}

impl Tally {
    fn wrong(&self, what: String) {
        let mut inner = self.inner.borrow_mut();
        inner.wrong += 1;
        inner.first_wrong.get_or_insert(what);
    }

    fn done(&self, due: Instant) {
        let (now, mut inner) = (Instant::now(), self.inner.borrow_mut());
        inner.done += 1;
        if now >= self.count_from {
            inner.latencies.record(now - due);
        }
    }
}

/// Asks until it is ended, or its connection is.
async fn work(mut slot: Slot, due: Option<Rc<Due>>, wanted: Rc<Wanted>, tally: Rc<Tally>) {
    loop {
        let begun = match &due {
            Some(due) => due.next().await,
            None => Instant::now(),
        };
        match slot.ask(&wanted).await {
            Ok(answer) if answer.status == 200 && answer.length >= tally.size => tally.done(begun),
            Ok(answer) => tally.wrong(format!("{answer:?}")),
            Err(error) => return tally.wrong(error),
        }
    }
}
