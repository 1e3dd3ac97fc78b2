//! What runs inside pods in the end-to-end tests: clients that say exactly what happened to each connection, and a
//! server that ends its half first. Plain blocking sockets: nothing here knows of a mesh.

#![allow(clippy::disallowed_methods, reason = "plain threads that pace themselves")]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::capture::MARKER;
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

const USAGE: &str = "peer probe TARGET… | rate TARGET PER_SECOND | gap TARGET | hold TARGET | idle TARGET SECONDS | \
kept TARGET CONNECTIONS REQUESTS | many TARGET CONNECTIONS | serve-half PORT | half TARGET BYTES [ORDERS] | \
dns TYPE NAME";

/// How long one exchange may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["probe", targets @ ..] => probe(targets),
        ["rate", target, per_second] => rate(target, per_second.parse().expect("a number")),
        ["gap", target] => gap(target),
        ["hold", target] => hold(target),
        ["idle", target, seconds] => idle(target, Duration::from_secs(seconds.parse().expect("a number"))),
        ["serve-half", port] => serve_half(port.parse().expect("a port")),
        ["kept", target, connections, requests] => {
            kept(target, connections.parse().expect("a number"), requests.parse().expect("a number"))
        }
        ["many", target, connections] => many(target, connections.parse().expect("a number")),
        ["half", target, bytes] => half(target, bytes.parse().expect("a number"), "cs"),
        ["half", target, bytes, orders] => half(target, bytes.parse().expect("a number"), orders),
        ["dns", kind, name] => dns(kind, name),
        _ => Err(io::Error::other(USAGE)),
    };
    if let Err(error) = done {
        println!("failed: {error}");
        std::process::exit(1);
    }
}

fn connect(target: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{target} has no address"));
    for address in target.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One HTTP exchange on a connection; the answer must be a 200 and be there in full.
fn get(stream: &mut BufReader<TcpStream>, close: bool) -> io::Result<()> {
    let end = if close { "close" } else { "keep-alive" };
    // What nobody between the two applications may see (`e2e::capture`).
    let request = format!("GET /?format=text&{MARKER} HTTP/1.1\r\nHost: server\r\nConnection: {end}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::other("closed without an answer"));
    }
    if !line.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("answered {line:?}")));
    }
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        if line == "\r\n" {
            break;
        }
        if line.is_empty() {
            return Err(io::Error::other("closed within the head of the answer"));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut stream.by_ref().take(length), &mut io::sink()).and_then(|read| {
        if read == length { Ok(()) } else { Err(io::Error::other("closed within the answer")) }
    })
}

/// Asks each target once, all at the same time; one line each, in order.
fn probe(targets: &[&str]) -> io::Result<()> {
    let asked = targets.iter().map(|target| {
        let target = (*target).to_owned();
        std::thread::spawn(move || {
            let result = connect(&target).and_then(|stream| get(&mut BufReader::new(stream), true));
            match result {
                Ok(()) => format!("{target} passed"),
                Err(error) => format!("{target} refused: {error}"),
            }
        })
    });
    let asked: Vec<_> = asked.collect();
    for thread in asked {
        println!("{}", thread.join().map_err(|_| io::Error::other("a probe panicked"))?);
    }
    Ok(())
}

