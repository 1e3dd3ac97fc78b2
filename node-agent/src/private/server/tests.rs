//! A proxy's end over a real socket: what it says does not hold up what it is told, and it learns of its successor.

use std::{path::PathBuf, sync::Arc, time::Duration};

use prost::Message;
use tokio::{task::JoinSet, time::timeout};

use super::{CapturedPod, Drained, PrivateServer};
use crate::{
    listeners::Listeners,
    netns::NetnsFd,
    private::MAX_MESSAGE,
    private::client::{PrivateClient, PrivateNews},
    private::saved::{MAX_FILES, MAX_STATE, Saved},
    private::wire::{FromProxy, Hello, News, Said, ToProxy, Welcome},
    seqpacket::SeqPacket,
    zds::WorkloadInfo,
};

const PODS: usize = 200;

struct Bed {
    server: PrivateServer,
    drained: Drained,
    socket: PathBuf,
    _folder: tempfile::TempDir,
    _serving: JoinSet<()>,
}

fn bed() -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redirect.sock");
    let (server, drained) = PrivateServer::new();
    let mut serving = JoinSet::new();
    serving.spawn(server.serve(&socket).unwrap());
    Bed { server, drained, socket, _folder: folder, _serving: serving }
}

fn pod(number: usize) -> CapturedPod {
    let info =
        WorkloadInfo { name: format!("p{number}"), namespace: "n".into(), service_account: "a".into() };
    CapturedPod { uid: format!("u{number:03}"), info, netns: NetnsFd::current().unwrap() }
}

async fn connect(bed: &Bed) -> PrivateClient {
    let (client, _) = PrivateClient::connect(&bed.socket).await.unwrap();
    while !matches!(client.next().await.unwrap(), PrivateNews::Complete) {}
    client
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), what).await.expect("in time")
}

