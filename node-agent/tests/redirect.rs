//! The redirecting role in real network namespaces: what the rules catch, what they leave alone, and what
//! survives. Needs root or a user namespace (`unshare -Ur`), `ip` and `nft`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "redirect/bed.rs"]
mod bed;
#[path = "redirect/churn.rs"]
mod churn;
#[path = "redirect/raw.rs"]
mod raw;
#[path = "redirect/redirector.rs"]
mod redirector;
#[path = "redirect/setup.rs"]
mod setup;

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::Duration,
};

use bed::{PEER_V4, PEER_V6, POD_V4, POD_V6, UID, ip};
use churn::{Client, answer, answer_all, answer_queries};
use node_agent::{
    listeners::Slot,
    netns::in_namespace,
    pods::PodEvent,
    redirect::{
        apply,
        rules::{PROBE_V4, PROBE_V6, WayBack},
    },
    socket::{PROXY_MARK, RETURN_MARK, bind_transparent, canonical, marked_tcp, original_destination},
};
use redirector::patient;
use setup::{Served, Setup, accept};
use socket2::{Domain, SockRef, Socket, Type};
use testkit::netns::Netns;
use tokio::time::sleep;

fn connect(from: &Netns, to: SocketAddr) -> TcpStream {
    let stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap();
    let stream = stream.unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    patient(&stream);
    stream
}

fn echo_once(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    let mut seen = [0; 4];
    server.read_exact(&mut seen).unwrap();
    server.write_all(&seen).unwrap();
    client.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"ping");
}

#[tokio::test]
async fn outbound_connections_to_any_address_are_captured() {
    let mut setup = Setup::new().await;
    let mut served = setup.enrol_and_serve().await;
    for to in ["10.99.9.9:80", "[fd99::9]:443", "10.77.0.1:15008"] {
        let to: SocketAddr = to.parse().unwrap();
        let mut client = connect(&setup.pod, to);
        let (mut captured, from) = accept(&mut served, Slot::Outbound).await;
        assert_eq!(original_destination(&SockRef::from(&captured)).unwrap(), to);
        assert_eq!(canonical(from).ip(), if to.is_ipv4() { ip(POD_V4) } else { ip(POD_V6) });
        echo_once(&mut client, &mut captured);
    }
}

#[tokio::test]
async fn the_application_reaches_itself_beside_the_mesh() {
    let mut setup = Setup::new().await;
    let _served = setup.enrol_and_serve().await;
    for own in [POD_V4, POD_V6, "127.0.0.1", "::1"] {
        let address = SocketAddr::new(ip(own), 8080);
        let app = setup.pod.run(|| TcpListener::bind(address).unwrap()).unwrap();
        let mut client = connect(&setup.pod, address);
        let (mut server, _) = app.accept().unwrap();
        echo_once(&mut client, &mut server);
    }
}

#[tokio::test]
async fn inbound_plaintext_is_captured_and_the_tunnel_port_is_not() {
    let mut setup = Setup::new().await;
    let mut served = setup.enrol_and_serve().await;
    for (pod, peer) in [(POD_V4, PEER_V4), (POD_V6, PEER_V6)] {
        let to = SocketAddr::new(ip(pod), 8080);
        let mut client = connect(&setup.peer, to);
        let (mut captured, from) = accept(&mut served, Slot::Inbound).await;
        assert_eq!(original_destination(&SockRef::from(&captured)).unwrap(), to);
        assert_eq!(canonical(from).ip(), ip(peer));
        echo_once(&mut client, &mut captured);

        let tunnel = SocketAddr::new(ip(pod), 15008);
        let mut client = connect(&setup.peer, tunnel);
        let (mut captured, _) = accept(&mut served, Slot::Hbone).await;
        assert_eq!(original_destination(&SockRef::from(&captured)).unwrap(), tunnel);
        echo_once(&mut client, &mut captured);
    }
}

