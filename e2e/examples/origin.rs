//! A server of HTTP/1.1 that says what it was asked, to the byte, for the end-to-end tests: it runs inside pods.
//!
//! `origin PORT VERSION`. Each answer is JSON: the version, the request ([`e2e::raw::Message`]), and the how manieth try of it
//! this was. `x-script` says what becomes of each try of the request that `x-id` names: `503`, `reset` (the connection ends
//! without an answer) or `slow` (an answer after 1.5 s), separated by commas, the last again and again. `x-answer` gives
//! fields of the answer, `name=value` separated by semicolons. Each request is also a line on stdout: method, target, body,
//! fields.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::raw::{Kind, Message, bytes};
use serde_json::json;

/// How often each request has been tried, by its id.
type Tries = Arc<Mutex<HashMap<String, usize>>>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().and_then(|port| port.parse().ok()).expect("origin PORT VERSION");
    let version = arguments.next().expect("origin PORT VERSION");
    let listener = TcpListener::bind(("::", port)).expect("the port is free");
    let tries = Tries::default();
    for stream in listener.incoming().flatten() {
        let (version, tries) = (version.clone(), tries.clone());
        // What one client does to its connection is no concern of the next.
        std::thread::spawn(move || drop(serve(stream, &version, &tries)));
    }
}

fn serve(stream: TcpStream, version: &str, tries: &Tries) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    while let Some(request) = Message::read(&mut from, Kind::Request)? {
        let mut start = request.start.split(' ');
        let (method, target) = (start.next(), start.next());
        writeln!(io::stdout(), "{}", json!([method, target, request.body, request.headers]))?;
        let done = count(&request, tries);
        let script = request.values("x-script").next().unwrap_or("200");
        let steps: Vec<&str> = script.split(',').collect();
        let status = match steps[done.min(steps.len() - 1)] {
            "reset" => return Ok(()),
            "slow" => {
                pause();
                "200"
            }
            status => status,
        };
        to.write_all(&answer(&request, version, status, done + 1))?;
    }
    Ok(())
}

/// How often it has been tried before.
fn count(request: &Message, tries: &Tries) -> usize {
    let id = request.values("x-id").next().filter(|_| request.values("x-script").next().is_some());
    let Some(id) = id else { return 0 };
    let mut tries = tries.lock().expect("no thread panics with it");
    let count = tries.entry(id.to_owned()).or_default();
    *count += 1;
    *count - 1
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own, told to be slow")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1500));
}

fn answer(request: &Message, version: &str, status: &str, tries: usize) -> Vec<u8> {
    let report = json!({ "version": version, "request": request, "tries": tries }).to_string();
    let bodiless = request.start.starts_with("HEAD ") || matches!(status, "204" | "304");
    let mut head = format!("HTTP/1.1 {status} So\r\ncontent-type: application/json\r\n");
    if status != "204" {
        head.push_str(&format!("content-length: {}\r\n", report.len()));
    }
    for field in request.values("x-answer").flat_map(|fields| fields.split(';')) {
        if let Some((name, value)) = field.split_once('=') {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    let mut all = bytes(&head);
    if !bodiless {
        all.extend_from_slice(report.as_bytes());
    }
    all
}
