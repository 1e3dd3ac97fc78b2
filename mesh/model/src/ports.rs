//! The ports that the data path reserves in a pod's namespace; the numbers are Istio ambient's.

/// HBONE: mTLS and HTTP/2 CONNECT.
pub const HBONE: u16 = 15008;
/// Plaintext that was redirected on its way in.
pub const INBOUND_PLAINTEXT: u16 = 15006;
/// Connections that were redirected on their way out.
pub const OUTBOUND: u16 = 15001;
/// DNS.
pub const DNS: u16 = 15053;

/// Whether a port belongs to the proxy itself, so that delivering to it would call the proxy in a circle.
pub fn is_own(port: u16) -> bool {
    matches!(port, HBONE | INBOUND_PLAINTEXT | OUTBOUND)
}
