//! A proxied TCP connection as one value: socket, bytes in between, counts, ends seen, account.
//!
//! While it is spliced the value lives inside the stream's slot of its tunnel; whatever ends the splice gives
//! it back whole, so that it can be logged, or put on another tunnel or thread without losing a byte (D8, D12).

use std::cell::Cell;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::account::{Account, Charge, Full};

/// A random 128-bit name of a proxied connection, the same at both ends and on every tunnel it moves to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u128);

impl ConnectionId {
    /// A fresh id from the kernel's random source, which is asked for many at a time: every connection needs some.
    pub fn random() -> Self {
        thread_local!(static STOCK: Cell<Stock> = const { Cell::new(Stock { ids: [0; STOCKED], left: 0 }) });
        let mut stock = STOCK.get();
        if stock.left == 0 {
            stock = Stock::filled();
        }
        stock.left -= 1;
        STOCK.set(stock);
        Self(stock.ids[stock.left])
    }

    /// Its sixteen bytes, as they travel.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id of these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// Ids fetched at once.
const STOCKED: usize = 16;

/// Random numbers not yet given out.
#[derive(Clone, Copy)]
struct Stock {
    ids: [u128; STOCKED],
    left: usize,
}

impl Stock {
    fn filled() -> Self {
        let mut bytes = [0u8; 16 * STOCKED];
        // It fails only on kernels older than 3.17; a repeated id could at worst refuse a resume.
        if getrandom::fill(&mut bytes).is_err() {
            tracing::error!(
                "the kernel gave no random bytes; connection ids repeat and resumes will be refused"
            );
        }
        let mut ids = [0; STOCKED];
        for (id, bytes) in ids.iter_mut().zip(bytes.as_chunks::<16>().0) {
            *id = u128::from_ne_bytes(*bytes);
        }
        Self { ids, left: STOCKED }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection id is 32 lower-case hexadecimal digits")]
pub struct BadConnectionId;

impl FromStr for ConnectionId {
    type Err = BadConnectionId;

    fn from_str(text: &str) -> Result<Self, BadConnectionId> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !digits {
            return Err(BadConnectionId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| BadConnectionId)
    }
}

/// What other threads may see of a live connection, and do to it. `Send + Sync`; one allocation a connection.
#[derive(Debug, Default)]
pub struct Live {
    sent: AtomicU64,
    received: AtomicU64,
    buffered: AtomicU32,
    ordered: AtomicBool,
    orders: Mutex<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    waker: Option<Waker>,
    order: Option<Order>,
}

/// What a splice was told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Cut(Box<str>),
    Detach,
}

impl Live {
    /// Bytes read from our application and put on the way to the far one, so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes written to our application's socket, so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that wait in memory for our application, or from it.
    pub fn buffered(&self) -> u32 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Ends the connection now: the far side is told `cause` (if it is ours), both sockets are reset, and the
    /// splice returns [`End::Cut`](crate::splice::End::Cut). For a connection that a new policy denies.
    pub fn cut(&self, cause: &str) {
        self.order(Order::Cut(cause.into()));
    }

    /// Asks both ends to stop, exchange what was sent, and hand their connections back:
    /// [`End::Detached`](crate::splice::End::Detached). With a peer that does not know how, it goes on as before.
    pub fn detach(&self) {
        self.order(Order::Detach);
    }

