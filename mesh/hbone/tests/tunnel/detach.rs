//! Live connections that move from tunnel to tunnel, byte-exact, in both directions, with half-closes (D8).

use std::sync::Arc;

use hbone::account::Account;
use hbone::connection::Connection;
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::splice::End;
use hbone::tunnel::{Client, ConnectError, Server};
use tokio::io::AsyncWriteExt;

use crate::pair::{Joined, join};
use crate::support::{account, expect_end, expect_pattern, pair, run, send_pattern};

/// Opens a tunnel's control stream for sure: detaching needs it.
async fn settle(client: &Client, server: &mut Server, account: &Arc<Account>) -> Joined {
    let mut joined = join(client, server, account).await;
    send_pattern(&mut joined.near, 99, 0, 1).await;
    expect_pattern(&mut joined.far, 99, 0, 1).await;
    joined
}

/// Takes a running connection off both ends.
async fn detach(joined: Joined, by_near: bool) -> (Connection, Connection) {
    if by_near {
        joined.near_live.detach()
    } else {
        joined.far_live.detach()
    }
    let near = joined.near_splice.await.unwrap();
    let far = joined.far_splice.await.unwrap();
    assert!(matches!((&near.end, &far.end), (End::Detached, End::Detached)), "{:?} {:?}", near.end, far.end);
    let (here, there) = (near.connection.progress(), far.connection.progress());
    assert_eq!((here.sent, here.received), (there.received, there.sent));
    (near.connection, far.connection)
}

/// Joins two detached ends on another tunnel.
async fn resume(
    client: &Client,
    server: &mut Server,
    near: Connection,
    far: Connection,
) -> [tokio::task::JoinHandle<hbone::splice::Finished>; 2] {
    let headers = Headers::new();
    let (opened, far_splice) = tokio::join!(client.resume("10.0.0.1:80", &headers, &near), async {
        let request = server.accept().await.unwrap();
        assert!(request.resume().unwrap().matches(&far));
        tokio::task::spawn_local(request.accept(&headers).splice(far))
    });
    [tokio::task::spawn_local(opened.unwrap().stream.splice(near)), far_splice]
}

#[test]
fn a_busy_connection_moves_many_times_and_loses_nothing() {
    run(async {
        let account = account();
        let limits = Limits::default();
        let (mut client, mut server) = pair(&limits);
        let joined = settle(&client, &mut server, &account).await;
        let Joined { near, far, mut near_splice, mut far_splice, mut near_live, mut far_live } = joined;
        let len = 12_000_000;
        let mut ends = Vec::new();
        for (socket, out, back, from) in [(near, 1, 2, 0), (far, 2, 1, 0)] {
            let (mut read, mut write) = socket.into_split();
            ends.push(tokio::task::spawn_local(async move {
                send_pattern(&mut write, out, from, len).await;
                write.shutdown().await.unwrap();
                drop(write);
            }));
            ends.push(tokio::task::spawn_local(async move {
                expect_pattern(&mut read, back, 0, len).await;
                expect_end(&mut read).await;
            }));
        }
        let mut moves = 0;
        while !(near_splice.is_finished() || far_splice.is_finished()) && moves < 40 {
            for _ in 0..moves % 7 {
                tokio::task::yield_now().await;
            }
            if moves % 3 == 0 {
                near_live.detach()
            } else {
                far_live.detach()
            }
            let (one, other) = (near_splice.await.unwrap(), far_splice.await.unwrap());
            if !matches!((&one.end, &other.end), (End::Detached, End::Detached)) {
                assert!(
                    matches!((&one.end, &other.end), (End::Complete, End::Complete)),
                    "{:?} {:?}",
                    one.end,
                    other.end
                );
                break;
            }
            moves += 1;
            // Through a plain socket, as to another thread or process.
            let (one, other) = (one.connection.into_plain().unwrap(), other.connection.into_plain().unwrap());
            let (one, other) = std::thread::spawn(move || (one, other)).join().unwrap();
            (near_live, far_live) = (one.live().clone(), other.live().clone());
            let (next, mut next_server) = pair(&limits);
            // The new tunnel's control stream must be open for the next detach.
            let _keep = settle(&next, &mut next_server, &account).await;
            [near_splice, far_splice] = resume(&next, &mut next_server, one, other).await;
            (client, server) = (next, next_server);
        }
        assert!(moves >= 5, "only {moves} moves before all was sent");
        for end in ends {
            end.await.unwrap();
        }
        assert_eq!(near_live.sent(), len + 1);
        drop((client, server));
    });
}

