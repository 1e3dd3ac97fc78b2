//! Windows that grow with what a stream carries, out of what all may have together.

use hbone::limits::Limits;
use hbone::tunnel::{Client, Server, Stream};
use hbone::windows::Windows;
use tokio::io::AsyncWriteExt;

use crate::support::{account, connect, expect_pattern, pair, run, send_pattern, until};

const LEAST: u32 = 64 << 10;
const LARGEST: u32 = 512 << 10;

fn limits(windows: u64) -> Limits {
    Limits {
        stream_window: LEAST,
        largest_stream_window: LARGEST,
        connection_window: 16 << 20,
        windows: Windows::new(windows),
        ..Limits::default()
    }
}

async fn open(client: &Client, server: &mut Server) -> (Stream, Stream) {
    let opening = connect(client);
    let accepting = async { server.accept().await.unwrap().accept(&hbone::headers::Headers::new()) };
    let (near, far) = tokio::join!(opening, accepting);
    (near.unwrap().stream, far)
}

/// How much a stream can be made to hold by a sender that does not stop.
async fn filled(near: &mut Stream, held: impl Fn() -> u64) -> u64 {
    let bytes = vec![7; 64 << 10];
    let before = held();
    // A write that waits for the window never ends.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        while near.write_all(&bytes).await.is_ok() {}
    })
    .await;
    held() - before
}

#[test]
fn who_carries_much_may_have_more_on_the_way_than_who_never_reads() {
    run(async {
        let limits = limits(1 << 20);
        let (client, mut server) = pair(&limits);
        let account = account();
        server.charge(&account);
        let (mut near, mut far) = open(&client, &mut server).await;
        let (mut stalled, stalled_far) = open(&client, &mut server).await;
        assert_eq!(filled(&mut stalled, || account.buffered()).await, u64::from(LEAST));
        let carried = 24 << 20;
        tokio::join!(send_pattern(&mut near, 5, 0, carried), expect_pattern(&mut far, 5, 0, carried));
        until("the window has grown", || limits.windows.given() == u64::from(LARGEST - LEAST)).await;
        // Up to a quarter of it is not granted again yet.
        let held = filled(&mut near, || account.buffered()).await;
        assert!((u64::from(LARGEST) * 3 / 4..=u64::from(LARGEST)).contains(&held), "{held}");
        drop((far, stalled_far));
        until("all of it is given back", || limits.windows.given() == 0).await;
    });
}

#[test]
fn windows_grow_no_further_than_what_all_may_have() {
    run(async {
        let limits = limits(u64::from(LEAST) * 3 / 2);
        let (client, mut server) = pair(&limits);
        let mut streams = Vec::new();
        for seed in 0..3 {
            let (mut near, mut far) = open(&client, &mut server).await;
            let carried = 8 << 20;
            tokio::join!(
                send_pattern(&mut near, seed, 0, carried),
                expect_pattern(&mut far, seed, 0, carried)
            );
            assert_eq!(limits.windows.given(), u64::from(LEAST), "one has what there is to have");
            streams.push((near, far));
        }
    });
}
