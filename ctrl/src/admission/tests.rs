//! What strangers can take of the webhook.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use rustls::server::ResolvesServerCertUsingSni;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::translate::Context;

const STRANGER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 66)));
const API_SERVER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));

fn core() -> Core {
    Core::new(Context::new(model::mesh::Settings::default()))
}

fn revision() -> Revision {
    Revision::new("default", [])
}

/// A review, and whether somebody has begun to read it.
fn review(text: &'static str) -> (Request<impl Body<Data = Bytes, Error = Infallible>>, Arc<AtomicBool>) {
    let read = Arc::new(AtomicBool::new(false));
    let noted = read.clone();
    let body = StreamBody::new(stream::once(async move {
        noted.store(true, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }));
    let request = Request::post(PATH).body(Box::pin(body)).expect("a request");
    (request, read)
}

const DELETION: &str = r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
    "request": {"uid": "1", "operation": "DELETE", "namespace": "shop", "object": null, "oldObject": null}}"#;

#[tokio::test(start_paused = true)]
async fn who_has_no_turn_is_not_read() {
    let desk = Arc::new(Desk::new(core(), revision()));
    let mut held = Vec::new();
    for _ in 0..OF_ADDRESS {
        held.push(desk.turns.take(STRANGER).await);
    }
    // One address has its share only, however much is free.
    let (request, read) = review(DELETION);
    let begun = Instant::now();
    let answer = desk.clone().answer(STRANGER, request).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!read.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(5));
    let (request, read) = review(DELETION);
    let answer = desk.clone().answer(API_SERVER, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(read.load(Ordering::Relaxed));
    // All turns: nobody is read.
    for number in 0..AT_ONCE - OF_ADDRESS {
        let other = Ipv4Addr::new(10, 0, 1, u8::try_from(number).expect("few"));
        held.push(desk.turns.take(Some(other.into())).await);
    }
    let (request, read) = review(DELETION);
    let answer = desk.clone().answer(API_SERVER, request).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!read.load(Ordering::Relaxed));
    held.into_iter().for_each(Turn::well_used);
    let (request, _) = review("{}");
    assert_eq!(desk.clone().answer(API_SERVER, request).await.status(), StatusCode::BAD_REQUEST);
}

/// However many strangers ask, and whatever they do with their turns, an API server is answered.
#[tokio::test(start_paused = true)]
async fn strangers_that_take_all_turns_leave_one_to_the_api_server() {
    let desk = Arc::new(Desk::new(core(), revision()));
    let mut asking = JoinSet::new();
    for number in 0..8 {
        let from = IpAddr::from(Ipv4Addr::new(10, 0, 1, number / 2));
        let desk = desk.clone();
        asking.spawn(async move {
            loop {
                // One that does not come, and then one that does.
                let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
                let dawdling = Request::post(PATH).body(body).expect("a request");
                desk.clone().answer(Some(from), dawdling).await;
                desk.clone().answer(Some(from), review(DELETION).0).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    for _ in 0..3 {
        let answer = desk.clone().answer(API_SERVER, review(DELETION).0).await;
        assert_eq!(answer.status(), StatusCode::OK);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
}

/// A review that does not come gives its turn back in time.
#[tokio::test(start_paused = true)]
async fn a_review_that_does_not_come_is_not_waited_for() {
    let desk = Arc::new(Desk::new(core(), revision()));
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = Request::post(PATH).body(body).expect("a request");
    let begun = Instant::now();
    let answer = desk.answer(STRANGER, request).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_address_has_few_connections() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth();
    let config = Arc::new(config.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("its address");
    let served = tokio::spawn(serve(listener, config, core(), revision(), Limits::default()));
    let connect = async |from: &str| -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{from}:0").parse().expect("an address")).expect("bound");
        socket.connect(to).await.expect("connected")
    };
    let mut other = connect("127.0.0.3").await;
    let mut all = Vec::new();
    for _ in 0..=BOUNDS.connections_of_address {
        all.push(connect("127.0.0.2").await);
    }
    // Of one address the oldest makes room, and nobody else's does.
    let heard = timeout(Duration::from_secs(5), all[0].read(&mut [0])).await;
    assert!(matches!(heard, Ok(Ok(0) | Err(_))), "{heard:?}");
    for kept in [&mut other, &mut all[1]] {
        assert!(timeout(Duration::from_millis(100), kept.read(&mut [0])).await.is_err());
    }
    served.abort();
}
