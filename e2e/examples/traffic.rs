//! Traffic that goes on whatever happens to it and keeps a record of what did (`e2e::traffic`): it runs inside pods.
//!
//! `traffic STREAMS EVERY_MS REQUESTS_A_SECOND marked|plain TARGET…`, the targets being `streams serve`: long connections whose every
//! answer is checked, opened again when they break, and requests on connections of their own. Each line on stdin asks
//! for what was seen so far, as JSON; the end of stdin ends the connections in order and asks a last time.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use e2e::capture::MARKER;
use e2e::message::message;
use e2e::traffic::{MOST, SLOW, Seen, Trouble, now};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long one exchange may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before a broken connection is opened again.
const AGAIN: Duration = Duration::from_millis(100);
/// Requests that may wait for their answers at once.
const WAITING: usize = 500;
/// Numbers of requests are above those of long connections.
const REQUEST: u64 = 1 << 32;

struct Options {
    streams: usize,
    every: Duration,
    requests: u32,
    mark: &'static [u8],
    targets: Vec<String>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [streams, every, requests, marked, targets @ ..] = arguments.as_slice() else {
        println!("traffic STREAMS EVERY_MS REQUESTS_A_SECOND marked|plain TARGET…");
        std::process::exit(2);
    };
    let options = Options {
        streams: streams.parse().expect("a number"),
        every: Duration::from_millis(every.parse().expect("milliseconds")),
        requests: requests.parse().expect("a number"),
        mark: if marked == "marked" { MARKER.as_bytes() } else { b"" },
        targets: targets.to_vec(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let Err(error) = LocalSet::new().block_on(&runtime, run(Rc::new(options))) {
        println!("failed: {error}");
        std::process::exit(1);
    }
}

type Shared = Rc<RefCell<Seen>>;

async fn run(options: Rc<Options>) -> io::Result<()> {
    let seen = Shared::default();
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..options.streams {
        tasks.spawn_local(keep(number, options.clone(), stopped.clone(), seen.clone()));
    }
    if options.requests > 0 {
        tasks.spawn_local(request(options.clone(), stopped, seen.clone()));
    }
    while {
        let seen = seen.borrow();
        seen.opened as usize + seen.failed.len() < options.streams
    } {
        sleep(Duration::from_millis(5)).await;
    }
    println!("opened");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        println!("{}", report(&seen)?);
    }
    let _ = stop.send(true);
    while tasks.join_next().await.is_some() {}
    println!("{}", report(&seen)?);
    Ok(())
}

/// What was seen; of what went wrong only what was not told before.
fn report(seen: &Shared) -> io::Result<String> {
    let mut seen = seen.borrow_mut();
    let text = serde_json::to_string(&*seen)?;
    seen.broken.clear();
    seen.failed.clear();
    seen.slow.clear();
    Ok(text)
}

/// Notes what went wrong, as far as there is room.
fn note(seen: &Shared, of: fn(&mut Seen) -> &mut Vec<Trouble>, begun: u64, target: &str, what: String) {
    let mut seen = seen.borrow_mut();
    if of(&mut seen).len() < MOST {
        of(&mut seen).push(Trouble { begun, ended: now(), target: target.to_owned(), what });
    } else {
        seen.untold += 1;
    }
}

/// Keeps one long connection open until told to stop.
async fn keep(number: usize, options: Rc<Options>, mut stopped: watch::Receiver<bool>, seen: Shared) {
    let target = &options.targets[number % options.targets.len()];
    let mut sent = 0;
    // Not all at the same moment.
    sleep(options.every.mul_f64((number % 97) as f64 / 97.0)).await;
    while !*stopped.borrow() {
        let begun = now();
        match connect(target).await {
            Err(error) => {
                note(&seen, |seen| &mut seen.failed, begun, target, format!("stream {number}: {error}"));
            }
            Ok(socket) => {
                seen.borrow_mut().open += 1;
                seen.borrow_mut().opened += 1;
                let ended = exchange(number, socket, &options, stopped.clone(), &seen, &mut sent).await;
                seen.borrow_mut().open -= 1;
                match ended {
                    Ok(()) => return,
                    Err(error) => {
                        let what = format!("stream {number}: {error}, message {sent}");
                        note(&seen, |seen| &mut seen.broken, begun, target, what);
                    }
                }
            }
        }
        let _ = timeout(AGAIN, stopped.changed()).await;
    }
}

async fn connect(target: &str) -> io::Result<TcpStream> {
    let socket =
        timeout(PATIENCE, TcpStream::connect(target)).await.map_err(|_| io::Error::other("stuck"))??;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Messages and their answers until told to stop; then the end, both ways.
async fn exchange(
    number: usize,
    mut socket: TcpStream,
    options: &Options,
    mut stopped: watch::Receiver<bool>,
    seen: &Shared,
    sent: &mut u64,
) -> io::Result<()> {
    let mut tick = interval(options.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.changed() => continue,
        }
        let begun = now();
        *sent += 1;
        let bytes = ask(&mut socket, number as u64, *sent, options.mark).await?;
        let took = now().saturating_sub(begun);
        let mut all = seen.borrow_mut();
        all.messages += 1;
        all.bytes += bytes;
        all.slowest_message = all.slowest_message.max(took);
        drop(all);
        if took > SLOW {
            let target = &options.targets[number % options.targets.len()];
            note(seen, |seen| &mut seen.slow, begun, target, format!("stream {number}, message {sent}"));
        }
    }
    finish(&mut socket).await
}

/// One message and its answer, which is the same; how long it was.
async fn ask(socket: &mut TcpStream, number: u64, sent: u64, mark: &[u8]) -> io::Result<u64> {
    let question = [mark, &message(number, sent)].concat();
    let mut answer = vec![0; question.len()];
    let (mut read, mut write) = socket.split();
    let both = async { tokio::try_join!(write.write_all(&question), read.read_exact(&mut answer)).map(drop) };
    timeout(PATIENCE, both).await.map_err(|_| io::Error::other("stuck"))??;
    if answer != question {
        return Err(io::Error::other("the answer is not what was sent"));
    }
    Ok(question.len() as u64)
}

/// The end of what we say must bring the end of what the other says.
async fn finish(socket: &mut TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let ended = timeout(PATIENCE, socket.read(&mut [0; 64])).await;
    match ended.map_err(|_| io::Error::other("stuck at its end"))?? {
        0 => Ok(()),
        _ => Err(io::Error::other("something came after the last answer")),
    }
}

/// Requests at a steady rate, whatever became of the ones before.
async fn request(options: Rc<Options>, mut stopped: watch::Receiver<bool>, seen: Shared) {
    let mut tick = interval(Duration::from_secs(1) / options.requests);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = JoinSet::new();
    let mut number = REQUEST;
    while !*stopped.borrow() {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.changed() => continue,
        }
        while waiting.try_join_next().is_some() {}
        if waiting.len() >= WAITING {
            seen.borrow_mut().skipped += 1;
            continue;
        }
        number += 1;
        let (options, seen) = (options.clone(), seen.clone());
        let one = spawn_local(async move { one(number, &options, &seen).await });
        waiting.spawn_local(one);
    }
    while waiting.join_next().await.is_some() {}
}

async fn one(number: u64, options: &Options, seen: &Shared) {
    let target = &options.targets[(number % options.targets.len() as u64) as usize];
    let begun = now();
    let all = async {
        let mut socket = connect(target).await?;
        ask(&mut socket, number, 1, options.mark).await?;
        finish(&mut socket).await
    };
    if let Err(error) = all.await {
        return note(seen, |seen| &mut seen.failed, begun, target, format!("request {number}: {error}"));
    }
    let took = now().saturating_sub(begun);
    let mut all = seen.borrow_mut();
    all.requests += 1;
    all.slowest_request = all.slowest_request.max(took);
    drop(all);
    if took > SLOW {
        note(seen, |seen| &mut seen.slow, begun, target, format!("request {number}"));
    }
}
