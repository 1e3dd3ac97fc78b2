//! Where connections go on, and what becomes of one whose new thread gets no tunnel.

use std::net::{Ipv4Addr, TcpListener};

use hbone::fairness;
use model::Identity;
use model::address::{NamespacedHostname, NextHop, OriginalDestination, PeerAddress};
use model::mesh::Update;
use model::plan::Tunnel;
use model::service::{RareFields, Service};
use testkit::certificates::TestAuthority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::timeout;

use super::*;
use crate::listeners::{Listeners, Slot};
use crate::proxy::accept::Accepted;
use crate::proxy::app::tests::{a_pod, tell_of_the_pod, threads_that_stand_still};
use crate::proxy::{Agent, outbound};

#[test]
fn who_opened_the_tunnel_opens_the_next() {
    for (plain, reporter, expected) in [
        (true, Reporter::Source, Next::Join),
        (true, Reporter::Destination, Next::Join),
        (false, Reporter::Source, Next::Resume),
        (false, Reporter::Destination, Next::Park),
    ] {
        assert_eq!(next(plain, reporter), expected, "{plain} {reporter:?}");
    }
}

#[test]
fn only_a_no_is_final() {
    let refused = |status| DialError::from(TunnelError::Refused { status, cause: None });
    for (error, expected) in [
        (refused(401), true),
        (refused(409), true),
        (refused(503), false),
        (DialError::NotResumed, true),
        (DialError::Timeout, false),
        (TunnelError::Failed("gone".into()).into(), false),
    ] {
        assert_eq!(is_final(&error), expected, "{error}");
    }
}

/// The peer's proxy does not accept tunnels any more.
#[derive(Debug, Clone, Copy)]
enum Peer {
    /// Nobody is at its port.
    Gone,
    /// Nobody answers there.
    Silent,
}

/// A proxy with threads that are tasks of this one, and what issues its certificates.
fn proxy(threads: &str, issued: &mut JoinSet<()>, by: TestAuthority) -> (Arc<Agent>, Vec<Rc<Worker>>) {
    let (agent, mailboxes) = threads_that_stand_still(threads);
    issued.spawn(agent.trust.certificates.drive(by));
    tell_of_the_pod(&agent);
    agent.state.told_all();
    let workers = mailboxes.into_iter().enumerate();
    let workers = workers.map(|(index, mailbox)| Worker::among_tasks(index, agent.clone(), mailbox));
    let workers = workers.collect();
    (agent, workers)
}

/// An application that says what it hears; its address.
async fn echo() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            spawn_local(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn echoes(client: &mut tokio::net::TcpStream) {
    client.write_all(b"hear").await.unwrap();
    let mut heard = [0; 4];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hear");
}

/// Who is expected at the tunnel's end.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// The workload there.
    Workload,
    /// Another workload than is there; what is there is named by its service only.
    ByService,
}

/// A connection of a pod through a tunnel of this thread to `listener`, and on to `application`.
async fn connected(
    worker: &Rc<Worker>,
    listener: std::net::SocketAddr,
    application: std::net::SocketAddr,
    expected: Expected,
) -> tokio::net::TcpStream {
    let pod = a_pod(&worker.agent);
    let source = pod.workload(&worker.agent.state.read()).unwrap().clone();
    let captured = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = tokio::net::TcpStream::connect(captured.local_addr().unwrap()).await.unwrap();
    let (socket, peer) = captured.accept().await.unwrap();
    let accepted = Accepted {
        socket: socket.into_std().unwrap(),
        peer: PeerAddress::new(peer),
        destination: OriginalDestination::new(application),
        place: pod.places.outbound(&pod.account).unwrap(),
    };
    let mut tunnel = Tunnel {
        next_hop: NextHop::new(listener),
        authority: application,
        expect: vec![source.identity().clone()],
        workload: source.clone(),
        service: None,
        waypoint: false,
    };
    if matches!(expected, Expected::ByService) {
        let mut workload = (*source).clone();
        Arc::make_mut(&mut workload.profile).identity = Identity::new("cluster.local", "n", "another");
        let key = NamespacedHostname::new("n", "web");
        let names = [source.identity().to_string().as_str().into()];
        let rare = RareFields { subject_alt_names: names.into(), ..RareFields::default() };
        let service = Service { rare: rare.into(), ..Service::named(key) };
        worker.agent.take(vec![Update::Service(service.clone())]);
        tunnel.expect.insert(0, workload.identity().clone());
        (tunnel.workload, tunnel.service) = (Arc::new(workload), Some(Arc::new(service)));
    }
    spawn_local(outbound::serve_planned(worker.clone(), pod, accepted, source, tunnel));
    client
}

/// A connection that leaves its tunnel for this thread goes on, though the peer accepts no tunnel any more: if the thread is
/// another one and gets none, where it was.
async fn goes_on_by_the_tunnel_that_is_there(peer: Peer, expected: Expected, thread: usize) {
    let mut issued = JoinSet::new();
    let root = TestAuthority::default();
    let (theirs, _server) = proxy("1", &mut issued, root.intermediate("server"));
    let (_ours, clients) = proxy("2", &mut issued, root.intermediate("client"));
    spawn_local(fairness::drive());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let kept = matches!(peer, Peer::Silent).then(|| listener.try_clone().unwrap());
    let pod = a_pod(&theirs);
    let serve = async |sockets| {
        let listeners = Listeners::from_parts(sockets);
        theirs.workers[0].send(Job::Serve { pod: pod.clone(), listeners }).await;
    };
    serve(vec![(Slot::Hbone, listener.into())]).await;
    let [home, _other] = &*clients else { panic!("two threads") };
    let mut client = connected(home, address, echo().await, expected).await;
    timeout(PATIENCE, echoes(&mut client)).await.expect("there is a tunnel");

    serve(Vec::new()).await;
    while matches!(peer, Peer::Gone) && tokio::net::TcpStream::connect(address).await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(home.connections.send(&[0], thread), 1);
    timeout(PATIENCE / 2, echoes(&mut client)).await.expect("it goes on by the tunnel that it had");
    home.count(|_| assert_eq!(thread, 0, "it would be given away again, for nothing"));
    drop(kept);
}

#[tokio::test]
async fn a_connection_that_gets_no_tunnel_on_another_thread_comes_back() {
    for peer in [Peer::Gone, Peer::Silent] {
        let goes_on = goes_on_by_the_tunnel_that_is_there(peer, Expected::Workload, 1);
        LocalSet::new().run_until(goes_on).await;
    }
}

/// Who may be at the other end is not forgotten with the tunnel.
#[tokio::test]
async fn a_peer_that_only_its_service_names_is_expected_again() {
    for thread in [0, 1] {
        let goes_on = goes_on_by_the_tunnel_that_is_there(Peer::Gone, Expected::ByService, thread);
        LocalSet::new().run_until(goes_on).await;
    }
}
