//! From what the controller sends to updates of a [`model::mesh::Mesh`]: the handler of proxies.

pub mod routing;

use std::cmp::Ordering;

use model::address::Str;
use model::mesh::Update;

use crate::convert::{ConvertError, Decoder, Refused};
use crate::delta::subscriber::{Delivery, Handler, Received, Rejection};

/// Decodes deliveries and passes the updates of each on together. A policy that cannot be read keeps its last good
/// version; where there is none, its whole scope is denied.
#[derive(Debug)]
pub struct Feed<F> {
    decoder: Decoder,
    sink: F,
}

impl<F: FnMut(Vec<Update>) + Send> Feed<F> {
    /// Passes updates to `sink`, in the order in which they are to be applied.
    pub fn new(decoder: Decoder, sink: F) -> Self {
        Self { decoder, sink }
    }

    fn decode(
        &mut self,
        type_url: &str,
        received: &Received,
        nth: usize,
        updates: &mut Vec<Update>,
    ) -> Option<Rejection> {
        let Received { name, value, replaces, .. } = received;
        let Refused { error, instead } = match self.decoder.decode(type_url, name, value.clone()) {
            Ok(update) => {
                updates.push(update);
                return None;
            }
            Err(refused) => refused,
        };
        let effect = match (*replaces, &instead) {
            (true, _) => "its last good version stays in force",
            (false, Some(_)) => "everything it covers is denied",
            (false, None) => "it is unknown here",
        };
        say_refused(&error, effect, nth);
        updates.extend(instead.filter(|_| !replaces).map(|policy| Update::Policy(*policy)));
        Some(Rejection { name: name.clone(), reason: format!("{}: {}", error.field, error.reason) })
    }
}

impl<F: FnMut(Vec<Update>) + Send> Handler for Feed<F> {
    fn apply(&mut self, delivery: &Delivery) -> Vec<Rejection> {
        let Delivery { type_url, resources, removed, .. } = delivery;
        let mut updates = Vec::with_capacity(removed.len() + resources.len());
        // An address may have gone from one to the other.
        updates.extend(removed.iter().filter_map(|name| self.decoder.removal(type_url, name)));
        let mut rejections = Vec::new();
        for received in resources {
            rejections.extend(self.decode(type_url, received, rejections.len(), &mut updates));
        }
        (self.sink)(updates);
        rejections
    }

    fn held(&self, name: &str) -> Option<Str> {
        self.decoder.held(name)
    }
}

/// Refusals of one response that are logged one by one: a few name what is wrong, and the controller is told of all.
const SAID: usize = 10;

/// Logs the refusal of one resource, the `nth` (from 0) of its response.
fn say_refused(error: &ConvertError, effect: &str, nth: usize) {
    match nth.cmp(&SAID) {
        Ordering::Less => tracing::error!(%error, effect, "refused what the controller sent"),
        Ordering::Equal => tracing::error!("refused more of the same response; the controller is told what"),
        Ordering::Greater => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use model::authz::{Action, Policy, PolicyScope};
    use model::mesh::Mesh;
    use model::workload::PolicyName;
    use prost::Message;
    use proto::discovery::{DeltaDiscoveryResponse, Node, Resource};
    use proto::{Any, type_url, workload as wire};

    use super::*;
    use crate::convert::authz;
    use crate::delta::subscriber::{Mode, Subscriber, Subscription};

    fn policy(action: Action) -> Policy {
        Policy {
            name: PolicyName { namespace: "ns".into(), name: "p".into() },
            scope: PolicyScope::Namespace,
            action,
            rules: Box::default(),
            dry_run: false,
            invalid: None,
        }
    }

    fn delivery(value: Bytes, replaces: bool) -> Delivery {
        Delivery {
            type_url: type_url::AUTHORIZATION.into(),
            revision: String::new(),
            resources: vec![Received { name: "ns/p".into(), version: "1".into(), value, replaces }],
            removed: vec!["ns/old".into()],
            more: false,
            ours: true,
        }
    }

    fn apply(delivery: &Delivery) -> (Vec<Update>, Vec<Rejection>) {
        let mut updates = Vec::new();
        let rejections = Feed::new(Decoder::default(), |all| updates = all).apply(delivery);
        (updates, rejections)
    }

    #[test]
    fn removals_come_first() {
        let value = authz::to_wire(&policy(Action::Allow)).encode_to_vec().into();
        let (updates, rejections) = apply(&delivery(value, false));
        assert!(matches!(updates[..], [Update::RemovePolicy(_), Update::Policy(_)]), "{updates:?}");
        assert_eq!(rejections, []);
    }

    #[test]
    fn a_refused_policy_denies_unless_a_good_one_is_in_force() {
        for replaces in [false, true] {
            let (updates, rejections) = apply(&delivery(Bytes::from_static(b"\xff"), replaces));
            let denied = updates
                .iter()
                .any(|update| matches!(update, Update::Policy(policy) if policy.invalid.is_some()));
            assert_eq!(denied, !replaces);
            assert_eq!(rejections.len(), 1);
        }
    }

    /// Of a workload that comes first, of the service itself, and of what the controller is told is here.
    #[test]
    fn the_name_of_a_service_is_kept_once() {
        use wire::address::Type;
        let name = "ns/web.ns.svc";
        let workload = wire::Workload {
            uid: "pod".into(),
            namespace: "ns".into(),
            service_account: "account".into(),
            services: [(name.to_owned(), wire::PortList::default())].into(),
            ..Default::default()
        };
        let service =
            wire::Service { namespace: "ns".into(), hostname: "web.ns.svc".into(), ..Default::default() };
        let resource = |name: &str, address| {
            let value = wire::Address { r#type: Some(address) }.encode_to_vec().into();
            let resource = Some(Any { type_url: type_url::ADDRESS.into(), value });
            Resource { name: name.into(), version: "1".into(), resource, ..Default::default() }
        };
        let response = DeltaDiscoveryResponse {
            type_url: type_url::ADDRESS.into(),
            resources: vec![
                resource("pod", Type::Workload(workload)),
                resource(name, Type::Service(service)),
            ],
            ..Default::default()
        };
        let all = Subscription { type_url: type_url::ADDRESS.into(), mode: Mode::All, required: true };
        let mut subscriber = Subscriber::new(Node::default(), [all]);
        let mut mesh = Mesh::new("".into(), None);
        let mut feed = Feed::new(Decoder::default(), |updates| {
            for update in updates {
                mesh.apply(update);
            }
        });
        assert_eq!(subscriber.receive(response, &mut feed).unwrap().error_detail, None);
        drop(feed);
        let of_workload = mesh.workload("pod").unwrap().profile.services[0].0.text();
        let of_service = mesh.services().next().unwrap().key.text();
        assert!(Arc::ptr_eq(of_workload, of_service));
        let holders = Arc::strong_count(of_service);
        drop(subscriber);
        assert_eq!(Arc::strong_count(of_service), holders - 1);
    }
}
