//! Requests: what the application sees of them, what the client hears, what is counted.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::authz::{Clause, Match, Policy, RequestMatch, Rule, StringMatch};
use model::mesh::Update;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;
pub(super) use tokio_stream_of::ReceiverStream;

use super::fixtures::{identity, nobody};
use super::world::{GRPC, HTTP, UNDECLARED, VIP, World, run};
use crate::http::LocalExecutor;

pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// A stream of what a channel brings.
mod tokio_stream_of {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_util::Stream;
    use tokio::sync::mpsc;

    pub(in super::super) struct ReceiverStream<T>(pub(in super::super) mpsc::Receiver<T>);

    impl<T> Stream for ReceiverStream<T> {
        type Item = T;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
            self.0.poll_recv(cx)
        }
    }
}

fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

thread_local! {
    /// How often `/flaky` still fails.
    pub(super) static FAILURES: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// An application that answers by path.
pub(super) async fn application(socket: TcpStream, _port: u16) {
    let service =
        service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(answer(request).await) });
    let serving = auto::Builder::new(TokioExecutor::new());
    let _ = serving.serve_connection_with_upgrades(TokioIo::new(socket), service).await;
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/after" => Response::new(text(request.into_body().collect().await.unwrap().to_bytes())),
        "/echo" => Response::new(request.into_body().boxed()),
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());
            let message = Bytes::from_static(b"\x00\x00\x00\x00\x02ok");
            let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            response
        }
        // Over HTTP/1.1 only what is announced goes.
        "/framing" => {
            let mut trailers = HeaderMap::new();
            for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "x-sum"] {
                trailers.insert(name, "x".parse().unwrap());
            }
            let announced = trailers.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            let frames = [Ok(Frame::data(Bytes::from_static(b"ok"))), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
            response.headers_mut().insert("trailer", announced.parse().unwrap());
            response
        }
        "/upgrade" => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "shout".parse().unwrap());
            spawn_local(async move {
                let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut said = [0; 5];
                io.read_exact(&mut said).await.unwrap();
                io.write_all(&said.to_ascii_uppercase()).await.unwrap();
                io.shutdown().await.unwrap();
            });
            response
        }
        "/never" => std::future::pending().await,
        "/pour" => Response::new(StreamBody::new(futures_util::stream::pending()).boxed()),
        "/flaky" => {
            // Fails twice, then answers; which request it is the client counts.
            let failing = FAILURES.with(|left| left.replace(left.get().saturating_sub(1)) > 0);
            let mut response = Response::new(request.into_body().boxed());
            if failing {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
        "/refuse" => {
            let mut response = Response::new(text("no body, please"));
            *response.status_mut() = StatusCode::EXPECTATION_FAILED;
            response
        }
        _ => {
            let head = format!("{:?} {} {}\n", request.version(), request.method(), request.uri());
            let headers = request.headers().iter();
            let headers = headers.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
            Response::new(text(head + &headers.collect::<String>()))
        }
    }
}

pub(super) type One = hyper::client::conn::http1::SendRequest<Body>;
pub(super) type Two = hyper::client::conn::http2::SendRequest<Body>;

pub(super) async fn http1(world: &World, port: u16) -> One {
    http1_at(world, &format!("{VIP}:{port}")).await
}

/// A client of what is at an authority.
pub(super) async fn http1_at(world: &World, authority: &str) -> One {
    let io = TokioIo::new(world.connect_as("client", authority).await.unwrap());
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    spawn_local(async move {
        let _ = connection.await;
    });
    sender
}

pub(super) async fn http2(world: &World, port: u16) -> Two {
    let io = TokioIo::new(world.connect(port).await);
    let (sender, connection) = hyper::client::conn::http2::handshake(LocalExecutor, io).await.unwrap();
    spawn_local(async move {
        let _ = connection.await;
    });
    sender
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "Reviews:80").body(empty()).unwrap()
}