/// Tracking takes a lone ACK for a connection under way, which is past translation: the connection that then begins
/// between the same ports is not redirected. Neither may it get in, nor out.
#[tokio::test]
async fn a_packet_sent_ahead_gets_no_connection_past_the_capture() {
    const LEFT: u16 = 40_404;
    let mut setup = Setup::new().await;
    let _served = setup.enrol_and_serve().await;
    // Where this cannot be set the rules alone have to do.
    setup.pod.sysctl("netfilter/nf_conntrack_tcp_loose", "1").unwrap();
    for (pod, peer) in [(POD_V4, PEER_V4), (POD_V6, PEER_V6)] {
        let (pod, peer) = (SocketAddr::new(ip(pod), 8080), SocketAddr::new(ip(peer), LEFT));
        for (server, server_at, client, client_at) in
            [(&setup.pod, pod, &setup.peer, peer), (&setup.peer, peer, &setup.pod, pod)]
        {
            let listener = server.run(|| TcpListener::bind(server_at).unwrap()).unwrap();
            // They know each other: nothing is lost to looking for a neighbour.
            drop(connect(&setup.peer, SocketAddr::new(pod.ip(), 15008)));
            setup.peer.run(|| raw::send_ack(peer, pod)).unwrap();
            let connected = client.run(|| raw::connect_from(client_at, server_at, Duration::from_secs(1)));
            assert!(connected.unwrap().is_err(), "{client_at} reached {server_at} in plain");
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
    }
}

/// The settings that keep such a packet from doing even that: the connection that follows is captured.
#[tokio::test]
async fn a_packet_sent_ahead_is_not_taken_for_a_connection() {
    let mut setup = Setup::new().await;
    let mut served = setup.enrol_and_serve().await;
    for (pod, peer) in [(POD_V4, PEER_V4), (POD_V6, PEER_V6)] {
        let (pod, peer) = (SocketAddr::new(ip(pod), 8080), SocketAddr::new(ip(peer), 40_405));
        drop(connect(&setup.peer, SocketAddr::new(pod.ip(), 15008)));
        setup.peer.run(|| raw::send_ack(peer, pod)).unwrap();
        let client = setup.peer.run(|| raw::connect_from(peer, pod, Duration::from_secs(5))).unwrap();
        let (mut captured, from) = accept(&mut served, Slot::Inbound).await;
        assert_eq!(canonical(from), peer);
        echo_once(&mut client.unwrap(), &mut captured);
    }
}

#[tokio::test]
async fn probes_pass_beside_the_mesh_to_probed_ports() {
    let mut setup = Setup::new().await;
    let mut served = setup.enrol_and_serve().await;
    for (probe, pod) in [(PROBE_V4, POD_V4), (PROBE_V6, POD_V6)] {
        let prefix = if ip(probe).is_ipv4() { 32 } else { 128 };
        setup
            .peer
            .ip(&format!("addr add {probe}/{prefix} dev lo{}", if prefix == 128 { " nodad" } else { "" }))
            .unwrap();
        // Neighbours find each other under their own addresses first.
        drop(connect(&setup.peer, (ip(pod), 80).into()));
        drop(accept(&mut served, Slot::Inbound).await);
        let app = setup.pod.run(|| TcpListener::bind((ip(pod), 8080)).unwrap()).unwrap();
        let probe_of = |port| {
            let connected = setup.peer.run(|| {
                let socket =
                    Socket::new(Domain::for_address(SocketAddr::new(ip(probe), 0)), Type::STREAM, None)
                        .unwrap();
                socket.bind(&SocketAddr::new(ip(probe), 0).into()).unwrap();
                socket.connect(&SocketAddr::new(ip(pod), port).into()).unwrap();
                TcpStream::from(socket)
            });
            connected.unwrap()
        };
        let mut client = probe_of(8080);
        let (mut server, from) = app.accept().unwrap();
        assert_eq!(from.ip(), ip(probe));
        echo_once(&mut client, &mut server);
        // Nobody probes this port: whoever has that address is a client like others.
        let mut client = probe_of(8081);
        let (mut captured, from) = accept(&mut served, Slot::Inbound).await;
        assert_eq!(canonical(from).ip(), ip(probe));
        echo_once(&mut client, &mut captured);
    }
}

#[tokio::test]
async fn names_are_asked_of_the_proxy() {
    let mut setup = Setup::new().await;
    let mut served = setup.enrol_and_serve().await;
    for (server, slot) in [("10.96.0.10", Slot::DnsUdpV4), ("fd96::a", Slot::DnsUdpV6)] {
        let client = setup.pod.run(|| UdpSocket::bind(("::", 0)).unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = match ip(server) {
            IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), 53),
            IpAddr::V6(_) => SocketAddr::new(ip(server), 53),
        };
        client.send_to(b"who?", to).unwrap();
        let listener = UdpSocket::from(served.take(slot).unwrap());
        let (mut seen, from) = setup::receive(&listener);
        assert_eq!(seen, b"who?");
        seen.make_ascii_uppercase();
        listener.send_to(&seen, from).unwrap();
        let mut answer = [0; 16];
        let (length, answerer) = client.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], answerer), (&b"WHO?"[..], to), "answered in the server's name");
    }
    for (server, slot) in [("10.96.0.10", Slot::DnsTcpV4), ("fd96::a", Slot::DnsTcpV6)] {
        let mut client = connect(&setup.pod, SocketAddr::new(ip(server), 53));
        let (mut captured, _) = accept(&mut served, slot).await;
        echo_once(&mut client, &mut captured);
    }
}

