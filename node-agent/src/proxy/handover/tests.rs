//! Two agents of one process and a socket between them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use daemon::metrics::traffic::Reporter;
use daemon::readiness::Readiness;
use daemon::shutdown::Shutdown;
use hbone::connection::{Connection, ConnectionId, Progress};
use model::Identity;
use model::address::{AppAddress, NextHop, PeerAddress};
use model::baggage::Baggage;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::message::{Hello, LARGEST, Packed, Passed, read};
use super::{Arriving, HandoverError, Predecessor, Retirement, Successor};
use crate::proxy::Agent;
use crate::proxy::app::tests::{a_pod, one_thread};
use crate::proxy::moves::{Detached, Given};
use crate::proxy::parking::Unclaimed;
use crate::proxy::pod::Pod;
use crate::proxy::record::{Ends, Record};
use crate::proxy::retire::{Grace, retire};
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
        // What a client sends is judged at the other end.
        delivered: (reporter == Reporter::Destination)
            .then(|| AppAddress::new("10.0.0.9:80".parse().unwrap())),
    }
}

/// A connection of a pod, and its application.
fn detached(agent: &Arc<Agent>, pod: &Arc<Pod>, reporter: Reporter) -> (TcpStream, Detached) {
    let (application, socket) = sockets();
    let connection = Connection::from_std(ConnectionId::random(), socket, &pod.account).unwrap();
    let record = Record::open(peer(), ends(reporter), agent);
    (
        application,
        Detached { pod: pod.clone(), record, connection, far: None, given: Given::No, arriving: None },
    )
}

fn ways() -> (SeqPacket, SeqPacket) {
    let (one, other) = pair().unwrap();
    (SeqPacket::from_fd(one).unwrap(), SeqPacket::from_fd(other).unwrap())
}

/// Hands over to the other end of the socket, once that serves.
async fn give(agent: &Arc<Agent>, socket: SeqPacket) -> Result<u64, HandoverError> {
    let given = async { super::give(agent, &Successor::meet(socket).await?, &Shutdown::default()).await };
    timeout(Duration::from_secs(30), given).await.expect("it ends")
}

/// Takes over from the other end of the socket.
fn taking(agent: &Arc<Agent>, socket: SeqPacket) -> JoinHandle<Result<u64, HandoverError>> {
    let predecessor = Predecessor::new(agent, socket);
    tokio::spawn(async move { super::take(predecessor, &Readiness::default()).await })
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
    let taking = taking(&after, theirs);
    let given = give(&before, ours).await.unwrap();
    assert_eq!((given, taking.await.unwrap().unwrap()), (2, 2));
    assert!(before.has_no_connection());

    answer(&application, &client, b"by the new one");
    answer(&client, &application, b"and back");
    assert_eq!(pod_after.account.connections(), 2);
    let resumed = after.parking.claim(&pod.uid, id, |_| true, || true).await.unwrap();
    let expected = ends(Reporter::Destination);
    let ends = resumed.record.ends();
    assert_eq!(format!("{ends:?}"), format!("{expected:?}"), "nothing of what is known gets lost");
    assert_eq!(resumed.record.peer(), peer());
    assert_eq!(resumed.pod.uid, pod_after.uid);
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
    let hello = Hello { oldest: 7, newest: 9, counts: false };
    theirs.send(&hello.encode_to_vec(), &[]).await.unwrap();
    let refused = give(&before, ours).await;
    assert!(matches!(refused, Err(HandoverError::Version { oldest: 7, newest: 9, .. })), "{refused:?}");
    answer(&client, &application, b"still here");

    let (ours, theirs) = ways();
    drop(theirs);
    assert!(matches!(give(&before, ours).await, Err(HandoverError::Gone | HandoverError::Socket(_))));
    answer(&client, &application, b"and still");
    assert_eq!(pod.account.connections(), 1);
}

/// A connection between two plain sockets, carried by an agent.
async fn carried(agent: &Arc<Agent>, pod: &Arc<Pod>) -> (TcpStream, TcpStream) {
    let (application, mut plain) = detached(agent, pod, Reporter::Source);
    let (client, far) = sockets();
    plain.far = Some(far);
    agent.workers[0].send(Job::Arrive(Box::new(plain))).await;
    answer(&client, &application, b"carried");
    (application, client)
}

