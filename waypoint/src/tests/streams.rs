//! Connections that are carried as bytes, and the end of the waypoint.

use std::time::Duration;

use model::mesh::Update;
use model::service::Service;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::world::{HTTP, TCP, UNDECLARED, World, run};

/// An application that speaks first on one of its ports, and repeats what it hears on all of them until the end.
async fn application(mut socket: TcpStream, port: u16) {
    if port == 8083 {
        socket.write_all(b"220 ready\r\n").await.unwrap();
    }
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).await.unwrap();
    socket.write_all(&heard).await.unwrap();
    let _ = socket.shutdown().await;
}

async fn repeated(world: &World, port: u16, greeting: &[u8]) {
    let mut stream = world.connect(port).await;
    let mut greeted = vec![0; greeting.len()];
    stream.read_exact(&mut greeted).await.unwrap();
    assert_eq!(greeted, greeting);
    stream.write_all(b"\x00\x01 and the rest").await.unwrap();
    // The end of one direction passes through, and the other goes on.
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x00\x01 and the rest");
}

#[test]
fn bytes_pass_whoever_speaks_first_and_are_counted() {
    run(async {
        let world = World::new(application).await;
        repeated(&world, TCP, b"").await;
        let labels = ["reporter=\"waypoint\"", "destination_workload=\"server\""];
        // The end is counted a moment after it was seen.
        while world.metric("istio_tcp_connections_closed_total{", &labels) != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.metric("istio_tcp_received_bytes_total{", &labels), Some(15.0));
        // A server that speaks first is not waited for until its client does.
        repeated(&world, UNDECLARED, b"220 ready\r\n").await;
    });
}

#[test]
fn a_connection_that_leads_nowhere_is_refused_with_the_cause() {
    run(async {
        let world = World::new(application).await;
        world.waypoint.take(vec![Update::RemoveAddress(world.pod.uid.clone())]);
        let refused = world.connect_as("client", &format!("{}:{TCP}", super::world::VIP)).await;
        assert_eq!(refused.err(), Some(503));
        let service = Service { waypoint: None, ..world.service.clone() };
        world.waypoint.take(vec![Update::Service(service)]);
        let refused = world.connect_as("client", &format!("{}:{TCP}", super::world::VIP)).await;
        assert_eq!(refused.err(), Some(403), "it is bound to this waypoint no more");
    });
}

#[test]
fn what_runs_ends_in_order_when_the_waypoint_drains() {
    run(async {
        let world = World::new(application).await;
        let mut bytes = world.connect(TCP).await;
        bytes.write_all(b"hello").await.unwrap();
        let mut idle = world.connect(HTTP).await;
        world.waypoint.draining.begin();
        // A connection that waits for its next request ends by itself.
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        idle.shutdown().await.unwrap();
        drop(idle);
        assert!(world.waypoint.workers.iter().any(|worker| worker.tunnels() > 0), "bytes go on");
        bytes.shutdown().await.unwrap();
        let mut heard = Vec::new();
        bytes.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        drop(bytes);
        crate::worker::drained(&world.waypoint).await;
    });
}
