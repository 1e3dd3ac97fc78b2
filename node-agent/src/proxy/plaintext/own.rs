//! Whether a pod is where a captured connection was going. The rules catch whatever comes into a pod's namespace, and what is
//! opened to an application reaches it at any address: what the kernel would have passed on or dropped would get in.

use std::io::{self, Read};
use std::net::IpAddr;

use socket2::{Domain, Socket, Type};

use crate::netns::in_namespace;
use crate::proxy::pod::Pod;

/// Whether an address is one of the pod's own: an interface's, or one that a route of the pod's makes its own, as those of a
/// load balancer may be that leaves them in the packets. What is the pod's own and nobody else's (`127.0.0.0/8`) is none:
/// the kernel accepts it from nobody outside.
///
/// # Errors
/// The kernel could not be asked.
pub(super) fn is_own(pod: &Pod, ip: IpAddr) -> io::Result<bool> {
    Ok(!ip.is_loopback() && in_namespace(&pod.netns, || is_local(ip))??)
}

/// Whether the namespace that this thread is in delivers to itself what is sent to `ip`.
fn is_local(ip: IpAddr) -> io::Result<bool> {
    const ROUTE: usize = 16 + 12;
    let (family, address) = match ip {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let length = ROUTE + 4 + address.len();
    let mut message = Vec::with_capacity(length);
    message.extend_from_slice(&(length as u32).to_ne_bytes());
    message.extend_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    message.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and port.
    message.extend_from_slice(&[0; 8]);
    // Of the route only what is asked for: to one address.
    message.extend_from_slice(&[family as u8, address.len() as u8 * 8]);
    message.resize(ROUTE, 0);
    message.extend_from_slice(&(4 + address.len() as u16).to_ne_bytes());
    message.extend_from_slice(&libc::RTA_DST.to_ne_bytes());
    message.extend_from_slice(&address);

    let kind = Type::RAW.cloexec();
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(libc::NETLINK_ROUTE.into()))?;
    // The kernel has answered when the call returns.
    socket.set_nonblocking(true)?;
    socket.send(&message)?;
    let mut answer = [0; 512];
    let answered = (&socket).read(&mut answer)?;
    let answer = &answer[..answered];
    let is_route = answer.get(4..6) == Some(&libc::RTM_NEWROUTE.to_ne_bytes());
    // Anything else says that there is no route there.
    Ok(is_route && answer.get(16 + 7) == Some(&libc::RTN_LOCAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_its_own_addresses() {
        for (ip, local) in
            [("127.0.0.1", true), ("127.3.4.5", true), ("192.0.2.1", false), ("2001:db8::1", false)]
        {
            assert_eq!(is_local(ip.parse().unwrap()).unwrap(), local, "{ip}");
        }
    }
}
