//! Both ends ours: splices with half-closes, cuts with their cause, accounts, byte streams.

use std::io::ErrorKind;

use hbone::account::{Account, AccountLimits, Full};
use hbone::connection::Connection;
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::splice::{End, Finished};
use hbone::tunnel::{Client, ConnectError, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{
    account, application, application_as, connect, expect_end, expect_pattern, pair, run, send_pattern,
    sockets, until,
};

/// Two applications joined through the tunnel, and the two splices between them.
pub(crate) struct Joined {
    pub(crate) near: TcpStream,
    pub(crate) far: TcpStream,
    pub(crate) near_splice: JoinHandle<Finished>,
    pub(crate) far_splice: JoinHandle<Finished>,
    pub(crate) near_live: std::sync::Arc<hbone::connection::Live>,
    pub(crate) far_live: std::sync::Arc<hbone::connection::Live>,
}

pub(crate) async fn join(client: &Client, server: &mut Server, account: &std::sync::Arc<Account>) -> Joined {
    let opening = connect(client);
    let answering = async {
        let request = server.accept().await.unwrap();
        let (far, connection) = application_as(account, request.connection().unwrap()).await;
        let live = connection.live().clone();
        (far, tokio::task::spawn_local(request.accept(&Headers::new()).splice(connection)), live)
    };
    let (opened, (far, far_splice, far_live)) = tokio::join!(opening, answering);
    let opened = opened.unwrap();
    assert!(opened.capable);
    let (near, connection) = application_as(account, opened.id).await;
    let near_live = connection.live().clone();
    let near_splice = tokio::task::spawn_local(opened.stream.splice(connection));
    Joined { near, far, near_splice, far_splice, near_live, far_live }
}

#[test]
fn each_direction_ends_by_itself() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let account = account();
        let mut joined = join(&client, &mut server, &account).await;
        send_pattern(&mut joined.near, 1, 0, 100_000).await;
        joined.near.shutdown().await.unwrap();
        expect_pattern(&mut joined.far, 1, 0, 100_000).await;
        expect_end(&mut joined.far).await;
        // The other direction goes on as long as it likes.
        for part in 0..20 {
            send_pattern(&mut joined.far, 2, part * 50_000, 50_000).await;
            expect_pattern(&mut joined.near, 2, part * 50_000, 50_000).await;
        }
        assert!(!joined.near_splice.is_finished());
        joined.far.shutdown().await.unwrap();
        expect_end(&mut joined.near).await;
        for splice in [joined.near_splice, joined.far_splice] {
            assert!(matches!(splice.await.unwrap().end, End::Complete));
        }
        assert_eq!((joined.near_live.sent(), joined.near_live.received()), (100_000, 1_000_000));
        assert_eq!((joined.far_live.sent(), joined.far_live.received()), (1_000_000, 100_000));
        assert_eq!((account.connections(), account.buffered(), account.descriptors()), (0, 0, 0));
    });
}

#[test]
fn fifty_connections_both_ways_at_once() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let account = account();
        let mut all = Vec::new();
        for seed in 1..=50 {
            let joined = join(&client, &mut server, &account).await;
            all.push(tokio::task::spawn_local(async move {
                let len = 40_000 + seed * 10_000;
                for (socket, out, back) in [(joined.near, seed, seed + 100), (joined.far, seed + 100, seed)] {
                    let (mut read, mut write) = socket.into_split();
                    tokio::task::spawn_local(async move {
                        send_pattern(&mut write, out, 0, len).await;
                        write.shutdown().await.unwrap();
                    });
                    tokio::task::spawn_local(async move {
                        expect_pattern(&mut read, back, 0, len).await;
                        expect_end(&mut read).await;
                    });
                }
                for splice in [joined.near_splice, joined.far_splice] {
                    assert!(matches!(splice.await.unwrap().end, End::Complete));
                }
            }));
        }
        for each in all {
            each.await.unwrap();
        }
        assert_eq!(client.streams() + server.streams(), 0);
    });
}

#[test]
fn a_cut_tells_the_other_end_its_cause() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let mut joined = join(&client, &mut server, &account()).await;
        // Once data has gone round, the control stream is surely open.
        send_pattern(&mut joined.near, 1, 0, 10).await;
        expect_pattern(&mut joined.far, 1, 0, 10).await;
        send_pattern(&mut joined.far, 1, 0, 10).await;
        expect_pattern(&mut joined.near, 1, 0, 10).await;
        let live = joined.far_live.clone();
        // From another thread, as policy changes come.
        std::thread::spawn(move || live.cut("AuthorizationPolicy test/deny rule 0")).join().unwrap();
        let far = joined.far_splice.await.unwrap();
        assert!(matches!(&far.end, End::Cut(cause) if cause == "AuthorizationPolicy test/deny rule 0"));
        let near = joined.near_splice.await.unwrap();
        assert!(matches!(&near.end, End::CutByPeer(cause) if cause.ends_with("rule 0")), "{:?}", near.end);
        near.connection.abort();
        far.connection.abort();
        for socket in [&mut joined.near, &mut joined.far] {
            assert_eq!(socket.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        // The tunnel lives.
        join(&client, &mut server, &account()).await;
    });
}

