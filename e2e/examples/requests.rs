//! Requests inside pods whose every failure counts, and their server, for the end-to-end tests of waypoints.
//!
//! `serve PORT` speaks HTTP/1.1, HTTP/2 and gRPC: `/wait/MS` answers after so long, `/down/BYTES` sends so much, `/up`
//! answers how much came. `rate PROTOCOL TARGET CONNECTIONS PER_SECOND LONG_MS` asks on kept connections until stdin
//! ends, each tenth request for so long, and says as JSON what became of them. `bulk down|up TARGET BYTES` moves one
//! body. `stall TARGET STREAMS`, `slow TARGET CONNECTIONS`, `huge TARGET BYTES` and `reset TARGET TIMES` do what a client
//! should not.
//!
//! A request that a closed connection has surely not sent, or that the server says it did nothing of, goes over another,
//! as every client does it; any other that is not answered in full has failed.

#![allow(clippy::panic, reason = "a test that starts it wrongly fails")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{interval, sleep, timeout};

const USAGE: &str = "requests serve PORT | rate http1|http2|grpc TARGET CONNECTIONS PER_SECOND LONG_MS | \
bulk down|up TARGET BYTES | stall TARGET STREAMS | slow TARGET CONNECTIONS | huge TARGET BYTES | reset TARGET TIMES";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that one request may find closed before it was sent.
const TRIES: usize = 5;
/// Bytes of a frame of large bodies.
const CHUNK: usize = 64 << 10;