/// Requests at a steady rate until stdin ends, half of them on connections that are kept, half on fresh ones;
/// `started` at the first answer, a line of JSON at the end.
fn rate(target: &str, per_second: u64) -> io::Result<()> {
    const THREADS: u64 = 8;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let slowest = Arc::new(AtomicU64::new(0));
    let failures: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let pause = Duration::from_micros(1_000_000 * THREADS / per_second);
    let begun = Instant::now();
    let started = Arc::new(AtomicBool::new(false));
    let threads = (0..THREADS).map(|number| {
        let (target, stop, done, slowest) = (target.to_owned(), stop.clone(), done.clone(), slowest.clone());
        let (failures, started) = (failures.clone(), started.clone());
        std::thread::spawn(move || {
            let mut kept: Option<BufReader<TcpStream>> = None;
            let mut next =
                begun + pause * u32::try_from(number).unwrap_or(0) / u32::try_from(THREADS).unwrap_or(1);
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                let sent = Instant::now();
                // Late requests are sent at once, but a stall is not made up for.
                next = (next + pause).max(sent.checked_sub(pause * 4).unwrap_or(sent));
                let result = if number % 2 == 0 {
                    connect(&target).and_then(|stream| get(&mut BufReader::new(stream), true))
                } else {
                    on_kept(&mut kept, &target)
                };
                done.fetch_add(1, Ordering::Relaxed);
                match result {
                    Ok(()) => {
                        slowest.fetch_max(millis(sent.elapsed()), Ordering::Relaxed);
                        if !started.swap(true, Ordering::Relaxed) {
                            println!("started");
                        }
                    }
                    Err(error) => {
                        kept = None;
                        let way = if number % 2 == 0 { "fresh" } else { "kept" };
                        let at = begun.elapsed().as_secs();
                        let mut failures = failures.lock().expect("no thread panics with the lock held");
                        *failures.entry(format!("{way} in second {at}: {error}")).or_default() += 1;
                    }
                }
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    io::copy(&mut io::stdin(), &mut io::sink())?;
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a client panicked"))?;
    }
    let failures = failures.lock().expect("no thread panics with the lock held");
    let list: Vec<String> = failures.iter().map(|(error, count)| format!("{count} x {error}")).collect();
    println!(
        "{{\"requests\": {}, \"failed\": {}, \"slowest\": {}, \"seconds\": {:.1}, \"failures\": {list:?}}}",
        done.load(Ordering::Relaxed),
        failures.values().sum::<u64>(),
        slowest.load(Ordering::Relaxed),
        begun.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Fresh connections, one right after the other on two threads, until stdin ends: how long the longest time was in
/// which none was answered, in a line of JSON.
fn gap(target: &str) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(5);
    let stop = Arc::new(AtomicBool::new(false));
    let answered: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let failures = Arc::new(AtomicU64::new(0));
    let threads = [(), ()].map(|()| {
        let (target, stop, answered, failures) =
            (target.to_owned(), stop.clone(), answered.clone(), failures.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match connect(&target).and_then(|stream| get(&mut BufReader::new(stream), true)) {
                    Ok(()) => {
                        let mut answered = answered.lock().expect("no thread panics with the lock held");
                        answered.push(Instant::now());
                        if answered.len() == 1 {
                            println!("started");
                        }
                    }
                    Err(error) => {
                        println!("lost: {error}");
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(PAUSE);
            }
        })
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a client panicked"))?;
    }
    let answered = answered.lock().expect("no thread panics with the lock held");
    let longest = answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    println!(
        "{{\"answered\": {}, \"failed\": {}, \"longest\": {}}}",
        answered.len(),
        failures.load(Ordering::Relaxed),
        millis(longest)
    );
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn on_kept(kept: &mut Option<BufReader<TcpStream>>, target: &str) -> io::Result<()> {
    if kept.is_none() {
        *kept = Some(BufReader::new(connect(target)?));
    }
    kept.as_mut().map_or(Ok(()), |stream| get(stream, false))
}

/// Becomes true when stdin ends.
fn end_of_stdin() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let ended = stop.clone();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        ended.store(true, Ordering::Relaxed);
    });
    stop
}

/// Opens a connection to an echo server and uses it until it is cut or stdin ends: `open`, then `cut: WHY` or
/// `whole: ROUNDS`.
fn hold(target: &str) -> io::Result<()> {
    let mut stream = BufReader::new(connect(target)?);
    stream.read_line(&mut String::new())?;
    println!("open");
    let stop = end_of_stdin();
    let mut rounds = 0u64;
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = round(&mut stream, rounds) {
            println!("cut: {error} after {rounds} rounds");
            return Ok(());
        }
        rounds += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("whole: {rounds}");
    Ok(())
}

fn round(stream: &mut BufReader<TcpStream>, number: u64) -> io::Result<()> {
    stream.get_mut().write_all(&number.to_be_bytes())?;
    let mut back = [0; 8];
    stream.read_exact(&mut back)?;
    if back == number.to_be_bytes() { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

/// A connection on which nothing happens for some time must then still work, in both directions.
fn idle(target: &str, time: Duration) -> io::Result<()> {
    let mut stream = BufReader::new(connect(target)?);
    stream.read_line(&mut String::new())?;
    round(&mut stream, 1)?;
    std::thread::sleep(time);
    round(&mut stream, 2)?;
    println!("whole");
    Ok(())
}

/// Requests on several connections at once, all of which are kept; every one must be answered.
fn kept(target: &str, connections: u64, requests: u64) -> io::Result<()> {
    let asking = (0..connections).map(|_| {
        let target = target.to_owned();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(connect(&target)?);
            (0..requests).try_for_each(|_| get(&mut stream, false))
        })
    });
    let asking: Vec<_> = asking.collect();
    for thread in asking {
        thread.join().map_err(|_| io::Error::other("a client panicked"))??;
    }
    println!("answered: {}", connections * requests);
    Ok(())
}

/// Opens connections to an echo server, says `open` when all are, uses them all at the same time until stdin ends:
/// `whole: ROUNDS`.
fn many(target: &str, connections: u64) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = BufReader::new(connect(target)?);
        stream.read_line(&mut String::new())?;
        streams.push(stream);
    }
    println!("open");
    let stop = end_of_stdin();
    let mut rounds = 0u64;
    while rounds == 0 || !stop.load(Ordering::Relaxed) {
        for (number, stream) in (0u64..).zip(&mut streams) {
            stream.get_mut().write_all(&(rounds << 16 | number).to_be_bytes())?;
        }
        for (number, stream) in (0u64..).zip(&mut streams) {
            let mut back = [0; 8];
            stream.read_exact(&mut back)?;
            if back != (rounds << 16 | number).to_be_bytes() {
                return Err(io::Error::other("other bytes came back"));
            }
        }
        rounds += 1;
    }
    println!("whole: {rounds}");
    Ok(())
}

/// A byte of a stream that has no period near a power of two.
fn pattern(position: u64) -> u8 {
    u8::try_from(position * 31 % 251).unwrap_or(0)
}

fn send_pattern(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    write_pattern(stream, bytes)?;
    stream.shutdown(Shutdown::Write)
}

fn write_pattern(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let mut position = 0;
    while position < bytes {
        let end = (position + 65_536).min(bytes);
        let block: Vec<u8> = (position..end).map(pattern).collect();
        stream.write_all(&block)?;
        position = end;
    }
    Ok(())
}

/// Both directions at the same time, no half ends before the other: for what cannot pass half an end on.
fn exchange(stream: &mut TcpStream, bytes: u64) -> io::Result<u64> {
    let mut sending = stream.try_clone()?;
    let sender = std::thread::spawn(move || write_pattern(&mut sending, bytes));
    let taken = take_pattern(&mut stream.take(bytes))?;
    sender.join().map_err(|_| io::Error::other("a sender panicked"))??;
    Ok(taken)
}

/// Reads to the end of the stream and says how much came, if it is all as it was sent.
fn take_pattern(stream: &mut impl Read) -> io::Result<u64> {
    let mut position = 0;
    let mut block = vec![0; 65_536];
    loop {
        let read = stream.read(&mut block)?;
        if read == 0 {
            return Ok(position);
        }
        for byte in &block[..read] {
            if *byte != pattern(position) {
                return Err(io::Error::other(format!("byte {position} is wrong")));
            }
            position += 1;
        }
    }
}

/// A server for [`half`]. The client's first byte is the order; 8 more say how much each sends.
fn serve_half(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut order = [0; 9];
            let answered = stream.read_exact(&mut order).and_then(|()| {
                let bytes = u64::from_be_bytes([
                    order[1], order[2], order[3], order[4], order[5], order[6], order[7], order[8],
                ]);
                let taken = match order[0] {
                    b'a' => write_pattern(&mut stream, bytes).map(|()| 0)?,
                    b'b' => exchange(&mut stream, bytes)?,
                    first => half_first(&mut stream, first == b's', bytes)?,
                };
                Ok((char::from(order[0]), taken))
            });
            match answered {
                Ok((first, taken)) => println!("first={first} taken={taken}"),
                Err(error) => println!("failed: {error}"),
            }
        });
    }
    Ok(())
}

