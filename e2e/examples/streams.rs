//! Long-lived connections whose every byte is checked, for the end-to-end tests: it runs inside pods.
//!
//! `serve PORT` answers each message with the same; `run COUNT EVERY_MS TARGET…` opens COUNT connections, spread over the
//! targets, and on each sends a numbered message every so often, up to a megabyte long, and expects it back. One line a
//! second of what was seen is kept; each line on stdin asks for what was seen since the last one, as JSON; the end of
//! stdin ends the connections in order and asks for the whole.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use e2e::message::message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

const USAGE: &str = "streams serve PORT | streams run COUNT EVERY_MS TARGET…";

/// How long an answer is waited for before the connection counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    let done = match words.as_slice() {
        ["serve", port] => local.block_on(&runtime, serve(port.parse().expect("a port"))),
        ["run", count, every, targets @ ..] if !targets.is_empty() => {
            let every = Duration::from_millis(every.parse().expect("milliseconds"));
            local.block_on(&runtime, run(count.parse().expect("a number"), every, targets))
        }
        _ => Err(io::Error::other(USAGE)),
    };
    if let Err(error) = done {
        println!("failed: {error}");
        std::process::exit(1);
    }
}

/// Sends back what comes until its end.
async fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await?;
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        spawn_local(async move {
            let _ = socket.set_nodelay(true);
            let (mut read, mut write) = socket.into_split();
            // A client that went away is no concern of this end.
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        });
    }
}

/// What all connections have seen.
#[derive(Default)]
struct Seen {
    opened: usize,
    messages: u64,
    bytes: u64,
    /// The slowest answer of each connection since the last report, in microseconds.
    slowest: Vec<u64>,
    failures: Vec<String>,
}

impl Seen {
    /// The report so far; the slowest are forgotten.
    fn report(&mut self) -> String {
        let mut slowest = std::mem::take(&mut self.slowest);
        self.slowest = vec![0; slowest.len()];
        slowest.sort_unstable();
        let at = |share: f64| {
            let index = ((slowest.len() as f64 * share).ceil() as usize).clamp(1, slowest.len().max(1)) - 1;
            slowest.get(index).copied().unwrap_or_default() as f64 / 1000.0
        };
        let shown: Vec<String> = self.failures.iter().take(5).map(|text| format!("{text:?}")).collect();
        format!(
            "{{\"opened\":{},\"messages\":{},\"bytes\":{},\"failed\":{},\"p50_ms\":{:.1},\"p99_ms\":{:.1},\"max_ms\":{:.1},\
             \"failures\":[{}]}}",
            self.opened,
            self.messages,
            self.bytes,
            self.failures.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            shown.join(",")
        )
    }
}

async fn run(count: usize, every: Duration, targets: &[&str]) -> io::Result<()> {
    let seen = Rc::new(RefCell::new(Seen { slowest: vec![0; count], ..Seen::default() }));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut streams = Vec::new();
    for number in 0..count {
        let target = targets[number % targets.len()].to_owned();
        let stream = stream(number, target, every, stopped.clone(), seen.clone());
        streams.push(spawn_local(stream));
        if number % 50 == 49 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let opened = async {
        while seen.borrow().opened + seen.borrow().failures.len() < count {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, opened).await.map_err(|_| io::Error::other("not all connections could be opened"))?;
    println!("opened {count}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        println!("{}", seen.borrow_mut().report());
    }
    let _ = stop.send(true);
    for stream in streams {
        let _ = stream.await;
    }
    println!("{}", seen.borrow_mut().report());
    Ok(())
}

async fn stream(
    number: usize,
    target: String,
    every: Duration,
    stopped: tokio::sync::watch::Receiver<bool>,
    seen: Rc<RefCell<Seen>>,
) {
    let mut sent = 0;
    if let Err(error) = exchange(number, &target, every, stopped, &seen, &mut sent).await {
        seen.borrow_mut().failures.push(format!("{number} to {target} after {sent} messages: {error}"));
    }
}

/// Messages and their answers until told to stop; then the end, both ways.
async fn exchange(
    number: usize,
    target: &str,
    every: Duration,
    mut stopped: tokio::sync::watch::Receiver<bool>,
    seen: &Rc<RefCell<Seen>>,
    sent: &mut u64,
) -> io::Result<()> {
    let socket = timeout(PATIENCE, TcpStream::connect(target)).await??;
    socket.set_nodelay(true)?;
    seen.borrow_mut().opened += 1;
    let (mut read, mut write) = socket.into_split();
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Not all at the same moment.
    sleep(every.mul_f64((number % 97) as f64 / 97.0)).await;
    let mut answer = Vec::new();
    while !*stopped.borrow() {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.changed() => continue,
        }
        let message = message(number as u64, *sent);
        answer.resize(message.len(), 0);
        let begun = Instant::now();
        let both =
            async { tokio::try_join!(write.write_all(&message), read.read_exact(&mut answer)).map(drop) };
        timeout(PATIENCE, both).await.map_err(|_| io::Error::other("stuck"))??;
        if answer != message {
            return Err(io::Error::other("the answer is not what was sent"));
        }
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut seen = seen.borrow_mut();
        seen.slowest[number] = seen.slowest[number].max(took);
        seen.messages += 1;
        seen.bytes += message.len() as u64;
        *sent += 1;
    }
    write.shutdown().await?;
    match timeout(PATIENCE, read.read(&mut answer)).await?? {
        0 => Ok(()),
        _ => Err(io::Error::other("something came after the last answer")),
    }
}
