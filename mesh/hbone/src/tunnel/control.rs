//! What two Lateen ends say to each other beside the traffic: capability headers, and a control stream with small
//! messages about the connections of the same tunnel.
//!
//! A foreign peer sees three unknown headers and nothing else: the client opens the control stream only after a 200
//! has shown the capability. A message names a stream of its own tunnel and that stream's connection id, so that a peer
//! can say nothing about what is not its own.

use crate::connection::{Connection, ConnectionId, Progress};
use crate::headers::Headers;
use crate::protocol::Key;

/// Shows that an end understands the control stream; the value is the highest version it speaks.
pub(crate) const CAPABILITY: &str = "lateen-capability";
pub(crate) const CAPABILITY_VALUE: &str = "1";
/// The connection's id, chosen by the client.
pub(crate) const CONNECTION: &str = "lateen-connection";
/// `SENT;RECEIVED` in decimal: this CONNECT goes on with a detached connection.
pub(crate) const RESUME: &str = "lateen-resume";
/// The authority of the control stream. `.invalid` never resolves, should it ever reach a foreign end.
pub(crate) const AUTHORITY: &str = "control.lateen.invalid:1";

/// The largest message we read, prefix included.
const LARGEST: usize = 1024;

/// What a message with a [`Parted`] takes, prefix included.
pub(crate) const PARTED_BYTES: usize = 2 + 1 + 4 + 16 + 8 + 8;

/// The control stream of a tunnel, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) key: Option<Key>,
    /// The peer showed the capability.
    pub(crate) capable: bool,
    /// The client has opened it once.
    pub(crate) opened: bool,
    /// The client has asked for something, and so shown whether it knows of this.
    pub(crate) asked: bool,
    /// We are to drain, but not before the client has opened it, or shown that it does not know how: after a GOAWAY it
    /// could not any more, and nothing could be taken off this tunnel.
    pub(crate) drain_when_open: bool,
    inbox: Vec<u8>,
}

/// What one end has done with a connection that parts from its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parted {
    pub(crate) stream: u32,
    pub(crate) id: ConnectionId,
    /// Bytes it sent, all of them before this message.
    pub(crate) sent: u64,
    /// Bytes it has given to its application.
    pub(crate) delivered: u64,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// I have stopped; stop as well and say what you sent.
    Detach(Parted),
    /// The answer to that.
    Detached(Parted),
    /// I am about to reset this stream, for this cause.
    Closed { stream: u32, id: ConnectionId, cause: String },
    /// The answer to a detach of a connection that has ended here: let it end there.
    Over { stream: u32, id: ConnectionId },
}

const DETACH: u8 = 1;
const DETACHED: u8 = 2;
const CLOSED: u8 = 3;
const OVER: u8 = 4;

impl Message {
    /// Length (two bytes, of what follows), kind, stream, id, and what the kind adds.
    pub(crate) fn encode(&self, longest_cause: usize) -> Vec<u8> {
        let mut out = vec![0, 0];
        let mut head = |kind: u8, stream: u32, id: ConnectionId| {
            out.push(kind);
            out.extend_from_slice(&stream.to_be_bytes());
            out.extend_from_slice(&id.to_bytes());
        };
        match self {
            Self::Detach(parted) | Self::Detached(parted) => {
                let kind = if matches!(self, Self::Detach(_)) { DETACH } else { DETACHED };
                head(kind, parted.stream, parted.id);
                out.extend_from_slice(&parted.sent.to_be_bytes());
                out.extend_from_slice(&parted.delivered.to_be_bytes());
            }
            Self::Closed { stream, id, cause } => {
                head(CLOSED, *stream, *id);
                let mut end = cause.len().min(longest_cause).min(LARGEST - 23);
                while !cause.is_char_boundary(end) {
                    end -= 1;
                }
                out.extend_from_slice(&cause.as_bytes()[..end]);
            }
            Self::Over { stream, id } => head(OVER, *stream, *id),
        }
        let len = (out.len() - 2) as u16;
        out[..2].copy_from_slice(&len.to_be_bytes());
        out
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (kind, rest) = body.split_first()?;
        let (stream, rest) = rest.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (stream, id) = (u32::from_be_bytes(*stream), ConnectionId::from_bytes(*id));
        if *kind == CLOSED {
            return Some(Self::Closed { stream, id, cause: String::from_utf8_lossy(rest).into_owned() });
        }
        if *kind == OVER {
            return Some(Self::Over { stream, id });
        }
        let (sent, rest) = rest.split_first_chunk::<8>()?;
        let (delivered, _) = rest.split_first_chunk::<8>()?;
        let (sent, delivered) = (u64::from_be_bytes(*sent), u64::from_be_bytes(*delivered));
        let parted = Parted { stream, id, sent, delivered };
        match *kind {
            DETACH => Some(Self::Detach(parted)),
            DETACHED => Some(Self::Detached(parted)),
            _ => None,
        }
    }
}

