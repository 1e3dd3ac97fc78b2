//! The end of the role, with a thread of it and sockets of this machine's loopback.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use daemon::log::Format;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use proto::zds::WorkloadInfo;
use tokio::time::sleep;
use xds::convert::Decoder;

use super::*;
use crate::listeners::{Listeners, Slot};
use crate::netns::NetnsFd;
use crate::proxy::pod::Pod;
use crate::proxy::worker::Job;

pub(crate) fn one_thread() -> (Arc<Agent>, Threads) {
    // Nobody is at the upstream's port.
    let args =
        ["--worker-threads", "1", "--node-name", "n", "--dns-upstreams", "127.0.0.1:1"].map(str::to_owned);
    let settings = crate::config::read(args, |_| None).unwrap();
    let log = Log::start("off", Format::Plain).unwrap();
    let (agent, mailboxes) = agent(&settings, log, &Metrics::default()).unwrap();
    let threads = start_workers(&agent, mailboxes).unwrap();
    (agent, threads)
}

/// A pod of this machine's own namespace.
pub(crate) fn a_pod(agent: &Agent) -> Arc<Pod> {
    let info = WorkloadInfo { name: "p".into(), namespace: "n".into(), service_account: "a".into() };
    let pod = Arc::new(Pod::new(
        "uid",
        info,
        NetnsFd::current().unwrap(),
        agent.account(),
        0,
        crate::socket::PROXY_MARK,
    ));
    agent.pods().insert(pod.uid.clone(), pod.clone());
    pod
}

/// The controller says of that pod what it is.
pub(crate) fn tell_of_the_pod(agent: &Agent) {
    let told = proto::workload::Workload {
        uid: "uid".into(),
        name: "p".into(),
        namespace: "n".into(),
        service_account: "a".into(),
        node: "n".into(),
        addresses: vec![vec![127, 0, 0, 1].into()],
        ..Default::default()
    };
    let told = proto::workload::Address { r#type: Some(proto::workload::address::Type::Workload(told)) };
    let bytes = prost::Message::encode_to_vec(&told);
    let update = Decoder::default().decode(type_url::ADDRESS, &"uid".into(), bytes.into()).unwrap();
    agent.take(vec![update]);
}

#[tokio::test]
async fn what_drains_accepts_nothing_more() {
    let (agent, _threads) = one_thread();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let pod = a_pod(&agent);
    let listeners = Listeners::from_parts(vec![(Slot::Outbound, listener.into())]);
    agent.workers[0].send(Job::Serve { pod, listeners }).await;
    assert!(TcpStream::connect(address).is_ok());

    retire::stop_accepting(&agent).await;
    // Nobody else holds the socket here: once it is let go, the kernel refuses.
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "still accepting");
        sleep(Duration::from_millis(1)).await;
    }
}

/// A resolver asks again after five seconds only.
#[tokio::test]
async fn a_name_that_was_asked_for_is_answered_before_the_end() {
    use crate::proxy::retire::{Grace, retire};

    let (agent, _threads) = one_thread();
    let pod = a_pod(&agent);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let listeners = Listeners::from_parts(vec![(Slot::DnsUdpV4, socket.into())]);
    agent.workers[0].send(Job::Serve { pod: pod.clone(), listeners }).await;
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii("p.n.svc.").unwrap(), RecordType::A));
    client.send(&query.to_vec().unwrap()).unwrap();
    // It waits until the controller says who asks.
    let asked = async {
        while pod.has_no_query() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(5), asked).await.expect("it is asked");

    let (_nobody, successors) = mpsc::channel(1);
    let grace = Grace { drain: Duration::ZERO, hand_over: Duration::ZERO, told: false };
    let mut retiring = std::pin::pin!(retire(&agent, None, successors, grace));
    assert!(timeout(Duration::from_millis(300), &mut retiring).await.is_err(), "somebody still waits");
    tell_of_the_pod(&agent);
    timeout(Duration::from_secs(5), retiring).await.expect("nobody waits any more");
    let mut answer = [0; 512];
    let length = client.recv(&mut answer).expect("an answer, whatever it says");
    assert_eq!(answer[..2], query.metadata.id.to_be_bytes(), "{length}");
}

