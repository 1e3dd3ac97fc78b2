//! Questions that are not the mesh's go on as they came, from the pod's own namespace, to the node's name servers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use proxy::tunnel::Dialled;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::Over;
use crate::netns::in_namespace;
use crate::proxy::dial;
use crate::proxy::pod::Pod;
use crate::socket::marked_udp;

/// How long one name server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Name servers that are tried; the resolver's own limit is three too.
const MAX_SERVERS: usize = 3;
/// The largest datagram that is taken.
const MAX_DATAGRAM: usize = 4096;

/// The name servers that questions go on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstreams(Vec<SocketAddr>);

impl Upstreams {
    /// Those given, else those of a resolv.conf.
    ///
    /// # Errors
    /// An address cannot be read; the text names it.
    pub(crate) fn new(given: &[String], resolv_conf: &Path) -> Result<Self, String> {
        if given.is_empty() {
            let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
            return Ok(Self(name_servers(&text)));
        }
        let parsed = given.iter().map(|text| {
            let address = text.parse::<SocketAddr>().ok();
            let address = address.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)));
            address.ok_or_else(|| format!("{text:?} is not the address of a name server: give IP or IP:PORT"))
        });
        Ok(Self(parsed.take(MAX_SERVERS).collect::<Result<_, _>>()?))
    }
}

fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let parsed = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok());
    parsed.take(MAX_SERVERS).map(|ip| SocketAddr::new(ip, 53)).collect()
}

/// Asks the name servers in turn and returns the first reply, as it came. Of each it is told how long it took and
/// whether it answered.
pub(super) async fn forward(
    upstreams: &Upstreams,
    pod: &Pod,
    query: &[u8],
    over: Over,
    told: impl Fn(Duration, bool),
) -> io::Result<Vec<u8>> {
    let mut last = io::Error::other("there is no name server to ask; see DNS_UPSTREAMS");
    for server in &upstreams.0 {
        let started = Instant::now();
        let asking = async {
            match over {
                Over::Udp => over_udp(pod, *server, query).await,
                Over::Tcp => over_tcp(pod, *server, query).await,
            }
        };
        match timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(reply) => {
                told(started.elapsed(), true);
                return Ok(reply);
            }
            Err(error) => {
                told(started.elapsed(), false);
                last = error;
            }
        }
    }
    Err(last)
}

async fn over_udp(pod: &Pod, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let _descriptor = pod.account.descriptors_for(1).map_err(io::Error::other)?;
    let socket = in_namespace(&pod.netns, || marked_udp(server.ip()))??;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut reply).await?;
        // Somebody else's answer is not ours: the id, the first two bytes, tells.
        if length >= 12 && reply[..2] == query[..2] {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn over_tcp(pod: &Pod, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let Dialled { socket: mut stream, descriptor: _descriptor } =
        dial::plain(pod, server).await.map_err(io::Error::other)?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf() {
        let text = "# a comment\nsearch x\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:5\n";
        assert_eq!(name_servers(text), ["10.0.0.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
        let given = ["10.0.0.1".to_owned(), "10.0.0.2:5353".to_owned()];
        let upstreams = Upstreams::new(&given, Path::new("/nonexistent")).unwrap();
        assert_eq!(upstreams.0, ["10.0.0.1:53".parse().unwrap(), "10.0.0.2:5353".parse().unwrap()]);
        assert!(Upstreams::new(&["dns.example".to_owned()], Path::new("/nonexistent")).is_err());
    }
}