/// Opens a connection to the pod's application as the proxy does.
fn deliver(served: &Served, mark: u32, client: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let dialled = in_namespace(&served.netns, || {
        let socket = marked_tcp(to.ip(), mark)?;
        bind_transparent(&socket, ip(client))?;
        socket.set_nonblocking(false)?;
        socket.connect(&to.into())?;
        Ok(socket)
    });
    dialled?.map(TcpStream::from)
}

const CLIENTS: [(&str, &str); 4] =
    [("10.200.3.4", POD_V4), (PEER_V4, POD_V4), ("fd20::34", POD_V6), (PEER_V6, POD_V6)];

#[tokio::test]
async fn the_application_sees_its_real_peer_and_its_replies_come_back() {
    let mut setup = Setup::new().await;
    let served = setup.enrol_and_serve().await;
    assert_eq!(served.app_mark, RETURN_MARK);
    // A port for each: a child being forked by another test may hold the one before a moment longer.
    for ((client, pod), port) in CLIENTS.into_iter().zip(8080..) {
        let to = SocketAddr::new(ip(pod), port);
        let app = setup.pod.run(|| TcpListener::bind(to).unwrap()).unwrap();
        let mut dialled = deliver(&served, served.app_mark, client, to).unwrap();
        patient(&dialled);
        let (mut server, from) = app.accept().unwrap();
        assert_eq!(from.ip(), ip(client));
        echo_once(&mut dialled, &mut server);
    }
}

