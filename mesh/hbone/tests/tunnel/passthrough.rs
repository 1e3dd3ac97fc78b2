//! Plain TCP to plain TCP, small and in bulk, with half-closes and cuts.

use std::io::ErrorKind;
use std::sync::Arc;

use hbone::account::{Account, AccountLimits, Full, Ledger};
use hbone::connection::Connection;
use hbone::passthrough;
use hbone::splice::End;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{account, application, expect_end, expect_pattern, run, send_pattern, sockets, until};

/// An account that is alone in a ledger over so many descriptors.
fn account_of(descriptors: u64) -> Arc<Account> {
    Account::listed(AccountLimits::default(), &Ledger::new(descriptors, u64::MAX, Arc::default()))
}

/// What waits in a pipe has its two descriptors on the pod's account; where there are none for it, bulk is copied.
#[test]
fn pipes_are_on_the_account_and_nobody_needs_them() {
    for (descriptors, held) in [(1000, 4), (3, 2)] {
        run(async move {
            let account = account_of(descriptors);
            let (mut near, connection) = application(&account).await;
            let live = connection.live().clone();
            let (mesh, mut far) = sockets().await;
            let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
            let len = 30_000_000;
            let sender = tokio::task::spawn_local(async move {
                send_pattern(&mut near, 1, 0, len).await;
                near
            });
            // Until the far end's socket is full, which does not read.
            let mut sent = 0;
            until("nothing moves any more", || {
                live.sent() > 0 && std::mem::replace(&mut sent, live.sent()) == sent
            })
            .await;
            until("it has settled", || account.descriptors() == held).await;
            expect_pattern(&mut far, 1, 0, len).await;
            drop((sender.await.unwrap(), far));
            assert!(matches!(splice.await.unwrap().finished.end, End::Complete));
            assert_eq!((account.descriptors(), account.refused()), (0, 0));
        });
    }
}

/// In a process of its own, as its table of open files gets full.
#[test]
fn bulk_passes_while_the_process_has_no_descriptor_left() {
    const CHILD: &str = "LATEEN_TEST_FULL_TABLE";
    if std::env::var_os(CHILD).is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "passthrough::bulk_passes_while_the_process_has_no_descriptor_left";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 64; exec \"$0\" --exact \"$1\""]).arg(own).arg(name).env(CHILD, "1");
        let child = command.output().unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{child:?}");
        return;
    }
    run(async {
        let (mut near, connection) = application(&account()).await;
        let (mesh, mut far) = sockets().await;
        let mut all = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            all.push(file);
        }
        let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
        let sender = tokio::task::spawn_local(async move { send_pattern(&mut near, 1, 0, 5_000_000).await });
        expect_pattern(&mut far, 1, 0, 5_000_000).await;
        sender.await.unwrap();
        drop(far);
        assert!(matches!(splice.await.unwrap().finished.end, End::Complete));
    });
}

