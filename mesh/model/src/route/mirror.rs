//! Copies of requests (`mirror`, `mirrors`): who gets one. Nobody waits for the answer to a copy.

use super::Fraction;
use super::action::Destination;
use super::redirect::split_port;
use crate::select::Draw;

/// A destination that gets copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Of how many requests; all of them if the API's field is missing.
    pub share: Fraction,
}

/// Draws who gets a copy of one request, each mirror by itself.
pub fn mirrors<'a>(all: &'a [Mirror], draw: Draw<'_>) -> Vec<&'a Destination> {
    all.iter().filter(|mirror| mirror.share.drawn(draw)).map(|mirror| &mirror.destination).collect()
}

/// The authority of a copy: with `-shadow` behind the host, as Envoy marks them.
pub fn shadow_authority(authority: &str) -> String {
    match split_port(authority) {
        Some((host, port)) => format!("{host}-shadow:{port}"),
        None => format!("{authority}-shadow"),
    }
}

#[cfg(test)]
mod tests;
