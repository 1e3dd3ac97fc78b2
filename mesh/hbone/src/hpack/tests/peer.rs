//! The h2 crate at the other end of an in-memory wire: it reads what we write, we read what it writes.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::{DEFAULT_TABLE_SIZE, Encoder};
use super::{decoder, fields, fields_of};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Our end: frames, and nothing else.
struct Wire {
    io: DuplexStream,
}

impl Wire {
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.io.write_all(&head).await.expect("the peer listens");
        self.io.write_all(payload).await.expect("the peer listens");
    }

    async fn receive(&mut self) -> (u8, u8, Vec<u8>) {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.expect("a frame's head");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.io.read_exact(&mut payload).await.expect("a frame's payload");
        (head[3], head[4], payload)
    }

    /// The next header block, put together from its frames; others are passed over.
    async fn header_block(&mut self) -> Vec<u8> {
        let mut block = Vec::new();
        loop {
            let (kind, flags, payload) = self.receive().await;
            if kind == HEADERS || kind == CONTINUATION {
                block.extend(payload);
                if flags & END_HEADERS != 0 {
                    return block;
                }
            }
        }
    }

    async fn until(&mut self, wanted: u8, wanted_flags: u8) {
        loop {
            let (kind, flags, _) = self.receive().await;
            if kind == wanted && flags & wanted_flags == wanted_flags {
                return;
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("the exchange takes milliseconds")
}

fn connect_request(baggage: &str) -> Request<()> {
    let mut request = Request::connect("10.0.0.9:8080").version(Version::HTTP_2).body(()).expect("a request");
    request.headers_mut().insert("baggage", baggage.parse().expect("a header value"));
    request
}

/// h2's client indexes what it repeats, codes strings, and splits long blocks into CONTINUATION.
#[tokio::test]
async fn reads_what_h2_writes() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let long = "long-".repeat(6000);
    let client = async {
        let (mut client, connection) =
            h2::client::Builder::new().handshake::<_, Bytes>(theirs).await.expect("preface sent");
        let driver = tokio::spawn(connection);
        let mut responses = Vec::new();
        for baggage in ["k8s.pod.name=a", "k8s.pod.name=a", &long] {
            client = client.ready().await.expect("room for a stream");
            responses.push(client.send_request(connect_request(baggage), true).expect("sent").0);
        }
        (client, driver, responses)
    };
    let server = async {
        let mut wire = Wire { io: ours };
        let mut preface = [0; PREFACE.len()];
        wire.io.read_exact(&mut preface).await.expect("the preface");
        wire.send(SETTINGS, 0, 0, &[]).await;
        [wire.header_block().await, wire.header_block().await, wire.header_block().await]
    };
    let (_client, blocks) = in_time(async { tokio::join!(client, server) }).await;

    let mut decoder = decoder();
    let mut read = |block: &[u8]| {
        let mut found = fields_of(&mut decoder, block).expect("h2 writes sound blocks");
        found.sort();
        (found, decoder.table().len())
    };
    let expect = |baggage: &str| {
        fields(&[(":authority", "10.0.0.9:8080"), (":method", "CONNECT"), ("baggage", baggage)])
    };
    let (first, indexed) = read(&blocks[0]);
    assert_eq!(first, expect("k8s.pod.name=a"));
    assert!(indexed > 0, "h2 indexes");
    assert_eq!(read(&blocks[1]).0, expect("k8s.pod.name=a"));
    assert!(blocks[1].len() < blocks[0].len(), "the second block uses the table");
    assert!(blocks[2].len() > 16_384, "the third needed CONTINUATION");
    assert!(read(&blocks[2]).0 == expect(&long), "30 kB of baggage, too long to print");
}

/// h2's server understands our requests, and we its responses.
#[tokio::test]
async fn writes_what_h2_reads() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let server = async {
        let mut connection = h2::server::handshake(theirs).await.expect("our preface");
        let mut seen = Vec::new();
        while let Some(accepted) = connection.accept().await {
            let (request, mut respond) = accepted.expect("our request is sound");
            let response =
                Response::builder().status(503).header("x-why", "asked").body(()).expect("a response");
            respond.send_response(response, true).expect("sent");
            seen.push(request);
        }
        seen
    };
    let client = async {
        let mut wire = Wire { io: ours };
        wire.io.write_all(PREFACE).await.expect("the preface");
        wire.send(SETTINGS, 0, 0, &[]).await;
        let mut decoder = decoder();
        for (stream, huffman) in [(1, true), (3, false)] {
            let (mut encoder, mut block) = (Encoder::new(huffman), Vec::new());
            encoder.encode(b":method", b"CONNECT", &mut block);
            encoder.encode(b":authority", b"[fd00::7]:5432", &mut block);
            encoder.encode_sensitive(b"authorization", b"secret", &mut block);
            encoder.encode(b"baggage", b"k8s.cluster.name=Kubernetes", &mut block);
            wire.send(HEADERS, END_HEADERS | END_STREAM, stream, &block).await;
            let found = fields_of(&mut decoder, &wire.header_block().await).expect("a sound response");
            assert!(found.contains(&(b":status".to_vec(), b"503".to_vec())), "{found:?}");
            assert!(found.contains(&(b"x-why".to_vec(), b"asked".to_vec())), "{found:?}");
        }
    };
    let (seen, ()) = in_time(async { tokio::join!(server, client) }).await;
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.method(), "CONNECT");
        assert_eq!(request.uri().authority().map(|a| a.as_str()), Some("[fd00::7]:5432"));
        assert_eq!(request.headers()["baggage"], "k8s.cluster.name=Kubernetes");
        assert_eq!(request.headers()["authorization"], "secret");
    }
}

/// A peer that turns its table off gets the update which that calls for, and takes our blocks.
#[tokio::test]
async fn a_peer_without_a_table_takes_our_blocks() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let client = async {
        let (client, connection) = h2::client::Builder::new()
            .header_table_size(0)
            .handshake::<_, Bytes>(theirs)
            .await
            .expect("sent");
        let driver = tokio::spawn(connection);
        let mut client = client.ready().await.expect("room for a stream");
        let (response, mut body) = client.send_request(connect_request("a=b"), false).expect("sent");
        let response = response.await.expect("our response is sound");
        body.send_data(Bytes::new(), true).expect("closed");
        drop(driver);
        response
    };
    let server = async {
        let mut wire = Wire { io: ours };
        let mut preface = [0; PREFACE.len()];
        wire.io.read_exact(&mut preface).await.expect("the preface");
        let (kind, _, settings) = wire.receive().await;
        assert_eq!(kind, SETTINGS);
        let table =
            settings.chunks_exact(6).find(|entry| entry[..2] == [0, 1]).expect("SETTINGS_HEADER_TABLE_SIZE");
        let size = u32::from_be_bytes([table[2], table[3], table[4], table[5]]);
        assert!(size < DEFAULT_TABLE_SIZE as u32);
        wire.send(SETTINGS, 0, 0, &[]).await;
        wire.send(SETTINGS, ACK, 0, &[]).await;
        wire.header_block().await;
        let (mut encoder, mut block) = (Encoder::new(true), Vec::new());
        encoder.peer_table_size(size);
        encoder.encode(b":status", b"200", &mut block);
        encoder.encode(b"via", b"lateen", &mut block);
        assert_eq!(block[0], 0x20);
        wire.send(HEADERS, END_HEADERS, 1, &block).await;
        wire.until(DATA, END_STREAM).await;
    };
    let (response, ()) = in_time(async { tokio::join!(client, server) }).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["via"], "lateen");
}