#[test]
fn a_full_account_costs_the_connection_not_the_tunnel() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let account = Account::new(AccountLimits { connections: 3, buffered: 100_000 });
        let mut joined = join(&client, &mut server, &account).await;
        let (_app, mesh) = sockets().await;
        let third = Connection::new(hbone::connection::ConnectionId::random(), mesh, &account).unwrap();
        let (_app, mesh) = sockets().await;
        let fourth = Connection::new(hbone::connection::ConnectionId::random(), mesh, &account);
        assert_eq!(fourth.unwrap_err(), Full::Connections(3));
        drop(third);
        // The far application does not read: what waits for it hits the limit.
        let flood = tokio::task::spawn_local(async move {
            let bytes = vec![7; 1 << 16];
            while joined.near.write_all(&bytes).await.is_ok() {}
        });
        let far = joined.far_splice.await.unwrap();
        assert!(matches!(far.end, End::Account(Full::Buffered(_))), "{:?}", far.end);
        assert!(matches!(joined.near_splice.await.unwrap().end, End::Reset(11)));
        flood.await.unwrap();
        drop(far);
        assert_eq!((account.connections(), account.buffered()), (0, 0));
        assert!(account.refused() >= 2);
        join(&client, &mut server, &account).await;
    });
}

#[test]
fn a_peeked_beginning_is_sent_first() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let account = account();
        let (mut app, mut connection) = application(&account).await;
        connection.push_unsent(b"peeked, ").unwrap();
        app.write_all(b"then read").await.unwrap();
        app.shutdown().await.unwrap();
        let (opened, request) =
            tokio::join!(async { client.connect("a:1", &Headers::new()).await.unwrap() }, async {
                server.accept().await.unwrap().accept(&Headers::new())
            });
        let _splice = tokio::task::spawn_local(opened.stream.splice(connection));
        let (mut stream, mut text) = (request, String::new());
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "peeked, then read");
        assert_eq!(account.buffered(), 0);
    });
}

#[test]
fn what_came_before_the_splice_is_delivered() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let (mut opened, stream) =
            tokio::join!(async { client.connect("a:1", &Headers::new()).await.unwrap() }, async {
                server.accept().await.unwrap().accept(&Headers::new())
            });
        send_pattern(&mut opened.stream, 4, 0, 300_000).await;
        opened.stream.shutdown().await.unwrap();
        // Nobody has looked at it yet; now it is spliced.
        let (mut app, connection) = application(&account()).await;
        let _splice = tokio::task::spawn_local(stream.splice(connection));
        expect_pattern(&mut app, 4, 0, 300_000).await;
        expect_end(&mut app).await;
    });
}

#[test]
fn a_request_dropped_or_refused_is_told() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let (result, ()) = tokio::join!(connect(&client), async {
            drop(server.accept().await.unwrap());
        });
        assert!(matches!(result.unwrap_err(), ConnectError::Reset(8)));
        let (result, ()) = tokio::join!(connect(&client), async {
            server.accept().await.unwrap().refuse(503, &Headers::new().with("lateen-cause", "no app"));
        });
        assert!(matches!(result.unwrap_err(), ConnectError::Refused { status: 503, .. }));
        until("all streams are forgotten", || client.streams() + server.streams() == 0).await;
    });
}

#[test]
fn a_dropped_splice_resets_the_other() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let joined = join(&client, &mut server, &account()).await;
        joined.near_splice.abort();
        assert!(matches!(joined.far_splice.await.unwrap().end, End::Reset(8)));
    });
}

#[test]
fn what_is_broken_off_is_no_end_to_the_application_unless_it_had_ended() {
    for ended in [false, true] {
        run(async move {
            let (client, mut server) = pair(&Limits::default());
            let (opened, stream) = tokio::join!(connect(&client), async {
                server.accept().await.unwrap().accept(&Headers::new())
            });
            let mut near = opened.unwrap().stream;
            let (mut app, connection) = application(&account()).await;
            let splice = tokio::task::spawn_local(stream.splice(connection));
            send_pattern(&mut near, 1, 0, 1000).await;
            if ended {
                near.shutdown().await.unwrap();
            }
            near.break_off();
            assert_eq!(near.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            drop(near);
            let finished = splice.await.unwrap();
            assert!(matches!(finished.end, End::Reset(10)), "{:?}", finished.end);
            finished.close();
            expect_pattern(&mut app, 1, 0, 1000).await;
            match app.read(&mut [0]).await {
                Ok(0) => assert!(ended, "a broken connection looks whole"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => assert!(!ended),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn a_direction_that_has_ended_is_whole_to_who_reads_it() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let (opened, mut far) =
            tokio::join!(connect(&client), async { server.accept().await.unwrap().accept(&Headers::new()) });
        let mut near = opened.unwrap().stream;
        send_pattern(&mut far, 1, 0, 1000).await;
        far.shutdown().await.unwrap();
        far.break_off();
        drop(far);
        // The reset is here before anything is read.
        until("it has come", || server.streams() == 0).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        expect_pattern(&mut near, 1, 0, 1000).await;
        expect_end(&mut near).await;
        assert!(near.write_all(b"more").await.is_err());
    });
}

#[test]
fn an_unanswered_connect_times_out() {
    crate::support::run_paused(async {
        let (client, mut server) = pair(&Limits::default());
        let (result, _request) = tokio::join!(connect(&client), async { server.accept().await.unwrap() });
        assert!(matches!(result.unwrap_err(), ConnectError::Timeout));
        assert_eq!(client.streams(), 0);
    });
}
