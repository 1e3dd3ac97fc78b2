//! Load that runs inside pods in the tests of bounds: very many connections that stay, that are cancelled, that nobody
//! reads, that are in full flow; and beside them one client whose answers are timed. One thread, plain sockets.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{interval, timeout};

const USAGE: &str = "load echo PORT... | pour PORT | keep TARGET CONNECTIONS PER_SECOND | paced TARGET PER_SECOND SECONDS | \
cancel TARGET TIMES | unread TARGET CONNECTIONS | flow TARGET CONNECTIONS";

/// How long one step of a connection may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are opened or cancelled at a time.
const AT_ONCE: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = LocalSet::new().block_on(&runtime, async {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["echo", ports @ ..] => {
                let mut serving = JoinSet::new();
                for port in ports {
                    serving.spawn_local(serve(number(port), true));
                }
                serving.join_next().await.map_or(Ok(()), |ended| ended.map_err(io::Error::other)?)
            }
            ["pour", port] => serve(number(port), false).await,
            ["keep", target, connections, per_second] => {
                keep(resolve(target).await?, number(connections), number(per_second)).await
            }
            ["paced", target, per_second, seconds] => {
                paced(resolve(target).await?, number(per_second), number(seconds)).await
            }
            ["cancel", target, times] => cancel(resolve(target).await?, number(times)).await,
            ["unread", target, connections] => unread(resolve(target).await?, number(connections)).await,
            ["flow", target, connections] => flow(resolve(target).await?, number(connections)).await,
            _ => Err(io::Error::other(USAGE)),
        }
    });
    if let Err(error) = done {
        println!("failed: {error}");
        std::process::exit(1);
    }
}

fn number<T: TryFrom<u64>>(text: &str) -> T {
    text.parse::<u64>().ok().and_then(|number| T::try_from(number).ok()).expect(USAGE)
}

