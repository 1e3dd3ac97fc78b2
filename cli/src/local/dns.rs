//! Names: a DNS server on every node, at the service address of kube-dns. It knows the cluster's names and nothing
//! else: there is no way out of the mesh, and a name outside does not exist.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use super::addresses;
use super::manifests::ObjectName;
use super::namespaces::Netns;

/// The cluster's domain.
pub(crate) const DOMAIN: &str = "cluster.local";
/// Seconds that an answer may be kept: pods come and go.
const TTL: u32 = 5;
/// Largest answer over UDP to a client that names no size.
const UDP_SIZE: usize = 512;
/// TCP clients served at once on a node.
const TCP_CLIENTS: usize = 64;
/// Names an alias may lead through.
const ALIASES: usize = 8;
/// The pause after a failed accept or receive.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// What one name says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    addresses: Vec<IpAddr>,
    servers: Vec<(u16, String)>,
    alias: Option<String>,
    pointer: Option<String>,
}

/// Everything the cluster's DNS knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    names: HashMap<String, Entry>,
}

impl Zone {
    /// The names of all services and of the pods that have one in a headless service.
    pub(crate) fn new(
        services: &BTreeMap<ObjectName, Service>,
        slices: &BTreeMap<ObjectName, Vec<EndpointSlice>>,
    ) -> Self {
        let mut zone = Self::default();
        for (name, service) in services {
            zone.add_service(name, service, slices.get(name).map(Vec::as_slice).unwrap_or_default());
        }
        zone
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.names.entry(name.to_ascii_lowercase()).or_default()
    }

    fn add_service(&mut self, name: &ObjectName, service: &Service, slices: &[EndpointSlice]) {
        let Some(spec) = &service.spec else { return };
        let host = format!("{}.{}.svc.{DOMAIN}", name.name, name.namespace);
        if spec.type_.as_deref() == Some("ExternalName") {
            self.entry(&host).alias =
                spec.external_name.as_ref().map(|to| to.trim_end_matches('.').to_owned());
            return;
        }
        let addresses: Vec<IpAddr> =
            spec.cluster_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        if addresses.is_empty() {
            self.add_headless(&host, slices);
            return;
        }
        for address in &addresses {
            self.entry(&reverse(*address)).pointer = Some(host.clone());
        }
        for port in spec.ports.iter().flatten() {
            let (Some(port_name), Ok(number)) = (&port.name, u16::try_from(port.port)) else { continue };
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
            self.entry(&format!("_{port_name}._{protocol}.{host}")).servers.push((number, host.clone()));
        }
        self.entry(&host).addresses = addresses;
    }

    fn add_headless(&mut self, host: &str, slices: &[EndpointSlice]) {
        // The name exists also while it has no endpoint.
        self.entry(host);
        for slice in slices {
            for endpoint in slice.endpoints.iter() {
                if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
                    continue;
                }
                let addresses: Vec<IpAddr> =
                    endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect();
                let label = endpoint.hostname.clone().or_else(|| addresses.first().map(|ip| dashed(*ip)));
                let Some(label) = label else { continue };
                let own = format!("{label}.{host}");
                self.entry(host).addresses.extend(&addresses);
                for address in &addresses {
                    self.entry(&reverse(*address)).pointer = Some(own.clone());
                }
                self.entry(&own).addresses.extend(addresses);
                for port in slice.ports.iter().flatten() {
                    let number = port.port.and_then(|port| u16::try_from(port).ok());
                    let (Some(name), Some(number)) = (port.name.as_deref().filter(|n| !n.is_empty()), number)
                    else {
                        continue;
                    };
                    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
                    self.entry(&format!("_{name}._{protocol}.{host}")).servers.push((number, own.clone()));
                }
            }
        }
    }

    fn find(&self, name: &str) -> Option<Entry> {
        self.names.get(name).cloned().or_else(|| {
            // 10-244-1-2.shop.pod.cluster.local
            let rest = name.strip_suffix(&format!(".pod.{DOMAIN}"))?;
            let (label, _namespace) = rest.split_once('.')?;
            let address = IpAddr::from_str(&label.replace('-', "."))
                .or_else(|_| IpAddr::from_str(&label.replace('-', ":")))
                .ok()?;
            Some(Entry { addresses: vec![address], ..Entry::default() })
        })
    }

    /// The answer to one query.
    pub(crate) fn answer(&self, query: &Message) -> Message {
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        let [question] = query.queries.as_slice() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        answer.add_query(question.clone());
        if query.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer;
        }
        answer.metadata.authoritative = true;
        let mut name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        for _ in 0..ALIASES {
            let Some(entry) = self.find(&name) else {
                answer.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let Ok(owner) = Name::from_ascii(format!("{name}.")) else { break };
            let Some(alias) = entry.alias else {
                answer.answers.extend(records(&owner, &entry, question.query_type()));
                break;
            };
            let Ok(target) = Name::from_ascii(format!("{alias}.")) else { break };
            answer.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target))));
            name = alias.to_ascii_lowercase();
        }
        if answer.answers.is_empty() {
            answer.authorities.extend(start_of_authority());
        }
        answer
    }
}

