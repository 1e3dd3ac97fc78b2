//! The whole redirecting role on real files: pods come by the CNI endpoint or by their labels, and leave again;
//! what was done is noted on them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "redirect/bed.rs"]
mod bed;

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use bed::{PEER_V4, POD_V4, UID, ip, pod_and_peer, policy};
use daemon::shutdown::Shutdown;
use manifest::State;
use node_agent::{
    listeners::Listeners,
    pods::{Feed, Pod, PodEvent, Sources},
    redirect::{
        self, Options,
        rules::RuleSet,
        source::Source,
        supervise::{Orders, Program},
    },
    seqpacket::{SeqListener, SeqPacket},
};
use serde_json::{Value, json};
use testkit::netns::Netns;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
    time::timeout,
};

const NODE: &str = "node-1";
const PATIENCE: Duration = Duration::from_secs(10);
/// The words with which another redirector begins that speaks versions 1 to 2 (`private/wire.rs`), and one of version 99.
const TAKE_OVER: &[u8] = &[0x2a, 4, 0x08, 1, 0x10, 2];
const TAKE_OVER_99: &[u8] = &[0x2a, 4, 0x08, 99, 0x10, 99];
/// With which the answer begins that refuses it.
const REFUSED: u8 = 0x1a;

struct Role {
    folder: tempfile::TempDir,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

fn namespace(folder: &Path, mode: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: books, labels: {{istio.io/dataplane-mode: {mode}}}}}\n"
    );
    fs::write(folder.join("source/namespace.yaml.new"), text).unwrap();
    fs::rename(folder.join("source/namespace.yaml.new"), folder.join("source/namespace.yaml")).unwrap();
}

fn pod_object(pod: &Netns, phase: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "reviews-0", "namespace": "books", "uid": UID,
            "annotations": {"lateen.dev/netns": pod.path()},
        },
        "spec": {"nodeName": NODE, "serviceAccountName": "reviews", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": phase, "podIPs": [{"ip": POD_V4}]},
    })
}

fn options(folder: &Path) -> Options {
    let at = |name: &str| folder.join(name);
    Options {
        node: NODE.into(),
        pod: String::new(),
        zds: at("run/zds.sock"),
        private: at("run/redirect.sock"),
        cni: at("run/cni.sock"),
        source: Source::Files { manifests: vec![at("source")], objects: at("objects") },
        policy: policy(),
        defaults: RuleSet::default(),
        proxy: None,
        clean_up: false,
        plugin: None,
        daemon_set: (String::new(), String::new()),
        lingers: false,
    }
}

impl Role {
    async fn start(folder: tempfile::TempDir, clean_up: bool) -> Self {
        Self::start_with(folder, |options| options.clean_up = clean_up).await
    }

    async fn start_with(folder: tempfile::TempDir, choose: impl FnOnce(&mut Options)) -> Self {
        let mut options = options(folder.path());
        choose(&mut options);
        let shutdown = Shutdown::default();
        let ends = shutdown.clone();
        let running =
            tokio::spawn(async move { redirect::run(options, Orders::default(), ends).await.unwrap() });
        let role = Self { folder, shutdown, running };
        role.until(|role| role.folder.path().join("run/cni.sock").exists()).await;
        role
    }

    fn objects(&self) -> State {
        State::at(self.folder.path().join("objects"))
    }

    /// The proxy, played by the test.
    async fn proxy(&self) -> Feed {
        let at = |name: &str| self.folder.path().join("run").join(name);
        Feed::open(Sources { zds: at("zds.sock"), private: Some(at("redirect.sock")) }).await.0
    }

    /// What is noted on the pod.
    fn note(&self) -> Option<String> {
        let pod = self.objects().read("Pod", Some("books"), "reviews-0").unwrap()?;
        Some(pod["metadata"]["annotations"]["ambient.istio.io/redirection"].as_str()?.to_owned())
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("it comes about in time");
    }

