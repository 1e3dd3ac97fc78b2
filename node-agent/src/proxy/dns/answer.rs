//! What a name stands for, as a pod asks for it: a pure function of what the mesh is known to be.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use model::address::Str;
use model::mesh::Mesh;
use model::service::Service;
use model::workload::{Health, Workload};

/// How long an answer may be kept, in seconds.
const TTL: u32 = 30;
/// Addresses in one answer: more of a headless service than this serve nobody better.
const MAX_ADDRESSES: usize = 64;
/// Labels of a wildcard host, at most.
const MAX_PARENTS: usize = 16;
/// The largest answer over UDP that we announce to take.
const MAX_PAYLOAD: u16 = 4096;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) client: &'a Workload,
    /// What follows `SERVICE.NAMESPACE.svc` in host names.
    pub(super) domain: &'a str,
    /// Changes from question to question. Of several addresses another one comes first each time: most clients take
    /// the first.
    pub(super) turn: u16,
}

/// The records for a question about an address, or `None` where the name is none of the mesh's. No records: the
/// name exists, but has no address of the family asked for.
pub(super) fn answer(mesh: &Mesh, asker: &Asker<'_>, question: &Query) -> Option<Vec<Record>> {
    let asked = question.name();
    let text = asked.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    for candidate in candidates(text, asker.client.namespace(), asker.domain) {
        let Some(found) = find(mesh, asker, &candidate.name) else { continue };
        let mut owner = asked.clone();
        let mut records = Vec::new();
        if candidate.stripped
            && let Ok(name) = Name::from_ascii(format!("{}.", candidate.name))
        {
            records.push(Record::from_rdata(asked.clone(), TTL, RData::CNAME(CNAME(name.clone()))));
            owner = name;
        }
        let wants_v4 = question.query_type() == RecordType::A;
        let mut addresses = found.addresses(mesh, asker, |ip| ip.is_ipv4() == wants_v4);
        let first = usize::from(asker.turn).checked_rem(addresses.len()).unwrap_or_default();
        addresses.rotate_left(first);
        records.extend(addresses.into_iter().map(|ip| record(&owner, ip)));
        return Some(records);
    }
    None
}

/// Names of one question that are asked for on demand, at most.
const MAX_NAMES: usize = 16;

/// What of the mesh the answer to a question depends on, by the names it is asked for by on demand.
pub(super) fn names(asker: &Asker<'_>, question: &Query) -> Vec<Str> {
    let text = question.name().to_ascii().to_ascii_lowercase();
    let mut all: Vec<Str> = Vec::new();
    for candidate in candidates(text.trim_end_matches('.'), asker.client.namespace(), asker.domain) {
        for name in names_of(&candidate.name, asker.domain) {
            if all.len() < MAX_NAMES && !all.contains(&name) {
                all.push(name);
            }
        }
    }
    all
}

/// A host of Kubernetes says which namespace's it is; what lies below a service is one of its pods. Any other may be
/// anybody's, and covered by a wildcard.
fn names_of(host: &str, domain: &str) -> Vec<Str> {
    let of_kubernetes = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix(".svc."));
    if let Some(rest) = of_kubernetes {
        let labels: Vec<&str> = rest.split('.').collect();
        return match labels[..] {
            [_, namespace] => vec![format!("{namespace}/{host}").into()],
            [_, service, namespace] => {
                vec![format!("{namespace}/{service}.{namespace}.svc.{domain}").into()]
            }
            _ => Vec::new(),
        };
    }
    let parents = parents(host).map(|parent| xds::names::host(&format!("*{parent}")));
    // A single label is nobody's host.
    if host.contains('.') {
        std::iter::once(xds::names::host(host)).chain(parents).collect()
    } else {
        Vec::new()
    }
}

/// What a name lies below, each with the dot before it, the nearest first. Of a name with very many labels only the last
/// ones are looked at: nobody's wildcard has so many, and each costs a look-up.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    let farthest = name.rmatch_indices('.').take(MAX_PARENTS).last().map_or(name.len(), |(dot, _)| dot);
    name[farthest..].match_indices('.').map(move |(dot, _)| &name[farthest + dot..])
}

