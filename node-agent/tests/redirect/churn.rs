//! Clients that connect without a pause, and those who answer them.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
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
    net::TcpListener,
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

/// A proxy that answers everything itself, until dropped.
pub(crate) fn answer_all(mut listeners: Listeners) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
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

/// A thread that connects and reads an answer, over and over; it panics where it gets none.
pub(crate) struct Client {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl Client {
    pub(crate) fn start(from: &Netns, to: SocketAddr) -> Self {
        let namespace = NetnsFd::from_fd(from.fd().as_fd().try_clone_to_owned().unwrap()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stopped, counted) = (stop.clone(), seen.clone());
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                let last = connect_once(to);
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

    /// Ends it; how many connections it made.
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
