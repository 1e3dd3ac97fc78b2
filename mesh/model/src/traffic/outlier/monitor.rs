//! What became of an endpoint's requests, counted until a threshold is reached.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::EjectionCause;
use crate::traffic::OutlierDetection;

/// What became of a request, or of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint answered with this status. Of gRPC see [`Outcome::of_grpc`].
    Response(u16),
    /// A connection for HTTP stands; nothing has been answered on it yet.
    Connected,
    /// A connection for opaque TCP stands: this is all that can be said of it.
    TcpConnected,
    /// It could not be connected to, or broke off before it answered.
    Failed,
    /// It could not be connected to, or did not answer, in time.
    TimedOut,
}

impl Outcome {
    /// An answer over gRPC: what HTTP would have said in place of `grpc-status` (gRPC's own table of equivalents, which
    /// Envoy uses here). A status that does not exist is an error.
    pub fn of_grpc(status: u32) -> Self {
        Self::Response(match status {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        })
    }
}

/// Counts of errors in a row of one endpoint, and whether it is ejected. Every thread may feed it.
#[derive(Debug, Default)]
pub struct Monitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local_origin: AtomicU32,
    times_ejected: AtomicU32,
    ejected: AtomicBool,
}

/// What an outcome counts as.
enum Counted {
    /// An error: whether a gateway's (502, 503, 504).
    Error {
        gateway: bool,
    },
    Success,
    LocalFailure,
    LocalSuccess,
    Nothing,
}

impl Monitor {
    /// Counts an outcome, and says which threshold is reached by it. Counting begins anew then, so that the endpoint is
    /// named again if it goes on failing without having been ejected.
    ///
    /// If both are, the gateway errors are named.
    pub fn record(&self, outcome: Outcome, settings: &OutlierDetection) -> Option<EjectionCause> {
        match counted(outcome, settings) {
            Counted::Error { gateway } => self.error(gateway, settings),
            Counted::Success => {
                clear(&self.consecutive_5xx);
                clear(&self.consecutive_gateway);
                None
            }
            Counted::LocalFailure => {
                let threshold = match settings.consecutive_local_origin {
                    0 => OutlierDetection::default().consecutive_local_origin,
                    threshold => threshold,
                };
                let reached = reached(&self.consecutive_local_origin, threshold);
                reached.then_some(EjectionCause::ConsecutiveLocalOrigin)
            }
            Counted::LocalSuccess => {
                clear(&self.consecutive_local_origin);
                None
            }
            Counted::Nothing => None,
        }
    }

    fn error(&self, gateway: bool, settings: &OutlierDetection) -> Option<EjectionCause> {
        let by_gateway = if gateway {
            reached(&self.consecutive_gateway, settings.consecutive_gateway)
        } else {
            clear(&self.consecutive_gateway);
            false
        };
        let by_5xx = reached(&self.consecutive_5xx, settings.consecutive_5xx);
        if by_gateway {
            return Some(EjectionCause::ConsecutiveGateway);
        }
        by_5xx.then_some(EjectionCause::Consecutive5xx)
    }

    /// Whether the endpoint is left out.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// How often it has been ejected.
    pub fn times_ejected(&self) -> u32 {
        self.times_ejected.load(Relaxed)
    }

    /// Notes an ejection, and says how many there have been.
    pub(in crate::traffic) fn eject(&self) -> u32 {
        self.ejected.store(true, Relaxed);
        self.times_ejected.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// Notes the return. All counts begin anew, or a single further error could eject it again.
    pub(super) fn give_back(&self) {
        clear(&self.consecutive_5xx);
        clear(&self.consecutive_gateway);
        clear(&self.consecutive_local_origin);
        self.ejected.store(false, Relaxed);
    }
}

/// Without a split, failures to reach the endpoint count as the status that the client is told of them; with it they are
/// counted for themselves, and a status says nothing of whether the endpoint is reached.
fn counted(outcome: Outcome, settings: &OutlierDetection) -> Counted {
    match (outcome, settings.split_local_origin) {
        (Outcome::Response(status), _) => response(status, settings),
        (Outcome::Failed | Outcome::TimedOut, false) => Counted::Error { gateway: true },
        (Outcome::Failed | Outcome::TimedOut, true) => Counted::LocalFailure,
        (Outcome::TcpConnected, false) => Counted::Success,
        // What is answered on the connection will be counted.
        (Outcome::Connected, false) => Counted::Nothing,
        (Outcome::Connected | Outcome::TcpConnected, true) => Counted::LocalSuccess,
    }
}

fn response(status: u16, settings: &OutlierDetection) -> Counted {
    let codes = &settings.http_error_codes;
    let error = if codes.is_empty() { (500..600).contains(&status) } else { codes.contains(&status) };
    if error { Counted::Error { gateway: (502..=504).contains(&status) } } else { Counted::Success }
}

/// Counts one more, and says whether that makes the threshold, which is never made if it is zero.
fn reached(count: &AtomicU32, threshold: u32) -> bool {
    let counted = count.fetch_add(1, Relaxed).wrapping_add(1);
    // Not less: the threshold may have been lowered to below what is counted.
    let reached = threshold > 0 && counted >= threshold;
    if reached {
        clear(count);
    }
    reached
}

/// Most requests succeed, and on most endpoints nothing is to be cleared: reading only leaves the line shared between
/// threads.
fn clear(count: &AtomicU32) {
    if count.load(Relaxed) != 0 {
        count.store(0, Relaxed);
    }
}