fn records(owner: &Name, entry: &Entry, wanted: RecordType) -> Vec<Record> {
    let make = |data| Record::from_rdata(owner.clone(), TTL, data);
    let name = |text: &str| Name::from_ascii(format!("{text}.")).ok();
    match wanted {
        RecordType::A | RecordType::AAAA => {
            let of_family = entry.addresses.iter().filter(|ip| ip.is_ipv6() == (wanted == RecordType::AAAA));
            of_family
                .map(|ip| match ip {
                    IpAddr::V4(ip) => make(RData::A(A(*ip))),
                    IpAddr::V6(ip) => make(RData::AAAA(AAAA(*ip))),
                })
                .collect()
        }
        RecordType::SRV => {
            let servers = entry.servers.iter();
            servers
                .filter_map(|(port, to)| Some(make(RData::SRV(SRV::new(0, 100, *port, name(to)?)))))
                .collect()
        }
        RecordType::PTR => {
            entry.pointer.iter().filter_map(|to| Some(make(RData::PTR(PTR(name(to)?))))).collect()
        }
        _ => Vec::new(),
    }
}

/// What a negative answer carries: it says how long it may be kept.
fn start_of_authority() -> Option<Record> {
    let owner = Name::from_ascii(format!("{DOMAIN}.")).ok()?;
    let server = Name::from_ascii(format!("ns.dns.{DOMAIN}.")).ok()?;
    let mailbox = Name::from_ascii(format!("hostmaster.{DOMAIN}.")).ok()?;
    let authority = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(owner, TTL, RData::SOA(authority)))
}

fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The name under which an address is looked up.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = ip.octets().into_iter().rev().map(|byte| format!("{:x}.{:x}", byte & 15, byte >> 4));
            format!("{}.ip6.arpa", digits.collect::<Vec<_>>().join("."))
        }
    }
}

/// The answer to the bytes of a query, cut to `limit` bytes; `None` for what is no query.
fn respond(zone: &Zone, bytes: &[u8], over_udp: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(bytes).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let answer = zone.answer(&query);
    let whole = answer.to_vec().ok()?;
    let room = if over_udp { usize::from(query.max_payload()).max(UDP_SIZE) } else { usize::from(u16::MAX) };
    if whole.len() <= room { Some(whole) } else { answer.truncate().to_vec().ok() }
}

/// The sockets of a node's DNS server.
#[derive(Debug)]
pub(crate) struct Server {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Server {
    /// Opens the sockets inside a node's namespace.
    pub(crate) async fn bind(node: &Netns) -> io::Result<Self> {
        let bound = node.run(|| -> io::Result<_> {
            let mut all = Vec::new();
            for ip in [IpAddr::V4(addresses::DNS_V4), IpAddr::V6(addresses::DNS_V6)] {
                if ip.is_ipv6() && !super::links::has_ipv6() {
                    continue;
                }
                let address = SocketAddr::new(ip, 53);
                all.push((std::net::UdpSocket::bind(address)?, std::net::TcpListener::bind(address)?));
            }
            Ok(all)
        });
        let mut server = Self { udp: Vec::new(), tcp: Vec::new() };
        for (udp, tcp) in bound.await?? {
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            server.udp.push(UdpSocket::from_std(udp)?);
            server.tcp.push(TcpListener::from_std(tcp)?);
        }
        Ok(server)
    }

    /// Answers until the process ends.
    pub(crate) fn serve(self, zone: &watch::Receiver<Arc<Zone>>) {
        for socket in self.udp {
            tokio::spawn(serve_udp(socket, zone.clone()));
        }
        let clients = Arc::new(Semaphore::new(TCP_CLIENTS));
        for listener in self.tcp {
            tokio::spawn(serve_tcp(listener, zone.clone(), Arc::clone(&clients)));
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: watch::Receiver<Arc<Zone>>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            // Mostly an ICMP answer to an earlier reply, which is over with this; an error that stays must not take the thread.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let zone = Arc::clone(&zone.borrow());
        if let Some(answer) = respond(&zone, &buffer[..length], true) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: watch::Receiver<Arc<Zone>>, clients: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Files have run out: those who are answered end in time.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let zone = zone.clone();
        tokio::spawn(async move {
            let patience = std::time::Duration::from_secs(10);
            let _ = tokio::time::timeout(patience, serve_stream(stream, &zone)).await;
            drop(permit);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, zone: &watch::Receiver<Arc<Zone>>) -> io::Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        let mut query = vec![0; length];
        stream.read_exact(&mut query).await?;
        let zone = Arc::clone(&zone.borrow());
        let Some(answer) = respond(&zone, &query, false) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
}

/// The resolv.conf of a pod.
pub(crate) fn resolv_conf(namespace: &str) -> String {
    format!(
        "search {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\nnameserver {}\noptions ndots:5\n",
        addresses::DNS_V4
    )
}

#[cfg(test)]
mod tests;
