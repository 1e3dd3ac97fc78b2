//! TLS 1.3 records sealed and opened where they lie, once rustls has shaken hands.
//!
//! rustls copies each record twice on its way in and twice on its way out; in bulk that was a tenth of an agent's CPU
//! (`docs/decisions/0001-own-framing.md`). Keys, their updates and everything about the handshake stay rustls'
//! (`rustls::kernel`); this does what RFC 8446 §5 says of records, and nothing else.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use super::records::{PREFIX, RECORD, SUFFIX};
use std::ops::Range;

/// The largest ciphertext of one record (RFC 8446 §5.2).
const LARGEST: usize = RECORD + 256;
/// Bytes of a handshake message that may come in several records. A KeyUpdate has five, a session ticket some hundred.
const LARGEST_MESSAGE: usize = 16 << 10;

/// Content types and messages (RFC 8446 §5.1, §4, §6).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;

/// Why the records cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("a TLS record that nobody may send now (type {0})")]
    Unexpected(u8),
    #[error("a TLS record larger than the protocol allows")]
    TooLarge,
    #[error("a TLS record that does not decrypt; it was changed under way")]
    Forged,
    #[error("the peer ended TLS with alert {0}")]
    Alert(u8),
    #[error("the session's keys: {0}")]
    Keys(#[from] rustls::Error),
    #[error("a cipher suite that records are not sealed with here")]
    Suite,
}

/// The records of one session, both directions.
pub(super) struct InPlace {
    out: Half,
    back: Half,
    keys: Keys,
    /// The beginning of a handshake message whose rest is in a later record.
    message: Vec<u8>,
    records_per_key: u64,
    /// The peer wants us to change our key too.
    update_asked: bool,
}

/// Who changes the keys: rustls, on either side.
pub(super) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

struct Half {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Half {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Suite),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Suite)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Suite)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// The nonce of the next record (RFC 8446 §5.3); each is used once because the sequence only rises.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, part) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= part;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals a record in the middle of whose room, between [`PREFIX`] and [`SUFFIX`], the plaintext lies.
    fn seal(&mut self, record: &mut [u8], kind: u8) -> Result<(), RecordError> {
        let end = record.len();
        let [high, low] = ((end - PREFIX) as u16).to_be_bytes();
        let head = [DATA, 3, 3, high, low];
        record[..PREFIX].copy_from_slice(&head);
        record[end - SUFFIX] = kind;
        let nonce = self.nonce();
        let (inner, tag) = record[PREFIX..].split_at_mut(end - PREFIX - (SUFFIX - 1));
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(head), inner);
        tag.copy_from_slice(sealed.map_err(|_| RecordError::Forged)?.as_ref());
        Ok(())
    }

    /// Opens a record's ciphertext where it lies. Returns its content type and length.
    fn open(&mut self, head: [u8; PREFIX], ciphertext: &mut [u8]) -> Result<(u8, usize), RecordError> {
        let nonce = self.nonce();
        let plain =
            self.key.open_in_place(nonce, Aad::from(head), ciphertext).map_err(|_| RecordError::Forged)?;
        // The type is the last byte that is not padding; a record of padding alone has none.
        let at = plain.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Unexpected(0))?;
        if at > RECORD {
            return Err(RecordError::TooLarge);
        }
        Ok((plain[at], at))
    }
}

