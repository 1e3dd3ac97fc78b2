//! A proxy is killed, and another takes over: the same listeners, the connections that waited in their queues,
//! the state it left. The proxies are processes of their own: this test binary, run again in another role.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "redirect/bed.rs"]
mod bed;
#[path = "redirect/redirector.rs"]
mod redirector;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bed::{PEER_V4, POD_V4, POD_V6, UID, ip, pod_and_peer, policy};
use node_agent::{
    listeners::Slot,
    pods::{Feed, PodEvent, Sources},
    private::saved::Saved,
};
use redirector::{Redirector, patient, spec};
use tokio::time::Instant;

/// Names the folder of the sockets to a test binary that plays a proxy.
const FOLDER: &str = "LATEEN_TEST_PROXY";

/// Not a test: the proxy's role. Answers each captured connection with its process id; with `never` in the
/// variable's second part it accepts nothing.
#[test]
fn proxy_role() {
    let Ok(role) = std::env::var(FOLDER) else { return };
    let (folder, accepts) = role.split_once(' ').unwrap();
    let folder = std::path::Path::new(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(play(
        Sources { zds: folder.join("zds.sock"), private: Some(folder.join("redirect.sock")) },
        accepts == "always",
    ));
}

async fn play(sources: Sources, accepts: bool) {
    let (mut feed, saved) = Feed::open(sources).await;
    let saved: Vec<String> = saved.iter().map(content).collect();
    println!("@saved {}", if saved.is_empty() { "nothing".to_owned() } else { saved.join(", ") });
    let mine = std::process::id().to_string();
    let file = Arc::new(Saved::new().unwrap());
    file.write_at(b"state of ", 0).unwrap();
    feed.handle().store(std::slice::from_ref(&file)).await.unwrap();
    // What comes later is not told.
    file.write_at(mine.as_bytes(), 9).unwrap();
    let mut held = BTreeMap::new();
    while let Some(event) = feed.next().await {
        match event {
            PodEvent::Add { mut pod, answer } => {
                let listeners = pod.listeners.as_mut().expect("from the redirector");
                for slot in [Slot::Outbound, Slot::Inbound] {
                    let listener = listeners.take_tcp(slot).unwrap().unwrap();
                    if accepts {
                        tokio::spawn(greet(listener, mine.clone()));
                    } else {
                        held.entry(slot).or_insert_with(Vec::new).push(listener);
                    }
                }
                answer.give(Ok(()));
                println!("@add {}", pod.uid);
            }
            PodEvent::Synced => println!("@synced"),
            other => println!("@other {other:?}"),
        }
    }
}

fn content(saved: &Saved) -> String {
    let mut content = vec![0; usize::try_from(saved.length().unwrap()).unwrap()];
    saved.read_at(&mut content, 0).unwrap();
    String::from_utf8(content).unwrap()
}

async fn greet(listener: tokio::net::TcpListener, words: String) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
    }
}

