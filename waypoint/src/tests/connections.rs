//! Connections of HTTP/2 to endpoints: who waits for one, and how many there are.

use std::time::Duration;

use http::StatusCode;
use model::traffic::{HttpSettings, TcpSettings};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::requests::{get, http2};
use super::traffic::{application, pool, routing};
use super::world::{GRPC, SILENT, World, run};

/// Requests at once over HTTP/2 to who does not answer: what each was told, and how long all of them took.
async fn ask_in_vain(world: &World, requests: u32) -> (Vec<u16>, Duration) {
    let client = http2(world, GRPC).await;
    let begun = Instant::now();
    let ask = |_| {
        let mut client = client.clone();
        spawn_local(async move { client.send_request(get("/")).await.unwrap().status().as_u16() })
    };
    let asked: Vec<_> = (0..requests).map(ask).collect();
    let mut told = Vec::new();
    for one in asked {
        told.push(one.await.unwrap());
    }
    (told, begun.elapsed())
}

#[test]
fn all_who_wait_for_one_connection_are_told_that_there_is_none() {
    const LIMIT: Duration = Duration::from_millis(400);
    run(async {
        for most in [u32::MAX, 1] {
            let world = World::new(application).await;
            let tcp = TcpSettings { connect_timeout: LIMIT, max_connections: most, ..TcpSettings::default() };
            world.waypoint.routings.set(routing(pool(HttpSettings::default(), tcp)));
            SILENT.set(true);
            let (told, took) = ask_in_vain(&world, 6).await;
            SILENT.set(false);
            assert_eq!(told, [503; 6]);
            assert!(took >= LIMIT && took < 3 * LIMIT, "one after the other: {took:?}");
            assert_eq!(world.connects.borrow().len(), 1, "one has asked for all");
            // The next begins anew.
            let answered = http2(&world, GRPC).await.send_request(get("/")).await.unwrap();
            assert_eq!(answered.status(), StatusCode::OK);
        }
    });
}
