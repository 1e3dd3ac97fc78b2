//! The end of the role, with a thread of it and sockets of this machine's loopback.

use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use daemon::log::Format;
use proto::zds::WorkloadInfo;

use super::*;
use crate::listeners::Slot;
use crate::netns::NetnsFd;
use crate::proxy::pod::Pod;

pub(crate) fn one_thread() -> (Arc<Agent>, Threads) {
    let args = ["--worker-threads", "1", "--node-name", "n"].map(str::to_owned);
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

    stop_accepting(&agent).await;
    // Nobody else holds the socket here: once it is let go, the kernel refuses.
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "still accepting");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_thread_that_ends_ends_the_role() {
    let tasks = Tasks::default();
    let threads = vec![std::thread::spawn(|| {})];
    let ending = ending(std::future::pending(), &tasks, &threads);
    let error = timeout(Duration::from_secs(5), ending).await.expect("noticed").unwrap_err();
    assert!(error.to_string().contains("worker-0"), "{error}");
}

#[tokio::test]
async fn a_full_account_is_counted() {
    use hbone::connection::{Connection, ConnectionId};

    let (mut agent, _threads) = {
        let args = ["--worker-threads", "1"].map(str::to_owned);
        let settings = crate::config::read(args, |_| None).unwrap();
        let log = Log::start("off", Format::Plain).unwrap();
        agent(&settings, log, &Metrics::default()).unwrap()
    };
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
}