/// The value of a limit's counter in what is scraped.
fn hits(agent: &Arc<Agent>, limit: &str) -> u64 {
    let metrics = Metrics::default();
    metrics.register(|registry| {
        registry.register_collector(Box::new(crate::proxy::limits::LimitMetrics(agent.clone())));
    });
    let text = metrics.text();
    let series = format!("lateen_limit_hits_total{{limit=\"{limit}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(series.as_str()));
    value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

pub(crate) fn threads_that_stand_still(count: &str) -> (Arc<Agent>, Vec<worker::Mailbox>) {
    let args = ["--worker-threads", count, "--node-name", "n"].map(str::to_owned);
    let settings = crate::config::read(args, |_| None).unwrap();
    let log = Log::start("off", Format::Plain).unwrap();
    agent(&settings, log, &Metrics::default()).unwrap()
}

#[tokio::test]
async fn a_tunnel_that_no_thread_has_time_for_is_reset_and_counted() {
    use std::io::Read;

    use crate::proxy::worker::Worker;

    let (agent, mailboxes) = threads_that_stand_still("2");
    let pod = a_pod(&agent);
    let worker = Worker::idle(0, agent.clone(), &mailboxes[0]);
    // This thread serves one tunnel, the other none: that one is asked, and has more to do than it takes.
    let _served = worker.served();
    while agent.workers[1].try_send(Job::Stop { uid: "none".into() }).is_ok() {}
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    crate::proxy::accept::take_one(&worker, &pod, &listener, Slot::Hbone);
    assert_eq!(hits(&agent, "worker_mailbox"), 1);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(pod.account.descriptors(), files::OF_POD, "its place was given back");
}

#[tokio::test]
async fn the_oldest_tunnel_that_does_not_show_who_it_is_goes() {
    use tokio::io::AsyncReadExt;

    use crate::proxy::handshakes::Handshakes;
    use crate::proxy::worker::Worker;

    let (mut agent, mailboxes) = threads_that_stand_still("1");
    Arc::get_mut(&mut agent).unwrap().handshakes = Handshakes::with(2);
    let pod = a_pod(&agent);
    let worker = Worker::idle(0, agent.clone(), &mailboxes[0]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let begin = || {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        crate::proxy::accept::take_one(&worker, &pod, &listener, Slot::Hbone);
        client.set_nonblocking(true).unwrap();
        tokio::net::TcpStream::from_std(client).unwrap()
    };
    let silent = async {
        let (mut first, mut second) = (begin(), begin());
        let ended = timeout(Duration::from_secs(3), first.read(&mut [0])).await.expect("it goes at once");
        assert!(matches!(ended, Ok(0) | Err(_)));
        assert_eq!(hits(&agent, "pod_handshakes"), 1);
        let still = timeout(Duration::from_millis(50), second.read(&mut [0])).await;
        assert!(still.is_err(), "the newer one may go on");
        drop(second);
    };
    tokio::task::LocalSet::new().run_until(silent).await;
}

#[tokio::test]
async fn a_pod_with_its_share_of_descriptors_gets_no_more() {
    use std::io::Read;

    use hbone::account::Ledger;

    use crate::proxy::worker::Worker;

    let (mut agent, mailboxes) = threads_that_stand_still("1");
    let few = Arc::get_mut(&mut agent).unwrap();
    few.ledger = Ledger::new(18, 0, few.limits.hits.clone());
    let pod = a_pod(&agent);
    let worker = Worker::idle(0, agent.clone(), &mailboxes[0]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = tokio::task::LocalSet::new();
    let guard = local.enter();
    let clients: Vec<TcpStream> = std::iter::repeat_with(|| {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        crate::proxy::accept::take_one(&worker, &pod, &listener, Slot::Outbound);
        client
    })
    .take(5)
    .collect();
    drop(guard);
    // Nine of its own and three more are two thirds of eighteen.
    assert_eq!((pod.account.descriptors(), pod.account.refused()), (12, 2));
    assert_eq!(hits(&agent, "agent_descriptors"), 2);
    let error = (&clients[4]).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn with_no_file_left_connections_wait_until_one_is() {
    use hbone::account::{Account, Ledger};

    let (mut agent, mailboxes) = threads_that_stand_still("1");
    let few = Arc::get_mut(&mut agent).unwrap();
    few.ledger = Ledger::new(40, 0, few.limits.hits.clone());
    let pod = a_pod(&agent);
    // Many others have taken all the rest, each of them less than its share.
    let others = std::iter::repeat_with(|| Account::listed(AccountLimits::default(), &agent.ledger));
    let others: Vec<_> = others.map_while(|other| other.descriptors_for(1).ok()).collect();
    let last = pod.account.descriptors_for(1);
    assert!(!agent.ledger.has_descriptors() && last.is_err(), "{}", others.len());
    let _threads = start_workers(&agent, mailboxes).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let listeners = Listeners::from_parts(vec![(Slot::Outbound, listener.into())]);
    agent.workers[0].send(Job::Serve { pod: pod.clone(), listeners }).await;
    let _client = TcpStream::connect(address).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while hits(&agent, "open_files") == 0 {
        assert!(Instant::now() < deadline, "nobody noticed");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!pod.places.some_opening(), "it still waits");
    drop(others);
    while !pod.places.some_opening() {
        assert!(Instant::now() < deadline, "it was not accepted though there are files again");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_account_is_counted() {
    use hbone::connection::{Connection, ConnectionId};

    let (mut agent, _mailboxes) = threads_that_stand_still("1");
    Arc::get_mut(&mut agent).unwrap().account_limits = AccountLimits { connections: 0, buffered: 0 };
    let metrics = Metrics::default();
    metrics.register(|registry| {
        registry.register_collector(Box::new(crate::proxy::members_metrics::Members(agent.clone())));
    });
    let pod = a_pod(&agent);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    assert!(Connection::new(ConnectionId::random(), socket, &pod.account).is_err());
    let text = metrics.text();
    assert!(text.contains("lateen_account_refused_total 1"), "{text}");
    assert_eq!(hits(&agent, "pod_connections"), 1);
}

#[tokio::test]
async fn dns_clients_beyond_a_pods_places_are_turned_away_and_counted() {
    use std::io::Read;

    let (agent, _threads) = one_thread();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let pod = a_pod(&agent);
    let listeners = Listeners::from_parts(vec![(Slot::DnsTcpV4, listener.into())]);
    agent.workers[0].send(Job::Serve { pod, listeners }).await;
    // Each holds a place while it says nothing.
    let silent: Vec<TcpStream> = (0..512).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut last = TcpStream::connect(address).unwrap();
    last.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap(), 0, "closed at once");
    assert_eq!(hits(&agent, "dns_queries"), 1);
    drop(silent);
}

#[tokio::test]
async fn dns_queries_take_turns() {
    let (agent, _threads) = one_thread();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let pod = a_pod(&agent);
    let listeners = Listeners::from_parts(vec![(Slot::DnsUdpV4, server.into())]);
    agent.workers[0].send(Job::Serve { pod: pod.clone(), listeners }).await;
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    // What is no query costs a turn too.
    (0..10).for_each(|_| assert_eq!(client.send_to(b"no query", address).unwrap(), 8));
    let deadline = Instant::now() + Duration::from_secs(10);
    while pod.account.work() < 10 * (32 << 10) {
        assert!(Instant::now() < deadline, "{} for ten", pod.account.work());
        sleep(Duration::from_millis(20)).await;
    }
}