/// A name that may be meant.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    /// A search domain was taken off: the answer says so with a CNAME.
    stripped: bool,
}

/// The names that may be meant, in order: as asked, as the client's own namespace completes it, and both without a search
/// domain that the client's resolver may have put behind it. Only then may it be completed by the name of another
/// namespace, which it may have in common with a domain of the world: `docs/decisions/0024-names-that-are-completed.md`.
fn candidates(text: &str, namespace: &str, domain: &str) -> Vec<Candidate> {
    let mut all = Vec::new();
    let mut add = |name: String, stripped: bool| {
        if !all.iter().any(|known: &Candidate| known.name == name) {
            all.push(Candidate { name, stripped });
        }
    };
    let complete = |text: &str, searched: bool| -> Vec<String> {
        let labels: Vec<&str> = text.split('.').collect();
        let may_be = |other: &str| searched || other == namespace;
        let (own, full) = (format!("{text}.{namespace}.svc.{domain}"), format!("{text}.svc.{domain}"));
        match labels[..] {
            [_] => vec![own],
            [.., "svc"] => vec![format!("{text}.{domain}")],
            [_, other] if may_be(other) => vec![full, own],
            [_, _] => vec![own],
            [_, _, other] if may_be(other) => vec![full],
            _ => Vec::new(),
        }
    };
    add(text.to_owned(), false);
    complete(text, false).into_iter().for_each(|name| add(name, false));
    for search in [format!(".{namespace}.svc.{domain}"), format!(".svc.{domain}"), format!(".{domain}")] {
        if let Some(rest) = text.strip_suffix(&search) {
            add(rest.to_owned(), true);
            complete(rest, true).into_iter().for_each(|name| add(name, true));
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
    /// Its addresses of the family that is asked for, [`MAX_ADDRESSES`] at most.
    fn addresses(&self, mesh: &Mesh, asker: &Asker<'_>, family: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
        match self {
            Self::Pod(workload) => {
                workload.addresses.iter().copied().filter(family).take(MAX_ADDRESSES).collect()
            }
            Self::Service(service) if service.vips.is_empty() => endpoints(mesh, service, asker.turn, family),
            Self::Service(service) => {
                let near = service.vips.iter().filter(|vip| vip.network == asker.client.profile.network);
                let allowed = near.map(|vip| vip.ip).filter(|ip| service.ip_families.allow(*ip));
                allowed.filter(family).take(MAX_ADDRESSES).collect()
            }
        }
    }
}

/// The addresses behind a headless service: as many as an answer has, others each time where there are more.
fn endpoints(mesh: &Mesh, service: &Service, turn: u16, family: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let all = mesh.endpoints(&service.key).map_or(&[][..], |endpoints| endpoints.all());
    let ready = |workload: &&Arc<Workload>| {
        workload.status == Health::Healthy || service.rare.load_balancing.allow_unhealthy
    };
    // Those of few are turned as they are answered.
    let first = if all.len() > MAX_ADDRESSES { usize::from(turn) * MAX_ADDRESSES % all.len() } else { 0 };
    let (before, from) = all.split_at(first);
    let addresses =
        from.iter().chain(before).filter(ready).flat_map(|workload| workload.addresses.iter().copied());
    addresses.filter(|ip| service.ip_families.allow(*ip)).filter(family).take(MAX_ADDRESSES).collect()
}

fn find(mesh: &Mesh, asker: &Asker<'_>, name: &str) -> Option<Found> {
    let namespace: &str = asker.client.namespace();
    let answers = |service: &&Arc<Service>| answers(service, asker.domain);
    if let Some(service) = mesh.service_named(name, namespace).filter(answers) {
        return Some(Found::Service(service.clone()));
    }
    if let Some(pod) = pod_of_headless(mesh, name, namespace) {
        return Some(Found::Pod(pod));
    }
    // A wildcard host covers every name below it, however deep.
    let covering =
        parents(name).find_map(|parent| mesh.service_named(&format!("*{parent}"), namespace).filter(answers));
    if let Some(service) = covering {
        return Some(Found::Service(service.clone()));
    }
    None
}

/// A service without an address is answered only if it is one of Kubernetes (then by its endpoints); an external
/// host's addresses are its own name servers' business.
fn answers(service: &Service, domain: &str) -> bool {
    let of_kubernetes = || service.key.hostname().strip_suffix(domain)?.strip_suffix(".svc.");
    !service.vips.is_empty() || of_kubernetes().is_some()
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
    fn a_name_is_completed_by_the_clients_own_namespace() {
        for (text, completed) in [
            ("reviews", &["reviews.default.svc.cluster.local"][..]),
            (
                "reviews.default",
                &["reviews.default.svc.cluster.local", "reviews.default.default.svc.cluster.local"],
            ),
            // A pod of a headless service there.
            ("reviews-0.reviews", &["reviews-0.reviews.default.svc.cluster.local"]),
            ("reviews-0.reviews.default", &["reviews-0.reviews.default.svc.cluster.local"]),
            ("reviews.other.svc", &["reviews.other.svc.cluster.local"]),
            ("reviews-0.reviews.other.svc", &["reviews-0.reviews.other.svc.cluster.local"]),
            // Another namespace may be called as a domain of the world is.
            ("github.dev", &["github.dev.default.svc.cluster.local"]),
            ("www.github.dev", &[]),
        ] {
            let found = names(text);
            assert_eq!(found[0], text);
            assert_eq!(found[1..], *completed, "{text}");
        }
    }

    /// A resolver with a search list asks for the namespace by itself, as without a mesh: one of its questions says that.
    #[test]
    fn a_name_from_a_search_list_is_completed_by_any_namespace() {
        for search in ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"] {
            let found = names(&format!("reviews.other.{search}"));
            assert!(found.contains(&"reviews.other.svc.cluster.local".to_owned()), "{search}: {found:?}");
        }
    }

    #[test]
    fn takes_search_domains_off() {
        let found = names("example.com.default.svc.cluster.local");
        assert!(found.contains(&"example.com".to_owned()), "{found:?}");
        let stripped: Vec<Candidate> = candidates("a.b.svc.cluster.local", "default", "cluster.local");
        assert!(!stripped[0].stripped, "the name as asked comes first");
    }

    /// A mesh with a headless service of three pods.
    fn mesh() -> (Mesh, Arc<Workload>) {
        mesh_of(3)
    }

    /// The same with so many.
    fn mesh_of(pods: u16) -> (Mesh, Arc<Workload>) {
        use model::address::NamespacedHostname;
        use model::mesh::Update;
        use proto::workload as wire;
        use xds::convert::Decoder;

        let key = NamespacedHostname::new("default", "db.default.svc.mesh.test");
        let mut mesh = Mesh::new("".into(), Some("n".into()));
        let mut decoder = Decoder::default();
        let mut put = |name: String, address: wire::address::Type| {
            let bytes = prost::Message::encode_to_vec(&wire::Address { r#type: Some(address) });
            let update: Update =
                decoder.decode(proto::type_url::ADDRESS, &name.into(), bytes.into()).expect("reads");
            mesh.apply(update);
        };
        let service = wire::Service {
            name: "db".into(),
            namespace: "default".into(),
            hostname: key.hostname().to_owned(),
            ..Default::default()
        };
        put(key.to_string(), wire::address::Type::Service(service));
        let github = wire::Service {
            name: "github".into(),
            namespace: "dev".into(),
            hostname: "github.dev.svc.mesh.test".into(),
            addresses: vec![wire::NetworkAddress {
                address: vec![10, 96, 0, 1].into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        put("dev/github.dev.svc.mesh.test".into(), wire::address::Type::Service(github));
        for number in 1..=pods {
            let workload = wire::Workload {
                uid: format!("uid-{number}"),
                name: format!("db-{number}"),
                namespace: "default".into(),
                node: "n".into(),
                addresses: vec![[&[10, 0][..], &number.to_be_bytes()].concat().into()],
                services: [(key.to_string(), wire::PortList::default())].into(),
                ..Default::default()
            };
            put(workload.uid.clone(), wire::address::Type::Workload(workload));
        }
        let client = mesh.workload("uid-1").expect("put in").clone();
        (mesh, client)
    }

    fn asked(mesh: &Mesh, client: &Workload, name: &str, turn: u16) -> Option<Vec<IpAddr>> {
        let asker = Asker { client, domain: "mesh.test", turn };
        let question = Query::query(Name::from_ascii(name).expect("a name"), RecordType::A);
        let records = answer(mesh, &asker, &question)?;
        Some(records.iter().filter_map(|record| record.data.ip_addr()).collect())
    }

    #[test]
    fn another_address_comes_first_each_time() {
        let (mesh, client) = mesh();
        let mut firsts: Vec<IpAddr> =
            (0..3).map(|turn| asked(&mesh, &client, "db.", turn).expect("known")[0]).collect();
        firsts.sort();
        assert_eq!(firsts, ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| ip.parse::<IpAddr>().expect("ip")));
        assert_eq!(asked(&mesh, &client, "db.", u16::MAX).expect("known").len(), 3);
    }

    #[test]
    fn of_many_endpoints_some_are_answered_and_all_come_round() {
        let (mesh, client) = mesh_of(1000);
        let answers: Vec<Vec<IpAddr>> =
            (0..1000).map(|turn| asked(&mesh, &client, "db.", turn).expect("known")).collect();
        assert!(answers.iter().all(|answer| answer.len() == MAX_ADDRESSES));
        let all: std::collections::HashSet<&IpAddr> = answers.iter().flatten().collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn of_a_name_with_very_many_labels_the_last_are_looked_at() {
        assert_eq!(parents("a.b.c").collect::<Vec<_>>(), [".b.c", ".c"]);
        assert_eq!(parents("a").count(), 0);
        let long = "a.".repeat(120) + "com";
        assert_eq!(parents(&long).count(), MAX_PARENTS);
        assert_eq!(parents(&long).last(), Some(".com"));
    }

    #[test]
    fn on_demand_a_question_is_about_few_names() {
        let (_, client) = mesh();
        let names = |text: &str| -> Vec<String> {
            let asker = Asker { client: &client, domain: "mesh.test", turn: 0 };
            let question = Query::query(Name::from_ascii(text).expect("a name"), RecordType::A);
            super::names(&asker, &question).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("db."), ["default/db.default.svc.mesh.test"]);
        assert_eq!(names("db.default.svc.mesh.test.")[0], "default/db.default.svc.mesh.test");
        assert_eq!(names("db-1.db.default.svc.mesh.test.")[0], "default/db.default.svc.mesh.test");
        let of_others = names("www.example.com.");
        assert_eq!(of_others, ["@host/www.example.com", "@host/*.example.com", "@host/*.com"]);
        let long = names("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.");
        assert_eq!(long.len(), MAX_NAMES);
    }

    #[test]
    fn names_are_completed_by_the_clusters_own_domain() {
        let (mesh, client) = mesh();
        for name in ["db.", "db.default.", "db.default.svc.", "db.default.svc.mesh.test.", "db-2.db."] {
            assert!(asked(&mesh, &client, name, 0).is_some_and(|found| !found.is_empty()), "{name}");
        }
        for name in ["db.default.svc.cluster.local.", "db.other.", "example.com."] {
            assert_eq!(asked(&mesh, &client, name, 0), None, "{name}");
        }
        // A namespace with the name of a domain of the world does not own that domain's names.
        for (name, is_known) in [
            ("github.dev.", false),
            ("www.github.dev.", false),
            ("github.dev.svc.", true),
            ("github.dev.svc.mesh.test.", true),
            ("github.dev.default.svc.mesh.test.", true),
        ] {
            assert_eq!(asked(&mesh, &client, name, 0).is_some(), is_known, "{name}");
        }
    }
}
