//! Whose an address is that several claim. Two services with one address, or a service with the address of a pod, would
//! draw the traffic of others to themselves: one has it, the others are told who.
//!
//! What comes of it depends on what is there alone, never on the order in which it came.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::facts::{Endpoint, Pod, Service, Slice};
use super::{Index, Name, pods};

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Who claims it has it.
    Held,
    /// Another service's.
    OfService(Name),
    /// A pod's.
    OfPod(Name),
    /// It lies in the ranges of the mesh's services, and none that is known has it.
    OfSomeService,
    /// It lies in the ranges of its pods, and none that is known has it.
    OfSomePod,
}

/// Addresses that somebody claims and does not have, and whose they are.
pub type Lost = Vec<(IpAddr, Claim)>;

/// Who of those that claim an address has it: the one to whom the mesh has given it, of whom that is true then the oldest,
/// if it is known how old they all are; then the first by name. The mesh's own word comes before an age: that is what
/// the author of a file says of it.
fn holder<'a>(claimants: impl Iterator<Item = &'a Arc<Service>>) -> Option<&'a Arc<Service>> {
    let mut all: Vec<_> = claimants.collect();
    if all.iter().any(|service| service.given) {
        all.retain(|service| service.given);
    }
    let known = all.iter().all(|service| service.created.is_some());
    all.into_iter().min_by(|one, other| rank(one, known).cmp(&rank(other, known)))
}

fn rank(service: &Service, known: bool) -> (Option<&str>, &Name) {
    (service.created.as_deref().filter(|_| known), &service.name)
}

fn inside(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&ip))
}

impl Index {
    /// Whose an address is that a service claims.
    pub fn claim(&self, service: &Name, ip: IpAddr) -> Claim {
        // What is in another network has another address of the same digits.
        let mut pods = self.pods_at(ip);
        let pod = pods.find(|name| self.pods.get(name).is_some_and(|pod| pod.network.is_none()));
        if let Some(pod) = pod {
            return Claim::OfPod(pod);
        }
        match holder(self.services.claiming(ip)) {
            Some(holder) if holder.name != *service => Claim::OfService(holder.name.clone()),
            _ => Claim::Held,
        }
    }