    fn order(&self, order: Order) {
        let waker = {
            let mut orders = self.lock();
            // A cut outranks a detach, never the other way round.
            if !matches!(orders.order, Some(Order::Cut(_))) {
                orders.order = Some(order);
            }
            self.ordered.store(true, Ordering::Release);
            orders.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The order given, if any; registers `waker` to hear of one.
    pub(crate) fn watch(&self, waker: &Waker) {
        let mut orders = self.lock();
        if !orders.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            orders.waker = Some(waker.clone());
        }
    }

    pub(crate) fn take_order(&self) -> Option<Order> {
        if !self.ordered.load(Ordering::Acquire) {
            return None;
        }
        let mut orders = self.lock();
        self.ordered.store(false, Ordering::Release);
        orders.order.take()
    }

    pub(crate) fn unwatch(&self) {
        self.lock().waker = None;
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        // One writer at a time (the thread that splices): a plain add, no locked instruction.
        self.sent.store(self.sent() + bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_received(&self, bytes: usize) {
        self.received.store(self.received() + bytes as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a connection has come, both directions. What two ends compare before they resume it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes read from our application and sent towards the far one.
    pub sent: u64,
    /// Bytes received from the far application's side, delivered or still held here.
    pub received: u64,
    /// Of those, bytes written to our application's socket.
    pub delivered: u64,
    /// Our application has ended its direction, and that was sent.
    pub near_ended: bool,
    /// The far application has ended its direction, and that was received.
    pub far_ended: bool,
}

/// One proxied connection. `Send`: it can be taken from its task and go on elsewhere.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    pub(crate) socket: Socket,
    /// Received from the far side, not yet written to the application; `residue[..residue_at]` is gone already.
    pub(crate) residue: Vec<u8>,
    pub(crate) residue_at: usize,
    /// Bytes at the beginning of the residue that came on an earlier tunnel: this one gets no credit for them.
    pub(crate) brought: u32,
    /// Read from the application, not yet sent.
    pub(crate) unsent: Vec<u8>,
    pub(crate) near_ended: bool,
    pub(crate) far_ended: bool,
    /// The application was told of the far end (its socket is shut down for writing).
    pub(crate) far_end_delivered: bool,
    pub(crate) cost: Cost,
}

/// A detached connection in parts, as it travels to another process.
#[derive(Debug)]
pub struct Parts {
    /// Its name at both ends.
    pub id: ConnectionId,
    /// The application's socket, registered nowhere.
    pub socket: std::net::TcpStream,
    /// Received from the far side, not yet written to the application.
    pub residue: Vec<u8>,
    /// Read from the application, not yet sent.
    pub unsent: Vec<u8>,
    /// How far it has come. `received` is what is delivered and `residue` together.
    pub progress: Progress,
    /// Whether the application has been told of the far end.
    pub far_end_delivered: bool,
}

/// What the connection costs its pod, and the counters that say so.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) charge: Charge,
    pub(crate) live: Arc<Live>,
}

impl Cost {
    /// Charges `bytes` more that wait in memory.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self.charge.hold(bytes);
        self.live.buffered.store(self.charge.buffered(), Ordering::Relaxed);
        held
    }

    /// `bytes` left memory.
    pub(crate) fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.charge.release(bytes);
            self.live.buffered.store(self.charge.buffered(), Ordering::Relaxed);
        }
    }
}

/// The application's socket: plain while it travels, registered with a reactor while it is spliced.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(std::net::TcpStream),
    Registered(tokio::net::TcpStream),
    /// Closed because it could not be registered.
    Lost,
}

impl Socket {
    /// Makes the coming close a reset.
    fn break_off(&self) {
        let linger = Some(std::time::Duration::ZERO);
        // It fails only on a socket that is already dead.
        let _ = match self {
            Self::Plain(socket) => socket2::SockRef::from(socket).set_linger(linger),
            Self::Registered(socket) => socket2::SockRef::from(socket).set_linger(linger),
            Self::Lost => Ok(()),
        };
    }
}

impl Connection {
    /// A connection over a socket registered with this thread's runtime; charged to `account` until dropped.
    ///
    /// Sets `TCP_NODELAY`. For a client's side `id` is [`ConnectionId::random`]; for a server's it is the
    /// request's ([`Request::connection`](crate::tunnel::Request::connection)).
    ///
    /// # Errors
    /// [`Full::Connections`] when the pod has as many as it may; the socket is reset.
    pub fn new(
        id: ConnectionId,
        socket: tokio::net::TcpStream,
        account: &Arc<Account>,
    ) -> Result<Self, Full> {
        // It fails only on a socket that is already dead, which the splice will find out.
        let _ = socket.set_nodelay(true);
        Self::over(id, Socket::Registered(socket), account)
    }

    /// The same over a plain socket that is non-blocking and has `TCP_NODELAY` already, as one accepted from a
    /// listener that was set so; it is registered where it is spliced.
    ///
    /// # Errors
    /// As [`Connection::new`].
    pub fn from_std(
        id: ConnectionId,
        socket: std::net::TcpStream,
        account: &Arc<Account>,
    ) -> Result<Self, Full> {
        Self::over(id, Socket::Plain(socket), account)
    }

