//! How one line looks, and the layer that makes lines of `tracing` events.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{Format, Sink};

/// One line while its fields are added.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    fields: usize,
}

impl<'a> Line<'a> {
    /// Begins a line.
    pub fn begin(out: &'a mut Vec<u8>, format: Format, level: Level, scope: &str, message: &str) -> Self {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut line = Self { out, format, fields: 0 };
        match format {
            Format::Plain => {
                timestamp(line.out);
                line.raw("\t");
                line.raw(level);
                line.raw("\t");
                line.raw(scope);
                line.raw("\t");
                escape_controls(line.out, message);
            }
            Format::Json => {
                line.raw("{\"level\":\"");
                line.raw(level);
                line.raw("\",\"time\":\"");
                timestamp(line.out);
                line.raw("\",\"scope\":");
                json_string(line.out, scope);
                line.raw(",\"message\":");
                json_string(line.out, message);
            }
        }
        line
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn key(&mut self, key: &str) {
        match self.format {
            Format::Plain => {
                self.raw(if self.fields == 0 { "\t" } else { " " });
                self.raw(key);
                self.raw("=");
            }
            Format::Json => {
                self.raw(",");
                json_string(self.out, key);
                self.raw(":");
            }
        }
        self.fields += 1;
    }

    /// Adds a number, an address, or something else whose text needs no quotes.
    pub fn bare(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        if self.format == Format::Json {
            json_string(self.out, &value.to_string());
        } else {
            let _ = write!(self.out, "{value}");
        }
    }

    /// Adds an integer.
    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    /// Adds a text, quoted.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        json_string(self.out, value);
    }

    /// Adds a text, quoted, of something that can be displayed.
    pub fn display(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        self.raw("\"");
        let _ = write!(Escaped(self.out), "{value}");
        self.raw("\"");
    }

    /// Ends the line.
    pub fn end(self) {
        if self.format == Format::Json {
            self.out.extend_from_slice(b"}");
        }
        self.out.push(b'\n');
    }
}

/// The time in RFC 3339 with microseconds. Most lines of a thread fall into the same second, whose text is kept.
fn timestamp(out: &mut Vec<u8>) {
    const LENGTH: usize = "2026-11-22T00:00:00".len();
    thread_local!(static SECOND: Cell<(u64, [u8; LENGTH])> = const { Cell::new((0, [0; LENGTH])) });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = SECOND.get();
    if second != now.as_secs() {
        second = now.as_secs();
        let date =
            i64::try_from(second).ok().and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
        let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let mut cursor = &mut text[..];
        let (year, month, day) = date.to_calendar_date();
        let (hour, minute, second_of_minute) = date.to_hms();
        let _ = write!(
            cursor,
            "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second_of_minute:02}",
            u8::from(month)
        );
        SECOND.set((second, text));
    }
    out.extend_from_slice(&text);
    let _ = write!(out, ".{:06}Z", now.subsec_micros());
}

/// Appends a JSON string, which is also how a text is quoted in a plain line: nobody's name can forge a field or a line.
fn json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let _ = Escaped(out).write_str(text);
    out.push(b'"');
}

/// Keeps a message on its line.
fn escape_controls(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        out.push(if byte < b' ' { b' ' } else { byte });
    }
}

struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        let bytes = text.as_bytes();
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| !plain(**byte)) {
            self.0.extend_from_slice(&bytes[from..at]);
            from = at + 1;
            let _ = match byte {
                b'"' => self.0.write_all(b"\\\""),
                b'\\' => self.0.write_all(b"\\\\"),
                b'\n' => self.0.write_all(b"\\n"),
                b'\t' => self.0.write_all(b"\\t"),
                other => write!(self.0, "\\u{other:04x}"),
            };
        }
        self.0.extend_from_slice(&bytes[from..]);
        Ok(())
    }
}

/// Makes lines of events.
#[derive(Debug)]
pub(super) struct Lines {
    sink: Sink,
    format: Format,
}

impl Lines {
    pub(super) fn new(sink: Sink, format: Format) -> Self {
        Self { sink, format }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut message = Message(String::new());
        event.record(&mut message);
        self.sink.write(None, |out| {
            let mut line = Line::begin(out, self.format, *metadata.level(), metadata.target(), &message.0);
            event.record(&mut Fields(&mut line));
            line.end();
        });
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

struct Fields<'a, 'b>(&'a mut Line<'b>);

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            self.0.display(field.name(), format_args!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.0.text(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.key(field.name());
        let _ = write!(self.0.out, "{value}");
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.key(field.name());
        let _ = write!(self.0.out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format) -> String {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out, format, Level::INFO, "access", "connection complete");
        line.bare("src.addr", "10.0.0.1:80");
        line.display("src.workload", "we\"ird\nname");
        line.number("bytes_sent", 7);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_lines_look_like_istio() {
        assert_eq!(
            &line(Format::Plain)["2026-11-22T00:00:00.000000Z".len()..],
            "\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:80 src.workload=\"we\\\"ird\\nname\" bytes_sent=7\n"
        );
    }

    #[test]
    fn json_lines_parse() {
        let value: serde_json::Value = serde_json::from_str(&line(Format::Json)).unwrap();
        assert_eq!(value["src.workload"], "we\"ird\nname");
        assert_eq!(value["bytes_sent"], 7);
        assert_eq!(value["scope"], "access");
    }
}
