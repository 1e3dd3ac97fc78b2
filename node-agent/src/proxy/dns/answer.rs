//! What a name stands for, as a pod asks for it: a pure function of what the mesh is known to be (`wire.md` 8).

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use model::mesh::Mesh;
use model::service::Service;
use model::workload::{Health, Workload};

/// How long an answer may be kept, in seconds.
const TTL: u32 = 30;
/// Addresses in one answer: more of a headless service than this serve nobody better.
const MAX_ADDRESSES: usize = 64;
/// The largest answer over UDP that we announce to take.
const MAX_PAYLOAD: u16 = 4096;

/// The records for a question about an address, or `None` where the name is none of the mesh's. No records: the
/// name exists, but has no address of the family asked for.
pub(super) fn answer(mesh: &Mesh, client: &Workload, question: &Query) -> Option<Vec<Record>> {
    let asked = question.name();
    let text = asked.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    let domain = "cluster.local";
    let namespace: &str = client.namespace();
    for candidate in candidates(text, namespace, domain) {
        let Some(found) = find(mesh, client, &candidate.name) else { continue };
        let wants_v4 = question.query_type() == RecordType::A;
        let addresses = found.addresses(mesh, client).into_iter().filter(|ip| ip.is_ipv4() == wants_v4);
        let mut owner = asked.clone();
        let mut records = Vec::new();
        if candidate.stripped
            && let Ok(name) = Name::from_ascii(format!("{}.", candidate.name))
        {
            records.push(Record::from_rdata(asked.clone(), TTL, RData::CNAME(CNAME(name.clone()))));
            owner = name;
        }
        records.extend(addresses.take(MAX_ADDRESSES).map(|ip| record(&owner, ip)));
        return Some(records);
    }
    None
}

/// A name that may be meant.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    /// A search domain was taken off: the answer says so with a CNAME.
    stripped: bool,
}

/// The names that may be meant, in order: as asked, as Kubernetes completes it, and both without a search domain
/// that the client's resolver may have put behind it.
fn candidates(text: &str, namespace: &str, domain: &str) -> Vec<Candidate> {
    let mut all = Vec::new();
    let mut add = |name: String, stripped: bool| {
        if !all.iter().any(|known: &Candidate| known.name == name) {
            all.push(Candidate { name, stripped });
        }
    };
    let complete = |text: &str| -> Vec<String> {
        let labels: Vec<&str> = text.split('.').collect();
        match labels[..] {
            [_] => vec![format!("{text}.{namespace}.svc.{domain}")],
            [_, _] => vec![format!("{text}.svc.{domain}"), format!("{text}.{namespace}.svc.{domain}")],
            [.., "svc"] => vec![format!("{text}.{domain}")],
            [_, _, _] => vec![format!("{text}.svc.{domain}")],
            _ => Vec::new(),
        }
    };
    add(text.to_owned(), false);
    complete(text).into_iter().for_each(|name| add(name, false));
    for search in [format!(".{namespace}.svc.{domain}"), format!(".svc.{domain}"), format!(".{domain}")] {
        if let Some(rest) = text.strip_suffix(&search) {
            add(rest.to_owned(), true);
            complete(rest).into_iter().for_each(|name| add(name, true));
        }
    }
    all
}

/// What a name stands for.
enum Found {
    Service(Arc<Service>),
    Pod(Arc<Workload>),
}

impl Found {
    fn addresses(&self, mesh: &Mesh, client: &Workload) -> Vec<IpAddr> {
        match self {
            Self::Pod(workload) => workload.addresses.to_vec(),
            Self::Service(service) if service.vips.is_empty() => endpoints(mesh, service),
            Self::Service(service) => {
                let near = service.vips.iter().filter(|vip| vip.network == client.profile.network);
                near.map(|vip| vip.ip).filter(|ip| service.ip_families.allow(*ip)).collect()
            }
        }
    }
}

/// The addresses behind a headless service.
fn endpoints(mesh: &Mesh, service: &Service) -> Vec<IpAddr> {
    let Some(endpoints) = mesh.endpoints(&service.key) else { return Vec::new() };
    let ready = |workload: &&Arc<Workload>| {
        workload.status == Health::Healthy || service.load_balancing.allow_unhealthy
    };
    let mut all: Vec<IpAddr> = endpoints
        .all()
        .iter()
        .filter(ready)
        .flat_map(|workload| workload.addresses.iter().copied())
        .collect();
    all.retain(|ip| service.ip_families.allow(*ip));
    all
}

fn find(mesh: &Mesh, client: &Workload, name: &str) -> Option<Found> {
    let namespace: &str = client.namespace();
    if let Some(service) = mesh.service_named(name, namespace).filter(|service| answers(service)) {
        return Some(Found::Service(service.clone()));
    }
    if let Some(pod) = pod_of_headless(mesh, name, namespace) {
        return Some(Found::Pod(pod));
    }
    // A wildcard host covers every name below it, however deep.
    let mut rest = name;
    while let Some((_, parent)) = rest.split_once('.') {
        if let Some(service) =
            mesh.service_named(&format!("*.{parent}"), namespace).filter(|found| answers(found))
        {
            return Some(Found::Service(service.clone()));
        }
        rest = parent;
    }
    None
}

/// A service without an address is answered only if it is one of Kubernetes (then by its endpoints); an external
/// host's addresses are its own name servers' business.
fn answers(service: &Service) -> bool {
    !service.vips.is_empty() || service.key.hostname.contains(".svc.")
}

/// The pod of a headless service by its own name, as a StatefulSet's pods are found: `POD.SERVICE.NAMESPACE.svc.…`.
fn pod_of_headless(mesh: &Mesh, name: &str, namespace: &str) -> Option<Arc<Workload>> {
    let (pod, host) = name.split_once('.')?;
    let service = mesh.service_named(host, namespace).filter(|service| service.vips.is_empty())?;
    mesh.endpoints(&service.key)?.all().iter().find(|workload| &*workload.name == pod).cloned()
}

fn record(name: &Name, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// The reply to a query with the records found.
pub(super) fn reply(query: &Message, records: Vec<Record>) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.authoritative = true;
    reply.queries.clone_from(&query.queries);
    reply.answers = records;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD);
        reply.set_edns(edns);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        candidates(text, "default", "cluster.local").into_iter().map(|candidate| candidate.name).collect()
    }

    #[test]
    fn completes_names_as_kubernetes_does() {
        assert_eq!(names("reviews"), ["reviews", "reviews.default.svc.cluster.local"]);
        assert_eq!(
            names("reviews.other"),
            ["reviews.other", "reviews.other.svc.cluster.local", "reviews.other.default.svc.cluster.local"]
        );
        assert_eq!(names("reviews.other.svc"), ["reviews.other.svc", "reviews.other.svc.cluster.local"]);
    }

    #[test]
    fn takes_search_domains_off() {
        let found = names("example.com.default.svc.cluster.local");
        assert!(found.contains(&"example.com".to_owned()), "{found:?}");
        let stripped: Vec<Candidate> = candidates("a.b.svc.cluster.local", "default", "cluster.local");
        assert!(!stripped[0].stripped, "the name as asked comes first");
    }
}