async fn resolve(target: &str) -> io::Result<SocketAddr> {
    lookup_host(target).await?.next().ok_or_else(|| io::Error::other(format!("{target} has no address")))
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(target)).await.map_err(|_| late("a connect"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn late(what: &str) -> io::Error {
    io::Error::other(format!("{what} took longer than {PATIENCE:?}"))
}

/// Waits until nobody wants more of us.
async fn end_of_stdin() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// Sends back what comes, or sends without end.
async fn serve(port: u16, echo: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; if echo { 512 } else { 65_536 }];
            loop {
                let len = match echo {
                    true => stream.read(&mut buffer).await.unwrap_or(0),
                    false => buffer.len(),
                };
                if len == 0 || stream.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn exchange(stream: &mut TcpStream, word: u64) -> io::Result<()> {
    let both = async {
        stream.write_all(&word.to_be_bytes()).await?;
        let mut back = [0; 8];
        stream.read_exact(&mut back).await?;
        if back == word.to_be_bytes() { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
    };
    timeout(PATIENCE, both).await.map_err(|_| late("an exchange"))?
}

/// Opens connections, each of which has one exchange, some at a time.
async fn open(target: SocketAddr, connections: u64) -> Vec<io::Result<TcpStream>> {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for number in 0..connections {
        let place = at_once.clone().acquire_owned().await;
        opening.spawn_local(async move {
            let mut stream = connect(target).await?;
            exchange(&mut stream, number).await?;
            drop(place);
            Ok(stream)
        });
    }
    opening.join_all().await
}

/// Opens connections and keeps them, with some exchanges a second over all of them in turn, until stdin ends: a line
/// when they are open, a line at the end.
async fn keep(target: SocketAddr, connections: u64, per_second: u64) -> io::Result<()> {
    let opened = open(target, connections).await;
    let first = opened.iter().find_map(|result| result.as_ref().err().map(ToString::to_string));
    let mut streams: Vec<TcpStream> = opened.into_iter().flatten().collect();
    println!("open {} of {connections} {}", streams.len(), first.unwrap_or_default());
    let mut pace = interval(Duration::from_nanos(1_000_000_000 / per_second.max(1)));
    let (mut exchanges, mut broken, mut at) = (0u64, 0u64, 0);
    let mut end = std::pin::pin!(end_of_stdin());
    while !streams.is_empty() {
        tokio::select! {
            () = &mut end => break,
            _ = pace.tick() => {}
        }
        at = (at + 1) % streams.len();
        exchanges += 1;
        if exchange(&mut streams[at], exchanges).await.is_err() {
            broken += 1;
            streams.swap_remove(at);
        }
    }
    println!("{{\"kept\": {}, \"broken\": {broken}, \"exchanges\": {exchanges}}}", streams.len());
    Ok(())
}

/// Exchanges at a steady rate over some connections in turn; how long they took, in microseconds. One that could not be
/// sent in time, because its connection still waited for an answer, is timed from when it should have been.
async fn paced(target: SocketAddr, per_second: u64, seconds: u64) -> io::Result<()> {
    const CONNECTIONS: u64 = 8;
    let pause = Duration::from_nanos(1_000_000_000 / per_second);
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(connect(target).await?);
    }
    let begun = Instant::now();
    let mut pacing = JoinSet::new();
    for (first, mut stream) in (0..CONNECTIONS).zip(streams) {
        pacing.spawn_local(async move {
            let mut times = Vec::new();
            let mut free = begun;
            for number in (first..per_second * seconds).step_by(8) {
                let due = begun + pause * u32::try_from(number).map_err(io::Error::other)?;
                tokio::time::sleep_until(due.into()).await;
                // That our own timer is coarse is nobody's fault; that the last answer was late is.
                let sent = if free > due { due } else { Instant::now() };
                exchange(&mut stream, number).await?;
                free = Instant::now();
                times.push(free - sent);
            }
            io::Result::Ok(times)
        });
    }
    let mut times = Vec::new();
    for own in pacing.join_all().await {
        times.extend(own?);
    }
    times.sort();
    let at = |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)].as_micros();
    println!(
        "{{\"exchanges\": {}, \"p50\": {}, \"p90\": {}, \"p99\": {}, \"max\": {}}}",
        times.len(),
        at(500),
        at(900),
        at(990),
        at(1000)
    );
    Ok(())
}

/// Opens connections and breaks each off with a reset: at once, behind a request, behind its answer, or behind more
/// than anybody has taken yet.
async fn cancel(target: SocketAddr, times: u64) -> io::Result<()> {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut cancelling = JoinSet::new();
    let mut failed = 0u64;
    for number in 0..times {
        let place = at_once.clone().acquire_owned().await;
        cancelling.spawn_local(async move {
            let result = cancelled(target, number).await;
            drop(place);
            result
        });
        while let Some(Ok(result)) = cancelling.try_join_next() {
            failed += u64::from(result.is_err());
        }
    }
    failed += cancelling.join_all().await.iter().filter(|result| result.is_err()).count() as u64;
    println!("{{\"cancelled\": {times}, \"failed\": {failed}}}");
    Ok(())
}

async fn cancelled(target: SocketAddr, number: u64) -> io::Result<()> {
    let mut stream = connect(target).await?;
    stream.set_zero_linger()?;
    match number % 4 {
        0 => {}
        1 => stream.write_all(b"request").await?,
        2 => exchange(&mut stream, number).await?,
        _ => drop(stream.try_write(&[7; 65_536])),
    }
    Ok(())
}

/// Opens connections that send something and never read, until stdin ends: how many were broken off meanwhile.
async fn unread(target: SocketAddr, connections: u64) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(target).await?);
    }
    println!("open {}", streams.len());
    end_of_stdin().await;
    let broken = streams.iter().filter(|stream| !matches!(stream.take_error(), Ok(None))).count();
    println!("{{\"unread\": {}, \"broken\": {broken}}}", streams.len());
    Ok(())
}

/// Reads from connections in full flow until stdin ends: how many bytes came.
async fn flow(target: SocketAddr, connections: u64) -> io::Result<()> {
    let came = Rc::new(std::cell::Cell::new(0u64));
    for _ in 0..connections {
        let mut stream = connect(target).await?;
        let came = came.clone();
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                came.set(came.get() + len as u64);
            }
        });
    }
    println!("open {connections}");
    end_of_stdin().await;
    println!("{{\"bytes\": {}}}", came.get());
    Ok(())
}
