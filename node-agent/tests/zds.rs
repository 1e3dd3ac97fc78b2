//! ZDS against scripted peers: what a proxy sees of our redirector, what our proxy's feed makes of a redirector,
//! and what either does when the other breaks the protocol.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::{
    io::IoSlice,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{ControlMessage, MsgFlags, recv, sendmsg, setsockopt, sockopt::ReceiveTimeout},
        time::TimeVal,
    },
};
use node_agent::{
    netns::NetnsFd,
    pods::{Feed, PodEvent, Sources},
    zds::{
        WorkloadInfo,
        server::{CapturedPod, ZdsError, ZdsServer},
    },
};
use prost::Message;
use proto::zds::{
    Ack, AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, WorkloadRequest, WorkloadResponse, ZdsHello,
    workload_request::Payload, workload_response,
};
use socket2::{Domain, SockAddr, Socket, Type};
use testkit::netns::Netns;
use tokio::time::{Instant, timeout};

/// A blocking end of a `SEQPACKET` connection, driven from the test's own threads.
struct Peer(OwnedFd);

impl Peer {
    fn connect(path: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
        Self::new(socket)
    }

    fn new(socket: Socket) -> Self {
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(6, 0)).unwrap();
        Self(socket.into())
    }

    fn send(&self, message: &impl Message, fds: &[BorrowedFd<'_>]) {
        self.try_send(message, fds).unwrap();
    }

    fn try_send(&self, message: &impl Message, fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let bytes = message.encode_to_vec();
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::empty(), None).map(drop)
    }

    /// The next message; `None` at the end.
    fn receive<M: Message + Default>(&self) -> Option<M> {
        let mut buffer = [0; 2048];
        let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            // Closed with words of ours unread.
            Err(Errno::ECONNRESET) => return None,
            received => received.expect("a message in time"),
        };
        match length {
            0 => None,
            length => Some(M::decode(&buffer[..length]).unwrap()),
        }
    }

    fn request(&self) -> Payload {
        self.receive::<WorkloadRequest>().expect("a request").payload.unwrap()
    }

    fn answer(&self, error: &str) {
        self.send(&acknowledged(error), &[]);
    }

    fn hello(&self, version: i32) {
        self.send(&ZdsHello { version }, &[]);
    }
}

fn acknowledged(error: &str) -> WorkloadResponse {
    let ack = Ack { error: error.into() };
    WorkloadResponse { payload: Some(workload_response::Payload::Ack(ack)) }
}

fn pod(uid: &str, namespace: &Netns) -> CapturedPod {
    CapturedPod {
        uid: uid.into(),
        info: info(uid),
        netns: NetnsFd::from_fd(namespace.fd().try_clone_to_owned().unwrap()).unwrap(),
    }
}

fn info(name: &str) -> WorkloadInfo {
    WorkloadInfo { name: name.into(), namespace: "n".into(), service_account: "s".into() }
}

/// Plays one end on a thread while the other runs here.
async fn beside<T: Send + 'static>(script: impl FnOnce() -> T + Send + 'static) -> T {
    timeout(Duration::from_secs(15), tokio::task::spawn_blocking(script)).await.expect("script ends").unwrap()
}

