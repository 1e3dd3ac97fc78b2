//! Two agents of one process and a socket between them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use daemon::metrics::traffic::Reporter;
use hbone::connection::{Connection, ConnectionId};
use model::Identity;
use model::address::{AppAddress, NextHop, PeerAddress};
use model::baggage::Baggage;
use prost::Message;
use tokio::time::timeout;

use super::message::Hello;
use super::{HandoverError, give, take};
use crate::proxy::Agent;
use crate::proxy::app::tests::{a_pod, one_thread};
use crate::proxy::moves::Detached;
use crate::proxy::pod::Pod;
use crate::proxy::record::{Ends, Record};
use crate::proxy::worker::Job;
use crate::seqpacket::{SeqPacket, pair};

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_nonblocking(true).unwrap();
    near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (near, far)
}

fn peer() -> PeerAddress {
    PeerAddress::new("[fd00::7]:4711".parse().unwrap())
}

fn ends(reporter: Reporter) -> Ends {
    let address = |port| SocketAddr::from(([10, 0, 0, 9], port));
    Ends {
        reporter,
        source: None,
        baggage: Some(Box::new(Baggage {
            workload: "till".into(),
            zone: "a,b=c".into(),
            ..Baggage::default()
        })),
        source_identity: Some(Identity::new("cluster.local", "shop", "visitor")),
        next_hop: NextHop::new(address(15008)),
        authority: Some("10.0.0.9:80".into()),
        destination: None,
        destination_identity: Some(Identity::new("cluster.local", "shop", "keeper")),
        service: None,
        delivered: Some(AppAddress::new("10.0.0.9:80".parse().unwrap())),
    }
}

/// A connection of a pod, and its application.
fn detached(agent: &Arc<Agent>, pod: &Arc<Pod>, reporter: Reporter) -> (TcpStream, Detached) {
    let (application, socket) = sockets();
    let connection = Connection::from_std(ConnectionId::random(), socket, &pod.account).unwrap();
    let record = Record::open(peer(), ends(reporter), agent);
    (application, Detached { pod: pod.clone(), record, connection, far: None })
}

fn ways() -> (SeqPacket, SeqPacket) {
    let (one, other) = pair().unwrap();
    (SeqPacket::from_fd(one).unwrap(), SeqPacket::from_fd(other).unwrap())
}

fn answer(mut one: &TcpStream, mut other: &TcpStream, text: &[u8]) {
    one.write_all(text).unwrap();
    let mut got = vec![0; text.len()];
    other.read_exact(&mut got).unwrap();
    assert_eq!(got, text);
}

#[tokio::test]
async fn plain_pairs_go_on_in_the_successor_and_parked_ones_wait_there() {
    let ((before, _old), (after, _new)) = (one_thread(), one_thread());
    let (pod, pod_after) = (a_pod(&before), a_pod(&after));
    let (application, mut plain) = detached(&before, &pod, Reporter::Destination);
    plain.connection.push_unsent(b"read before ").unwrap();
    let (client, far) = sockets();
    plain.far = Some(far);
    before.workers[0].send(Job::Arrive(Box::new(plain))).await;
    let mut got = [0; 12];
    (&client).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"read before ");
    answer(&application, &client, b"by the old one");
    let (_server, parked) = detached(&before, &pod, Reporter::Destination);
    let id = parked.connection.id();
    before.parking.park(parked);

    let (ours, theirs) = ways();
    let taking = {
        let after = after.clone();
        tokio::spawn(async move { take(&after, &theirs).await })
    };
    let given = timeout(Duration::from_secs(10), give(&before, &ours)).await.unwrap().unwrap();
    drop(ours);
    assert_eq!((given, taking.await.unwrap().unwrap()), (2, 2));
    assert_eq!((before.connections().await, pod.account.connections()), (0, 0));

    answer(&application, &client, b"by the new one");
    answer(&client, &application, b"and back");
    assert_eq!(after.connections().await, 1);
    let resumed = after.parking.claim(id, |_| true).await.unwrap();
    let expected = ends(Reporter::Destination);
    let ends = resumed.record.ends();
    assert_eq!(format!("{ends:?}"), format!("{expected:?}"), "nothing of what is known gets lost");
    assert_eq!(resumed.record.peer(), peer());
    assert_eq!((resumed.pod.uid.clone(), pod_after.account.connections()), (pod_after.uid.clone(), 2));
}

#[tokio::test]
async fn what_cannot_be_handed_over_goes_on_here() {
    let (before, _old) = one_thread();
    let pod = a_pod(&before);
    let (application, mut plain) = detached(&before, &pod, Reporter::Source);
    let (client, far) = sockets();
    plain.far = Some(far);
    before.workers[0].send(Job::Arrive(Box::new(plain))).await;
    answer(&application, &client, b"first");

    let (ours, theirs) = ways();
    let hello = Hello { oldest: 7, newest: 9 };
    theirs.send(&hello.encode_to_vec(), &[]).await.unwrap();
    let refused = give(&before, &ours).await;
    assert!(matches!(refused, Err(HandoverError::Version { oldest: 7, newest: 9, .. })), "{refused:?}");
    answer(&client, &application, b"still here");

    let (ours, theirs) = ways();
    drop(theirs);
    assert!(matches!(give(&before, &ours).await, Err(HandoverError::Gone | HandoverError::Socket(_))));
    answer(&client, &application, b"and still");
    assert_eq!(before.connections().await, 1);
}

/// Somebody else's identity or pod does not get a parked connection, and does not take it away either.
#[tokio::test]
async fn only_the_rightful_client_gets_a_parked_connection() {
    let (agent, _threads) = one_thread();
    let pod = a_pod(&agent);
    let (_application, parked) = detached(&agent, &pod, Reporter::Destination);
    let id = parked.connection.id();
    // The request comes first, and again.
    let waiting = {
        let agent = agent.clone();
        tokio::spawn(async move { agent.parking.claim(id, |_| false).await.is_some() })
    };
    tokio::task::yield_now().await;
    agent.parking.park(parked);
    assert!(!waiting.await.unwrap());
    assert!(agent.parking.claim(id, |_| false).await.is_none());
    assert_eq!(agent.parking.len(), 1);
    assert!(agent.parking.claim(id, |detached| detached.pod.uid == pod.uid).await.is_some());
    assert_eq!(agent.parking.of_pod("uid").len(), 0);
}
