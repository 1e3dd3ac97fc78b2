//! The state machine by tables: what peers send, in any pieces, and what comes of it. No sockets, no clock.

use std::time::Duration;

use super::{Engine, Event, Fault, Role, no_fields};
use crate::frame::{self, HEAD, Head, PREFACE, SMALLEST_MAX_FRAME, code, flag, kind, setting};
use crate::headers::Headers;
use crate::hpack::Encoder;
use crate::limits::{Limit, Limits};

type Unit = Engine<()>;
type Listed<'a> = Vec<(&'a str, &'a str)>;

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Head { len: payload.len() as u32, kind, flags, stream }.bytes().to_vec();
    out.extend_from_slice(payload);
    out
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(true);
    for (name, value) in fields {
        encoder.encode(name.as_bytes(), value.as_bytes(), &mut out);
    }
    out
}

fn connect_block() -> Vec<u8> {
    block(&[(":method", "CONNECT"), (":authority", "10.0.0.1:80")])
}

fn connect(stream: u32) -> Vec<u8> {
    raw(kind::HEADERS, flag::END_HEADERS, stream, &connect_block())
}

/// A server whose client has said hello.
fn server(limits: Limits) -> Unit {
    let mut engine = Engine::new(Role::Server, limits);
    let mut hello = PREFACE.to_vec();
    frame::settings(&mut hello, &[]);
    feed(&mut engine, &hello).unwrap();
    engine.control.clear();
    engine
}

/// A client with one CONNECT under way, whose server has said hello.
fn client() -> Unit {
    let mut engine = Engine::new(Role::Client, Limits::default());
    let mut hello = Vec::new();
    frame::settings(&mut hello, &[]);
    feed(&mut engine, &hello).unwrap();
    engine.open("10.0.0.1:80", no_fields(), ()).unwrap();
    engine.control.clear();
    engine.trailing.clear();
    engine
}

fn feed(engine: &mut Unit, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let mut events = Vec::new();
        at += engine.receive(Duration::ZERO, &bytes[at..], at, &mut events)?;
        all.append(&mut events);
    }
    Ok(all)
}

/// The frames in a queue as (kind, flags, stream, payload).
fn frames(mut queue: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(head) = queue.first_chunk::<HEAD>() {
        let head = Head::parse(head);
        let end = HEAD + head.len as usize;
        all.push((head.kind, head.flags, head.stream, queue[HEAD..end].to_vec()));
        queue = &queue[end..];
    }
    all
}

/// The code with which the engine reset `stream`, if it did.
fn reset_of(engine: &Unit, stream: u32) -> Option<u32> {
    let queued = [frames(&engine.control), frames(&engine.trailing)].concat();
    queued
        .iter()
        .find(|(found, _, id, _)| *found == kind::RST_STREAM && *id == stream)
        .map(|(_, _, _, payload)| frame::read_u32(payload))
}