    async fn call(&self, head: &str, body: &str) -> (u16, String) {
        let mut socket = UnixStream::connect(self.folder.path().join("run/cni.sock")).await.unwrap();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: unix\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("answered in time").unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    async fn cmd_add(&self, pod: &Netns, name: &str) -> (u16, String) {
        let body = json!({
            "Netns": pod.path(), "PodName": name, "PodNamespace": "books", "PodUID": UID,
            "IPs": [{"Interface": 0, "Address": {"IP": POD_V4, "Mask": "/////w=="}}],
        });
        self.call("POST /cmdadd", &body.to_string()).await
    }

    async fn stop(self) -> tempfile::TempDir {
        self.shutdown.begin();
        timeout(PATIENCE, self.running).await.expect("ends in time").unwrap();
        self.folder
    }
}

fn folder(mode: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("source")).unwrap();
    namespace(folder.path(), mode);
    folder
}

async fn next(feed: &mut Feed) -> PodEvent {
    timeout(PATIENCE, feed.next()).await.expect("an event in time").unwrap()
}

/// The next event of a pod is this one. The snapshot's end comes before or after its pods' first news.
async fn expect(feed: &mut Feed, word: &str) {
    let event = loop {
        match next(feed).await {
            PodEvent::Synced => {}
            event => break format!("{event:?}"),
        }
    };
    assert_eq!(event, format!("{word} {{ uid: {UID:?} }}"));
}

/// Takes the next pod on, or refuses it.
async fn take_on(feed: &mut Feed, outcome: Result<(), String>) -> Box<Pod> {
    loop {
        match next(feed).await {
            PodEvent::Add { pod, answer } => {
                answer.give(outcome);
                return pod;
            }
            PodEvent::Synced => {}
            other => panic!("{other:?}"),
        }
    }
}