/// A proxy process; killed at the end.
struct Proxy {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Proxy {
    fn start(redirector: &Redirector, accepts: bool) -> Self {
        let accepts = if accepts { "always" } else { "never" };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["proxy_role", "--exact", "--nocapture"])
            .env(FOLDER, format!("{} {accepts}", redirector.folder.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::sync_channel(64);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The harness's own words may stand before ours on the line.
                if let Some(at) = line.find('@') {
                    let _ = sender.send(line[at..].to_owned());
                }
            }
        });
        Self { child, lines }
    }

    fn id(&self) -> String {
        self.child.id().to_string()
    }

    async fn says(&self, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            match self.lines.try_recv() {
                Ok(line) if line == expected => return,
                Ok(line) => println!("(proxy) {line}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        panic!("the proxy did not say {expected:?}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(from: &testkit::netns::Netns, to: SocketAddr) -> TcpStream {
    let stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap()).unwrap();
    patient(&stream);
    stream
}

async fn who(mut stream: TcpStream) -> String {
    let read = move || {
        let mut words = [0; 16];
        let length = stream.read(&mut words).unwrap();
        String::from_utf8(words[..length].to_vec()).unwrap()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn a_killed_proxy_loses_no_waiting_connection() {
    let (pod, peer) = pod_and_peer();
    let redirector = Redirector::new(policy());
    let lazy = Proxy::start(&redirector, false);
    lazy.says("@saved nothing").await;
    lazy.says("@synced").await;
    redirector.enroller.enrol(spec(&pod), Instant::now() + Duration::from_secs(5)).await.unwrap();

    let outbound: SocketAddr = (ip(PEER_V4), 80).into();
    let waiting: Vec<_> = (0..20).map(|_| connect(&pod, outbound)).collect();
    let inward: Vec<_> =
        [POD_V4, POD_V6].into_iter().map(|own| connect(&peer, (ip(own), 8080).into())).collect();
    let stored = format!("@saved state of {}", lazy.id());
    drop(lazy);
    let in_between = connect(&pod, outbound);

    let before = Instant::now();
    let next = Proxy::start(&redirector, true);
    next.says(&stored).await;
    next.says(&format!("@add {UID}")).await;
    let took = before.elapsed();
    for stream in waiting.into_iter().chain(inward).chain([in_between]) {
        assert_eq!(who(stream).await, next.id(), "served by the successor");
    }
    println!("a new process had everything after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    // ZDS confirms what the hand-over brought, and adds nothing to it.
    next.says("@synced").await;
}

/// Ends a redirector as a process ends: its listeners and sockets close.
fn stop(redirector: Redirector) -> tempfile::TempDir {
    redirector.folder
}

/// The redirector itself is replaced; the proxy lives on, gets the new listeners, and serves on.
#[tokio::test]
async fn a_new_redirector_hands_its_listeners_to_the_old_proxy() {
    let (pod, _peer) = pod_and_peer();
    let first = Redirector::new(policy());
    let (mut feed, _) = Feed::open(first.sources()).await;
    assert!(matches!(feed.next().await, Some(PodEvent::Synced)));
    let enrolled = first.enroller.enrol(spec(&pod), Instant::now() + Duration::from_secs(5));
    let served = async {
        match feed.next().await {
            Some(PodEvent::Add { pod, answer }) => {
                answer.give(Ok(()));
                pod.listeners.unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    let (enrolled, mut old) = tokio::join!(enrolled, served);
    enrolled.unwrap();
    let waits = connect(&pod, (ip(PEER_V4), 80).into());

    let folder = first.folder.path().to_owned();
    let kept = stop(first);
    let second = Redirector::in_folder(policy(), kept);
    assert_eq!(second.folder.path(), folder);
    second.enroller.prepare(spec(&pod)).await.unwrap();
    second.serve();
    let mut new = loop {
        let event = tokio::time::timeout(Duration::from_secs(10), feed.next()).await.expect("an event");
        match event.unwrap() {
            PodEvent::Listeners { uid, listeners, .. } if uid == UID => break listeners,
            PodEvent::Synced => {}
            other => panic!("{other:?}"),
        }
    };
    // A leaving that only the old one knew of is over.
    let event = tokio::time::timeout(Duration::from_secs(10), feed.next()).await.expect("an event");
    assert!(matches!(event, Some(PodEvent::Resumed { uid }) if uid == UID));
    // What waited in the old queue moves to the new one as the old one closes.
    let accept = |listener: Option<std::os::fd::OwnedFd>| TcpListener::from(listener.unwrap());
    drop(old.take(Slot::Outbound));
    let listener = accept(new.take(Slot::Outbound));
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (mut stream, _) =
        tokio::time::timeout(Duration::from_secs(5), listener.accept()).await.expect("moved").unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"here").await.unwrap();
    assert_eq!(who(waits).await, "here");
}