/// A successor of the version before does not count what goes on; one of this version that does not get to it holds
/// nothing up for good.
#[tokio::test]
async fn a_successor_that_does_not_count_gets_everything() {
    for counts in [false, true] {
        let (before, _old) = one_thread();
        let pod = a_pod(&before);
        let mut ends = Vec::new();
        for _ in 0..200 {
            ends.push(carried(&before, &pod).await);
        }
        let (ours, theirs) = ways();
        theirs.send(&Hello { oldest: 1, newest: 1, counts }.encode_to_vec(), &[]).await.unwrap();
        let taking = tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(packet) = theirs.receive(LARGEST).await.unwrap() {
                taken.push(packet);
            }
            taken.len()
        });
        let given = give(&before, ours).await.unwrap();
        assert_eq!((given, taking.await.unwrap()), (200, 200), "counts: {counts}");
    }
}

/// A predecessor of the version before takes anything that is said for the successor's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_that_does_not_ask_hears_nothing() {
    for counted in [false, true] {
        let ((before, _old), (after, _new)) = (one_thread(), one_thread());
        let (pod, _pod_after) = (a_pod(&before), a_pod(&after));
        let (ours, theirs) = ways();
        let taking = taking(&after, theirs);
        ours.receive(LARGEST).await.unwrap().expect("it serves");
        let mut ends = Vec::new();
        for _ in 0..20 {
            let (application, mut plain) = detached(&before, &pod, Reporter::Source);
            let (client, far) = sockets();
            plain.far = Some(far);
            let packed = Packed::new(plain).ok().expect("nothing is between");
            let mut passed = read(packed.bytes()).unwrap();
            passed.counted = counted;
            ours.send(&passed.encode_to_vec(), &packed.descriptors()).await.unwrap();
            drop(packed);
            answer(&application, &client, b"gone on");
            ends.push((application, client));
        }
        let said = timeout(Duration::from_millis(200), ours.receive(LARGEST)).await;
        assert_eq!(said.is_ok(), counted, "{said:?}");
        drop(ours);
        assert_eq!(taking.await.unwrap().unwrap(), 20);
    }
}

/// A connection is in the middle of something: bytes for either side wait, and a side has ended.
#[tokio::test]
async fn what_is_between_travels_too() {
    let (agent, _threads) = one_thread();
    let pod = a_pod(&agent);
    for (residue, unsent, near_ended, far_ended, far_end_delivered) in [
        (&b""[..], &b""[..], false, false, false),
        (b"for the application", b"", false, true, false),
        (b"", b"from it", true, false, false),
        (b"both", b"ways", true, true, true),
        (&[7; 300_000], &[8; 200_000], false, false, false),
    ] {
        let (_application, mut connection) = detached(&agent, &pod, Reporter::Destination);
        let mut parts = connection.connection.into_parts().unwrap();
        (parts.residue, parts.unsent) = (residue.to_vec(), unsent.to_vec());
        parts.progress = Progress {
            sent: 1 << 40,
            received: 5 + residue.len() as u64,
            delivered: 5,
            near_ended,
            far_ended,
        };
        parts.far_end_delivered = far_end_delivered;
        connection.connection = Connection::from_parts(parts, &pod.account);
        let before = connection.connection.progress();
        assert_eq!(before.received, 5 + residue.len() as u64);

        let packed = Packed::new(connection).ok().expect("there is memory");
        let mut descriptors =
            packed.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        let passed = read(packed.bytes()).unwrap();
        let arriving = Arriving::new(&Arc::default());
        let taken = passed.unpack(&agent, pod.clone(), &mut descriptors, arriving).unwrap();
        for same in [packed.unpack(), taken] {
            assert_eq!(same.connection.progress(), before);
            let parts = same.connection.into_parts().unwrap();
            assert_eq!((&*parts.residue, &*parts.unsent), (residue, unsent));
            assert_eq!(parts.far_end_delivered, far_end_delivered);
        }
    }
    assert_eq!((pod.account.connections(), pod.account.buffered()), (0, 0));
}