fn reaches(from: &Netns, to: SocketAddr, listener: &TcpListener) -> bool {
    let _client = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

#[tokio::test]
async fn a_pod_starts_once_it_is_captured_and_leaves_with_its_label() {
    let (pod, peer) = pod_and_peer();
    let role = Role::start(folder("ambient"), false).await;
    role.objects().write(&pod_object(&pod, "Pending")).unwrap();
    assert_eq!(role.call("GET /healthz", "").await.0, 503);
    let mut feed = role.proxy().await;
    let (added, taken) = tokio::join!(role.cmd_add(&pod, "reviews-0"), take_on(&mut feed, Ok(())));
    assert_eq!(added, (200, String::new()));
    assert_eq!(taken.info.service_account, "reviews");
    assert_eq!(role.note().as_deref(), Some("enabled"));
    assert_eq!(role.call("GET /healthz", "").await.0, 200);

    let address: SocketAddr = (ip(POD_V4), 8080).into();
    let app = pod.run(|| TcpListener::bind(address).unwrap()).unwrap();
    assert!(!reaches(&peer, address, &app), "captured");

    namespace(role.folder.path(), "none");
    expect(&mut feed, "Draining").await;
    assert_eq!(role.note(), None, "its peers hear of it first");
    assert!(reaches(&peer, address, &app), "let go");
    feed.handle().drained(UID).await;
    expect(&mut feed, "Remove").await;

    namespace(role.folder.path(), "ambient");
    role.objects()
        .update("Pod", Some("books"), "reviews-0", |pod| pod["status"]["phase"] = json!("Running"))
        .unwrap();
    take_on(&mut feed, Ok(())).await;
    role.until(|role| role.note().as_deref() == Some("enabled")).await;
    assert!(!reaches(&peer, address, &app), "captured while running");

    role.objects().remove("Pod", Some("books"), "reviews-0").unwrap();
    expect(&mut feed, "Remove").await;
    role.stop().await;
}

#[tokio::test]
async fn a_pod_that_cannot_be_captured_does_not_start() {
    let (pod, _peer) = pod_and_peer();
    let role = Role::start(folder("ambient"), false).await;
    role.objects().write(&pod_object(&pod, "Pending")).unwrap();
    let mut feed = role.proxy().await;
    let refusal = take_on(&mut feed, Err("no certificate".into()));
    let ((status, words), _) = tokio::join!(role.cmd_add(&pod, "reviews-0"), refusal);
    assert_eq!(status, 500);
    assert!(words.contains("no certificate"), "{words}");
    assert_ne!(role.note().as_deref(), Some("enabled"));

    let (status, words) = role.call("POST /cmdadd", "{}").await;
    assert_eq!(status, 400, "{words}");
    let (status, words) = role.cmd_add(&pod, "unheard-of").await;
    assert_eq!(status, 500);
    assert!(words.contains("no news of pod books/unheard-of"), "{words}");
    role.stop().await;
}

#[tokio::test]
async fn a_pod_outside_the_mesh_starts_at_once() {
    let (pod, _peer) = pod_and_peer();
    let role = Role::start(folder("none"), false).await;
    role.objects().write(&pod_object(&pod, "Pending")).unwrap();
    assert_eq!(role.cmd_add(&pod, "reviews-0").await.0, 200, "without any proxy");
    assert_eq!(role.note(), None);
    assert!(!rules(&pod).contains("lateen"));
    role.stop().await;
}

fn rules(pod: &Netns) -> String {
    pod.exec(std::process::Command::new("nft").args(["list", "ruleset"])).unwrap()
}

/// The role ends and starts again: rules stand meanwhile, the pod is in the first hand-over, and a pod that no
/// longer belongs to the mesh is cleared.
#[tokio::test]
async fn a_restart_takes_over_what_stands() {
    let (pod, peer) = pod_and_peer();
    let role = Role::start(folder("ambient"), false).await;
    role.objects().write(&pod_object(&pod, "Running")).unwrap();
    let mut feed = role.proxy().await;
    take_on(&mut feed, Ok(())).await;
    role.until(|role| role.note().as_deref() == Some("enabled")).await;
    drop(feed);
    let folder = role.stop().await;

    let remote: SocketAddr = (ip(PEER_V4), 80).into();
    let listener = peer.run(|| TcpListener::bind(remote).unwrap()).unwrap();
    let alone = pod.run(|| TcpStream::connect_timeout(&remote, Duration::from_secs(5))).unwrap();
    assert_eq!(alone.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "cut off, not exposed");

    let role = Role::start(folder, false).await;
    let mut feed = role.proxy().await;
    let pod_again = match next(&mut feed).await {
        PodEvent::Add { pod, answer } => {
            answer.give(Ok(()));
            pod
        }
        other => panic!("the hand-over comes first: {other:?}"),
    };
    assert!(pod_again.listeners.is_some());
    assert!(!reaches(&pod, remote, &listener), "captured");
    drop(feed);
    let folder = role.stop().await;

    namespace(folder.path(), "none");
    let role = Role::start(folder, false).await;
    role.until(|role| role.note().is_none()).await;
    assert!(!rules(&pod).contains("lateen"));
    assert!(reaches(&pod, remote, &listener), "free");
    role.stop().await;
}

#[tokio::test]
async fn asked_to_it_leaves_nothing_behind() {
    let (pod, _peer) = pod_and_peer();
    let role = Role::start(folder("ambient"), true).await;
    role.objects().write(&pod_object(&pod, "Running")).unwrap();
    let mut feed = role.proxy().await;
    take_on(&mut feed, Ok(())).await;
    assert!(rules(&pod).contains("lateen"));
    role.stop().await;
    assert!(!rules(&pod).contains("lateen"));
}

/// A proxy that does not speak the private socket (ztunnel) is served only where it is asked for: there no listener
/// of ours stands in the pod, and the proxy opens its own.
#[tokio::test]
async fn a_foreign_proxy_is_a_choice() {
    let (pod, _peer) = pod_and_peer();
    let role = Role::start(folder("ambient"), false).await;
    role.objects().write(&pod_object(&pod, "Running")).unwrap();
    let at = |role: &Role| Sources { zds: role.folder.path().join("run/zds.sock"), private: None };
    let mut stranger = Feed::open(at(&role)).await.0;
    let nothing = timeout(Duration::from_millis(300), stranger.next()).await;
    assert!(nothing.is_err(), "turned away: {nothing:?}");
    drop(stranger);
    let folder = role.stop().await;

    let role = Role::start_with(folder, |options| options.policy.foreign_proxy = true).await;
    assert!(listening(&pod).is_empty(), "{}", listening(&pod));
    let mut foreign = Feed::open(at(&role)).await.0;
    let taken = take_on(&mut foreign, Ok(())).await;
    assert!(taken.listeners.is_none());
    role.until(|role| role.note().as_deref() == Some("enabled")).await;
    let opened = Listeners::open(&taken.netns, true).unwrap();
    assert!(listening(&pod).contains(":15008"));
    drop(opened);
    namespace(role.folder.path(), "none");
    expect(&mut foreign, "Remove").await;
    role.until(|_| !rules(&pod).contains("lateen")).await;
    role.stop().await;
}

fn listening(pod: &Netns) -> String {
    pod.exec(std::process::Command::new("ss").args(["-Hlnt"])).unwrap()
}

/// Where another one is that does not let go, this one ends: both on the same pods would undo each other's work for ever.
#[tokio::test]
async fn beside_one_that_does_not_hand_over_nobody_begins() {
    let folder = folder("ambient");
    fs::create_dir(folder.path().join("run")).unwrap();
    let private = SeqListener::bind(&folder.path().join("run/redirect.sock")).unwrap();
    let cni = tokio::net::UnixListener::bind(folder.path().join("run/cni.sock")).unwrap();
    let role = redirect::run(options(folder.path()), Orders::default(), Shutdown::default());
    let (ended, _) = tokio::join!(timeout(PATIENCE, role), async { drop(private.accept().await.unwrap()) });
    let error = ended.expect("ends by itself").unwrap_err().to_string();
    assert!(error.contains("does not hand over"), "{error}");
    let (called, came) = tokio::join!(
        UnixStream::connect(folder.path().join("run/cni.sock")),
        timeout(PATIENCE, cni.accept())
    );
    assert!(called.is_ok() && came.is_ok_and(|came| came.is_ok()), "its sockets are its own still");
}

/// One whose heir says nothing, or goes away in the middle, works as before.
#[tokio::test]
async fn who_does_not_come_to_hand_over_goes_on() {
    let (pod, _peer) = pod_and_peer();
    let role = Role::start(folder("ambient"), false).await;
    role.objects().write(&pod_object(&pod, "Pending")).unwrap();
    let mut feed = role.proxy().await;
    let private = role.folder.path().join("run/redirect.sock");
    let say = async |words| {
        let heir = SeqPacket::connect(&private).unwrap();
        heir.send(words, &[]).await.unwrap();
        let answer = timeout(PATIENCE, heir.receive(1 << 16)).await.expect("an answer in time").unwrap();
        answer.expect("an answer").bytes[0]
    };
    assert_eq!(say(TAKE_OVER_99).await, REFUSED);
    assert_ne!(say(TAKE_OVER).await, REFUSED, "it began to hand over");
    let added = async {
        // Its sockets are taken up again a moment later.
        role.until(|role| {
            std::os::unix::net::UnixStream::connect(role.folder.path().join("run/cni.sock")).is_ok()
        })
        .await;
        role.cmd_add(&pod, "reviews-0").await
    };
    let (added, _) = tokio::join!(added, take_on(&mut feed, Ok(())));
    assert_eq!(added, (200, String::new()));
    role.stop().await;
}

/// A pod whose last step of leaving is under way when another redirector comes has left entirely before that takes over:
/// the other one would know nothing of it.
#[tokio::test]
async fn a_pod_that_is_about_to_have_left_leaves_before_another_takes_over() {
    let (pod, _peer) = pod_and_peer();
    let folder = folder("ambient");
    let (slow, hold) = (folder.path().join("nft"), folder.path().join("hold"));
    let script =
        format!("#!/bin/sh\nwhile [ -e {} ]; do sleep 0.01; done\nexec nft \"$@\"\n", hold.display());
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, PermissionsExt::from_mode(0o755)).unwrap();
    let nft = slow.display().to_string();
    let mut role = Role::start_with(folder, |options| options.policy.nft = nft).await;
    role.objects().write(&pod_object(&pod, "Running")).unwrap();
    let mut feed = role.proxy().await;
    take_on(&mut feed, Ok(())).await;
    role.until(|role| role.note().as_deref() == Some("enabled")).await;
    namespace(role.folder.path(), "none");
    expect(&mut feed, "Draining").await;
    fs::write(&hold, "").unwrap();
    feed.handle().drained(UID).await;
    expect(&mut feed, "Remove").await;

    let shutdown = Shutdown::default();
    let next = redirect::run(options(role.folder.path()), Orders::default(), shutdown.clone());
    let next = tokio::spawn(next);
    let early = timeout(Duration::from_millis(500), &mut role.running).await;
    assert!(early.is_err(), "it lets go in the middle of the step");
    fs::remove_file(&hold).unwrap();
    timeout(PATIENCE, role.running).await.expect("lets go in time").unwrap();
    assert!(!rules(&pod).contains("lateen"), "{}", rules(&pod));
    let routing = pod.exec(std::process::Command::new("ip").args(["rule"])).unwrap();
    assert!(!routing.contains("32764"), "{routing}");
    shutdown.begin();
    timeout(PATIENCE, next).await.expect("ends in time").unwrap().unwrap();
}

