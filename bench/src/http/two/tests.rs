//! Both ends against each other, and against h2.

use bytes::Bytes;
use tokio::io::duplex;
use tokio::task::LocalSet;

use super::super::exchange::{Answer, Wanted, message};
use super::*;

fn wanted() -> Wanted {
    // Longer than a length of seven bits.
    Wanted { host: "h".repeat(300), path: String::from("/path") }
}

fn replies(size: usize) -> Replies {
    Replies { body: Bytes::from(vec![b'x'; size]), message: message(size) }
}

fn whole(length: usize) -> Answer {
    Answer { status: 200, version: None, length }
}

#[tokio::test]
async fn many_requests_are_answered_whole_within_the_windows() {
    let test = async {
        let (near, far) = duplex(16 << 10);
        tokio::task::spawn_local(Replier::serve(far, replies(1024)));
        let asker = Asker::over(near);
        for round in 0..50 {
            let asked = (0..8).map(|number| {
                let asker = asker.clone();
                tokio::task::spawn_local(async move {
                    let message = (number % 2 == 0).then(|| message(128));
                    (message.is_some(), asker.ask(&wanted(), message.as_ref()).await)
                })
            });
            for answer in asked.collect::<Vec<_>>() {
                let (call, answer) = answer.await.unwrap();
                assert_eq!(answer, Ok(whole(if call { 1029 } else { 1024 })), "round {round}");
            }
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn an_end_with_little_room_is_sent_no_more_than_it_has_room_for() {
    let test = async {
        let (near, far) = duplex(1 << 20);
        // Its windows are of 65,535 bytes: it answers with an error to who goes beyond.
        let (sender, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        tokio::task::spawn_local(Replier::serve(far, replies(30_000)));
        let mut sender = sender.ready().await.unwrap();
        let asked: Vec<_> = (0..8)
            .map(|_| sender.send_request(http::Request::get("http://h/").body(()).unwrap(), true).unwrap().0)
            .collect();
        for answer in asked {
            let mut body = answer.await.unwrap().into_body();
            let mut length = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                length += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            assert_eq!(length, 30_000);
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn who_asks_hears_that_the_connection_is_over() {
    let test = async {
        let (near, far) = duplex(1 << 10);
        let asker = Asker::over(near);
        drop(far);
        let wanted = wanted();
        assert!(asker.ask(&wanted, None).await.is_err());
        assert!(asker.ask(&wanted, None).await.is_err());
    };
    LocalSet::new().run_until(test).await;
}
