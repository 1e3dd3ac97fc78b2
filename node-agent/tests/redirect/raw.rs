//! Packets that no operating system sends by itself.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Option 19, a signature (RFC 2385): a receiver without the key drops the packet without a word, so that no reset
/// puts an end to what tracking believes.
const SIGNED: [u8; 20] = [19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 1];

/// Sends a TCP packet with nothing but ACK set, once it has been seen to leave.
pub(crate) fn send_ack(from: SocketAddr, to: SocketAddr) {
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::new(from.ip(), 0).into()).unwrap();
    let sent = socket.send_to(&segment(from, to), &SocketAddr::new(to.ip(), 0).into()).unwrap();
    assert_eq!(sent, 40);
}

fn segment(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend([0, 0, 3, 232, 0, 0, 3, 232]);
    // Ten words long, ACK, the window; no checksum yet, no urgent data.
    segment.extend([10 << 4, 0x10, 0xfd, 0xe8, 0, 0, 0, 0]);
    segment.extend(SIGNED);
    let sum = checksum(&[octets(from.ip()), octets(to.ip()), vec![0, 6, 0, 40], segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The ones' complement of the ones' complement sum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// Connects from a port of the caller's choice.
pub(crate) fn connect_from(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), patience)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}