#[test]
fn ends_seen_before_a_move_hold_after_it() {
    for half in [0, 1, 2] {
        run(async move {
            let account = account();
            let (client, mut server) = pair(&Limits::default());
            let mut joined = settle(&client, &mut server, &account).await;
            send_pattern(&mut joined.near, 5, 0, 1000).await;
            expect_pattern(&mut joined.far, 5, 0, 1000).await;
            if half == 1 {
                joined.near.shutdown().await.unwrap();
                expect_end(&mut joined.far).await;
            }
            if half == 2 {
                joined.far.shutdown().await.unwrap();
                expect_end(&mut joined.near).await;
            }
            let (mut near, mut far) = (
                std::mem::replace(&mut joined.near, crate::support::sockets().await.0),
                std::mem::replace(&mut joined.far, crate::support::sockets().await.0),
            );
            let (one, other) = detach(joined, half != 1).await;
            assert_eq!(one.progress().near_ended, half == 1);
            assert_eq!(one.progress().far_ended, half == 2);
            // Sent while nobody listens: it waits in the socket.
            if half != 1 {
                send_pattern(&mut near, 5, 1000, 500).await;
            }
            if half != 2 {
                send_pattern(&mut far, 6, 0, 700).await;
            }
            let (client, mut server) = pair(&Limits::default());
            let splices = resume(&client, &mut server, one, other).await;
            if half != 1 {
                expect_pattern(&mut far, 5, 1000, 500).await;
                near.shutdown().await.unwrap();
                expect_end(&mut far).await;
            }
            if half != 2 {
                expect_pattern(&mut near, 6, 0, 700).await;
                far.shutdown().await.unwrap();
                expect_end(&mut near).await;
            }
            for splice in splices {
                assert!(matches!(splice.await.unwrap().end, End::Complete));
            }
        });
    }
}

#[test]
fn what_a_slow_application_has_not_taken_moves_along() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        let mut joined = settle(&client, &mut server, &account).await;
        // The far application does not read: its socket fills, then its end of the tunnel.
        let mut near = std::mem::replace(&mut joined.near, crate::support::sockets().await.0);
        let mut far = std::mem::replace(&mut joined.far, crate::support::sockets().await.0);
        let sender = tokio::task::spawn_local(async move {
            send_pattern(&mut near, 7, 0, 20_000_000).await;
            near.shutdown().await.unwrap();
            near
        });
        let watched = account.clone();
        crate::support::until("bytes wait for the slow application", || watched.buffered() > 500_000).await;
        let (one, other) = detach(joined, true).await;
        let residue = other.progress().received - other.progress().delivered;
        assert!(residue > 500_000 && account.buffered() == residue, "{residue}");
        let (client, mut server) = pair(&Limits::default());
        let _splices = resume(&client, &mut server, one, other).await;
        expect_pattern(&mut far, 7, 0, 20_000_000).await;
        expect_end(&mut far).await;
        drop(sender.await.unwrap());
    });
}

#[test]
fn both_ends_may_ask_at_once() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        let joined = settle(&client, &mut server, &account).await;
        joined.near_live.detach();
        joined.far_live.detach();
        let (near, far) = (joined.near_splice.await.unwrap(), joined.far_splice.await.unwrap());
        assert!(matches!((near.end, far.end), (End::Detached, End::Detached)));
        assert!(client.usable(), "the tunnel itself goes on");
        join(&client, &mut server, &account).await;
    });
}

#[test]
fn counts_that_differ_are_no_match() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        let (one, mut other) = {
            let joined = settle(&client, &mut server, &account).await;
            detach(joined, true).await
        };
        let headers = Headers::new();
        other.live().sent();
        let stranger = crate::support::application(&account).await.1;
        let (result, ()) = tokio::join!(client.resume("a:1", &headers, &one), async {
            let request = server.accept().await.unwrap();
            let resume = request.resume().unwrap();
            assert!(resume.matches(&other) && !resume.matches(&stranger));
            let mut wrong = resume;
            wrong.sent += 1;
            assert!(!wrong.matches(&other));
            request.refuse(409, &headers);
        });
        assert!(matches!(result.unwrap_err(), ConnectError::Refused { status: 409, .. }));
        other = other.into_plain().unwrap();
        drop((one, other));
        assert_eq!(account.connections(), 1);
    });
}

#[test]
fn an_end_that_does_not_answer_costs_only_that_connection() {
    run(async {
        // The far stream is not spliced: nobody there can detach.
        let limits = Limits { detach_timeout: std::time::Duration::from_millis(100), ..Limits::default() };
        let account = account();
        let (client, mut server) = pair(&limits);
        let _first = settle(&client, &mut server, &account).await;
        let (opened, _stream) =
            tokio::join!(async { client.connect("a:1", &Headers::new()).await.unwrap() }, async {
                server.accept().await.unwrap().accept(&Headers::new())
            });
        let (_app, connection) = crate::support::application_as(&account, opened.id).await;
        let live = connection.live().clone();
        let splice = tokio::task::spawn_local(opened.stream.splice(connection));
        live.detach();
        assert!(matches!(splice.await.unwrap().end, End::Undetachable));
        assert_eq!(limits.hits.of(hbone::limits::Limit::DetachTime), 1);
        assert!(client.usable());
    });
}