/// What was handed over is held by the table alone: a pod that leaves takes its listeners with it.
#[tokio::test]
async fn a_conversation_holds_no_listeners() {
    let bed = bed();
    bed.server.hold(pod(0), Listeners::default(), 0).await;
    let _proxy = connect(&bed).await;
    let held = || Arc::strong_count(&bed.server.state().pods[&pod(0).uid].listeners);
    soon(async {
        while held() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// As the proxy does it: says of every leaving pod again and again that its last connection has ended, while whoever
/// is told takes its time and has something to send about each.
#[tokio::test]
async fn many_pods_that_leave_at_once_hold_nothing_up() {
    let mut bed = bed();
    for number in 0..PODS {
        bed.server.hold(pod(number), Listeners::default(), 0).await;
    }
    let client = connect(&bed).await;
    let mut proxy = JoinSet::new();
    proxy.spawn(async move {
        let mut leaving = Vec::new();
        while let Ok(news) = client.next().await {
            if let PrivateNews::Draining(uid) = news {
                leaving.push(uid);
                for uid in &leaving {
                    client.drained(uid).await.unwrap();
                }
            }
        }
    });
    soon(async {
        for number in 0..PODS {
            bed.server.set_draining(&pod(number).uid, true).await;
        }
        for _ in 0..PODS {
            let uid = bed.drained.next().await;
            assert!(bed.server.holds(&uid), "{uid} came twice");
            bed.server.release(&uid).await;
        }
    })
    .await;
}

#[tokio::test]
async fn only_pods_that_leave_are_drained() {
    let mut bed = bed();
    bed.server.hold(pod(1), Listeners::default(), 0).await;
    bed.server.hold(pod(2), Listeners::default(), 0).await;
    let client = connect(&bed).await;
    let proxy = tokio::spawn(async move {
        for uid in [pod(1).uid, "stranger".to_owned()] {
            client.drained(&uid).await.unwrap();
        }
        while let Ok(news) = client.next().await {
            if let PrivateNews::Draining(uid) = news {
                client.drained(&uid).await.unwrap();
            }
        }
    });
    bed.server.set_draining(&pod(2).uid, true).await;
    assert_eq!(soon(bed.drained.next()).await, pod(2).uid);
    proxy.abort();
}

#[tokio::test]
async fn a_proxy_that_has_much_to_read_still_learns_of_its_successor() {
    let bed = bed();
    let old = connect(&bed).await;
    // More than its queue takes while it reads nothing.
    let mut senders = JoinSet::new();
    for number in 0..PODS {
        let server = bed.server.clone();
        senders.spawn(async move { server.hold(pod(number), Listeners::default(), 0).await });
    }
    tokio::task::yield_now().await;
    let _new = connect(&bed).await;
    let superseded = async {
        loop {
            if matches!(old.next().await.unwrap(), PrivateNews::Superseded(_)) {
                return;
            }
        }
    };
    soon(superseded).await;
}

/// A proxy that has just been handed everything, and what it was left.
async fn take_over(bed: &Bed) -> (PrivateClient, Vec<Saved>) {
    let (client, saved) = PrivateClient::connect(&bed.socket).await.unwrap();
    while !matches!(client.next().await.unwrap(), PrivateNews::Complete) {}
    (client, saved)
}

fn file(content: &str) -> Arc<Saved> {
    let file = Saved::new().unwrap();
    file.write_at(content.as_bytes(), 0).unwrap();
    Arc::new(file)
}

fn contents(saved: &[Saved]) -> Vec<String> {
    let content = |saved: &Saved| {
        let mut content = vec![0; usize::try_from(saved.length().unwrap()).unwrap()];
        saved.read_at(&mut content, 0).unwrap();
        String::from_utf8(content).unwrap()
    };
    saved.iter().map(content).collect()
}

/// Waits until so many files are kept.
async fn keeps(bed: &Bed, files: usize) {
    soon(async {
        while bed.server.state().saved.len() != files {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_written_later_is_handed_over_and_then_nobody_can_change_it() {
    let bed = bed();
    let (old, nothing) = take_over(&bed).await;
    assert!(nothing.is_empty());
    let files = [file("base "), file("more ")];
    old.store(&files).await.unwrap();
    keeps(&bed, 2).await;
    files[1].write_at(b"later", 5).unwrap();

    let (_new, saved) = take_over(&bed).await;
    assert_eq!(contents(&saved), ["base ", "more later"]);
    let refused = files[1].write_at(b"too late", 10).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);

    // Nor does the old one's next word count: its successor has what it left.
    old.store(&[file("other")]).await.unwrap();
    old.drained("nobody").await.unwrap();
    let (_third, saved) = take_over(&bed).await;
    assert_eq!(contents(&saved), ["base ", "more later"]);
}

#[tokio::test]
async fn what_is_not_as_it_should_be_leaves_nothing() {
    let too_large = || {
        let file = Saved::new().unwrap();
        // One byte, far behind: a file with a hole.
        file.write_at(b"x", MAX_STATE).unwrap();
        Arc::new(file)
    };
    let can_shrink = || {
        let flags = nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING;
        let file = nix::sys::memfd::memfd_create(c"test", flags).unwrap();
        // As one that was checked, which this one was not.
        Arc::new(Saved::unchecked(file))
    };
    let cases: [(&str, Vec<Arc<Saved>>); 4] = [
        ("too many", (0..=MAX_FILES).map(|_| file("x")).collect()),
        ("too large", vec![file("x"), too_large()]),
        ("can shrink", vec![can_shrink()]),
        ("nothing at all", Vec::new()),
    ];
    for (what, files) in cases {
        let bed = bed();
        let (client, _) = take_over(&bed).await;
        client.store(&[file("good")]).await.unwrap();
        keeps(&bed, 1).await;
        client.store(&files).await.unwrap();
        keeps(&bed, 0).await;
        assert!(take_over(&bed).await.1.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn what_has_grown_too_large_is_not_handed_over() {
    let bed = bed();
    let (client, _) = take_over(&bed).await;
    let grows = file("x");
    client.store(std::slice::from_ref(&grows)).await.unwrap();
    keeps(&bed, 1).await;
    grows.write_at(b"x", MAX_STATE).unwrap();
    assert!(take_over(&bed).await.1.is_empty());
}

/// A proxy of the version before learns that another is there, not the way to it; and the other not of it.
#[tokio::test]
async fn a_proxy_of_the_version_before_is_spoken_to_as_such() {
    let bed = bed();
    bed.server.hold(pod(1), Listeners::default(), 0).await;
    let old = SeqPacket::connect(&bed.socket).unwrap();
    let hello = FromProxy { said: Some(Said::Hello(Hello { oldest: 1, newest: 1 })) };
    old.send(&hello.encode_to_vec(), &[]).await.unwrap();
    let hear = async || {
        let packet = soon(old.receive(MAX_MESSAGE)).await.unwrap().expect("it is there");
        (ToProxy::decode(packet.bytes.as_slice()).unwrap().news.unwrap(), packet.fds.len())
    };
    assert_eq!(hear().await, (News::Welcome(Welcome { version: 1, state: false }), 0));
    assert!(matches!(hear().await, (News::Pod(_), 1)));
    assert_eq!(hear().await, (News::Complete(true), 0));

    let new = connect(&bed).await;
    assert_eq!(hear().await, (News::Superseded(true), 0));
    // Nothing of a predecessor before what comes next.
    let server = bed.server.clone();
    let holding = tokio::spawn(async move { server.hold(pod(2), Listeners::default(), 0).await });
    assert!(matches!(soon(new.next()).await.unwrap(), PrivateNews::Pod(held) if held.uid == pod(2).uid));
    soon(holding).await.unwrap();
}
