//! A door to the protocol for `fuzz/targets/frames.rs`; it is there with the feature `fuzzing` only.

use std::time::Duration;

use crate::limits::Limits;
use crate::protocol::{Engine, Event, Key, Role, no_fields};

/// Streams that a client opens before its peer's bytes arrive.
const OPENED: usize = 3;

/// What one end made of its peer's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Events in order, DATA joined per run of one stream.
    pub events: Vec<String>,
    /// The error that ended the connection.
    pub fault: Option<(u32, &'static str)>,
    /// Bytes waiting to be sent.
    pub answer: Vec<u8>,
    run: Option<(Key, Vec<u8>)>,
}

impl Outcome {
    fn end_run(&mut self) {
        if let Some((key, bytes)) = self.run.take() {
            self.events.push(format!("Data({key}, {bytes:?})"));
        }
    }

    fn note(&mut self, event: &Event, piece: &[u8]) {
        let Event::Data { key, start, len } = event else {
            self.end_run();
            self.events.push(format!("{event:?}"));
            return;
        };
        let bytes = &piece[*start as usize..][..*len as usize];
        match &mut self.run {
            Some((running, run)) if running == key => run.extend_from_slice(bytes),
            _ => {
                self.end_run();
                self.run = Some((*key, bytes.to_vec()));
            }
        }
    }
}

/// Gives a fresh end `bytes` in pieces of `size`. With `acting` it does what a tunnel does: answers, takes the data,
/// forgets what is over. Without, the outcome must not depend on `size`.
#[must_use]
pub fn receive(server: bool, bytes: &[u8], size: usize, acting: bool) -> Outcome {
    let mut engine = Engine::<()>::new(if server { Role::Server } else { Role::Client }, Limits::default());
    if !server {
        for _ in 0..OPENED {
            engine.open("10.0.0.9:80", no_fields(), ());
        }
    }
    let mut outcome = Outcome::default();
    for mut piece in bytes.chunks(size.max(1)) {
        while !piece.is_empty() && outcome.fault.is_none() {
            let mut events = Vec::new();
            let read = engine.receive(Duration::ZERO, piece, 0, &mut events);
            for event in &events {
                outcome.note(event, piece);
                if acting {
                    act(&mut engine, event);
                }
            }
            match read {
                Ok(read) => {
                    assert!(read > 0, "no progress");
                    piece = &piece[read..];
                }
                Err(fault) => outcome.fault = Some((fault.code, fault.text)),
            }
        }
    }
    outcome.end_run();
    outcome.answer.append(&mut engine.control);
    outcome.answer.append(&mut engine.trailing);
    outcome
}

/// Events of one batch may name a stream that an earlier one of them made us forget.
fn act(engine: &mut Engine<()>, event: &Event) {
    let Some(key) = event.stream().filter(|key| engine.streams.contains(*key)) else { return };
    match event {
        // Even ones are refused at once, as a policy would.
        Event::Request(..) if key % 2 == 0 => engine.respond(key, 403, no_fields(), true),
        Event::Request(..) => engine.respond(key, 200, no_fields(), false),
        Event::Data { len, .. } => engine.consumed(key, *len as usize),
        _ => {}
    }
    if engine.streams[key].is_over() {
        engine.release(key);
    }
}