#[test]
fn a_full_tunnel_is_left_by_all_of_its_connections_and_ends_in_order() {
    run(async {
        let account = account();
        let limits = Limits { client_streams: 5, ..Limits::default() };
        let (client, mut server) = pair(&limits);
        let mut all = Vec::new();
        while client.capacity() > 0 {
            all.push(join(&client, &mut server, &account).await);
        }
        assert!(all.len() >= 4, "{}", all.len());
        // The GOAWAY first, as who hands over does: a client that sees its last connection gone closes at once.
        server.drain();
        for joined in &all {
            joined.far_live.detach();
        }
        let waiting = tokio::task::spawn_local(async move { server.accept().await.is_none() });
        for joined in all {
            let (near, far) = (joined.near_splice.await.unwrap(), joined.far_splice.await.unwrap());
            let ends = (&near.end, &far.end);
            assert!(matches!(ends, (End::Detached, End::Detached)), "{ends:?}");
        }
        assert!(waiting.await.unwrap(), "no further request");
    });
}

/// The far end takes it off its tunnel: ordered again as long as it is there, since the control stream comes a moment later.
async fn leaves_in_the_end(joined: Joined) {
    let mut far_splice = joined.far_splice;
    let far = loop {
        tokio::select! {
            far = &mut far_splice => break far.unwrap(),
            () = tokio::time::sleep(std::time::Duration::from_millis(10)) => joined.far_live.detach(),
        }
    };
    let near = joined.near_splice.await.unwrap();
    let ends = (&near.end, &far.end);
    assert!(matches!(ends, (End::Detached, End::Detached)), "{ends:?}");
}

#[test]
fn a_young_tunnel_is_not_told_to_end_before_its_connections_can_leave() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        // The first connection's answer and the wish to drain in one turn.
        let (joined, ()) = tokio::join!(join(&client, &mut server, &account), async {});
        server.drain();
        joined.far_live.detach();
        leaves_in_the_end(joined).await;
        assert!(!client.usable(), "the GOAWAY came in the end");
    });
}

#[test]
fn a_tunnel_that_nobody_has_used_yet_is_not_told_to_end_before_its_connections_can_leave() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        // As behind a pod that is leaving: its tunnels are to end from the beginning.
        server.drain();
        let joined = join(&client, &mut server, &account).await;
        leaves_in_the_end(joined).await;
        assert!(!client.usable(), "the GOAWAY came in the end");
    });
}

#[test]
fn a_detach_that_comes_before_the_splice_is_not_forgotten() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        let _first = settle(&client, &mut server, &account).await;
        let (opened, (mut far_app, far_splice, far_live)) =
            tokio::join!(async { client.connect("a:1", &Headers::new()).await.unwrap() }, async {
                let request = server.accept().await.unwrap();
                let id = request.connection().unwrap();
                let (app, connection) = crate::support::application_as(&account, id).await;
                let live = connection.live().clone();
                (app, tokio::task::spawn_local(request.accept(&Headers::new()).splice(connection)), live)
            });
        send_pattern(&mut far_app, 8, 0, 1000).await;
        crate::support::until("it has been sent", || far_live.sent() == 1000).await;
        far_live.detach();
        // What it sent and its wish to leave are here before the near end does anything with the stream.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let (mut near_app, connection) = crate::support::application_as(&account, opened.id).await;
        let near_splice = tokio::task::spawn_local(opened.stream.splice(connection));
        let (near, far) = (near_splice.await.unwrap(), far_splice.await.unwrap());
        assert!(
            matches!((&near.end, &far.end), (End::Detached, End::Detached)),
            "{:?} {:?}",
            near.end,
            far.end
        );
        assert_eq!(near.connection.progress().received, 1000);
        let (client, mut server) = pair(&Limits::default());
        let _splices = resume(&client, &mut server, near.connection, far.connection).await;
        expect_pattern(&mut near_app, 8, 0, 1000).await;
        drop(far_app);
    });
}

#[test]
fn what_is_turned_away_may_be_asked_elsewhere() {
    run(async {
        let (client, mut server) = pair(&Limits::default());
        let headers = Headers::new();
        let (refused, ()) = tokio::join!(client.connect("a:1", &headers), async {
            server.accept().await.unwrap().turn_away();
        });
        assert!(matches!(refused.unwrap_err(), ConnectError::TunnelGone { unseen: true, .. }));
    });
}