#[tokio::test]
async fn a_closed_port_refuses_at_once_whoever_the_client_is() {
    let mut setup = Setup::new().await;
    let served = setup.enrol_and_serve().await;
    for (client, pod) in CLIENTS {
        let refused = deliver(&served, served.app_mark, client, SocketAddr::new(ip(pod), 9)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{client} to {pod}");
    }
}

/// An application may take its socket down and connect it again, with the mark it has.
#[tokio::test]
async fn no_socket_of_an_application_gets_the_proxys_mark() {
    let mut setup = Setup::new().await;
    let served = setup.enrol_and_serve().await;
    for (pod, port) in [(POD_V4, 8080), (POD_V6, 8081)] {
        let to = SocketAddr::new(ip(pod), port);
        let app = setup.pod.run(|| TcpListener::bind(to).unwrap()).unwrap();
        for (mark, passed_on) in [(PROXY_MARK, 0), (RETURN_MARK, RETURN_MARK)] {
            let _dialled = deliver(&served, mark, pod, to).unwrap();
            let (server, _) = app.accept().unwrap();
            assert_eq!(SockRef::from(&server).mark().unwrap(), passed_on, "{pod} {mark:#x}");
        }
    }
}

/// A pod without IPv6, as most clusters have: what needs it is left out.
#[tokio::test]
async fn a_pod_without_ipv6_is_captured() {
    let mut setup = Setup::new().await;
    setup.pod.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
    let mut served = setup.enrol_and_serve().await;
    assert!(served.take(Slot::DnsUdpV6).is_none() && served.take(Slot::DnsTcpV6).is_none());
    let to: SocketAddr = "10.99.9.9:80".parse().unwrap();
    let mut client = connect(&setup.pod, to);
    let (mut captured, _) = accept(&mut served, Slot::Outbound).await;
    assert_eq!(original_destination(&SockRef::from(&captured)).unwrap(), to);
    echo_once(&mut client, &mut captured);
    setup.enroller.release(UID).await.unwrap();
    assert!(matches!(setup.next_event().await, PodEvent::Draining { .. }));
    setup.feed.handle().drained(UID).await;
    setup.until_rules_are_gone().await;
}

#[tokio::test]
async fn what_the_proxy_sends_is_not_captured() {
    let mut setup = Setup::new().await;
    let served = setup.enrol_and_serve().await;
    let remote = setup.peer.run(|| TcpListener::bind((ip(PEER_V4), 80)).unwrap()).unwrap();
    let dialled = in_namespace(&served.netns, || {
        let socket = marked_tcp(ip(PEER_V4), PROXY_MARK).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.connect(&SocketAddr::new(ip(PEER_V4), 80).into()).unwrap();
        socket
    });
    let mut dialled = TcpStream::from(dialled.unwrap());
    let (mut server, from) = remote.accept().unwrap();
    assert_eq!(from.ip(), ip(POD_V4), "the pod's own address, kept");
    echo_once(&mut dialled, &mut server);
}

/// A connection in each direction that was open before, and one that is captured: all live through joining,
/// renewed rules and leaving.
#[tokio::test]
async fn live_connections_survive_joining_and_leaving() {
    let mut setup = Setup::new().await;
    let app = setup.pod.run(|| TcpListener::bind((ip(POD_V4), 8080)).unwrap()).unwrap();
    let remote = setup.peer.run(|| TcpListener::bind((ip(PEER_V6), 80)).unwrap()).unwrap();
    let mut inward = (connect(&setup.peer, (ip(POD_V4), 8080).into()), app.accept().unwrap().0);
    let mut outward = (connect(&setup.pod, (ip(PEER_V6), 80).into()), remote.accept().unwrap().0);

    let mut served = setup.enrol_and_serve().await;
    let captured_client = connect(&setup.pod, "10.99.9.9:80".parse().unwrap());
    let (captured_server, _) = accept(&mut served, Slot::Outbound).await;
    let mut captured = (captured_client, captured_server);
    let mut check = || {
        for (client, server) in [&mut inward, &mut outward, &mut captured] {
            echo_once(client, server);
            echo_once(server, client);
        }
    };
    check();
    setup.install_again().await;
    check();

    setup.enroller.release(UID).await.unwrap();
    check();
    let mut direct = connect(&setup.pod, (ip(PEER_V6), 80).into());
    echo_once(&mut direct, &mut remote.accept().unwrap().0);
    let mut direct = connect(&setup.peer, (ip(POD_V4), 8080).into());
    echo_once(&mut direct, &mut app.accept().unwrap().0);

    assert!(matches!(setup.next_event().await, PodEvent::Draining { uid } if uid == UID));
    check();
    drop(captured);
    setup.feed.handle().drained(UID).await;
    assert!(matches!(setup.next_event().await, PodEvent::Remove { uid } if uid == UID));
    setup.until_rules_are_gone().await;
    for (client, server) in [&mut inward, &mut outward] {
        echo_once(client, server);
    }
}

/// A pod that leaves and comes back before its last connection has ended goes on with the same listeners.
#[tokio::test]
async fn a_leaving_pod_can_come_back() {
    let mut setup = Setup::new().await;
    let mut served = setup.enrol_and_serve().await;
    setup.enroller.release(UID).await.unwrap();
    assert!(matches!(setup.next_event().await, PodEvent::Draining { .. }));
    setup.enroll().await.unwrap();
    assert!(matches!(setup.next_event().await, PodEvent::Resumed { uid } if uid == UID));
    let mut client = connect(&setup.pod, "10.99.9.9:80".parse().unwrap());
    let (mut captured, _) = accept(&mut served, Slot::Outbound).await;
    echo_once(&mut client, &mut captured);
}

/// What begins while a pod is outside, and whose SYN is lost, is repeated when it is back: then it is captured. Tracking
/// remembers the first one, which was not.
#[tokio::test]
async fn what_nobody_answered_yet_is_captured_when_its_pod_is_back() {
    let mut setup = Setup::new().await;
    let mut served = setup.enrol_and_serve().await;
    setup.enroller.release(UID).await.unwrap();
    assert!(matches!(setup.next_event().await, PodEvent::Draining { .. }));
    let lose = "add table inet lost; add chain inet lost syns { type filter hook input priority 0; }; \
                add rule inet lost syns tcp dport 80 drop";
    let lost = setup.peer.run(|| Command::new("nft").arg(lose).status().unwrap()).unwrap();
    assert!(lost.success());
    for to in [SocketAddr::new(ip(PEER_V4), 80), SocketAddr::new(ip(PEER_V6), 80)] {
        let client = setup
            .pod
            .run(|| {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None).unwrap();
                assert!(socket.connect(&to.into()).is_err(), "nobody answers");
                socket
            })
            .unwrap();
        // The first one is on its way, and tracked.
        sleep(Duration::from_millis(200)).await;
        setup.enroll().await.unwrap();
        assert!(matches!(setup.next_event().await, PodEvent::Resumed { .. }));
        let (captured, _) = accept(&mut served, Slot::Outbound).await;
        assert_eq!(original_destination(&SockRef::from(&captured)).unwrap(), to);
        drop((client, captured));
        setup.enroller.release(UID).await.unwrap();
        assert!(matches!(setup.next_event().await, PodEvent::Draining { .. }));
    }
}