pub(super) async fn whole(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn the_application_sees_who_asks_and_one_connection_serves_many_requests() {
    run(async {
        let world = World::new(application).await;
        let mut client = http1(&world, HTTP).await;
        for path in ["/a/./b?q=1", "/a/b?q=1"] {
            let mut request = get(path);
            request.headers_mut().insert("x-forwarded-client-cert", "URI=spiffe://forged".parse().unwrap());
            request.headers_mut().insert("connection", "x-hop".parse().unwrap());
            request.headers_mut().insert("x-hop", "1".parse().unwrap());
            let (status, seen) = whole(client.send_request(request).await.unwrap()).await;
            assert_eq!(status, 200, "{seen}");
            assert!(seen.starts_with("HTTP/1.1 GET /a/b?q=1\n"), "{seen}");
            for line in [
                "host: reviews:80\n",
                "x-forwarded-for: 127.0.0.1\n",
                "x-forwarded-proto: http\n",
                "x-request-id: ",
                ";Subject=\"\";URI=spiffe://cluster.local/ns/shop/sa/client\n",
                "x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/waypoint;Hash=",
            ] {
                assert!(seen.contains(line), "{line} is missing in {seen}");
            }
            assert!(!seen.contains("forged") && !seen.contains("x-hop"), "{seen}");
        }
        let connects = world.connects.borrow();
        let [connect] = &connects[..] else { panic!("{connects:?}") };
        assert_eq!(connect.identity, identity("waypoint"));
        assert_eq!(connect.authority, format!("{}:8080", world.pod_ip()));
        assert!(
            connect.forwarded.contains("127.0.0.1") && connect.forwarded.contains("reviews.shop"),
            "{connect:?}"
        );
        let labels = [
            "reporter=\"waypoint\"",
            "response_code=\"200\"",
            "destination_workload=\"server\"",
            "source_workload=\"client\"",
        ];
        assert_eq!(world.metric("istio_requests_total{", &labels), Some(2.0));
    });
}

#[test]
fn a_pod_is_reached_by_its_own_address_and_what_is_not_bound_by_none() {
    run(async {
        let world = World::new(application).await;
        for (authority, expected) in [
            (format!("{}:8080", world.pod_ip()), Ok(())),
            (format!("{VIP}:99"), Err(404)),
            (String::from("10.0.0.9:80"), Err(404)),
            (String::from("127.0.0.1:80"), Err(403)),
            (String::from("nothing"), Err(400)),
        ] {
            let connected = world.connect_as("client", &authority).await;
            assert_eq!(connected.as_ref().map(|_| ()).map_err(|status| *status), expected, "{authority}");
            let Ok(stream) = connected else { continue };
            let io = TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake::<_, Body>(io).await.unwrap();
            spawn_local(connection);
            assert_eq!(whole(sender.send_request(get("/")).await.unwrap()).await.0, 200);
        }
    });
}

#[test]
fn calls_stream_both_ways_at_once_and_trailers_arrive() {
    run(async {
        let world = World::new(application).await;
        let mut client = http2(&world, GRPC).await;
        let (say, said) = mpsc::channel::<Result<Frame<Bytes>, hyper::Error>>(1);
        let body = StreamBody::new(ReceiverStream(said)).boxed();
        let request = Request::post("http://reviews/echo").header("content-type", "application/grpc");
        let response = client.send_request(request.body(body).unwrap()).await.unwrap();
        let mut answers = response.into_body();
        // Each message is answered before the next is sent: nothing waits for a whole body.
        for message in ["one", "two", "three"] {
            let framed = [&[0, 0, 0, 0, message.len() as u8], message.as_bytes()].concat();
            say.send(Ok(Frame::data(framed.clone().into()))).await.unwrap();
            let mut heard = Vec::new();
            while heard.len() < framed.len() {
                heard.extend_from_slice(answers.frame().await.unwrap().unwrap().data_ref().unwrap());
            }
            assert_eq!(heard, framed);
        }
        drop(say);
        assert!(answers.collect().await.unwrap().to_bytes().is_empty(), "the end arrives too");

        let call = Request::post("http://reviews/trailers").header("content-type", "application/grpc");
        let call = call.header("te", "trailers").body(empty()).unwrap();
        let answer = client.send_request(call).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "5");
        let labels = ["request_protocol=\"grpc\"", "grpc_response_status=\"5\""];
        assert_eq!(world.metric("istio_requests_total{", &labels), Some(1.0));
        assert_eq!(world.metric("istio_response_messages_total{", &labels), Some(1.0));
        assert_eq!(world.connects.borrow().len(), 1, "both calls share a connection");
    });
}

/// What HTTP/2 refuses to send would reset the stream, whole as the body is.
#[test]
fn trailers_go_on_without_what_belongs_to_a_connection() {
    run(async {
        let world = World::new(application).await;
        // A client of HTTP/1.1, an endpoint of HTTP/2.
        let mut stream = world.connect(GRPC).await;
        let head = "POST /echo HTTP/1.1\r\nhost: h\r\nte: trailers\r\nconnection: te, close\r\ntrailer: x-sum\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        let trailers = "connection: close\r\nte: gzip\r\nkeep-alive: 5\r\nx-sum: 7\r\n";
        stream.write_all(format!("{head}5\r\nhello\r\n0\r\n{trailers}\r\n").as_bytes()).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("\r\nhello\r\n"), "{heard}");
        assert!(heard.ends_with("\r\n0\r\n\r\n"), "the end arrives: {heard}");
        // The other way around.
        let request = Request::get("http://reviews/framing").header("te", "trailers").body(empty()).unwrap();
        let response = http2(&world, HTTP).await.send_request(request).await.unwrap();
        let answer = response.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap().keys().collect::<Vec<_>>(), ["x-sum"]);
        assert_eq!(answer.to_bytes(), "ok");
    });
}

