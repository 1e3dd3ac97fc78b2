//! One request and its answer, over a stream of a tunnel; written and read by hand, so that the tool costs little.

use bytes::{BufMut, Bytes, BytesMut};
use hbone::tunnel::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Protocol;
use super::two::Asker;

/// The header by which a route says which version of it is in force.
pub(crate) const VERSION: &str = "x-version";
/// Fields that the head of an answer may have.
const FIELDS: usize = 64;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub host: String,
    pub path: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    /// Which version of its route answered, where it says so.
    pub version: Option<u64>,
    /// Bytes of the body.
    pub length: usize,
}

/// A place for one request at a time.
pub(crate) enum Slot {
    /// A connection of its own.
    One(Box<One>),
    /// A share of one.
    Two {
        asker: Asker,
        /// What a call of gRPC carries.
        message: Option<Bytes>,
    },
}

/// An HTTP/1.1 connection.
pub(crate) struct One {
    stream: Stream,
    read: BytesMut,
}

impl Slot {
    /// The slots of a connection: one on HTTP/1.1, else so many.
    pub(crate) fn open(stream: Stream, protocol: Protocol, streams: usize) -> Vec<Self> {
        if protocol == Protocol::H1 {
            return vec![Self::One(Box::new(One { stream, read: BytesMut::new() }))];
        }
        let message = (protocol == Protocol::Grpc).then(|| message(128));
        let asker = Asker::over(stream);
        (0..streams).map(|_| Self::Two { asker: asker.clone(), message: message.clone() }).collect()
    }

    /// Asks, and waits for all of the answer.
    pub(crate) async fn ask(&mut self, wanted: &Wanted) -> Result<Answer, String> {
        match self {
            Self::One(one) => one.ask(wanted).await.map_err(|error| error.to_string()),
            Self::Two { asker, message } => asker.ask(wanted, message.as_ref()).await,
        }
    }
}

impl One {
    async fn ask(&mut self, wanted: &Wanted) -> std::io::Result<Answer> {
        let Wanted { host, path } = wanted;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        loop {
            if let Some(answer) = self.take()? {
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A whole answer, if it is there.
    fn take(&mut self) -> std::io::Result<Option<Answer>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&self.read).map_err(std::io::Error::other)?;
        let httparse::Status::Complete(head) = parsed else { return Ok(None) };
        let number = |name: &str| -> Option<u64> {
            let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()?.parse().ok()
        };
        let length = number("content-length").unwrap_or(0) as usize;
        if self.read.len() < head + length {
            return Ok(None);
        }
        let answer = Answer { status: response.code.unwrap_or(0), version: number(VERSION), length };
        // Nothing is asked before the answer is whole: what is there is all of it.
        self.read.clear();
        Ok(Some(answer))
    }
}

/// A message of gRPC: five bytes in front.
pub(crate) fn message(length: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(length + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.put_bytes(0, length);
    message.freeze()
}
