//! Tunnels whose peers do not show who they are.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::world::{HTTP, World, run};

/// What a source may have, and half of all.
const OF_SOURCE: usize = 512;

async fn application(mut socket: TcpStream, _port: u16) {
    let _ = socket.write_all(b"hello").await;
}

/// Waits until a limit was hit so often.
async fn until_hit(world: &World, limit: &str, times: usize) {
    let label = format!("limit=\"{limit}\"");
    let hits = || world.metric("lateen_limit_hits_total", &[&label]).unwrap_or_default();
    let reached = async {
        while hits() < times as f64 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Less than the time of a handshake: none of them ends by itself.
    let reached = timeout(Duration::from_secs(8), reached).await;
    assert!(reached.is_ok(), "{limit}: {} of {times}", hits());
}

#[test]
fn who_is_silent_keeps_nobody_out() {
    run(async {
        let world = World::new(application).await;
        let mut silent = Vec::new();
        // One source, and more than there are places for all.
        for _ in 0..3 * OF_SOURCE {
            silent.push(world.silent(50).await);
        }
        until_hit(&world, "handshakes_of_peer", 2 * OF_SOURCE).await;
        assert_eq!(world.waypoint.handshakes.count(), OF_SOURCE, "it has ended its own");
        drop(world.connect(HTTP).await);
        assert_eq!(world.metric("lateen_limit_hits_total", &["limit=\"handshakes\""]), Some(0.0));
        // Of three sources: every place is taken, and who comes now has one.
        for last in [51, 52] {
            for _ in 0..OF_SOURCE {
                silent.push(world.silent(last).await);
            }
        }
        until_hit(&world, "handshakes", OF_SOURCE).await;
        drop(world.connect(HTTP).await);
        assert_eq!(world.metric("lateen_limit_hits_total", &["limit=\"handshakes\""]), Some(513.0));
    });
}
