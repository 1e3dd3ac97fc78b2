//! Where connections go on, and what becomes of one whose new thread gets no tunnel.

use std::net::{Ipv4Addr, TcpListener};

use hbone::fairness;
use model::address::{NextHop, OriginalDestination, PeerAddress};
use model::plan::Tunnel;
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

/// A connection of a pod through a tunnel of this thread to `listener`, and on to `application`.
async fn connected(
    worker: &Rc<Worker>,
    listener: std::net::SocketAddr,
    application: std::net::SocketAddr,
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
    let tunnel = Tunnel {
        next_hop: NextHop::new(listener),
        authority: application,
        expect: vec![source.identity().clone()],
        workload: source.clone(),
        service: None,
        waypoint: false,
    };
    spawn_local(outbound::serve_planned(worker.clone(), pod, accepted, source, tunnel));
    client
}

/// A connection that is given to another thread loses nothing by it: if that thread gets no tunnel, it goes on where it
/// was, by the tunnel that is still there.
async fn goes_on_where_it_was(peer: Peer) {
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
    let mut client = connected(home, address, echo().await).await;
    timeout(PATIENCE, echoes(&mut client)).await.expect("there is a tunnel");

    serve(Vec::new()).await;
    while matches!(peer, Peer::Gone) && tokio::net::TcpStream::connect(address).await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(home.connections.send(&[0], 1), 1);
    timeout(Duration::from_secs(3), echoes(&mut client)).await.expect("it goes on by the tunnel that it had");
    home.count(|_| panic!("it would be given away again, for nothing"));
    drop(kept);
}

#[tokio::test]
async fn a_connection_that_gets_no_tunnel_on_another_thread_comes_back() {
    for peer in [Peer::Gone, Peer::Silent] {
        LocalSet::new().run_until(goes_on_where_it_was(peer)).await;
    }
}
