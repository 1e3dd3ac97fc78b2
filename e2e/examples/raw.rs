//! Sends requests exactly as they are given and says what comes back, for the end-to-end tests: it runs inside pods.
//!
//! Each line on stdin is JSON, `{"to": "HOST:PORT", "send": "…"}`; each is answered with a line: the answer as
//! [`e2e::raw::Message`], or `{"error": "…"}`. Connections are kept as long as the server lets them. With `"alone": true` it goes
//! on a connection of its own, of which our half ends once nothing more comes, and all that comes to the end of the other is
//! returned: `{"all": "…"}`. With `"h2": [[["name", "value"], …], "body", [trailers]]` it is a request of HTTP/2 instead, and what comes
//! is told in words: `headers`, `reset CODE`, `goaway CODE` or `closed`.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use e2e::raw::{Kind, Message, bytes, latin};
use serde_json::{Value, json};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is not answered for so long waits for more.
const UNANSWERED: Duration = Duration::from_secs(2);

/// After so long without a byte an answer is over.
const QUIET: Duration = Duration::from_millis(200);

fn main() {
    let mut open = HashMap::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let asked: Value = serde_json::from_str(&line).expect("a line of JSON");
        let (to, send) =
            (asked["to"].as_str().expect("to"), bytes(asked["send"].as_str().unwrap_or_default()));
        let told = if asked["h2"].is_array() {
            two(to, &asked["h2"]).map(|told| json!({ "all": told }))
        } else if asked["alone"] == true {
            alone(to, &send).map(|all| json!({ "all": all }))
        } else {
            answer(&mut open, to, &send).and_then(|answer| Ok(serde_json::to_value(answer)?))
        };
        let told = told.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        // Who asked is gone where this fails.
        let _ = writeln!(io::stdout(), "{told}");
    }
}

fn connect(to: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// On the connection that there is, or a new one where the server has ended it meanwhile.
fn answer(open: &mut HashMap<String, BufReader<TcpStream>>, to: &str, send: &[u8]) -> io::Result<Message> {
    let kept = match open.remove(to) {
        Some(mut kept) => exchange(&mut kept, send).ok().flatten().map(|answer| (kept, answer)),
        None => None,
    };
    let (stream, answer) = match kept {
        Some(done) => done,
        None => {
            let mut fresh = BufReader::new(connect(to)?);
            let answer = exchange(&mut fresh, send)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            (fresh, answer)
        }
    };
    let ends = answer.values("connection").any(|value| value.eq_ignore_ascii_case("close"));
    if !ends {
        open.insert(to.to_owned(), stream);
    }
    Ok(answer)
}

fn exchange(stream: &mut BufReader<TcpStream>, send: &[u8]) -> io::Result<Option<Message>> {
    stream.get_mut().write_all(send)?;
    let kind = if send.starts_with(b"HEAD ") { Kind::Bodiless } else { Kind::Answer };
    loop {
        let answer = Message::read(stream, kind)?;
        if answer.as_ref().is_none_or(|answer| !(100..200).contains(&answer.status())) {
            return Ok(answer);
        }
    }
}

/// All that comes, to the end of the connection. Who ends its half is taken for gone, so it does not before it has been
/// answered, or should have been.
fn alone(to: &str, send: &[u8]) -> io::Result<String> {
    let mut stream = connect(to)?;
    let mut come = Vec::new();
    // It may be hung up on in the middle, and have answered before.
    let sent = stream.write_all(send);
    let mut wait = UNANSWERED;
    let mut read = vec![0; 64 << 10];
    while sent.is_ok() {
        stream.set_read_timeout(Some(wait))?;
        match stream.read(&mut read) {
            Ok(length @ 1..) => come.extend_from_slice(&read[..length]),
            _ => break,
        }
        wait = QUIET;
    }
    let _ = stream.shutdown(Shutdown::Write);
    stream.set_read_timeout(Some(PATIENCE))?;
    // What came before an error counts.
    let _ = stream.read_to_end(&mut come);
    Ok(latin(&come))
}

/// One request of HTTP/2, its fields exactly as they are given, and what comes for it.
fn two(to: &str, request: &Value) -> io::Result<String> {
    let mut stream = connect(to)?;
    let mut send = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut send, 4, 0, 0, &[]);
    let body = bytes(request[1].as_str().unwrap_or_default());
    let trailers = fields(&request[2]);
    let ends = |last: bool| u8::from(last);
    frame(&mut send, 1, 4 | ends(body.is_empty() && trailers.is_empty()), 1, &fields(&request[0]));
    if !body.is_empty() {
        frame(&mut send, 0, ends(trailers.is_empty()), 1, &body);
    }
    if !trailers.is_empty() {
        frame(&mut send, 1, 5, 1, &trailers);
    }
    stream.write_all(&send)?;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Ok("closed".into());
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = Vec::new();
        (&mut stream).take(length.into()).read_to_end(&mut payload)?;
        let code = |at: usize| payload.get(at + 3).copied().unwrap_or_default();
        match head[3] {
            1 => return Ok("headers".into()),
            3 => return Ok(format!("reset {}", code(0))),
            7 => return Ok(format!("goaway {}", code(4))),
            _ => {}
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags, 0, 0, 0, stream]);
    out.extend_from_slice(payload);
}

/// A block of literals that no table knows (RFC 7541, section 6.2.2).
fn fields(of: &Value) -> Vec<u8> {
    let mut block = Vec::new();
    for field in of.as_array().into_iter().flatten() {
        block.push(0);
        for text in [&field[0], &field[1]] {
            let text = bytes(text.as_str().unwrap_or_default());
            // Short enough for one byte, or two (section 5.1).
            match u8::try_from(text.len()) {
                Ok(length @ 0..127) => block.push(length),
                _ => block.extend([127, u8::try_from(text.len() - 127).expect("under 255 bytes")]),
            }
            block.extend(text);
        }
    }
    block
}