/// The control stream carried something that is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Garbled;

impl Control {
    /// Takes bytes of the control stream; hands whole messages out. Kinds of a later version are passed over.
    pub(crate) fn receive(&mut self, bytes: &[u8], messages: &mut Vec<Message>) -> Result<(), Garbled> {
        self.inbox.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(prefix) = self.inbox[at..].first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes(*prefix));
            if len == 0 || len > LARGEST {
                return Err(Garbled);
            }
            let Some(body) = self.inbox.get(at + 2..at + 2 + len) else { break };
            messages.extend(Message::decode(body));
            at += 2 + len;
        }
        self.inbox.drain(..at);
        if self.inbox.is_empty() {
            self.inbox = Vec::new();
        }
        Ok(())
    }
}

/// A resume that a request asks for: the id and what the far end has sent and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The connection to go on with.
    pub id: ConnectionId,
    /// Bytes the far end has sent, over all tunnels so far.
    pub sent: u64,
    /// Bytes the far end has received.
    pub received: u64,
}

impl Resume {
    /// Whether `connection` is the one meant and both ends agree on every byte.
    pub fn matches(&self, connection: &Connection) -> bool {
        let near = connection.progress();
        self.id == connection.id() && self.sent == near.received && self.received == near.sent
    }

    pub(crate) fn value(progress: &Progress) -> String {
        format!("{};{}", progress.sent, progress.received)
    }

    /// What a request's headers ask for.
    pub(crate) fn read(headers: &Headers) -> Option<Self> {
        let id = connection_of(headers)?;
        let (sent, received) = headers.text(RESUME)?.split_once(';')?;
        Some(Self { id, sent: sent.parse().ok()?, received: received.parse().ok()? })
    }
}

/// The connection id that headers carry.
pub(crate) fn connection_of(headers: &Headers) -> Option<ConnectionId> {
    headers.text(CONNECTION)?.parse().ok()
}

/// Whether headers show the capability, in a version we speak.
pub(crate) fn capable(headers: &Headers) -> bool {
    headers.text(CAPABILITY).and_then(|text| text.parse::<u32>().ok()).is_some_and(|version| version >= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_cut() {
        let parted = Parted { stream: 7, id: ConnectionId::random(), sent: 1 << 40, delivered: 3 };
        let closed = Message::Closed {
            stream: 9,
            id: ConnectionId::random(),
            cause: "AuthorizationPolicy a/b rule 0".into(),
        };
        let over = Message::Over { stream: 11, id: ConnectionId::random() };
        let all = [Message::Detach(parted), closed, Message::Detached(parted), over];
        let wire: Vec<u8> = all.iter().flat_map(|message| message.encode(512)).collect();
        for piece in 1..wire.len() {
            let (mut control, mut seen) = (Control::default(), Vec::new());
            for part in wire.chunks(piece) {
                control.receive(part, &mut seen).unwrap();
            }
            assert_eq!(seen, all);
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_passed_over() {
        let cases: [(&[u8], Result<usize, Garbled>); 5] = [
            (&[0, 0], Err(Garbled)),
            (&[0xff, 0xff, 1], Err(Garbled)),
            (&[0, 1, 1], Ok(0)),
            (&[0, 3, 99, 0, 0], Ok(0)),
            (&[0, 5, 1, 2], Ok(0)),
        ];
        for (bytes, expected) in cases {
            let mut seen = Vec::new();
            assert_eq!(
                Control::default().receive(bytes, &mut seen).map(|()| seen.len()),
                expected,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_long_cause_is_cut_at_a_character() {
        let cause = "ü".repeat(600);
        let wire = Message::Closed { stream: 1, id: ConnectionId::random(), cause }.encode(511);
        let mut seen = Vec::new();
        Control::default().receive(&wire, &mut seen).unwrap();
        assert!(matches!(&seen[..], [Message::Closed { cause, .. }] if cause.len() == 510));
    }

    #[test]
    fn resume_headers() {
        let id = ConnectionId::random();
        let headers = Headers::new().with(CONNECTION, id.to_string()).with(RESUME, "5;7");
        assert_eq!(Resume::read(&headers), Some(Resume { id, sent: 5, received: 7 }));
        for bad in ["", "5", "5;", "-1;2", "5;7;9"] {
            let headers = Headers::new().with(CONNECTION, id.to_string()).with(RESUME, bad);
            assert_eq!(Resume::read(&headers), None, "{bad}");
        }
    }
}