struct Served {
    server: ZdsServer,
    folder: tempfile::TempDir,
    _task: tokio::task::JoinHandle<()>,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = ZdsServer::new();
        let task = tokio::spawn(server.serve(&folder.path().join("zds.sock")).unwrap());
        Self { server, folder, _task: task }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("zds.sock")
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[tokio::test]
async fn a_proxy_gets_the_snapshot_then_what_changes() {
    let (namespace, served) = (Netns::new("pod").unwrap(), Served::new());
    served.server.remember(pod("a", &namespace));
    served.server.remember(pod("b", &namespace));
    let path = served.path();
    let (synced, snapshot_over) = tokio::sync::oneshot::channel();
    let proxy = tokio::task::spawn_blocking(move || {
        let peer = Peer::connect(&path);
        peer.hello(1);
        for uid in ["a", "b"] {
            let Payload::Add(add) = peer.request() else { panic!("an addition") };
            assert_eq!((add.uid.as_str(), add.workload_info), (uid, Some(info(uid))));
            peer.answer("");
        }
        assert!(matches!(peer.request(), Payload::SnapshotSent(_)));
        peer.answer("");
        synced.send(()).unwrap();
        let Payload::Add(add) = peer.request() else { panic!("an addition") };
        peer.answer(if add.uid == "c" { "port in use" } else { "" });
        let Payload::Del(del) = peer.request() else { panic!("a removal") };
        peer.answer("");
        del.uid
    });
    snapshot_over.await.unwrap();
    let refused = served.server.add(pod("c", &namespace), soon()).await.unwrap_err();
    assert!(matches!(refused, ZdsError::Refused(reason) if reason == "port in use"));
    served.server.remove("b").await;
    assert_eq!(proxy.await.unwrap(), "b");
}

#[tokio::test]
async fn additions_go_to_the_newest_proxy_and_removals_to_all() {
    let (namespace, served) = (Netns::new("pod").unwrap(), Served::new());
    let (path, synced) = (served.path(), std::sync::mpsc::sync_channel(2));
    let start = |path: std::path::PathBuf, synced: std::sync::mpsc::SyncSender<()>| {
        move || {
            let peer = Peer::connect(&path);
            peer.hello(1);
            assert!(matches!(peer.request(), Payload::SnapshotSent(_)));
            peer.answer("");
            synced.send(()).unwrap();
            let mut seen = Vec::new();
            loop {
                let request = peer.request();
                peer.answer("");
                match request {
                    Payload::Add(add) => seen.push(add.uid),
                    Payload::Del(_) => return seen,
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    let old = tokio::task::spawn_blocking(start(path.clone(), synced.0.clone()));
    let wait = |receiver: std::sync::mpsc::Receiver<()>| move || receiver.recv().map(|()| receiver).unwrap();
    let receiver = beside(wait(synced.1)).await;
    let new = tokio::task::spawn_blocking(start(path, synced.0));
    let _receiver = beside(wait(receiver)).await;
    served.server.add(pod("a", &namespace), soon()).await.unwrap();
    served.server.remove("a").await;
    assert_eq!(old.await.unwrap(), [""; 0]);
    assert_eq!(new.await.unwrap(), ["a"]);
}

#[tokio::test]
async fn an_addition_waits_for_a_proxy_and_survives_one() {
    let (namespace, served) = (Netns::new("pod").unwrap(), Served::new());
    let nobody = served.server.add(pod("a", &namespace), Instant::now() + Duration::from_millis(50)).await;
    assert!(matches!(nobody, Err(ZdsError::NoProxy)));
    let path = served.path();
    let proxies = tokio::task::spawn_blocking(move || {
        // The first dies over the addition; the second finds it in its snapshot, and is asked again.
        let first = Peer::connect(&path);
        first.hello(1);
        assert!(matches!(first.request(), Payload::Add(_)));
        drop(first);
        let second = Peer::connect(&path);
        second.hello(1);
        assert!(matches!(second.request(), Payload::Add(_)));
        second.answer("");
        assert!(matches!(second.request(), Payload::SnapshotSent(_)));
        second.answer("");
        assert!(matches!(second.request(), Payload::Add(_)));
        second.answer("");
    });
    served.server.add(pod("a", &namespace), soon()).await.unwrap();
    proxies.await.unwrap();
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let served = Served::new();
    let path = served.path();
    beside(move || {
        for hello in [ZdsHello { version: 0 }, ZdsHello { version: 7 }] {
            let peer = Peer::connect(&path);
            peer.send(&hello, &[]);
            assert!(peer.receive::<WorkloadRequest>().is_none(), "{hello:?}");
        }
        let chatty = Peer::connect(&path);
        chatty.hello(1);
        for _ in 0..3 {
            // The first may have ended the connection already.
            let _ = chatty.try_send(&acknowledged(""), &[]);
        }
        while chatty.receive::<WorkloadRequest>().is_some() {}
    })
    .await;
    assert!(!served.server.is_connected());
}

/// A redirector on a thread, and the feed of a proxy under it: no private socket, as with istio-cni.
async fn feed_under(script: impl FnOnce(Peer) + Send + 'static) -> (Feed, tokio::task::JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zds.sock");
    let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(4).unwrap();
    let (feed, saved) = Feed::open(Sources { zds: path, private: None }).await;
    assert!(saved.is_empty());
    let redirector = tokio::task::spawn_blocking(move || {
        let _folder = folder;
        let peer = Peer::accept(&listener);
        script(peer);
        // What ended the first connection does not end the feed: it comes again.
        drop(Peer::accept(&listener));
    });
    (feed, redirector)
}

impl Peer {
    fn accept(listener: &Socket) -> Self {
        let peer = Self::new(listener.accept().unwrap().0);
        assert_eq!(peer.receive::<ZdsHello>(), Some(ZdsHello { version: 1 }));
        peer
    }

    fn ask(&self, payload: Payload, fds: &[BorrowedFd<'_>]) -> String {
        self.send(&WorkloadRequest { payload: Some(payload) }, fds);
        match self.receive::<WorkloadResponse>().expect("an answer").payload {
            Some(workload_response::Payload::Ack(ack)) => ack.error,
            None => panic!("an empty answer"),
        }
    }
}

fn add(uid: &str) -> Payload {
    Payload::Add(AddWorkload { uid: uid.into(), workload_info: Some(info(uid)) })
}

#[tokio::test]
async fn a_foreign_redirector_is_followed() {
    let (one, two) = (Netns::new("one").unwrap(), Netns::new("two").unwrap());
    let fds = [&one, &two].map(|namespace| namespace.fd().try_clone_to_owned().unwrap());
    let (mut feed, redirector) = feed_under(move |peer| {
        let [one, two] = &fds;
        assert_eq!(peer.ask(add("a"), &[one.as_fd()]), "");
        assert_eq!(peer.ask(add("bad"), &[one.as_fd()]), "no room");
        assert_eq!(peer.ask(Payload::Keep(KeepWorkload { uid: "a".into() }), &[]), "");
        assert_eq!(peer.ask(Payload::SnapshotSent(SnapshotSent {}), &[]), "");
        assert_eq!(peer.ask(add("a"), &[one.as_fd()]), "", "known: nothing happens");
        assert_eq!(peer.ask(add("a"), &[two.as_fd()]), "", "a new namespace: started again");
        assert_eq!(peer.ask(Payload::Del(DelWorkload { uid: "a".into() }), &[]), "");
        assert_eq!(peer.ask(Payload::Del(DelWorkload { uid: "unknown".into() }), &[]), "");
    })
    .await;
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("remove a") {
        let event = timeout(Duration::from_secs(5), feed.next()).await.expect("an event").unwrap();
        seen.push(match event {
            PodEvent::Add { pod, answer } => {
                assert!(pod.listeners.is_none(), "to be opened by the proxy");
                answer.give(if pod.uid == "bad" { Err("no room".into()) } else { Ok(()) });
                format!("add {}", pod.uid)
            }
            PodEvent::Synced => "synced".into(),
            PodEvent::Remove { uid } => format!("remove {uid}"),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["add a", "add bad", "synced", "add a", "remove a"]);
    redirector.await.unwrap();
}

/// Each is refused in words, and the connection begun again.
#[tokio::test]
async fn a_redirector_that_breaks_the_protocol_is_refused() {
    type Breach = (&'static str, fn(&Peer, BorrowedFd<'_>) -> String);
    const BREACHES: [Breach; 6] = [
        ("0 descriptors", |peer, _| peer.ask(add("a"), &[])),
        ("2 descriptors", |peer, fd| peer.ask(add("a"), &[fd, fd])),
        ("1 descriptors", |peer, fd| peer.ask(Payload::SnapshotSent(SnapshotSent {}), &[fd])),
        ("workload_info", |peer, fd| {
            peer.ask(Payload::Add(AddWorkload { uid: "a".into(), workload_info: None }), &[fd])
        }),
        ("Keep after", |peer, _| {
            peer.ask(Payload::SnapshotSent(SnapshotSent {}), &[]);
            peer.ask(Payload::Keep(KeepWorkload { uid: "a".into() }), &[])
        }),
        ("second end", |peer, _| {
            peer.ask(Payload::SnapshotSent(SnapshotSent {}), &[]);
            peer.ask(Payload::SnapshotSent(SnapshotSent {}), &[])
        }),
    ];
    for (words, breach) in BREACHES {
        let namespace = Netns::new("pod").unwrap();
        let fd = namespace.fd().try_clone_to_owned().unwrap();
        let (_feed, redirector) = feed_under(move |peer| {
            let error = breach(&peer, fd.as_fd());
            assert!(error.contains(words), "{words}: {error}");
            assert!(peer.receive::<WorkloadResponse>().is_none(), "{words}: the connection ends");
        })
        .await;
        timeout(Duration::from_secs(10), redirector).await.expect(words).unwrap();
    }
}
