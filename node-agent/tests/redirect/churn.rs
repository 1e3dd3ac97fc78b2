//! Clients that connect without a pause, and those who answer them.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use node_agent::{
    listeners::{Listeners, Slot},
    netns::{NetnsFd, in_namespace},
};
use testkit::netns::Netns;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
    time::timeout,
};

use crate::redirector::patient;

/// Answers each connection with `words`.
pub(crate) async fn answer(listener: TcpListener, words: &'static [u8]) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.write_all(words).await;
        // Until the client has closed.
        let _ = stream.read(&mut [0; 1]).await;
    }
}

/// Answers each query with `words`.
pub(crate) async fn answer_queries(socket: UdpSocket, words: &'static [u8]) {
    while let Ok((_, client)) = socket.recv_from(&mut [0; 64]).await {
        let _ = socket.send_to(words, client).await;
    }
}

/// A proxy that answers everything itself, until dropped.
pub(crate) fn answer_all(mut listeners: Listeners) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for slot in [Slot::DnsUdpV4, Slot::DnsUdpV6] {
        tasks.spawn(answer_queries(listeners.take_udp(slot).unwrap().unwrap(), b"proxy"));
    }
    for slot in [Slot::Outbound, Slot::Inbound] {
        let listener = listeners.take_tcp(slot).unwrap().unwrap();
        tasks.spawn(answer(listener, b"proxy"));
    }
    tasks
}

/// Who answered last, and how many answers there were.
#[derive(Debug, Default)]
struct Seen {
    last: String,
    count: usize,
}

/// A thread that asks over and over; it panics where it gets no answer.
pub(crate) struct Client {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl Client {
    /// One that connects and reads an answer.
    pub(crate) fn connecting(from: &Netns, to: SocketAddr) -> Self {
        Self::start(from, move || connect_once(to))
    }

    /// One that sends a query and receives an answer, from the same few ports again and again, as resolvers come to do.
    pub(crate) fn querying(from: &Netns, to: SocketAddr) -> Self {
        let first = if to.is_ipv4() { 20_000 } else { 20_020 };
        let mut ports = (first..first + 20).cycle();
        Self::start(from, move || query_once(&mut ports, to))
    }

    fn start(from: &Netns, mut ask: impl FnMut() -> String + Send + 'static) -> Self {
        let namespace = NetnsFd::from_fd(from.fd().as_fd().try_clone_to_owned().unwrap()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stopped, counted) = (stop.clone(), seen.clone());
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                let last = ask();
                let mut seen = counted.lock().unwrap();
                *seen = Seen { last, count: seen.count + 1 };
            }
        };
        let thread = thread::spawn(move || in_namespace(&namespace, work).unwrap());
        Self { stop, seen, thread }
    }

    pub(crate) async fn until_answered_by(&self, who: &str) {
        let answered = async {
            while self.seen.lock().unwrap().last != who {
                assert!(!self.thread.is_finished(), "a client failed");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(5), answered).await.expect(who);
    }

    /// Ends it; how many answers it had.
    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.seen.lock().unwrap().count
    }
}

fn connect_once(to: SocketAddr) -> String {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5));
    let mut stream = stream.unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    patient(&stream);
    let mut words = [0; 16];
    let length = stream.read(&mut words).unwrap_or_else(|error| panic!("answer from {to}: {error}"));
    assert_ne!(length, 0, "an answer from {to}");
    String::from_utf8(words[..length].to_vec()).unwrap()
}

fn query_once(ports: &mut impl Iterator<Item = u16>, to: SocketAddr) -> String {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A child that is about to become `nft` still has the socket of the last query for a moment.
    let (port, socket) =
        ports.find_map(|port| Some((port, std::net::UdpSocket::bind((any, port)).ok()?))).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send(b"who?").unwrap();
    let mut words = [0; 16];
    let length = socket.recv(&mut words).unwrap_or_else(|error| panic!("query of {to} from {port}: {error}"));
    String::from_utf8(words[..length].to_vec()).unwrap()
}
