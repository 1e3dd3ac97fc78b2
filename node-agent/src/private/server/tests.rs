//! A proxy's end over a real socket: what it says does not hold up what it is told, and it learns of its successor.

use std::{path::PathBuf, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use super::{CapturedPod, Drained, PrivateServer};
use crate::{
    listeners::Listeners,
    netns::NetnsFd,
    private::client::{PrivateClient, PrivateNews},
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
            if matches!(old.next().await.unwrap(), PrivateNews::Superseded) {
                return;
            }
        }
    };
    soon(superseded).await;
}