#[test]
fn faults_of_the_connection() {
    let get = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]);
    let cases: Vec<(&str, Vec<u8>, u32)> = vec![
        ("DATA on stream 0", raw(kind::DATA, 0, 0, b"x"), code::PROTOCOL_ERROR),
        ("DATA on an idle stream", raw(kind::DATA, 0, 1, b"x"), code::PROTOCOL_ERROR),
        ("HEADERS on stream 0", raw(kind::HEADERS, flag::END_HEADERS, 0, &get), code::PROTOCOL_ERROR),
        ("HEADERS on an even stream", raw(kind::HEADERS, flag::END_HEADERS, 2, &get), code::PROTOCOL_ERROR),
        (
            "HEADERS shorter than its padding",
            raw(kind::HEADERS, flag::END_HEADERS | flag::PADDED, 1, &[9, 1]),
            code::PROTOCOL_ERROR,
        ),
        (
            "HEADERS without room for its flags",
            raw(kind::HEADERS, flag::END_HEADERS | flag::PRIORITY, 1, &[1]),
            code::FRAME_SIZE_ERROR,
        ),
        (
            "a stream that depends on itself",
            raw(kind::HEADERS, flag::END_HEADERS | flag::PRIORITY, 1, &[0, 0, 0, 1, 9]),
            code::PROTOCOL_ERROR,
        ),
        ("garbage as HPACK", raw(kind::HEADERS, flag::END_HEADERS, 1, &[0xff; 8]), code::COMPRESSION_ERROR),
        ("CONTINUATION alone", raw(kind::CONTINUATION, flag::END_HEADERS, 1, &[]), code::PROTOCOL_ERROR),
        (
            "a block broken off by PING",
            [raw(kind::HEADERS, 0, 1, &get), raw(kind::PING, 0, 0, &[0; 8])].concat(),
            code::PROTOCOL_ERROR,
        ),
        (
            "a block continued on another stream",
            [raw(kind::HEADERS, 0, 1, &get), raw(kind::CONTINUATION, 4, 3, &[])].concat(),
            code::PROTOCOL_ERROR,
        ),
        ("SETTINGS of five bytes", raw(kind::SETTINGS, 0, 0, &[0; 5]), code::FRAME_SIZE_ERROR),
        ("SETTINGS ack with a payload", raw(kind::SETTINGS, flag::ACK, 0, &[0; 6]), code::FRAME_SIZE_ERROR),
        ("SETTINGS on a stream", raw(kind::SETTINGS, 0, 1, &[]), code::PROTOCOL_ERROR),
        (
            "a first window of 2^31",
            raw(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            code::FLOW_CONTROL_ERROR,
        ),
        ("a frame size of 1", raw(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), code::PROTOCOL_ERROR),
        ("push of 2", raw(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), code::PROTOCOL_ERROR),
        ("PING of seven bytes", raw(kind::PING, 0, 0, &[0; 7]), code::FRAME_SIZE_ERROR),
        ("PING on a stream", raw(kind::PING, 0, 1, &[0; 8]), code::PROTOCOL_ERROR),
        ("GOAWAY of four bytes", raw(kind::GOAWAY, 0, 0, &[0; 4]), code::FRAME_SIZE_ERROR),
        ("WINDOW_UPDATE of 0", raw(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), code::PROTOCOL_ERROR),
        (
            "WINDOW_UPDATE beyond 2^31-1",
            raw(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            code::FLOW_CONTROL_ERROR,
        ),
        (
            "WINDOW_UPDATE of an idle stream",
            raw(kind::WINDOW_UPDATE, 0, 7, &[0, 0, 0, 1]),
            code::PROTOCOL_ERROR,
        ),
        ("RST_STREAM of an idle stream", raw(kind::RST_STREAM, 0, 7, &[0; 4]), code::PROTOCOL_ERROR),
        ("RST_STREAM of five bytes", raw(kind::RST_STREAM, 0, 1, &[0; 5]), code::FRAME_SIZE_ERROR),
        ("PUSH_PROMISE", raw(kind::PUSH_PROMISE, 4, 1, &[0; 4]), code::PROTOCOL_ERROR),
        ("PRIORITY of four bytes", raw(kind::PRIORITY, 0, 1, &[0; 4]), code::FRAME_SIZE_ERROR),
        (
            "padded DATA without a length",
            [connect(1), raw(kind::DATA, flag::PADDED, 1, &[])].concat(),
            code::FRAME_SIZE_ERROR,
        ),
        (
            "more padding than DATA",
            [connect(1), raw(kind::DATA, flag::PADDED, 1, &[4, 0, 0, 0])].concat(),
            code::PROTOCOL_ERROR,
        ),
        (
            "a frame beyond the limit",
            Head { len: (1 << 20) + 1, kind: kind::DATA, flags: 0, stream: 1 }.bytes().to_vec(),
            code::FRAME_SIZE_ERROR,
        ),
        (
            "a header block beyond the limit",
            Head { len: 33 << 10, kind: kind::HEADERS, flags: 0, stream: 1 }.bytes().to_vec(),
            code::ENHANCE_YOUR_CALM,
        ),
        (
            "SETTINGS without end",
            Head { len: 600_000, kind: kind::SETTINGS, flags: 0, stream: 0 }.bytes().to_vec(),
            code::ENHANCE_YOUR_CALM,
        ),
    ];
    for (name, bytes, expected) in cases {
        let fault = feed(&mut server(Limits::default()), &bytes).map(|_| ()).unwrap_err();
        assert_eq!(fault.code, expected, "{name}: {}", fault.text);
    }
}

#[test]
fn a_connection_begins_with_preface_and_settings() {
    for (name, bytes) in [
        ("HTTP/1", b"GET / HTTP/1.1\r\n".to_vec()),
        ("a PING first", [PREFACE.to_vec(), raw(kind::PING, 0, 0, &[0; 8])].concat()),
        ("an ack first", [PREFACE.to_vec(), raw(kind::SETTINGS, flag::ACK, 0, &[])].concat()),
    ] {
        let mut engine: Unit = Engine::new(Role::Server, Limits::default());
        assert_eq!(feed(&mut engine, &bytes).map(|_| ()).unwrap_err().code, code::PROTOCOL_ERROR, "{name}");
    }
}

#[test]
fn requests_that_are_no_connect() {
    enum Want {
        Status(&'static str),
        Reset(u32),
    }
    let many: Listed<'_> = vec![("x", "y"); 101];
    let cases: Vec<(&str, Listed<'_>, Want)> = vec![
        (
            "GET",
            vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
            Want::Status("400"),
        ),
        (
            "extended CONNECT",
            vec![(":method", "CONNECT"), (":protocol", "websocket"), (":authority", "a")],
            Want::Status("400"),
        ),
        (
            "CONNECT with a path",
            vec![(":method", "CONNECT"), (":path", "/"), (":authority", "a")],
            Want::Status("400"),
        ),
        ("no authority", vec![(":method", "CONNECT")], Want::Status("400")),
        ("an empty authority", vec![(":method", "CONNECT"), (":authority", "")], Want::Status("400")),
        (
            "too many fields",
            [vec![(":method", "CONNECT"), (":authority", "a")], many].concat(),
            Want::Status("431"),
        ),
        ("no method", vec![(":authority", "a")], Want::Reset(code::PROTOCOL_ERROR)),
        (
            "two methods",
            vec![(":method", "CONNECT"), (":method", "CONNECT"), (":authority", "a")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
        (
            "two authorities",
            vec![(":method", "CONNECT"), (":authority", "a"), (":authority", "b")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
        (
            "a status",
            vec![(":method", "CONNECT"), (":authority", "a"), (":status", "200")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
        (
            "an unknown pseudo field",
            vec![(":method", "CONNECT"), (":authority", "a"), (":x", "y")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
        (
            "a pseudo field behind others",
            vec![("x", "y"), (":method", "CONNECT"), (":authority", "a")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
        (
            "upper case",
            vec![(":method", "CONNECT"), (":authority", "a"), ("Baggage", "y")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
        (
            "a line break",
            vec![(":method", "CONNECT"), (":authority", "a"), ("x", "y\r\nz: 1")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
        (
            "transfer-encoding",
            vec![(":method", "CONNECT"), (":authority", "a"), ("transfer-encoding", "chunked")],
            Want::Reset(code::PROTOCOL_ERROR),
        ),
    ];
    for (name, fields, want) in cases {
        let mut engine = server(Limits::default());
        let events = feed(&mut engine, &raw(kind::HEADERS, flag::END_HEADERS, 1, &block(&fields))).unwrap();
        assert!(events.is_empty(), "{name}: {events:?}");
        let answer = &frames(&engine.control)[0];
        match want {
            Want::Status(status) => {
                assert_eq!(
                    (answer.0, answer.1),
                    (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM),
                    "{name}"
                );
                assert_eq!(answer.3, block(&[(":status", status)]), "{name}");
                assert_eq!(reset_of(&engine, 1), Some(code::NO_ERROR), "{name}");
            }
            Want::Reset(code) => assert_eq!(reset_of(&engine, 1), Some(code), "{name}"),
        }
        // The connection is sound: the next request is taken.
        assert!(matches!(feed(&mut engine, &connect(3)).unwrap()[..], [Event::Request(..)]), "{name}");
    }
}

#[test]
fn faults_of_one_stream_leave_the_others() {
    let cases: Vec<(&str, Vec<u8>, u32)> = vec![
        ("WINDOW_UPDATE of 0", raw(kind::WINDOW_UPDATE, 0, 1, &[0; 4]), code::PROTOCOL_ERROR),
        (
            "a window beyond 2^31-1",
            raw(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            code::FLOW_CONTROL_ERROR,
        ),
        (
            "DATA beyond the window",
            [raw(kind::DATA, 0, 1, &[0; 1 << 20]), raw(kind::DATA, 0, 1, b"x")].concat(),
            code::FLOW_CONTROL_ERROR,
        ),
        (
            "DATA after the end",
            [raw(kind::DATA, flag::END_STREAM, 1, b""), raw(kind::DATA, 0, 1, b"x")].concat(),
            code::STREAM_CLOSED,
        ),
        (
            "HEADERS after the end",
            [raw(kind::DATA, flag::END_STREAM, 1, b""), raw(kind::HEADERS, 5, 1, &connect_block())].concat(),
            code::STREAM_CLOSED,
        ),
        (
            "trailers that do not end",
            raw(kind::HEADERS, flag::END_HEADERS, 1, &block(&[("x", "y")])),
            code::PROTOCOL_ERROR,
        ),
    ];
    for (name, bytes, expected) in cases {
        let mut engine = server(a_window_of_one_frame());
        feed(&mut engine, &[connect(1), connect(3)].concat()).unwrap();
        let events = feed(&mut engine, &bytes).unwrap();
        assert!(
            matches!(events.last(), Some(Event::Reset(0, code)) if *code == expected),
            "{name}: {events:?}"
        );
        assert_eq!(reset_of(&engine, 1), Some(expected), "{name}");
        let events = feed(&mut engine, &raw(kind::DATA, 0, 3, b"on")).unwrap();
        assert!(matches!(events[..], [Event::Data { key: 1, len: 2, .. }]), "{name}: {events:?}");
    }
}

/// What the events say, with the bytes of DATA joined per stream.
fn summary(pieces: &[(Vec<u8>, Vec<Event>)]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut data: Vec<(usize, Vec<u8>)> = Vec::new();
    for (input, events) in pieces {
        for event in events {
            match event {
                Event::Data { key, start, len } => {
                    let bytes = &input[*start as usize..(*start + *len) as usize];
                    match data.iter_mut().find(|(known, _)| known == key) {
                        Some((_, have)) => have.extend_from_slice(bytes),
                        None => data.push((*key, bytes.to_vec())),
                    }
                }
                Event::Request(key, head) => out.push(format!("{key} {head:?}")),
                other => out.push(format!("{other:?}")),
            }
        }
    }
    out.extend(data.iter().map(|(key, bytes)| format!("{key} {}", String::from_utf8_lossy(bytes))));
    out
}

#[test]
fn frames_cut_anywhere_mean_the_same() {
    let long = block(&[(":method", "CONNECT"), (":authority", "svc.ns:80"), ("baggage", &"k=v,".repeat(50))]);
    let (first, rest) = long.split_at(20);
    let (second, third) = rest.split_at(7);
    let mut padded = vec![3, 0x80, 0, 0, 9, 200];
    padded.extend_from_slice(&connect_block());
    padded.extend_from_slice(&[0; 3]);
    let wire = [
        raw(kind::HEADERS, 0, 1, first),
        raw(kind::CONTINUATION, 0, 1, second),
        raw(kind::CONTINUATION, flag::END_HEADERS, 1, third),
        raw(kind::HEADERS, flag::END_HEADERS | flag::PADDED | flag::PRIORITY, 3, &padded),
        raw(kind::DATA, 0, 1, b"hello "),
        raw(kind::DATA, flag::PADDED, 3, b"\x05three\0\0\0\0\0"),
        raw(0xfa, 0xff, 77, b"a frame of tomorrow"),
        raw(kind::PRIORITY, 0, 9, &[0; 5]),
        raw(kind::PING, 0, 0, b"12345678"),
        raw(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\x02world\0\0"),
        raw(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
        raw(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
        raw(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0, b'b', b'y', b'e']),
    ]
    .concat();
    let mut expected = None;
    for piece in 1..=wire.len() {
        let mut engine = server(Limits::default());
        let pieces: Vec<_> =
            wire.chunks(piece).map(|part| (part.to_vec(), feed(&mut engine, part).unwrap())).collect();
        let found = (summary(&pieces), engine.control.clone());
        assert_eq!(&found, expected.get_or_insert_with(|| found.clone()), "pieces of {piece}");
    }
    let (events, control) = expected.unwrap();
    assert_eq!(events.iter().filter(|event| event.contains("RequestHead")).count(), 2);
    assert!(
        events.contains(&"0 hello world".to_owned()) && events.contains(&"1 three".to_owned()),
        "{events:?}"
    );
    assert!(frames(&control).contains(&(kind::PING, flag::ACK, 0, b"12345678".to_vec())));
}

#[test]
fn every_rate_has_a_live_limit() {
    let limits = Limits {
        resets_per_second: 5,
        pings_per_second: 5,
        settings_per_second: 5,
        empty_frames_per_second: 5,
        ..Limits::default()
    };
    type Flood = fn(u32) -> Vec<u8>;
    let cases: [(&str, Limit, Flood); 8] = [
        ("rapid reset", Limit::Resets, |n| {
            [connect(1 + 2 * n), raw(kind::RST_STREAM, 0, 1 + 2 * n, &[0, 0, 0, 8])].concat()
        }),
        ("resets we are made to send", Limit::Resets, |n| {
            [connect(1 + 2 * n), raw(kind::WINDOW_UPDATE, 0, 1 + 2 * n, &[0; 4])].concat()
        }),
        ("requests we must refuse", Limit::Resets, |n| {
            raw(kind::HEADERS, flag::END_HEADERS, 1 + 2 * n, &block(&[("x", "y")]))
        }),
        ("PING", Limit::Pings, |_| raw(kind::PING, 0, 0, &[0; 8])),
        ("SETTINGS", Limit::Settings, |_| raw(kind::SETTINGS, 0, 0, &[])),
        ("PRIORITY", Limit::EmptyFrames, |_| raw(kind::PRIORITY, 0, 1, &[0; 5])),
        ("unknown frames", Limit::EmptyFrames, |_| raw(0x77, 0, 0, &[])),
        ("empty DATA", Limit::EmptyFrames, |n| {
            let open = if n == 0 { connect(1) } else { Vec::new() };
            [open, raw(kind::DATA, 0, 1, &[])].concat()
        }),
    ];
    for (name, limit, flood) in cases {
        let mut engine = server(limits.clone());
        // The hello's own SETTINGS counted once.
        let fault = (0..7).find_map(|n| feed(&mut engine, &flood(n)).err());
        let fault = fault.unwrap_or_else(|| panic!("{name} goes on"));
        assert_eq!((fault.code, fault.limit), (code::ENHANCE_YOUR_CALM, Some(limit)), "{name}");
        let before = engine.limits.hits.of(limit);
        engine.fail(fault);
        assert_eq!(engine.limits.hits.of(limit), before + 1, "{name}");
        // The same number spread over seconds is nobody's flood.
        let mut engine = server(limits.clone());
        for n in 0..50 {
            let mut events = Vec::new();
            engine.receive(Duration::from_secs(n.into()), &flood(n), 0, &mut events).unwrap();
            for event in events {
                if let Event::Reset(key, _) = event {
                    engine.release(key);
                }
            }
        }
    }
}

#[test]
fn frames_have_a_largest_size() {
    let largest = Limits::default().max_frame;
    let head = |kind, len| Head { len, kind, flags: 0, stream: u32::from(kind != kind::SETTINGS) }.bytes();
    let cases = [
        (head(kind::DATA, largest + 1), code::FRAME_SIZE_ERROR),
        (head(0x77, u32::from(u16::MAX) << 8), code::FRAME_SIZE_ERROR),
        // Whole entries, but more of them than anybody has to say.
        (head(kind::SETTINGS, 16_386), code::ENHANCE_YOUR_CALM),
    ];
    for (head, expected) in cases {
        let mut engine = server(Limits::default());
        feed(&mut engine, &connect(1)).unwrap();
        let fault = feed(&mut engine, &head).unwrap_err();
        assert_eq!((fault.code, fault.limit), (expected, Some(Limit::Frame)));
        engine.fail(fault);
        assert_eq!(engine.limits.hits.of(Limit::Frame), 1);
    }
}

#[test]
fn who_sends_more_than_was_granted_is_stopped() {
    let limits = Limits { stream_window: 10, ..Limits::default() };
    let mut engine = server(limits);
    feed(&mut engine, &[connect(1), raw(kind::DATA, 0, 1, &[0; 10])].concat()).unwrap();
    assert_eq!(engine.limits.hits.of(Limit::Window), 0);
    feed(&mut engine, &raw(kind::DATA, 0, 1, &[0])).unwrap();
    assert_eq!(reset_of(&engine, 1), Some(code::FLOW_CONTROL_ERROR));
    assert_eq!(engine.limits.hits.of(Limit::Window), 1);

    let limits = Limits { connection_window: 65_535, ..Limits::default() };
    let mut engine = server(limits);
    let head = Head { len: 65_536, kind: kind::DATA, flags: 0, stream: 1 }.bytes();
    let fault = feed(&mut engine, &[connect(1), head.to_vec()].concat()).unwrap_err();
    assert_eq!((fault.code, fault.limit), (code::FLOW_CONTROL_ERROR, Some(Limit::Window)));
}

#[test]
fn a_continuation_flood_ends() {
    let mut engine = server(Limits::default());
    feed(&mut engine, &raw(kind::HEADERS, 0, 1, &connect_block())).unwrap();
    let fault = (0..20).find_map(|_| feed(&mut engine, &raw(kind::CONTINUATION, 0, 1, &[])).err());
    let fault = fault.unwrap();
    assert_eq!((fault.code, fault.limit), (code::ENHANCE_YOUR_CALM, Some(Limit::HeaderBlock)));
}

#[test]
fn a_small_block_cannot_grow_large() {
    // One field of 4,000 bytes goes into the dynamic table; each further byte repeats it.
    let mut bomb = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    bomb.extend_from_slice(&[b'y'; 4000]);
    bomb.extend_from_slice(&[0xbe; 1000]);
    let mut engine = server(Limits::default());
    assert!(feed(&mut engine, &raw(kind::HEADERS, flag::END_HEADERS, 1, &bomb)).unwrap().is_empty());
    assert_eq!(frames(&engine.control)[0].3, block(&[(":status", "431")]));
    assert_eq!(engine.limits.hits.of(Limit::DecodedHeaders), 1);
}

#[test]
fn streams_above_the_limit_are_refused() {
    let mut engine = server(Limits { server_streams: 2, ..Limits::default() });
    let events = feed(&mut engine, &[connect(1), connect(3), connect(5)].concat()).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(reset_of(&engine, 5), Some(code::REFUSED_STREAM));
    assert_eq!(engine.limits.hits.of(Limit::ServerStreams), 1);
    engine.release(0);
    assert_eq!(feed(&mut engine, &connect(7)).unwrap().len(), 1);
}

/// A pod whose connections are cancelled by the thousand must not have its tunnel ended as an attacker's.
#[test]
fn a_tunnel_with_many_cancelled_streams_takes_no_more_for_the_rest_of_the_second() {
    let limits = Limits { resets_per_second: 20, ..Limits::default() };
    let mut engine: Unit = Engine::new(Role::Client, limits.clone());
    let mut peer = server(limits);
    let mut opened = 0;
    while let Some(key) = engine.open("a:1", no_fields(), ()) {
        engine.release(key);
        opened += 1;
        assert!(opened < 100, "it goes on for ever");
    }
    assert_eq!((opened, engine.capacity()), (10, 0));
    let wire = std::mem::take(&mut engine.trailing);
    assert!(feed(&mut peer, &wire).is_ok(), "the peer has no reason to end it");
    // Any sign of life in another second.
    let mut events = Vec::new();
    engine.receive(Duration::from_secs(1), &raw(kind::SETTINGS, 0, 0, &[]), 0, &mut events).unwrap();
    assert!(engine.capacity() > 0);
}

#[test]
fn the_peers_limit_of_streams_is_respected() {
    let mut engine: Unit = Engine::new(Role::Client, Limits::default());
    assert_eq!(engine.capacity(), 100);
    let mut wire = Vec::new();
    frame::settings(&mut wire, &[(setting::MAX_CONCURRENT_STREAMS, 1)]);
    feed(&mut engine, &wire).unwrap();
    let key = engine.open("a:1", no_fields(), ()).unwrap();
    assert_eq!(engine.capacity(), 0);
    assert!(engine.open("a:1", no_fields(), ()).is_none());
    engine.release(key);
    assert_eq!(engine.capacity(), 1);
}

/// A stream's window as large as the largest frame, 1 MiB.
fn a_window_of_one_frame() -> Limits {
    Limits { stream_window: 1 << 20, connection_window: 4 << 20, ..Limits::default() }
}

#[test]
fn credit_follows_the_application() {
    let mut engine = server(a_window_of_one_frame());
    feed(&mut engine, &[connect(1), raw(kind::DATA, 0, 1, &[0; 1 << 20])].concat()).unwrap();
    assert!(engine.control.is_empty(), "arrival alone grants nothing");
    engine.consumed(0, (1 << 18) - 1);
    assert!(engine.control.is_empty());
    engine.consumed(0, 1);
    let quarter = (1u32 << 18).to_be_bytes().to_vec();
    let grant = |stream| (kind::WINDOW_UPDATE, 0, stream, quarter.clone());
    assert_eq!(frames(&engine.control), [grant(1), grant(0)], "the connection's goes along");
    engine.consumed(0, 1 << 18);
    assert_eq!(frames(&engine.control), [grant(1), grant(0), grant(1), grant(0)]);
}

#[test]
fn bytes_nobody_wants_are_granted_to_the_connection() {
    let mut engine = server(Limits::default());
    feed(&mut engine, &connect(1)).unwrap();
    engine.release(0);
    let quarters = 1000 * SMALLEST_MAX_FRAME / (Limits::default().connection_window as usize / 4);
    let chunk = raw(kind::DATA, 0, 1, &vec![0; SMALLEST_MAX_FRAME]);
    for _ in 0..1000 {
        feed(&mut engine, &chunk).unwrap();
    }
    assert!(
        frames(&engine.control).iter().filter(|(kind, ..)| *kind == kind::WINDOW_UPDATE).count() >= quarters
    );
}

#[test]
fn sending_keeps_within_both_windows() {
    let mut engine = client();
    assert_eq!(engine.budget(0), 65_535);
    engine.sent(0, 65_535);
    assert_eq!(engine.budget(0), 0);
    let stream = raw(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100]);
    assert!(matches!(feed(&mut engine, &stream).unwrap()[..], [Event::Writable(0)]));
    assert_eq!(engine.budget(0), 0, "the connection's window is still shut");
    let both = raw(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 50]);
    assert!(matches!(feed(&mut engine, &both).unwrap()[..], [Event::AllWritable]));
    assert_eq!(engine.budget(0), 50);
    // A smaller first window may make it negative; that is no fault.
    let mut wire = Vec::new();
    frame::settings(&mut wire, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    feed(&mut engine, &wire).unwrap();
    assert_eq!(engine.budget(0), 0);
}

#[test]
fn answers() {
    let answer =
        |fields: &[(&str, &str)], flags: u8| raw(kind::HEADERS, flag::END_HEADERS | flags, 1, &block(fields));
    let mut engine = client();
    let events = feed(
        &mut engine,
        &[answer(&[(":status", "103")], 0), answer(&[(":status", "200"), ("baggage", "a=b")], 0)].concat(),
    );
    let events = events.unwrap();
    let [Event::Response(0, head)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((head.status, &head.headers), (200, &Headers::new().with("baggage", "a=b")));
    let mut engine = client();
    let events = feed(&mut engine, &answer(&[(":status", "401")], flag::END_STREAM)).unwrap();
    assert!(matches!(events[..], [Event::Response(0, _), Event::End(0)]));
    for bad in [
        &[("x", "y")][..],
        &[(":status", "20")],
        &[(":status", "2x0")],
        &[(":status", "200"), (":status", "200")],
        &[(":method", "GET"), (":status", "200")],
    ] {
        let mut engine = client();
        let events = feed(&mut engine, &answer(bad, 0)).unwrap();
        assert!(matches!(events[..], [Event::Reset(0, code::PROTOCOL_ERROR)]), "{bad:?}: {events:?}");
    }
    // DATA before the answer is the server's fault.
    let events = feed(&mut client(), &raw(kind::DATA, 0, 1, b"early")).unwrap();
    assert!(matches!(events[..], [Event::Reset(0, code::PROTOCOL_ERROR)]));
}

#[test]
fn a_server_drains_in_two_steps() {
    let mut engine = server(Limits::default());
    engine.begin_drain();
    let queued = frames(&engine.trailing);
    assert_eq!((queued[0].0, frame::read_u32(&queued[0].3)), (kind::GOAWAY, frame::STREAM_MASK));
    assert_eq!(queued[1].0, kind::PING);
    let opaque = queued[1].3.clone();
    // A request that was under way is still taken.
    assert_eq!(feed(&mut engine, &connect(1)).unwrap().len(), 1);
    engine.trailing.clear();
    feed(&mut engine, &raw(kind::PING, flag::ACK, 0, &opaque)).unwrap();
    assert_eq!(frame::read_u32(&frames(&engine.trailing)[0].3), 1);
    assert!(feed(&mut engine, &connect(3)).unwrap().is_empty());
    assert_eq!(reset_of(&engine, 3), Some(code::REFUSED_STREAM));
    assert!(!engine.drained());
    engine.release(0);
    assert!(engine.drained());
}

mod hostile {
    use proptest::prelude::*;

    use super::{Limits, feed, server};

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = feed(&mut server(Limits::default()), &bytes);
        }

        #[test]
        fn nor_do_frames(frames in proptest::collection::vec((0u8..12, any::<u8>(), 0u32..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..60)) {
            let mut engine = server(Limits::default());
            for (kind, flags, stream, payload) in frames {
                if feed(&mut engine, &super::raw(kind, flags, stream, &payload)).is_err() {
                    break;
                }
            }
        }
    }
}