type Body = BoxBody<Bytes, Infallible>;
type Failure = Box<dyn std::error::Error>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = LocalSet::new().block_on(&runtime, async {
        match words.as_slice() {
            ["serve", port] => serve(number(port)).await,
            ["rate", protocol, target, connections, per_second, long] => {
                let protocol = Protocol::of(protocol);
                rate(protocol, target, number(connections), number(per_second), number(long)).await
            }
            ["bulk", way @ ("down" | "up"), target, bytes] => bulk(way, target, number(bytes)).await,
            ["stall", target, streams] => stall(target, number(streams)).await,
            ["slow", target, connections] => slow(target, number(connections)).await,
            ["huge", target, bytes] => huge(target, number(bytes)).await,
            ["reset", target, times] => reset(target, number(times)).await,
            _ => Err(USAGE.into()),
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

/// Waits until nobody wants more of us.
async fn end_of_stdin() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

// The server.

async fn serve(port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = hyper::service::service_fn(answer);
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(2000);
            let _ = builder.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let grpc = request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
    let (what, amount) = path.trim_start_matches('/').split_once('/').unwrap_or((&path[1..], "0"));
    let amount: u64 = amount.parse().unwrap_or(0);
    Ok(match what {
        "down" => {
            let chunks = (0..amount.div_ceil(CHUNK as u64)).map(move |at| {
                let left = usize::try_from(amount - at * CHUNK as u64).unwrap_or(CHUNK);
                Ok(Frame::data(Bytes::from_static(&[b'x'; CHUNK]).slice(..left.min(CHUNK))))
            });
            Response::new(StreamBody::new(tokio_stream::iter(chunks)).boxed())
        }
        "up" => {
            let came = taken(request.into_body()).await.unwrap_or(0);
            Response::new(Full::new(Bytes::from(came.to_string())).boxed())
        }
        _ => {
            let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            sleep(Duration::from_millis(amount)).await;
            if !grpc {
                return Ok(Response::new(Full::new(Bytes::from_static(b"ok")).boxed()));
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            let frames = [Ok(Frame::data(asked)), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed());
            response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
            response
        }
    })
}

async fn taken(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        came += frame?.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(came)
}

// Requests whose every failure counts.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    One,
    Two,
    Grpc,
}

impl Protocol {
    fn of(name: &str) -> Self {
        match name {
            "http1" => Self::One,
            "http2" => Self::Two,
            "grpc" => Self::Grpc,
            _ => panic!("{USAGE}"),
        }
    }

    fn request(self, target: &str, path: &str) -> Request<Body> {
        // Five bytes and a message, as gRPC frames it.
        let message = Bytes::from_static(b"\x00\x00\x00\x00\x04ping");
        let build = Request::builder();
        let built = match self {
            Self::One => build.uri(path).header("host", target).body(Empty::new().boxed()),
            Self::Two => build
                .version(Version::HTTP_2)
                .uri(format!("http://{target}{path}"))
                .body(Empty::new().boxed()),
            Self::Grpc => build
                .version(Version::HTTP_2)
                .method("POST")
                .uri(format!("http://{target}{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(message).boxed()),
        };
        built.expect("a request")
    }
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

async fn connect(target: &str) -> Result<TcpStream, Failure> {
    let address = lookup_host(target).await?.next().ok_or("no address")?;
    let socket = timeout(PATIENCE, TcpStream::connect(address)).await??;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn open(protocol: Protocol, target: &str) -> Result<Sender, Failure> {
    let io = TokioIo::new(connect(target).await?);
    if protocol == Protocol::One {
        let (sender, connection) = http1::handshake(io).await?;
        spawn_local(connection);
        return Ok(Sender::One(sender));
    }
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    spawn_local(connection);
    Ok(Sender::Two(sender))
}

#[derive(Debug, Default)]
struct Tally {
    requests: Cell<u64>,
    failed: Cell<u64>,
    long: Cell<u64>,
    opened: Cell<u64>,
    failures: RefCell<BTreeMap<String, u64>>,
    times: RefCell<Vec<Duration>>,
}

impl Tally {
    fn add(&self, long: bool, took: Duration, result: Result<(), Failure>) {
        self.requests.set(self.requests.get() + 1);
        match result {
            Err(error) => {
                self.failed.set(self.failed.get() + 1);
                *self.failures.borrow_mut().entry(error.to_string()).or_default() += 1;
            }
            Ok(()) if long => self.long.set(self.long.get() + 1),
            Ok(()) => self.times.borrow_mut().push(took),
        }
    }

    fn told(&self) -> String {
        let mut times = self.times.borrow_mut();
        times.sort();
        let at = |part: usize| match times.len() {
            0 => 0,
            len => times[(len * part / 1000).min(len - 1)].as_micros(),
        };
        let failures: Vec<_> =
            self.failures.borrow().iter().map(|(error, count)| format!("{count} x {error}")).collect();
        format!(
            "{{\"requests\": {}, \"failed\": {}, \"long\": {}, \"connections\": {}, \"p50\": {}, \"p99\": {}, \"slowest\": {}, \"failures\": {failures:?}}}",
            self.requests.get(),
            self.failed.get(),
            self.long.get(),
            self.opened.get(),
            at(500),
            at(990),
            at(1000),
        )
    }
}

async fn rate(
    protocol: Protocol,
    target: &str,
    connections: u32,
    per_second: u32,
    long: u64,
) -> Result<(), Failure> {
    let tally = Rc::new(Tally::default());
    let begun = Instant::now();
    // What is asked for first tells whether anybody is there.
    while let Err(error) = asked(protocol, target, "/wait/0", &mut None, &tally).await {
        if begun.elapsed() > PATIENCE {
            return Err(error);
        }
        sleep(Duration::from_millis(100)).await;
    }
    println!("started");
    let ended = Rc::new(Cell::new(false));
    let mut workers = JoinSet::new();
    for worker in 0..connections {
        let (tally, ended, target) = (tally.clone(), ended.clone(), target.to_owned());
        let pause = Duration::from_secs(1) * connections / per_second.max(1);
        workers.spawn_local(async move {
            sleep(pause * worker / connections).await;
            let mut pace = interval(pause);
            let mut kept = None;
            let mut under_way = JoinSet::new();
            for number in u64::from(worker).. {
                pace.tick().await;
                if ended.get() {
                    break;
                }
                let is_long = long > 0 && number % 10 == 0;
                let path = if is_long { format!("/wait/{long}") } else { String::from("/wait/0") };
                let begun = Instant::now();
                if is_long && protocol != Protocol::One {
                    // Beside the others on its connection.
                    let shared = match &kept {
                        Some(Sender::Two(sender)) => Some(Sender::Two(sender.clone())),
                        _ => None,
                    };
                    let (tally, target) = (tally.clone(), target.clone());
                    under_way.spawn_local(async move {
                        let result = asked(protocol, &target, &path, &mut { shared }, &tally).await;
                        tally.add(true, begun.elapsed(), result);
                    });
                    continue;
                }
                let result = asked(protocol, &target, &path, &mut kept, &tally).await;
                tally.add(is_long, begun.elapsed(), result);
            }
            under_way.join_all().await;
        });
    }
    end_of_stdin().await;
    ended.set(true);
    workers.join_all().await;
    println!("{}", tally.told());
    Ok(())
}

/// Asks over a kept connection, or a new one where that has ended before anything was sent.
async fn asked(
    protocol: Protocol,
    target: &str,
    path: &str,
    kept: &mut Option<Sender>,
    tally: &Tally,
) -> Result<(), Failure> {
    let mut request = protocol.request(target, path);
    for _ in 0..TRIES {
        let sender = match kept {
            Some(sender) => sender,
            None => {
                tally.opened.set(tally.opened.get() + 1);
                kept.insert(open(protocol, target).await.map_err(|error| format!("connecting: {error}"))?)
            }
        };
        let ready = match sender {
            Sender::One(sender) => sender.ready().await,
            Sender::Two(sender) => sender.ready().await,
        };
        if ready.is_err() {
            *kept = None;
            continue;
        }
        let sent = match sender {
            Sender::One(sender) => timeout(PATIENCE, sender.try_send_request(request)).await?,
            Sender::Two(sender) => timeout(PATIENCE, sender.try_send_request(request)).await?,
        };
        match sent {
            Ok(response) => return whole(protocol, response).await,
            Err(mut error) => {
                *kept = None;
                match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => {
                        let error = error.into_error();
                        if !is_unprocessed(&error) {
                            return Err(format!("no answer: {error:?}").into());
                        }
                        request = protocol.request(target, path);
                    }
                }
            }
        }
    }
    Err("every connection was closed before it could be used".into())
}

/// Whether the server has said that it did nothing of a request: its stream is beyond the last of a GOAWAY, or was
/// refused (RFC 9113, 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| match error.reason() {
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset() && error.is_remote(),
        _ => false,
    })
}

async fn whole(protocol: Protocol, response: Response<Incoming>) -> Result<(), Failure> {
    let status = response.status();
    let body = timeout(PATIENCE, response.into_body().collect()).await??;
    let grpc = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    let expected: &[u8] = if protocol == Protocol::Grpc { b"\x00\x00\x00\x00\x04ping" } else { b"ok" };
    let bytes = body.to_bytes();
    if status != 200 || bytes != expected {
        return Err(format!("status {status}: {}", String::from_utf8_lossy(&bytes)).into());
    }
    if protocol == Protocol::Grpc && grpc.as_ref().is_none_or(|status| status != "0") {
        return Err(format!("grpc-status {grpc:?}").into());
    }
    Ok(())
}

// What a client should not do, and large bodies.

/// Moves one body; how long it took, in milliseconds.
async fn bulk(way: &str, target: &str, bytes: u64) -> Result<(), Failure> {
    let io = TokioIo::new(connect(target).await?);
    let (mut sender, connection) = http1::handshake(io).await?;
    spawn_local(connection);
    let begun = Instant::now();
    let (path, body) = match way {
        "down" => (format!("/down/{bytes}"), Empty::new().boxed()),
        _ => {
            let chunks =
                (0..bytes / CHUNK as u64).map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; CHUNK]))));
            (String::from("/up"), StreamBody::new(tokio_stream::iter(chunks)).boxed())
        }
    };
    let request = Request::post(path).header("host", target).body::<Body>(body)?;
    let response = sender.send_request(request).await?;
    let moved = match way {
        "down" => taken(response.into_body()).await?,
        _ => String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?.parse()?,
    };
    println!("{{\"moved\": {moved}, \"ms\": {}}}", begun.elapsed().as_millis());
    Ok(())
}