/// A new pair may be one too many, and both sides are told of it; one that has lived is never.
#[test]
fn only_a_new_pair_is_refused_a_descriptor() {
    run(async {
        let (mut near, connection) = application(&account_of(2)).await;
        let (mesh, mut far) = sockets().await;
        let refused = passthrough::splice(connection, mesh).await.finished;
        assert!(matches!(refused.end, End::Account(Full::ShareOfDescriptors(1))), "{:?}", refused.end);
        refused.close();
        for side in [&mut near, &mut far] {
            assert_eq!(side.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }

        // Handed over to a process that has none to spare, and then taken off and joined again.
        let (mut near, connection) = application(&account()).await;
        let (mut mesh, mut far) = sockets().await;
        let tight = account_of(2);
        let mut connection = Connection::from_parts(connection.into_parts().unwrap(), &tight);
        for round in 0..2 {
            let live = connection.live().clone();
            let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
            send_pattern(&mut near, 1, round * 10, 10).await;
            expect_pattern(&mut far, 1, round * 10, 10).await;
            assert_eq!(tight.descriptors(), 2);
            live.detach();
            let parted = splice.await.unwrap();
            assert!(matches!(parted.finished.end, End::Detached), "{:?}", parted.finished.end);
            (connection, mesh) = (parted.finished.connection, parted.far);
        }
        drop((connection, mesh));
        // One that was new when it got its second socket keeps its right to it.
        let others = Ledger::new(8, u64::MAX, Arc::default());
        let tight = Account::listed(AccountLimits::default(), &others);
        let (mut near, connection) = application(&tight).await;
        let (mesh, mut far) = sockets().await;
        let live = connection.live().clone();
        let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
        send_pattern(&mut near, 1, 0, 10).await;
        expect_pattern(&mut far, 1, 0, 10).await;
        live.detach();
        let parted = splice.await.unwrap();
        let another = Account::listed(AccountLimits::default(), &others);
        let taken: Vec<_> = std::iter::from_fn(|| another.descriptors_for(1).ok()).collect();
        let splice = tokio::task::spawn_local(passthrough::splice(parted.finished.connection, parted.far));
        send_pattern(&mut near, 1, 10, 10).await;
        expect_pattern(&mut far, 1, 10, 10).await;
        drop((near, far));
        assert!(matches!(splice.await.unwrap().finished.end, End::Complete), "beside {}", taken.len());
    });
}

#[test]
fn small_and_bulk_pass_both_ways() {
    run(async {
        let account = account();
        let (near, mut connection) = application(&account).await;
        connection
            .push_unsent(&(0..100).map(|at| crate::support::pattern(1, at)).collect::<Vec<_>>())
            .unwrap();
        let live = connection.live().clone();
        let (mesh, far) = sockets().await;
        let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
        let (mut near_read, mut near_write) = near.into_split();
        let (mut far_read, mut far_write) = far.into_split();
        for at in 0..100 {
            send_pattern(&mut near_write, 1, 100 + at * 10, 10).await;
            expect_pattern(&mut far_read, 1, at * 10, 10).await;
        }
        let len = 30_000_000;
        let out = tokio::task::spawn_local(async move {
            send_pattern(&mut near_write, 1, 1100, len).await;
            near_write.shutdown().await.unwrap();
            near_write
        });
        let back = tokio::task::spawn_local(async move {
            expect_pattern(&mut far_read, 1, 1000, len + 100).await;
            expect_end(&mut far_read).await;
        });
        let reply = tokio::task::spawn_local(async move {
            send_pattern(&mut far_write, 2, 0, len).await;
            far_write.shutdown().await.unwrap();
        });
        expect_pattern(&mut near_read, 2, 0, len).await;
        expect_end(&mut near_read).await;
        for task in [back, reply] {
            task.await.unwrap();
        }
        drop(out.await.unwrap());
        let finished = splice.await.unwrap().finished;
        assert!(matches!(finished.end, End::Complete));
        assert_eq!((live.sent(), live.received()), (len + 1100, len));
        drop(finished);
        assert_eq!(account.connections(), 0);
    });
}

#[test]
fn a_half_closed_connection_goes_on() {
    run(async {
        let (mut near, connection) = application(&account()).await;
        let (mesh, mut far) = sockets().await;
        let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
        near.shutdown().await.unwrap();
        expect_end(&mut far).await;
        send_pattern(&mut far, 3, 0, 100_000).await;
        expect_pattern(&mut near, 3, 0, 100_000).await;
        assert!(!splice.is_finished());
        drop(far);
        expect_end(&mut near).await;
        assert!(matches!(splice.await.unwrap().finished.end, End::Complete));
    });
}

#[test]
fn a_cut_and_a_broken_side_are_resets() {
    run(async {
        let (mut near, connection) = application(&account()).await;
        let (mesh, mut far) = sockets().await;
        let live = connection.live().clone();
        let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
        send_pattern(&mut near, 1, 0, 10).await;
        expect_pattern(&mut far, 1, 0, 10).await;
        live.cut("policy");
        let finished = splice.await.unwrap().finished;
        assert!(matches!(&finished.end, End::Cut(cause) if cause == "policy"));
        assert_eq!(far.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let (near, connection) = application(&account()).await;
        let (mesh, mut far) = sockets().await;
        let splice = tokio::task::spawn_local(passthrough::splice(connection, mesh));
        let _: () = socket2::SockRef::from(&near).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(near);
        assert!(matches!(splice.await.unwrap().finished.end, End::Application(_)));
        assert_eq!(far.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_busy_pair_goes_through_other_hands_and_loses_nothing() {
    run(async {
        let account = account();
        let (near, connection) = application(&account).await;
        let (mesh, far) = sockets().await;
        let (mut splice, mut live) = {
            let live = connection.live().clone();
            (tokio::task::spawn_local(passthrough::splice(connection, mesh)), live)
        };
        let len = 30_000_000;
        let mut ends = Vec::new();
        for (socket, out, back) in [(near, 1, 2), (far, 2, 1)] {
            let (mut read, mut write) = socket.into_split();
            ends.push(tokio::task::spawn_local(async move {
                send_pattern(&mut write, out, 0, len).await;
                write.shutdown().await.unwrap();
                drop(write);
            }));
            ends.push(tokio::task::spawn_local(async move {
                expect_pattern(&mut read, back, 0, len).await;
                expect_end(&mut read).await;
            }));
        }
        let mut moves: u32 = 0;
        let finished = loop {
            for _ in 0..moves % 9 {
                tokio::task::yield_now().await;
            }
            live.detach();
            let parted = splice.await.unwrap();
            if !matches!(parted.finished.end, End::Detached) {
                break parted.finished;
            }
            moves += 1;
            // As to another process: in parts, and charged to an account anew.
            let parts = parted.finished.connection.into_parts().unwrap();
            let far = parted.far.into_std().unwrap();
            assert_eq!((account.connections(), account.buffered()), (0, 0));
            let connection = Connection::from_parts(parts, &account);
            live = connection.live().clone();
            let far = tokio::net::TcpStream::from_std(far).unwrap();
            splice = tokio::task::spawn_local(passthrough::splice(connection, far));
        };
        assert!(matches!(finished.end, End::Complete), "{:?}", finished.end);
        assert!(moves >= 4, "only {moves} moves before all was sent");
        for end in ends {
            end.await.unwrap();
        }
        assert_eq!((live.sent(), live.received()), (len, len));
        drop(finished);
        assert_eq!((account.connections(), account.buffered()), (0, 0));
    });
}