/// What a newer proxy cannot make sense of ends for the applications on both sides, and not as if it were whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_broken_off() {
    let message = |pod: &str| {
        let mut passed = Passed::default();
        passed.pod = pod.into();
        passed.encode_to_vec()
    };
    let spoiled = [
        ("no message", vec![0xff; 4]),
        ("a pod that is not here", message("gone")),
        ("no id", message("uid")),
    ];
    let ((before, _old), (after, _new)) = (one_thread(), one_thread());
    let (pod, _pod_after) = (a_pod(&before), a_pod(&after));
    let (ours, theirs) = ways();
    let taking = taking(&after, theirs);
    ours.receive(LARGEST).await.unwrap().expect("it serves");
    for (name, bytes) in spoiled {
        let (application, mut plain) = detached(&before, &pod, Reporter::Source);
        let (client, far) = sockets();
        plain.far = Some(far);
        let packed = Packed::new(plain).ok().expect("nothing is between");
        ours.send(&bytes, &packed.descriptors()).await.unwrap();
        drop(packed);
        for mut end in [application, client] {
            end.set_nonblocking(false).unwrap();
            end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let ended = end.read(&mut [0]);
            let ended = ended.map_err(|error| error.kind());
            assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset), "{name}");
        }
    }
    drop(ours);
    assert_eq!(taking.await.unwrap().unwrap(), 0);
}

/// A proxy that is replaced while another still hands over to it passes on what comes.
#[tokio::test(flavor = "multi_thread")]
async fn one_in_the_middle_waits_for_the_one_before() {
    let [(first, _a), (second, _b), (third, _c)] = [one_thread(), one_thread(), one_thread()];
    let [pod, _, last] = [a_pod(&first), a_pod(&second), a_pod(&third)];
    let (application, client) = carried(&first, &pod).await;
    let ((one, other), (two, end)) = (ways(), ways());
    let from_first = taking(&second, other);
    let from_second = taking(&third, end);
    let passing = {
        let second = second.clone();
        tokio::spawn(async move { give(&second, two).await })
    };
    assert_eq!(give(&first, one).await.unwrap(), 1);
    assert_eq!(from_first.await.unwrap().unwrap(), 1);
    assert_eq!((passing.await.unwrap().unwrap(), from_second.await.unwrap().unwrap()), (1, 1));
    answer(&application, &client, b"by the third");
    assert_eq!(last.account.connections(), 1);
}

/// Told to stop, it keeps what has not gone, and carries it on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_when_it_is_told_to_stop_comes_back() {
    let (agent, _threads) = one_thread();
    let pod = a_pod(&agent);
    let mut ends = Vec::new();
    for _ in 0..20 {
        ends.push(carried(&agent, &pod).await);
    }
    let (ours, theirs) = ways();
    theirs.send(&Hello { oldest: 1, newest: 1, counts: true }.encode_to_vec(), &[]).await.unwrap();
    let successor = Successor::meet(ours).await.unwrap();
    let stop = Shutdown::default();
    // Nobody reads: some fit into the socket, and those are gone with it.
    socket2::SockRef::from(&theirs.as_fd()).set_recv_buffer_size(1).unwrap();
    let giving = {
        let (agent, stop) = (agent.clone(), stop.clone());
        tokio::spawn(async move { super::give(&agent, &successor, &stop).await })
    };
    let first = theirs.receive(LARGEST).await.unwrap().expect("one came");
    stop.begin();
    assert!(matches!(giving.await.unwrap(), Err(HandoverError::Stopped)));
    let mut gone = vec![first];
    while let Ok(Ok(Some(packet))) = timeout(Duration::from_millis(100), theirs.receive(LARGEST)).await {
        gone.push(packet);
    }
    assert_eq!(pod.account.connections() as usize, ends.len() - gone.len());
    let gone: Vec<_> = gone.iter().map(|packet| read(&packet.bytes).unwrap()).collect();
    let goes_on = |(application, client): &(TcpStream, TcpStream)| {
        let (mut client, mut got) = (client, [0; 5]);
        application.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        client.write_all(b"again").is_ok() && { application }.read_exact(&mut got).is_ok() && &got == b"again"
    };
    assert_eq!(ends.iter().filter(|ends| goes_on(ends)).count(), ends.len() - gone.len());
}

