//! One read may bring several events of a stream, the first of which ends it here: the rest must find nothing.

use std::time::Duration;

use hbone::headers::Headers;
use hbone::hpack::Encoder;
use hbone::limits::{Limit, Limits};
use hbone::transport::Plain;
use hbone::tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{LocalSet, spawn_local};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const CAPABILITY: (&str, &str) = ("lateen-capability", "1");

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a small payload");
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut encoder = Encoder::new(false);
    fields.iter().for_each(|(name, value)| encoder.encode(name.as_bytes(), value.as_bytes(), &mut block));
    block
}

/// The stream and kind of each frame until one is `wanted`.
async fn until(io: &mut DuplexStream, wanted: (u8, u8)) {
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.expect("the tunnel lives");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        io.read_exact(&mut payload).await.expect("the tunnel lives");
        if (head[3], head[8]) == wanted {
            return;
        }
    }
}

async fn in_time(work: impl Future<Output = ()>) {
    let work = tokio::time::timeout(Duration::from_secs(10), work);
    LocalSet::new().run_until(work).await.expect("the exchange takes milliseconds");
}

#[tokio::test]
async fn a_request_turned_away_has_more_to_say() {
    in_time(async {
        let (ours, mut peer) = tokio::io::duplex(1 << 16);
        let limits = Limits { pending_requests: 0, ..Limits::default() };
        let hits = limits.hits.clone();
        let (_server, driver) = tunnel::server(Plain::new(ours), limits);
        let driver = spawn_local(driver);
        let connect = block(&[(":method", "CONNECT"), (":authority", "10.0.0.9:80")]);
        let sent = [
            PREFACE,
            &SETTINGS,
            &frame(1, 4, 1, &connect),
            &frame(0, 1, 1, b"hello"),
            // With the end in the same frame.
            &frame(1, 5, 3, &connect),
            &frame(6, 0, 0, b"12345678"),
        ]
        .concat();
        peer.write_all(&sent).await.unwrap();
        until(&mut peer, (6, 0)).await;
        assert!(!driver.is_finished());
        assert_eq!(hits.of(Limit::PendingRequests), 2);
    })
    .await;
}

/// Rapid reset, and its other form in which we are made to reset: nobody begins to open what is over already.
#[tokio::test]
async fn a_request_taken_back_at_once_is_nobodys() {
    in_time(async {
        let (ours, mut peer) = tokio::io::duplex(1 << 16);
        let (mut server, driver) = tunnel::server(Plain::new(ours), Limits::default());
        let _driver = spawn_local(driver);
        let connect = |authority| block(&[(":method", "CONNECT"), (":authority", authority)]);
        let sent = [
            PREFACE,
            &SETTINGS,
            &frame(1, 4, 1, &connect("10.0.0.1:80")),
            &frame(3, 0, 1, &[0, 0, 0, 8]),
            &frame(1, 4, 3, &connect("10.0.0.3:80")),
            &frame(8, 0, 3, &[0; 4]),
            &frame(1, 4, 5, &connect("10.0.0.5:80")),
        ]
        .concat();
        peer.write_all(&sent).await.unwrap();
        let request = server.accept().await.unwrap();
        assert_eq!((request.authority(), server.streams()), ("10.0.0.5:80", 1));
    })
    .await;
}

/// Who asks and does not read the answers is not listened to for ever.
#[tokio::test]
async fn answers_that_nobody_reads_end_the_tunnel() {
    in_time(async {
        let (ours, mut peer) = tokio::io::duplex(4096);
        let limits = Limits { queued_control: 2048, pings_per_second: u32::MAX, ..Limits::default() };
        let hits = limits.hits.clone();
        let (_server, driver) = tunnel::server(Plain::new(ours), limits);
        let driver = spawn_local(driver);
        peer.write_all(&[PREFACE, &SETTINGS].concat()).await.unwrap();
        // Until it does not read on either.
        while peer.write_all(&frame(6, 0, 0, b"12345678")).await.is_ok() && !driver.is_finished() {}
        assert_eq!(hits.of(Limit::QueuedControl), 1);
    })
    .await;
}

#[tokio::test]
async fn a_refused_control_stream_ends_at_once() {
    in_time(async {
        let (ours, mut peer) = tokio::io::duplex(1 << 16);
        let (client, driver) = tunnel::client(Plain::new(ours), Limits::default());
        let driver = spawn_local(driver);
        let opening = spawn_local(async move {
            let opened = client.connect("10.0.0.9:80", &Headers::new()).await;
            (client, opened)
        });
        let mut preface = [0; 24];
        peer.read_exact(&mut preface).await.unwrap();
        peer.write_all(&SETTINGS).await.unwrap();
        until(&mut peer, (1, 1)).await;
        peer.write_all(&frame(1, 4, 1, &block(&[(":status", "200"), CAPABILITY]))).await.unwrap();
        until(&mut peer, (1, 3)).await;
        let refusal = block(&[(":status", "403")]);
        peer.write_all(&[frame(1, 5, 3, &refusal), frame(6, 0, 0, b"12345678")].concat()).await.unwrap();
        until(&mut peer, (6, 0)).await;
        assert!(opening.await.unwrap().1.is_ok());
        assert!(!driver.is_finished());
    })
    .await;
}