impl InPlace {
    pub(super) fn new(
        secrets: &ExtractedSecrets,
        keys: Keys,
        records_per_key: u64,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            out: Half::new(secrets.tx.0, &secrets.tx.1)?,
            back: Half::new(secrets.rx.0, &secrets.rx.1)?,
            keys,
            message: Vec::new(),
            records_per_key,
            update_asked: false,
        })
    }

    /// Opens the whole records at the front of `raw`; `parts` gets the places of their data. Returns how many bytes the
    /// records take, and whether the peer said that no more will come.
    pub(super) fn open(
        &mut self,
        raw: &mut [u8],
        parts: &mut Vec<Range<usize>>,
    ) -> Result<(usize, bool), RecordError> {
        let mut at = 0;
        while let Some(head) = raw[at..].first_chunk::<PREFIX>().copied() {
            let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
            if head[0] != DATA {
                return Err(RecordError::Unexpected(head[0]));
            }
            if len > LARGEST {
                return Err(RecordError::TooLarge);
            }
            let start = at + PREFIX;
            let Some(ciphertext) = raw.get_mut(start..start + len) else { break };
            let (kind, len_plain) = self.back.open(head, ciphertext)?;
            at = start + len;
            let plain = start..start + len_plain;
            match kind {
                DATA => parts.push(plain),
                HANDSHAKE => self.hear(&raw[plain])?,
                ALERT => match raw[plain] {
                    [_, CLOSE_NOTIFY] => return Ok((at, true)),
                    [_, alert] => return Err(RecordError::Alert(alert)),
                    _ => return Err(RecordError::Unexpected(ALERT)),
                },
                other => return Err(RecordError::Unexpected(other)),
            }
        }
        Ok((at, false))
    }

    /// A handshake message after the handshake: a key update, or a ticket that nobody will use.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.message.extend_from_slice(bytes);
        while let Some([kind, l0, l1, l2]) = self.message.first_chunk::<4>().copied() {
            let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if len > LARGEST_MESSAGE {
                return Err(RecordError::TooLarge);
            }
            let Some(body) = self.message.get(4..4 + len) else { break };
            match (kind, body, &self.keys) {
                (SESSION_TICKET, _, Keys::Client(_)) => {}
                (KEY_UPDATE, [asked @ (0 | 1)], _) => {
                    // The key changes with the next record: nothing of the old may follow in this one.
                    if self.message.len() != 5 {
                        return Err(RecordError::Unexpected(HANDSHAKE));
                    }
                    self.update_asked |= *asked == 1;
                    let (sequence, secrets) = self.keys.update(true)?;
                    self.back = Half::new(sequence, &secrets)?;
                }
                _ => return Err(RecordError::Unexpected(HANDSHAKE)),
            }
            self.message.drain(..4 + len);
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }

    /// Whether the peer has asked for a change of our key, which an idle tunnel does at once.
    pub(super) fn update_due(&self) -> bool {
        self.update_asked || self.out.sequence >= self.records_per_key
    }

    /// Changes our key: appends the message that says so, under the old one.
    pub(super) fn update(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.update_asked = false;
        self.push(&[KEY_UPDATE, 0, 0, 1, 0], HANDSHAKE, out)?;
        let (sequence, secrets) = self.keys.update(false)?;
        self.out = Half::new(sequence, &secrets)?;
        Ok(())
    }

    /// Says that we send no more.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.push(&[1, CLOSE_NOTIFY], ALERT, out)
    }

    /// Appends `plain` as sealed records of data.
    pub(super) fn copy(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        plain.chunks(RECORD).try_for_each(|chunk| self.push(chunk, DATA, out))
    }

    /// Seals a record where it lies.
    pub(super) fn seal(&mut self, record: &mut [u8]) -> Result<(), RecordError> {
        self.out.seal(record, DATA)
    }

    fn push(&mut self, plain: &[u8], kind: u8, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        out.extend_from_slice(plain);
        out.extend_from_slice(&[0; SUFFIX]);
        self.out.seal(&mut out[start..], kind)
    }
}

impl Keys {
    fn update(&mut self, of_peer: bool) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match (self, of_peer) {
            (Self::Client(keys), true) => keys.update_rx_secret(),
            (Self::Client(keys), false) => keys.update_tx_secret(),
            (Self::Server(keys), true) => keys.update_rx_secret(),
            (Self::Server(keys), false) => keys.update_tx_secret(),
        }
    }
}