    fn over(id: ConnectionId, socket: Socket, account: &Arc<Account>) -> Result<Self, Full> {
        let charge = account.open().inspect_err(|_| socket.break_off())?;
        Ok(Self {
            id,
            socket,
            residue: Vec::new(),
            residue_at: 0,
            brought: 0,
            unsent: Vec::new(),
            near_ended: false,
            far_ended: false,
            far_end_delivered: false,
            cost: Cost { charge, live: Arc::default() },
        })
    }

    /// Its name at both ends.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Its counters, and the handle to cut or detach it from any thread.
    pub fn live(&self) -> &Arc<Live> {
        &self.cost.live
    }

    /// The pod that pays for it.
    pub fn account(&self) -> &Arc<Account> {
        self.cost.charge.account()
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let delivered = self.cost.live.received();
        Progress {
            sent: self.cost.live.sent(),
            received: delivered + self.undelivered() as u64,
            delivered,
            near_ended: self.near_ended,
            far_ended: self.far_ended,
        }
    }

    /// Bytes already read from the application (a peeked beginning): they are sent first.
    ///
    /// # Errors
    /// [`Full::Buffered`] when the pod's account cannot hold them.
    pub fn push_unsent(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.cost.hold(bytes.len())?;
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the socket off its reactor, so that the value can go to another thread or process.
    ///
    /// # Errors
    /// The kernel's, if the socket cannot be deregistered; the connection is lost then.
    pub fn into_plain(mut self) -> io::Result<Self> {
        self.socket = match self.socket {
            Socket::Registered(socket) => Socket::Plain(socket.into_std()?),
            other => other,
        };
        Ok(self)
    }

    /// Takes it apart, for another process. This one's share of the pod's account is given back.
    ///
    /// # Errors
    /// As [`Connection::into_plain`].
    pub fn into_parts(self) -> io::Result<Parts> {
        let progress = self.progress();
        let Self { id, socket, mut residue, residue_at, unsent, far_end_delivered, .. } =
            self.into_plain()?;
        let Socket::Plain(socket) = socket else { return Err(io::ErrorKind::NotConnected.into()) };
        residue.drain(..residue_at);
        Ok(Parts { id, socket, residue, unsent, progress, far_end_delivered })
    }

    /// Puts one together that another process has taken apart, and charges it to `account`, whatever its limits say: it
    /// is there already. Its socket must be non-blocking.
    pub fn from_parts(parts: Parts, account: &Arc<Account>) -> Self {
        let Parts { id, socket, residue, unsent, progress, far_end_delivered } = parts;
        let charge = account.adopt(residue.len() + unsent.len());
        let live = Live {
            sent: AtomicU64::new(progress.sent),
            received: AtomicU64::new(progress.delivered),
            buffered: AtomicU32::new(charge.buffered()),
            ..Live::default()
        };
        Self {
            id,
            socket: Socket::Plain(socket),
            residue,
            residue_at: 0,
            brought: 0,
            unsent,
            near_ended: progress.near_ended,
            far_ended: progress.far_ended,
            far_end_delivered,
            cost: Cost { charge, live: Arc::new(live) },
        }
    }

    /// Registers the socket with this thread's runtime, if it is not registered yet.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        self.socket = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Plain(socket) => Socket::Registered(tokio::net::TcpStream::from_std(socket)?),
            other => other,
        };
        Ok(())
    }

    /// Closes the socket with a reset, so that the application learns that its connection broke.
    pub fn abort(self) {
        self.socket.break_off();
    }

    /// Counts `sent` bytes of the residue as delivered; those of them that came on this tunnel.
    pub(crate) fn delivered_of_this_tunnel(&mut self, sent: usize) -> usize {
        let brought = self.brought.min(u32::try_from(sent).unwrap_or(u32::MAX));
        self.brought -= brought;
        sent - brought as usize
    }

    /// Bytes that wait for the application and came on this tunnel.
    pub(crate) fn undelivered_of_this_tunnel(&self) -> usize {
        self.undelivered() - self.brought as usize
    }

    pub(crate) fn undelivered(&self) -> usize {
        self.residue.len() - self.residue_at
    }
}