/// What was under way beside the mesh while a pod left ends unseen. A later connection from the same port is none of it.
#[tokio::test]
async fn a_port_used_while_a_pod_left_is_captured_when_it_is_back() {
    let mut setup = Setup::new().await;
    let remote = setup.peer.run(|| TcpListener::bind((ip(PEER_V4), 80)).unwrap()).unwrap();
    let from_one_port = |pod: &Netns| {
        let open = || -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            // Its end leaves no trace in the pod itself.
            socket.set_linger(Some(Duration::ZERO))?;
            socket.bind(&SocketAddr::new(ip(POD_V4), 40_000).into())?;
            let to = SocketAddr::new(ip(PEER_V4), 80);
            socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
            Ok(socket.into())
        };
        pod.run(open).unwrap()
    };
    let before = setup.enrol_and_serve().await;
    setup.enroller.release(UID).await.unwrap();
    let direct = (from_one_port(&setup.pod).unwrap(), remote.accept().unwrap());
    assert!(matches!(setup.next_event().await, PodEvent::Draining { .. }));
    setup.feed.handle().drained(UID).await;
    assert!(matches!(setup.next_event().await, PodEvent::Remove { .. }));
    setup.until_rules_are_gone().await;
    // Its listeners too: they would have their part of what comes.
    drop((direct, before));

    let mut served = setup.enrol_and_serve().await;
    let mut client = from_one_port(&setup.pod).unwrap();
    let (mut captured, _) = accept(&mut served, Slot::Outbound).await;
    echo_once(&mut client, &mut captured);
}