#[test]
fn what_is_not_declared_is_spoken_as_the_client_speaks() {
    run(async {
        let world = World::new(application).await;
        let (_, seen) = whole(http1(&world, UNDECLARED).await.send_request(get("/")).await.unwrap()).await;
        assert!(seen.starts_with("HTTP/1.1"), "{seen}");
        let request = Request::get("http://reviews/x").body(empty()).unwrap();
        let (_, seen) = whole(http2(&world, UNDECLARED).await.send_request(request).await.unwrap()).await;
        assert!(seen.starts_with("HTTP/2.0 GET http://reviews/x"), "{seen}");
    });
}

/// Hosts are compared in lower case (RFC 9110, section 4.2.3): what is judged is what the application is asked for.
#[test]
fn the_host_arrives_as_it_was_judged() {
    run(async {
        let world = World::new(application).await;
        let (_, seen) = whole(http1(&world, HTTP).await.send_request(get("/x")).await.unwrap()).await;
        assert!(seen.starts_with("HTTP/1.1 GET /x\n") && seen.contains("host: reviews:80\n"), "{seen}");
        let request = Request::get("http://Reviews:81/x").body(empty()).unwrap();
        let (_, seen) = whole(http2(&world, GRPC).await.send_request(request).await.unwrap()).await;
        assert!(seen.starts_with("HTTP/2.0 GET http://reviews:81/x\n"), "{seen}");
    });
}

#[test]
fn an_upgrade_leads_through() {
    run(async {
        let world = World::new(application).await;
        let (mut stream, heard) = world.ask_to_shout(HTTP).await;
        assert!(heard.starts_with("HTTP/1.1 101") && heard.contains("upgrade: shout"), "{heard}");
        stream.write_all(b"hello").await.unwrap();
        let mut loud = Vec::new();
        stream.read_to_end(&mut loud).await.unwrap();
        assert_eq!(loud, b"HELLO");
    });
}

#[test]
fn a_client_that_waits_hears_what_the_application_says() {
    run(async {
        let world = World::new(application).await;
        for (path, first, last) in
            [("/after", "HTTP/1.1 100", "body!"), ("/refuse", "HTTP/1.1 417", "please")]
        {
            let mut stream = world.connect(HTTP).await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            while heard.len() < first.len() {
                heard.push(stream.read_u8().await.unwrap());
            }
            assert_eq!(String::from_utf8_lossy(&heard), first);
            if path == "/after" {
                stream.write_all(b"body!").await.unwrap();
            }
            while !heard.ends_with(last.as_bytes()) {
                heard.push(stream.read_u8().await.unwrap());
            }
        }
    });
}

/// An application that knows nothing of `Expect`: it reads what was announced, and then answers.
async fn simple(mut socket: TcpStream, _port: u16) {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\nbody!") {
        let Ok(byte) = socket.read_u8().await else { return };
        heard.push(byte);
    }
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole").await.unwrap();
}

#[test]
fn a_client_that_waits_is_not_left_waiting_by_an_application_that_says_nothing() {
    run(async {
        let world = World::new(simple).await;
        for waits in [true, false] {
            let mut stream = world.connect(HTTP).await;
            let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            while waits && !heard.starts_with(b"HTTP/1.1 100") {
                heard.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"body!").await.unwrap();
            while !heard.ends_with(b"whole") {
                heard.push(stream.read_u8().await.unwrap());
            }
        }
    });
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused() {
    run(async {
        let world = World::new(application).await;
        for bad in [
            "GET /a%2fb HTTP/1.1\r\nhost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        ] {
            let mut stream = world.connect(HTTP).await;
            stream.write_all(bad.as_bytes()).await.unwrap();
            let mut heard = [0; 12];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"HTTP/1.1 400", "{bad}");
        }
        assert!(world.connects.borrow().is_empty(), "nothing of it was sent on");
    });
}

#[test]
fn heads_are_bounded() {
    run(async {
        let world = World::new(application).await;
        let mut stream = world.connect(HTTP).await;
        let head = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "a".repeat(80 << 10));
        // It is answered, and the connection ended, before all of it is there.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut heard = [0; 12];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 431");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(world.metric("lateen_limit_hits_total{limit=\"request_head\"}", &[]), Some(1.0));
    });
}