/// The answer to a detach has to wait where other connections have used up the tunnel's window; it comes when that opens.
#[test]
fn a_detach_is_answered_when_the_window_opens_again() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        let mut slow = Vec::new();
        for number in 0..8 {
            let mut joined = settle(&client, &mut server, &account).await;
            let near = std::mem::replace(&mut joined.near, crate::support::sockets().await.0);
            slow.push((joined, near, number));
        }
        let leaving = settle(&client, &mut server, &account).await;
        // Nobody reads at the far ends: what is sent there fills the whole tunnel's window, not only its streams'.
        let mut floods = Vec::new();
        for (_, near, number) in &mut slow {
            let mut near = std::mem::replace(near, crate::support::sockets().await.0);
            let number = *number;
            floods.push(tokio::task::spawn_local(async move {
                send_pattern(&mut near, 20 + number, 0, 20_000_000).await;
            }));
        }
        let watched = account.clone();
        crate::support::until("the window is used up", || watched.buffered() > 7_000_000).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        leaving.far_live.detach();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        // One of them begins to read.
        let mut read = Vec::new();
        for (joined, _, number) in slow {
            let mut far = joined.far;
            read.push(tokio::task::spawn_local(async move {
                let seed = 20 + number;
                expect_pattern(&mut far, seed, 0, 20_000_000).await;
                drop((joined.near_splice, joined.far_splice));
            }));
        }
        let (near, far) = (leaving.near_splice.await.unwrap(), leaving.far_splice.await.unwrap());
        assert!(
            matches!((&near.end, &far.end), (End::Detached, End::Detached)),
            "{:?} {:?}",
            near.end,
            far.end
        );
        for task in floods.into_iter().chain(read) {
            task.await.unwrap();
        }
    });
}

/// Who leaves a tunnel altogether leaves it with what is just being opened too, though there is no control stream yet and
/// nobody asks a second time.
#[test]
fn all_leave_also_what_is_being_opened() {
    for by_client in [true, false] {
        run(async move {
            let account = account();
            let (client, mut server) = pair(&Limits::default());
            let headers = Headers::new();
            let (opened, request) =
                tokio::join!(async { client.connect("a:1", &headers).await.unwrap() }, async {
                    let request = server.accept().await.unwrap();
                    if by_client {
                        client.drain();
                        client.detach_all();
                    } else {
                        server.drain();
                        server.detach_all();
                    }
                    let id = request.connection().unwrap();
                    (id, request.accept(&headers))
                });
            let (id, stream) = request;
            let (_far, connection) = crate::support::application_as(&account, id).await;
            let far_splice = tokio::task::spawn_local(stream.splice(connection));
            let (_near, connection) = crate::support::application_as(&account, opened.id).await;
            let near_splice = tokio::task::spawn_local(opened.stream.splice(connection));
            let both = async { (near_splice.await.unwrap().end, far_splice.await.unwrap().end) };
            let ends =
                tokio::time::timeout(std::time::Duration::from_secs(20), both).await.expect("they leave");
            assert!(matches!(ends, (End::Detached, End::Detached)), "by client: {by_client}, {ends:?}");
        });
    }
}

/// The wish that all leave is kept while there is no room for it in the tunnel's window.
#[test]
fn all_leave_when_the_window_opens_again() {
    run(async {
        let account = account();
        let (client, mut server) = pair(&Limits::default());
        let mut joined = Vec::new();
        for _ in 0..9 {
            joined.push(settle(&client, &mut server, &account).await);
        }
        // All but one send, and nobody reads at the far ends.
        let (mut ends, mut busy, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        for (number, joined) in (0..).zip(joined) {
            let Joined { mut near, far, near_splice, far_splice, .. } = joined;
            ends.push((near_splice, far_splice));
            readers.push(far);
            busy.push(tokio::task::spawn_local(async move {
                if number > 0 {
                    send_pattern(&mut near, number, 0, 20_000_000).await;
                }
                std::future::pending::<()>().await;
            }));
        }
        let watched = account.clone();
        crate::support::until("the window is used up", || watched.buffered() > 7_000_000).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        client.detach_all();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(ends.iter().all(|(near, far)| !near.is_finished() && !far.is_finished()));
        // Now they begin to read.
        for mut far in readers {
            busy.push(tokio::task::spawn_local(async move {
                let mut buffer = vec![0; 64 << 10];
                while tokio::io::AsyncReadExt::read(&mut far, &mut buffer).await.is_ok_and(|read| read > 0) {}
            }));
        }
        let all = async {
            for (near, far) in ends {
                let ends = (near.await.unwrap().end, far.await.unwrap().end);
                assert!(matches!(ends, (End::Detached, End::Detached)), "{ends:?}");
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("they leave");
        for task in busy {
            task.abort();
        }
    });
}