    /// The addresses that a service has.
    pub fn addresses_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
        let own = service.addresses.iter().copied();
        own.filter(|ip| self.claim(&service.name, *ip) == Claim::Held)
    }

    /// The addresses that a service claims and does not have, and whose they are.
    pub fn claims_lost(&self, service: &Service) -> Lost {
        let all = service.addresses.iter().map(|ip| (*ip, self.claim(&service.name, *ip)));
        all.filter(|(_, claim)| *claim != Claim::Held).collect()
    }

    /// Whose an address is that a pod claims. It has it of its node, which is not believed where it says what cannot be: who
    /// has taken a node over would take the traffic of any service with it.
    fn pod_claim(&self, ip: IpAddr) -> Claim {
        let assigned = |service: &&Arc<Service>| service.assigned.contains(&ip);
        if let Some(holder) = holder(self.services.claiming(ip).filter(assigned)) {
            return Claim::OfService(holder.name.clone());
        }
        // Ranges that overlap say nothing.
        match inside(&self.service_ranges, ip) && !inside(&self.pod_ranges, ip) {
            true => Claim::OfSomeService,
            false => Claim::Held,
        }
    }

    /// The pods whose own address it is.
    pub(super) fn pods_at(&self, ip: IpAddr) -> impl Iterator<Item = Name> {
        self.pods.at(ip).filter(move |_| self.pod_claim(ip) == Claim::Held)
    }

    /// The addresses that a pod has. Those of its node are not its own, and decide nothing.
    pub fn addresses_of_pod(&self, pod: &Pod) -> Vec<IpAddr> {
        let all = pod.addresses.iter().copied();
        all.filter(|ip| pod.host_network || self.pod_claim(*ip) == Claim::Held).collect()
    }

    /// The addresses that a pod claims and does not have, and whose they are.
    pub fn pod_lost(&self, pod: &Pod) -> Lost {
        let all = pods::own_addresses(pod).iter().map(|ip| (*ip, self.pod_claim(*ip)));
        all.filter(|(_, claim)| *claim != Claim::Held).collect()
    }

    /// Whose an address is that an endpoint has which is no pod. The mesh's own are those of its services and pods alone:
    /// who may write an EndpointSlice may write any address into it, and a workload there would stand before the service, or
    /// before the pod that is to come, without its waypoint and its identity.
    fn endpoint_claim(&self, ip: IpAddr) -> Claim {
        match holder(self.services.claiming(ip)) {
            Some(holder) => Claim::OfService(holder.name.clone()),
            None if inside(&self.service_ranges, ip) => Claim::OfSomeService,
            None if inside(&self.pod_ranges, ip) => Claim::OfSomePod,
            None => Claim::Held,
        }
    }

    /// The addresses that an endpoint has which is no pod.
    pub fn addresses_of_endpoint(&self, endpoint: &Endpoint) -> Vec<IpAddr> {
        let all = endpoint.addresses.iter().copied();
        all.filter(|ip| self.endpoint_claim(*ip) == Claim::Held).collect()
    }

    /// The addresses that the endpoints of a slice claim and do not have, and whose they are.
    pub fn endpoints_lost(&self, slice: &Slice) -> Lost {
        if self.service_of(slice).is_none() {
            return Lost::new();
        }
        let others = slice.endpoints.iter().filter(|endpoint| !self.is_pod(endpoint));
        let all = others.flat_map(|endpoint| &endpoint.addresses).map(|ip| (*ip, self.endpoint_claim(*ip)));
        all.filter(|(_, claim)| *claim != Claim::Held).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use manifest::{Batch, Object, from_json};
    use serde_json::{Value, json};

    use super::*;

    const IP: &str = "10.96.0.1";

    fn object(value: &Value, file: &str) -> Arc<Object> {
        let origin: Arc<Path> = Arc::from(Path::new(file));
        Arc::new(from_json(value, &origin).objects.pop().unwrap())
    }

    fn service(name: &str, created: Option<&str>, given: bool) -> Arc<Object> {
        let (namespace, name) = name.split_once('/').unwrap();
        let file = if given { "/mesh/objects/Service/x.json" } else { "/home/me/x.yaml" };
        let mut value = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": IP, "ports": [{"port": 80}]},
        });
        if let Some(created) = created {
            value["metadata"]["creationTimestamp"] = json!(format!("{created}-01-01T00:00:00Z"));
        }
        object(&value, file)
    }

    /// One that an API server has told of.
    fn assigned(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Object> {
        let mut value = service(name, None, false).raw.clone();
        change(&mut value);
        object(&value, manifest::API_SERVER)
    }

    fn pod(ip: &str, phase: &str, host: bool) -> Arc<Object> {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
            "spec": {"nodeName": "n", "hostNetwork": host, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": phase, "podIPs": [{"ip": ip}]},
        });
        object(&value, "pod")
    }

    fn index() -> Index {
        Index::new("istio-system".into()).with_objects(Some(Path::new("/mesh/objects").into()))
    }

    /// Who has the address, whatever the order.
    fn holders(objects: &[Arc<Object>]) -> Vec<String> {
        let holders = |order: &[Arc<Object>]| -> Vec<String> {
            let mut index = index();
            for object in order {
                index.apply(&Batch { upserted: vec![object.clone()], ..Batch::default() });
            }
            let services = order.iter().filter(|object| object.kind == "Service");
            let names = services.map(|object| {
                Name::new(object.metadata.namespace.as_deref().unwrap(), &object.metadata.name)
            });
            let mut held: Vec<String> = names
                .filter(|name| index.claim(name, IP.parse().unwrap()) == Claim::Held)
                .map(|name| name.to_string())
                .collect();
            held.sort();
            held
        };
        let forward = holders(objects);
        let backward: Vec<_> = objects.iter().rev().cloned().collect();
        assert_eq!(forward, holders(&backward));
        forward
    }

    #[test]
    fn one_has_it_by_table() {
        for (about, objects, expected) in [
            ("alone", vec![service("b/web", None, false)], Some("b/web")),
            (
                "the first by name",
                vec![service("b/web", None, false), service("a/web", None, false)],
                Some("a/web"),
            ),
            (
                "the older",
                vec![service("a/web", Some("2026"), false), service("b/web", Some("2025"), false)],
                Some("b/web"),
            ),
            (
                "of as old the first by name",
                vec![service("b/web", Some("2026"), false), service("a/web", Some("2026"), false)],
                Some("a/web"),
            ),
            (
                "an age that only some have says nothing",
                vec![
                    service("b/web", Some("2020"), false),
                    service("c/web", Some("2021"), false),
                    service("a/web", None, false),
                ],
                Some("a/web"),
            ),
            (
                "whom the mesh gave it, whatever others say of their age",
                vec![service("b/web", Some("2026"), true), service("a/web", Some("1970"), false)],
                Some("b/web"),
            ),
            (
                "of those the older",
                vec![service("a/web", Some("2026"), true), service("b/web", Some("2025"), true)],
                Some("b/web"),
            ),
            ("a pod", vec![service("b/web", None, true), pod(IP, "Running", false)], None),
            (
                "not one, where an API server has assigned it",
                vec![assigned("b/web", |_| {}), pod(IP, "Running", false)],
                Some("b/web"),
            ),
            (
                "one, of a load balancer's",
                vec![
                    assigned("b/web", |value| {
                        value["spec"]["clusterIP"] = json!("10.96.0.9");
                        value["status"] = json!({"loadBalancer": {"ingress": [{"ip": IP}]}});
                    }),
                    pod(IP, "Running", false),
                ],
                None,
            ),
            (
                "not one that has ended",
                vec![service("b/web", None, true), pod(IP, "Succeeded", false)],
                Some("b/web"),
            ),
            (
                "not one on its node's network",
                vec![service("b/web", None, true), pod(IP, "Running", true)],
                Some("b/web"),
            ),
            (
                "another address",
                vec![service("b/web", None, true), pod("10.0.0.9", "Running", false)],
                Some("b/web"),
            ),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(holders(&objects), expected, "{about}");
        }
    }

    #[test]
    fn who_comes_and_goes_is_told_to_all_who_claim_it() {
        let mut index = index();
        let mut apply = |upserted, removed: Vec<&Arc<Object>>| {
            let removed = removed.into_iter().map(|object| object.key()).collect();
            let changes = index.apply(&Batch { upserted, removed, ..Batch::default() });
            changes.services.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (a, b, pod) =
            (service("a/web", None, false), service("b/web", None, false), pod(IP, "Running", false));
        assert_eq!(apply(vec![b.clone()], vec![]), ["b/web"]);
        assert_eq!(apply(vec![a.clone()], vec![]), ["a/web", "b/web"]);
        assert_eq!(apply(vec![a.clone()], vec![]), Vec::<String>::new(), "the same again");
        assert_eq!(apply(vec![pod.clone()], vec![]), ["a/web", "b/web"]);
        assert_eq!(apply(vec![], vec![&pod]), ["a/web", "b/web"]);
        assert_eq!(apply(vec![], vec![&a]), ["a/web", "b/web"]);
    }
}
