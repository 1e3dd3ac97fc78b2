//! HTTP/1.1 as it is on the wire, to the byte: what neither corrects nor refuses what a test wants to send, or to see. Text is
//! Latin-1, so that every byte is one character.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

/// More than any message of a test has, bytes.
const MOST: u64 = 16 << 20;

/// A request or an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its first line.
    pub start: String,
    /// Its fields in their order, names as they came, values without the blanks around them.
    pub headers: Vec<(String, String)>,
    /// Its body, without the framing of chunks.
    pub body: String,
}

/// What the body's end depends on besides the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request: without a length there is no body.
    Request,
    /// An answer: without a length it ends with the connection.
    Answer,
    /// An answer that has no body whatever its head says.
    Bodiless,
}

impl Message {
    /// The values of a field, in their order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// The code of an answer.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    /// Reads the next one; `None` where the connection ended before it.
    ///
    /// # Errors
    /// The connection's, and what is no HTTP/1.1.
    pub fn read(from: &mut impl BufRead, kind: Kind) -> io::Result<Option<Self>> {
        let start = line(from)?;
        if start.is_empty() {
            return Ok(None);
        }
        let mut message = Self { start, ..Self::default() };
        loop {
            let field = line(from)?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':').ok_or_else(|| invalid(&field))?;
            message.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        message.read_body(from, kind)?;
        Ok(Some(message))
    }

    fn read_body(&mut self, from: &mut impl BufRead, kind: Kind) -> io::Result<()> {
        let bodiless = kind == Kind::Answer && matches!(self.status(), 100..=199 | 204 | 304);
        if kind == Kind::Bodiless || bodiless {
            return Ok(());
        }
        let mut body = Vec::new();
        let length = self.values("content-length").next().map(str::to_owned);
        if self.values("transfer-encoding").any(|coding| coding.eq_ignore_ascii_case("chunked")) {
            chunks(from, &mut body)?;
        } else if let Some(length) = length {
            let length: u64 = length.parse().map_err(|_| invalid(&length))?;
            take(from, length, &mut body)?;
        } else if kind == Kind::Answer {
            from.take(MOST).read_to_end(&mut body)?;
        }
        self.body = latin(&body);
        Ok(())
    }
}

fn take(from: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    let read = from.take(length.min(MOST)).read_to_end(body)?;
    if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(from)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| invalid(&size))?;
        if length == 0 {
            while !line(from)?.is_empty() {}
            return Ok(());
        }
        take(from, length, body)?;
        if !line(from)?.is_empty() {
            return Err(invalid("a chunk longer than it says"));
        }
    }
}

/// The next line without its end; empty also at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MOST).read_until(b'\n', &mut bytes)?;
    let text = latin(&bytes);
    Ok(text
        .strip_suffix('\n')
        .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text))
        .to_owned())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP/1.1: {what:?}"))
}

/// Bytes as text.
pub fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Text as bytes.
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(b'?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_to_their_end_and_no_further() {
        let wire = b"POST /a HTTP/1.1\r\nA: b\r\ncontent-length: 2\r\n\r\nhiPUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n";
        let mut from = &wire[..];
        let first = Message::read(&mut from, Kind::Request).unwrap().unwrap();
        assert_eq!((first.start.as_str(), first.body.as_str()), ("POST /a HTTP/1.1", "hi"));
        assert_eq!(first.values("a").collect::<Vec<_>>(), ["b"]);
        let second = Message::read(&mut from, Kind::Request).unwrap().unwrap();
        assert_eq!((second.start.as_str(), second.body.as_str()), ("PUT / HTTP/1.1", "ab"));
        assert_eq!(Message::read(&mut from, Kind::Request).unwrap(), None);
    }

    #[test]
    fn answers_without_a_length_end_with_the_connection_or_have_no_body() {
        for (wire, kind, body) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nrest"[..], Kind::Answer, "rest"),
            (b"HTTP/1.1 204 No Content\r\n\r\nnext", Kind::Answer, ""),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", Kind::Bodiless, ""),
        ] {
            let answer = Message::read(&mut &*wire, kind).unwrap().unwrap();
            assert_eq!(answer.body, body);
        }
        let short = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc";
        assert!(Message::read(&mut &short[..], Kind::Answer).is_err());
    }
}
