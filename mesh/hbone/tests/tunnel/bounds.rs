//! What a tunnel costs the pod that it is for, what it gives back, and that hitting a limit is counted.

use std::sync::Arc;
use std::time::Duration;

use hbone::account::{Account, AccountLimits, Full};
use hbone::headers::Headers;
use hbone::limits::{Limit, Limits};
use hbone::splice::End;
use hbone::tunnel::{Client, ConnectError, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair::{Joined, join};
use crate::support::{account, connect, expect_pattern, pair, run, run_paused, send_pattern, sockets, until};

/// A connection whose far application does not read, with more than a megabyte waiting for it, and who sends that. Its near
/// end is gone from what is returned.
async fn flooded(
    client: &Client,
    server: &mut Server,
    account: &Arc<Account>,
) -> (Joined, tokio::task::JoinHandle<()>) {
    let mut joined = join(client, server, account).await;
    let mut near = std::mem::replace(&mut joined.near, sockets().await.0);
    let flood = tokio::task::spawn_local(async move {
        let bytes = vec![7; 1 << 16];
        while near.write_all(&bytes).await.is_ok() {}
    });
    until("much waits for the far application", || account.buffered() > 1 << 20).await;
    (joined, flood)
}

/// More than the tunnel's window passes through it.
async fn expect_whole_window(client: &Client, server: &mut Server, account: &Arc<Account>) {
    let mut joined = join(client, server, account).await;
    let sending = send_pattern(&mut joined.near, 3, 0, 20 << 20);
    tokio::join!(sending, expect_pattern(&mut joined.far, 3, 0, 20 << 20));
}

/// A tunnel once ended up with no window left, after enough connections had broken off with something undelivered.
#[test]
fn what_broken_connections_left_undelivered_does_not_narrow_the_tunnel() {
    run(async {
        let limits = Limits::default();
        let (client, mut server) = pair(&limits);
        let account = account();
        let mut left = 0;
        while left < 3 * u64::from(limits.connection_window) {
            let (joined, flood) = flooded(&client, &mut server, &account).await;
            left += account.buffered();
            // One in two ends at the far end, the others at this one's order.
            if left % 2 == 0 {
                drop(joined.far);
            } else {
                joined.far_live.cut("enough");
            }
            joined.far_splice.await.unwrap().close();
            joined.near_splice.await.unwrap().close();
            flood.await.unwrap();
            assert_eq!((account.connections(), account.buffered(), account.descriptors()), (0, 0, 0));
        }
        expect_whole_window(&client, &mut server, &account).await;
    });
}

#[test]
fn a_splice_that_is_dropped_gives_its_window_back_too() {
    run(async {
        let limits = Limits::default();
        let (client, mut server) = pair(&limits);
        let account = account();
        let mut left = 0;
        while left < 3 * u64::from(limits.connection_window) {
            let (joined, flood) = flooded(&client, &mut server, &account).await;
            left += account.buffered();
            joined.far_splice.abort();
            assert!(joined.far_splice.await.unwrap_err().is_cancelled());
            joined.near_splice.await.unwrap().close();
            flood.await.unwrap();
        }
        expect_whole_window(&client, &mut server, &account).await;
    });
}

#[test]
fn what_comes_before_anybody_reads_is_on_the_account() {
    run(async {
        let limits = Limits::default();
        let (client, mut server) = pair(&limits);
        let account = Account::listed(
            AccountLimits { connections: 9, buffered: 300_000 },
            &hbone::account::Ledger::new(u64::MAX, u64::MAX, limits.hits.clone()),
        );
        client.charge(&account);
        assert_eq!(account.tunnels(), 1);
        let (opened, mut far) = tokio::join!(async { connect(&client).await.unwrap() }, async {
            server.accept().await.unwrap().accept(&Headers::new())
        });
        let mut near = opened.stream;
        far.write_all(&vec![7; 200_000]).await.unwrap();
        until("it has come", || account.buffered() == 200_000).await;
        let mut some = vec![0; 50_000];
        near.read_exact(&mut some).await.unwrap();
        assert_eq!(account.buffered(), 150_000);
        // A connection takes over what is there.
        let (_app, connection) = crate::support::application_as(&account, opened.id).await;
        let splice = tokio::task::spawn_local(near.splice(connection));
        until("the application has it", || account.buffered() == 0).await;
        splice.abort();

        let (opened, mut far) = tokio::join!(async { connect(&client).await.unwrap() }, async {
            server.accept().await.unwrap().accept(&Headers::new())
        });
        let flood =
            tokio::task::spawn_local(async move { while far.write_all(&[7; 10_000]).await.is_ok() {} });
        flood.await.unwrap();
        assert_eq!((account.refused(), limits.hits.of(Limit::PodBuffered)), (1, 1));
        assert!(account.buffered() <= 300_000);
        drop(opened);
        until("it is given back", || account.buffered() == 0).await;
        assert!(client.usable(), "it cost the stream, not the tunnel");
        client.close();
        until("the tunnel is off the account", || account.tunnels() == 0).await;
    });
}

#[test]
fn a_splice_in_plain_has_both_its_sockets_and_what_waits_on_the_account() {
    run(async {
        let account = account();
        let (mut app, connection) = crate::support::application(&account).await;
        let (far, far_app) = sockets().await;
        let live = connection.live().clone();
        let splice = tokio::task::spawn_local(hbone::passthrough::splice(connection, far));
        app.write_all(b"small").await.unwrap();
        until("both sockets are counted", || account.descriptors() == 2).await;
        // Nobody reads at the far end: small pieces fill its socket, and then one of them waits with us.
        let flood = tokio::task::spawn_local(async move {
            while app.write_all(&[7; 1000]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        until("something waits", || account.buffered() > 0 || live.sent() > 64 << 20).await;
        drop(far_app);
        let end = splice.await.unwrap();
        assert!(matches!(end.finished.end, End::Application(_)), "{:?}", end.finished.end);
        drop(end);
        flood.abort();
        assert_eq!((account.connections(), account.descriptors(), account.buffered()), (0, 0, 0));
    });
}

#[test]
fn a_plain_connection_beyond_its_share_of_descriptors_ends() {
    run(async {
        // One socket is its share, two are not.
        let ledger = hbone::account::Ledger::new(2, u64::MAX, Arc::default());
        let account = Account::listed(AccountLimits::default(), &ledger);
        let (_app, connection) = crate::support::application(&account).await;
        let (far, _far_app) = sockets().await;
        let end = hbone::passthrough::splice(connection, far).await.finished.end;
        assert!(matches!(end, End::Account(Full::ShareOfDescriptors(1))), "{end:?}");
        assert_eq!(ledger.descriptors(), 0);
    });
}

#[test]
fn a_connect_that_is_not_answered_is_counted() {
    run_paused(async {
        let limits = Limits { connect_timeout: Duration::from_secs(1), ..Limits::default() };
        let (client, mut server) = pair(&limits);
        let held = tokio::task::spawn_local(async move {
            let request = server.accept().await;
            std::future::pending::<()>().await;
            drop(request);
        });
        assert!(matches!(connect(&client).await, Err(ConnectError::Timeout)));
        assert_eq!(limits.hits.of(Limit::ConnectTime), 1);
        held.abort();
    });
}
