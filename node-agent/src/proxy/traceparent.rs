//! The `traceparent` header of a tunnelled connection (W3C Trace Context, version 00): it names the connection,
//! not the application's trace, and is never sampled.

use hbone::connection::ConnectionId;

/// A fresh header.
pub(crate) fn fresh() -> String {
    let id = ConnectionId::random().to_string();
    let span = ConnectionId::random().to_string();
    format!("00-{id}-{}-00", &span[..16])
}

#[cfg(test)]
mod tests {
    #[test]
    fn has_the_length_that_peers_insist_on() {
        assert_eq!(super::fresh().len(), 55);
    }
}