/// A proxy that lasts, whatever it is told, until its time is over; the one that has the pods is played by the test.
fn lasting() -> Program {
    let args = ["-c", "trap '' TERM; while :; do sleep 0.05; done"].map(Into::into).to_vec();
    Program { path: "/bin/sh".into(), args, env: Vec::new(), drain: Duration::from_secs(2) }
}

fn answers(role: &Role) -> bool {
    std::os::unix::net::UnixStream::connect(role.folder.path().join("run/cni.sock")).is_ok()
}

/// Another one on the same sockets.
fn another(role: &Role) -> (Shutdown, JoinHandle<()>) {
    let (shutdown, options) = (Shutdown::default(), options(role.folder.path()));
    let ends = shutdown.clone();
    (shutdown, tokio::spawn(async move { redirect::run(options, Orders::default(), ends).await.unwrap() }))
}

/// As when the pod of an agent is deleted: its successor is only starting when it is told to end.
#[tokio::test]
async fn who_is_told_to_end_hands_over_to_who_comes_then() {
    let (pod, _peer) = pod_and_peer();
    let role = Role::start_with(folder("ambient"), |options| {
        (options.lingers, options.proxy) = (true, Some(lasting()));
    });
    let mut role = role.await;
    role.objects().write(&pod_object(&pod, "Running")).unwrap();
    let mut feed = role.proxy().await;
    take_on(&mut feed, Ok(())).await;
    role.shutdown.begin();
    role.until(|role| !answers(role)).await;
    let early = timeout(Duration::from_millis(200), &mut role.running).await;
    assert!(early.is_err(), "it waits for another");

    let (ends, next_role) = another(&role);
    role.until(answers).await;
    // It has the listeners of before, and opens none beside them.
    role.until(|_| !listening(&pod).is_empty()).await;
    let open = listening(&pod);
    assert_eq!(open.lines().filter(|line| line.contains(":15008")).count(), 1, "{open}");
    // Its own proxy comes, and the one before is told of that.
    let _second = role.proxy().await;
    loop {
        match next(&mut feed).await {
            PodEvent::Superseded(successor) => break assert!(successor.is_some()),
            PodEvent::Synced | PodEvent::Listeners { .. } | PodEvent::Resumed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    timeout(PATIENCE * 2, role.running).await.expect("ends in time").unwrap();
    ends.begin();
    timeout(PATIENCE, next_role).await.expect("ends in time").unwrap();
}

/// As when an update is taken back before its proxy served: the one before has the proxy with all connections still.
#[tokio::test]
async fn who_has_handed_over_takes_everything_up_again_when_the_other_goes() {
    let (pod, _peer) = pod_and_peer();
    let role = Role::start_with(folder("ambient"), |options| {
        (options.lingers, options.proxy) = (true, Some(lasting()));
    });
    let role = role.await;
    role.objects().write(&pod_object(&pod, "Running")).unwrap();
    let mut feed = role.proxy().await;
    take_on(&mut feed, Ok(())).await;
    let (ends, next_role) = another(&role);
    // It serves once the first has let go.
    let status = async || serde_json::from_str::<Value>(&role.call("GET /status", "").await.1).unwrap();
    assert_eq!(status().await["proxy"], std::process::id());
    tokio::time::sleep(Duration::from_millis(500)).await;
    ends.begin();
    timeout(PATIENCE, next_role).await.expect("ends in time").unwrap();
    role.until(|role| !answers(role)).await;
    role.until(answers).await;
    assert!(!role.running.is_finished());
    // The proxy comes back to it, and has its pods from it again.
    loop {
        match next(&mut feed).await {
            PodEvent::Listeners { uid, .. } => break assert_eq!(uid, UID),
            PodEvent::Synced | PodEvent::Draining { .. } | PodEvent::Resumed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    role.stop().await;
}