/// One order after the other: our half ends first (`c`), the server's does (`s`), or none (`b`), and everything still
/// arrives in the other direction; or only the server speaks and hangs up (`a`).
fn half(target: &str, bytes: u64, orders: &str) -> io::Result<()> {
    for first in orders.bytes() {
        let mut stream = connect(target)?;
        let mut order = vec![first];
        order.extend(bytes.to_be_bytes());
        stream.write_all(&order)?;
        let taken = match first {
            b'a' => take_pattern(&mut stream)?,
            b'b' => exchange(&mut stream, bytes)?,
            first => half_first(&mut stream, first == b'c', bytes)?,
        };
        if taken != bytes {
            return Err(io::Error::other(format!("{taken} of {bytes} bytes came")));
        }
    }
    println!("whole");
    Ok(())
}

/// One end of [`half`]: how many bytes came.
fn half_first(stream: &mut TcpStream, own_first: bool, bytes: u64) -> io::Result<u64> {
    if own_first {
        send_pattern(stream, bytes)?;
        return take_pattern(stream);
    }
    let taken = take_pattern(stream)?;
    send_pattern(stream, bytes)?;
    Ok(taken)
}

/// One query to the first name server of resolv.conf: the response code, then every answer.
fn dns(kind: &str, name: &str) -> io::Result<()> {
    let configuration = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = configuration.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server = server.ok_or_else(|| io::Error::other("no name server in /etc/resolv.conf"))?;
    let server: std::net::IpAddr = server.trim().parse().map_err(io::Error::other)?;
    let kind: RecordType = kind.parse().map_err(io::Error::other)?;
    let mut query = Message::query();
    query.metadata.id = 4711;
    query.metadata.op_code = OpCode::Query;
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).map_err(io::Error::other)?, kind));
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&query.to_vec().map_err(io::Error::other)?, (server, 53))?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer)?;
    let answer = Message::from_vec(&answer[..length]).map_err(io::Error::other)?;
    println!("{:?}", answer.metadata.response_code);
    for record in &answer.answers {
        println!("{} {} {}", record.name, record.record_type(), record.data);
    }
    Ok(())
}