/// When the time is over, applications see a reset: an end in order would say that what came was all.
#[tokio::test]
async fn what_is_left_at_the_end_is_reset() {
    let (agent, _threads) = one_thread();
    let pod = a_pod(&agent);
    let (application, client) = carried(&agent, &pod).await;
    let (parked_application, parked) = detached(&agent, &pod, Reporter::Destination);
    agent.parking.park(parked);
    let (_nobody, successors) = tokio::sync::mpsc::channel(1);
    let grace = Grace { drain: Duration::ZERO, hand_over: Duration::ZERO, told: false };
    timeout(Duration::from_secs(10), retire(&agent, None, successors, grace)).await.unwrap();
    assert!(agent.has_no_connection());
    for mut end in [&application, &client, &parked_application] {
        let error = end.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// Whoever has told a proxy to end does not wait for what its successor cannot take, and would kill it: applications would take
/// that for an end in order.
#[tokio::test]
async fn what_a_successor_cannot_take_is_reset_in_the_time_that_is_left() {
    let (agent, _threads) = one_thread();
    let pod = a_pod(&agent);
    let (application, client) = carried(&agent, &pod).await;
    let (ours, theirs) = ways();
    theirs.send(&Hello { oldest: 7, newest: 9, counts: false }.encode_to_vec(), &[]).await.unwrap();
    let first = Retirement::HandOver(Successor::meet(ours).await.unwrap());
    let (_nobody, successors) = tokio::sync::mpsc::channel(1);
    let grace = Grace { drain: Duration::from_millis(100), hand_over: Duration::from_secs(600), told: true };
    timeout(Duration::from_secs(10), retire(&agent, Some(first), successors, grace)).await.unwrap();
    for mut end in [&application, &client] {
        let error = end.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// Somebody else's identity or pod does not get a parked connection, and does not take it away either.
#[tokio::test]
async fn only_the_rightful_client_gets_a_parked_connection() {
    let (agent, _threads) = one_thread();
    let pod = a_pod(&agent);
    let (_application, parked) = detached(&agent, &pod, Reporter::Destination);
    let id = parked.connection.id();
    let waiting = |allowed: bool| {
        let (agent, pod) = (agent.clone(), pod.clone());
        tokio::spawn(async move { agent.parking.claim(&pod.uid, id, |_| allowed, || true).await.map(|_| ()) })
    };
    // The request comes first; a later one for the same connection takes its place.
    let earlier = waiting(true);
    tokio::task::yield_now().await;
    let later = waiting(false);
    assert_eq!(earlier.await.unwrap(), Err(Unclaimed::NotHere));
    agent.parking.park(parked);
    assert_eq!(later.await.unwrap(), Err(Unclaimed::NotHere));
    let claim =
        async |allowed: bool| agent.parking.claim(&pod.uid, id, |_| allowed, || true).await.map(|_| ());
    assert_eq!(claim(false).await, Err(Unclaimed::NotHere));
    assert_eq!(pod.account.connections(), 1);
    assert_eq!(claim(true).await, Ok(()));
    assert!(agent.parking.all().is_empty());
}

/// Who asks for a connection that went with a killed process is told so soon; while another process hands over it may
/// still come.
#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_come_is_not_waited_for() {
    let (agent, _threads) = one_thread();
    let pod: Arc<str> = "pod".into();
    for (coming, seconds) in [(false, 1), (true, 8)] {
        let started = tokio::time::Instant::now();
        let claimed = agent.parking.claim(&pod, ConnectionId::random(), |_| true, || coming).await;
        assert!(matches!(claimed, Err(Unclaimed::NotHere)));
        assert_eq!(started.elapsed().as_secs(), seconds, "{coming}");
    }
}

/// Requests for connections that do not come are bounded, by pod.
#[tokio::test(start_paused = true)]
async fn waiting_requests_of_a_pod_are_bounded() {
    let agent = one_thread().0;
    let (greedy, other): (Arc<str>, Arc<str>) = ("greedy".into(), "other".into());
    let mut waiting = tokio::task::JoinSet::new();
    let mut ask = |pod: &Arc<str>| {
        let (agent, pod) = (agent.clone(), pod.clone());
        waiting.spawn(async move {
            agent.parking.claim(&pod, ConnectionId::random(), |_| true, || true).await.map(|_| ())
        });
    };
    (0..2000).for_each(|_| ask(&greedy));
    ask(&other);
    let outcomes: Vec<_> = waiting.join_all().await;
    let too_many = outcomes.iter().filter(|outcome| **outcome == Err(Unclaimed::TooMany)).count();
    assert_eq!((too_many, outcomes.last()), (2000 - 1024, Some(&Err(Unclaimed::NotHere))));
    assert!(agent.parking.all().is_empty());
}