/// Opens streams on HTTP/2 connections of a hundred each, whose large answers nobody takes, until stdin ends.
async fn stall(target: &str, streams: usize) -> Result<(), Failure> {
    let mut held = Vec::new();
    let mut sender = None;
    for at in 0..streams {
        if at % 100 == 0 {
            let io = TokioIo::new(connect(target).await?);
            let (new, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .handshake(io)
                .await?;
            spawn_local(connection);
            sender = Some(new);
        }
        let request = Protocol::Two.request(target, "/down/104857600");
        let sender = sender.as_mut().ok_or("a connection")?;
        sender.ready().await?;
        held.push(timeout(PATIENCE, sender.send_request(request)).await??);
    }
    println!("open {}", held.len());
    end_of_stdin().await;
    println!("{{\"held\": {}}}", held.len());
    Ok(())
}

/// Connections that ask a byte at a time, and take their answers a byte at a time, until stdin ends.
async fn slow(target: &str, connections: usize) -> Result<(), Failure> {
    let open = Rc::new(Cell::new(0u64));
    let mut all = JoinSet::new();
    for at in 0..connections {
        let mut socket = connect(target).await?;
        let (open, target) = (open.clone(), target.to_owned());
        all.spawn_local(async move {
            open.set(open.get() + 1);
            let reads = at % 2 == 0;
            let head = format!("POST /down/10485760 HTTP/1.1\r\nhost: {target}\r\n");
            if reads {
                socket.write_all(format!("{head}\r\n").as_bytes()).await?;
            }
            let mut bytes = head.bytes().cycle();
            loop {
                match reads {
                    true => drop(socket.read_u8().await?),
                    false => socket.write_u8(bytes.next().unwrap_or(b'x')).await?,
                }
                sleep(Duration::from_millis(200)).await;
            }
            #[allow(unreachable_code, reason = "says what the block's errors are")]
            io::Result::Ok(())
        });
    }
    println!("open {connections}");
    end_of_stdin().await;
    println!("{{\"opened\": {}}}", open.get());
    Ok(())
}

/// One request with a head of so many bytes; the status of the answer.
async fn huge(target: &str, bytes: usize) -> Result<(), Failure> {
    let mut socket = connect(target).await?;
    let mut head = format!("GET /wait/0 HTTP/1.1\r\nhost: {target}\r\n");
    while head.len() < bytes {
        head.push_str(&format!("x-{}: {}\r\n", head.len(), "y".repeat(1000)));
    }
    head.push_str("\r\n");
    // It may be refused before it has all been sent.
    let _ = socket.write_all(head.as_bytes()).await;
    let mut answer = vec![0; 64];
    let read = timeout(PATIENCE, socket.read(&mut answer)).await??;
    let line = String::from_utf8_lossy(&answer[..read]).into_owned();
    println!("{}", line.split_whitespace().nth(1).unwrap_or("none"));
    Ok(())
}

/// Asks on HTTP/2 and gives up at once, as often; how many connections ended over it.
async fn reset(target: &str, times: usize) -> Result<(), Failure> {
    let mut sender: Option<http2::SendRequest<Body>> = None;
    let mut connections = 0;
    for _ in 0..times {
        if sender.as_ref().is_none_or(http2::SendRequest::is_closed) {
            let io = TokioIo::new(connect(target).await?);
            let (new, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            spawn_local(connection);
            sender = Some(new);
            connections += 1;
        }
        let sender = sender.as_mut().ok_or("a connection")?;
        if sender.ready().await.is_err() {
            continue;
        }
        let asked = sender.send_request(Protocol::Two.request(target, "/wait/1000"));
        // Sent, and reset when the answer is given up.
        let _ = timeout(Duration::from_micros(50), asked).await;
        tokio::task::yield_now().await;
    }
    println!("{{\"times\": {times}, \"connections\": {connections}}}");
    Ok(())
}