#[test]
fn heads_streams_and_resets_of_http_2_are_bounded_and_counted() {
    run(async {
        let world = World::new(application).await;
        let hits = |limit: &str| {
            world.metric(&format!("lateen_limit_hits_total{{limit=\"{limit}\"}}"), &[]).unwrap()
        };
        let mut client = http2(&world, HTTP).await;
        for (count, length, status) in [(1, 50 << 10, 200), (1, 70 << 10, 431), (110, 1, 431)] {
            let mut request = Request::get("http://reviews/");
            for at in 0..count {
                request = request.header(format!("x-{at}"), "a".repeat(length));
            }
            let response = client.send_request(request.body(empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), status, "{count} of {length}");
        }
        assert_eq!((hits("request_head"), hits("client_streams")), (2.0, 0.0));
        // As many at once as may be, and one that waits.
        let ask = |_| {
            let mut client = client.clone();
            spawn_local(async move { client.send_request(get("/never")).await.map(drop) })
        };
        let open: Vec<_> = (0..101).map(ask).collect();
        while hits("client_streams") < 1.0 {
            sleep(Duration::from_millis(5)).await;
        }
        open.iter().for_each(tokio::task::JoinHandle::abort);
        // Who takes back what it asks for at once, over and over, loses its connection.
        let mut stream = world.connect(HTTP).await;
        stream.write_all(&taken_back(60)).await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        let enhance_your_calm = [0, 0, 0, 0xb];
        assert!(heard.windows(4).any(|code| code == enhance_your_calm), "{heard:?}");
        while hits("client_resets") < 1.0 {
            sleep(Duration::from_millis(5)).await;
        }
    });
}

/// The beginning of a connection of HTTP/2 on which each request is reset right behind its head.
fn taken_back(count: u32) -> Vec<u8> {
    const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'h'];
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
        bytes.extend([0, 0, u8::try_from(payload.len()).unwrap(), kind, flags]);
        bytes.extend(id.to_be_bytes());
        bytes.extend(payload);
    };
    frame(4, 0, 0, &[]);
    for id in (0..count).map(|at| 2 * at + 1) {
        frame(1, 5, id, GET);
        frame(3, 0, id, &[0, 0, 0, 8]);
    }
    bytes
}

/// Requests with the method GET.
fn only_get() -> Match {
    let request = RequestMatch { methods: vec![StringMatch::Exact("GET".into())], ..RequestMatch::default() };
    Match { request: Some(Box::new(request)), ..Match::default() }
}

#[test]
fn a_policy_that_denies_is_answered_as_istio_words_it() {
    run(async {
        let world = World::new(application).await;
        let mut client = http1(&world, HTTP).await;
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        world.waypoint.take(vec![Update::Policy(nobody("shop"))]);
        let denied = whole(client.send_request(get("/")).await.unwrap()).await;
        assert_eq!(denied, (403, String::from("RBAC: access denied")));
        assert_eq!(world.metric("istio_requests_total{", &["response_code=\"403\""]), Some(1.0));
        // One that names a method is judged by what the request has.
        let clause = Clause { matches: [only_get()].into() };
        let readers = Policy { rules: [Rule { clauses: [clause].into() }].into(), ..nobody("shop") };
        world.waypoint.take(vec![Update::Policy(readers)]);
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        let post = Request::post("/").header("host", "h").body(empty()).unwrap();
        assert_eq!(whole(client.send_request(post).await.unwrap()).await.0, 403);
        let call = Request::post("http://reviews/x").header("content-type", "application/grpc");
        let response = http2(&world, GRPC).await.send_request(call.body(empty()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &"7".parse().unwrap())
        );
    });
}

#[test]
fn without_an_endpoint_the_answer_says_so() {
    run(async {
        let world = World::new(application).await;
        let mut client = http1(&world, HTTP).await;
        world.waypoint.take(vec![Update::RemoveAddress(world.pod.uid.clone())]);
        let (status, text) = whole(client.send_request(get("/")).await.unwrap()).await;
        assert_eq!(status, 503);
        assert!(text.contains("no healthy upstream"), "{text}");
        let labels =
            ["response_flags=\"UH\"", "response_code=\"503\"", "destination_service_name=\"reviews\""];
        assert_eq!(world.metric("istio_requests_total{", &labels), Some(1.0));
    });
}

#[test]
fn methods_without_a_body_have_none() {
    run(async {
        let world = World::new(application).await;
        let mut client = http1(&world, HTTP).await;
        for _ in 0..2 {
            let request = Request::builder().method(Method::HEAD).uri("/x").header("host", "h");
            let response = client.send_request(request.body(empty()).unwrap()).await.unwrap();
            assert!(response.headers().contains_key("content-length"));
            assert_eq!(whole(response).await, (200, String::new()));
            client.ready().await.unwrap();
        }
        assert_eq!(world.connects.borrow().len(), 1, "the connection is used again");
    });
}
