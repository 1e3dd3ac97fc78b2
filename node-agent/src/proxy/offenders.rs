//! Peers whose tunnels to a pod had to be ended because they went beyond a limit, again and again. Each comes back with a
//! handshake, which costs us more than it costs them: so they are kept out for a while, twice as long each time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Tunnels that are forgiven: one that is ended may well be an accident, of which there are a few at once when a peer has
/// several tunnels.
const FREE: u32 = 3;
/// How long a peer is kept out at first.
const FIRST: Duration = Duration::from_secs(1);
/// … and at most.
const LONGEST: Duration = Duration::from_secs(30);
/// After so long without another one all is forgiven.
const FORGIVEN: Duration = Duration::from_secs(60);
/// Peers that are remembered. Each of them has shown who it is before it could do what counts here.
const REMEMBERED: usize = 1024;

/// What is remembered of the peers of one pod, by address: who they are is only known after the handshake that is to be
/// saved.
#[derive(Debug, Default)]
pub(super) struct Offenders {
    of: HashMap<IpAddr, Offence>,
}

#[derive(Debug, Clone, Copy)]
struct Offence {
    times: u32,
    last: Instant,
}

impl Offence {
    /// How long after the last one the peer is kept out.
    fn kept_out(self) -> Duration {
        match self.times.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
        }
    }
}

impl Offenders {
    /// A tunnel of this peer was ended.
    pub(super) fn note(&mut self, peer: IpAddr, now: Instant) {
        if self.of.len() >= REMEMBERED && !self.of.contains_key(&peer) {
            self.forget_one(now);
        }
        let offence = self.of.entry(peer).or_insert(Offence { times: 0, last: now });
        if now.saturating_duration_since(offence.last) >= FORGIVEN {
            offence.times = 0;
        }
        offence.times = offence.times.saturating_add(1);
        offence.last = now;
    }

    /// Whether this peer may not open a tunnel now.
    pub(super) fn keeps_out(&self, peer: IpAddr, now: Instant) -> bool {
        let since = |offence: &Offence| now.saturating_duration_since(offence.last);
        self.of.get(&peer).is_some_and(|offence| since(offence) < offence.kept_out())
    }

    /// Makes room: all that are forgiven, or else the one whose last is longest ago.
    fn forget_one(&mut self, now: Instant) {
        self.of.retain(|_, offence| now.saturating_duration_since(offence.last) < FORGIVEN);
        if self.of.len() >= REMEMBERED
            && let Some(oldest) =
                self.of.iter().min_by_key(|(_, offence)| offence.last).map(|(peer, _)| *peer)
        {
            self.of.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_time_is_twice_as_long_after_a_few_that_are_free() {
        let mut offenders = Offenders::default();
        let mut now = Instant::now();
        for (times, kept_out) in [0, 0, 0, 1, 2, 4, 8, 16, 30, 30].into_iter().map(seconds).enumerate() {
            offenders.note(peer(1), now);
            assert_eq!(offenders.keeps_out(peer(1), now), !kept_out.is_zero(), "{times}");
            assert!(!offenders.keeps_out(peer(2), now));
            now += kept_out;
            assert!(!offenders.keeps_out(peer(1), now), "{times}");
        }
        // Long after the last one it is as if nothing had been.
        now += FORGIVEN;
        offenders.note(peer(1), now);
        assert!(!offenders.keeps_out(peer(1), now));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut offenders = Offenders::default();
        let now = Instant::now();
        for number in 0..2 * u32::try_from(REMEMBERED).unwrap() {
            for _ in 0..=FREE {
                offenders.note(peer(number), now + Duration::from_millis(number.into()));
            }
        }
        let end = now + seconds(2);
        assert_eq!(offenders.of.len(), REMEMBERED);
        assert!(offenders.keeps_out(peer(2047), end) && !offenders.of.contains_key(&peer(0)));
        // Whoever is forgiven makes room for all that come.
        offenders.note(peer(9999), now + seconds(70));
        assert_eq!(offenders.of.len(), 1);
    }
}