/// Without a proxy nothing passes in the clear: enrolment fails, and connections wait instead of getting out.
/// Rules that capture before answers find their way cost every connection of that moment a second.
#[tokio::test]
async fn the_way_back_stands_before_anything_is_captured() {
    let setup = Setup::without_proxy().await;
    let folder = tempfile::tempdir().unwrap();
    let (nft, seen) = (folder.path().join("nft"), folder.path().join("seen"));
    let script = format!("#!/bin/sh\n(ip rule; ip -6 rule) > {}\nexec nft \"$@\"\n", seen.display());
    fs::write(&nft, script).unwrap();
    fs::set_permissions(&nft, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = setup.spec();
    apply::install(&spec.netns, nft.to_str().unwrap(), &spec.rules, WayBack::Marked).await.unwrap();
    let before = fs::read_to_string(&seen).unwrap();
    assert_eq!(before.matches("fwmark 0x111").count(), 2, "{before}");
    assert!(setup.rules().contains("lateen"));
}

#[tokio::test]
async fn without_a_proxy_enrolment_fails_closed() {
    let setup = Setup::without_proxy().await;
    let remote = setup.peer.run(|| TcpListener::bind((ip(PEER_V4), 80)).unwrap()).unwrap();
    remote.set_nonblocking(true).unwrap();
    let error = setup.enroll_within(Duration::from_millis(200)).await.unwrap_err().to_string();
    assert!(error.contains("no proxy has acknowledged"), "{error}");
    let _waits = connect(&setup.pod, (ip(PEER_V4), 80).into());
    assert_eq!(remote.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn the_wrong_namespace_is_never_captured() {
    let setup = Setup::without_proxy().await;
    let mut spec = setup.spec();
    spec.ips = vec![ip("10.77.0.99")];
    let deadline = tokio::time::Instant::now();
    let error = setup.enroller.enrol(spec, deadline).await.unwrap_err().to_string();
    assert!(error.contains("belongs to another pod"), "{error}");
    let mut spec = setup.spec();
    spec.netns = node_agent::netns::NetnsFd::current().unwrap();
    let error = setup.enroller.enrol(spec, deadline).await.unwrap_err().to_string();
    assert!(error.contains("the agent's own"), "{error}");
    assert!(!setup.rules().contains("lateen"));
}

/// Clients that connect all the time, outward and inward, and ask for names, while the pod joins and leaves again and
/// again: every connection and every query is answered, by the real server or by the proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_fails_while_a_pod_joins_and_leaves() {
    const ROUNDS: usize = 5;
    let mut setup = Setup::new().await;
    let servers =
        [(&setup.pod, POD_V4), (&setup.pod, POD_V6), (&setup.peer, PEER_V4), (&setup.peer, PEER_V6)];
    for (namespace, own) in servers {
        let listener = namespace.run(|| TcpListener::bind((ip(own), 8080)).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        tokio::spawn(answer(tokio::net::TcpListener::from_std(listener).unwrap(), b"server"));
    }
    for own in [PEER_V4, PEER_V6] {
        let names = setup.peer.run(|| UdpSocket::bind((ip(own), 53)).unwrap()).unwrap();
        names.set_nonblocking(true).unwrap();
        tokio::spawn(answer_queries(tokio::net::UdpSocket::from_std(names).unwrap(), b"server"));
    }
    let mut clients: Vec<Client> =
        [(&setup.pod, PEER_V4), (&setup.pod, PEER_V6), (&setup.peer, POD_V4), (&setup.peer, POD_V6)]
            .map(|(from, to)| Client::connecting(from, SocketAddr::new(ip(to), 8080)))
            .into();
    clients.extend([PEER_V4, PEER_V6].map(|to| Client::querying(&setup.pod, SocketAddr::new(ip(to), 53))));

    for _ in 0..ROUNDS {
        let served = setup.enrol_and_serve().await;
        let answering = answer_all(served.listeners);
        for client in &clients {
            client.until_answered_by("proxy").await;
        }
        setup.enroller.release(UID).await.unwrap();
        assert!(matches!(setup.next_event().await, PodEvent::Draining { .. }));
        for client in &clients {
            client.until_answered_by("server").await;
        }
        setup.feed.handle().drained(UID).await;
        assert!(matches!(setup.next_event().await, PodEvent::Remove { .. }));
        setup.until_rules_are_gone().await;
        drop(answering);
    }
    let connections: usize = clients.into_iter().map(Client::stop).sum();
    println!("{connections} connections and queries, all answered");
    assert!(connections > 100, "{connections}");
}
