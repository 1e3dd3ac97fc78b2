//! The pods of this node and the labels of namespaces, from the API server: two watches that go on where they broke off.
//! While it is away, what was known stays.

use std::{collections::BTreeMap, pin::pin, sync::Arc};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use manifest::enrolment::Names;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::redirect::{
    catalog::{Catalog, facts},
    eligible::PodFacts,
};

/// Only the namespace's name and labels are read.
type NamespaceMeta = PartialObjectMeta<Namespace>;

/// Tells `catalogs` what there is, first once everything is known, for as long as anybody listens.
pub(super) async fn run(client: Client, node: String, catalogs: watch::Sender<Arc<Catalog>>) {
    let of_node = Config::default().fields(&format!("spec.nodeName={node}"));
    let pods = watcher(Api::<Pod>::all(client.clone()), of_node).backoff(DefaultBackoff::default());
    let namespaces = watcher(Api::<NamespaceMeta>::all(client), Config::default());
    let mut pods = pin!(pods);
    let mut namespaces = pin!(namespaces.backoff(DefaultBackoff::default()));
    let mut known = Known::new(&node);
    let mut away = Away::default();
    while !catalogs.is_closed() {
        let told = tokio::select! {
            Some(event) = pods.next() => away.see("pods", event).is_some_and(|event| known.take_pod(event)),
            Some(event) = namespaces.next() => {
                away.see("namespaces", event).is_some_and(|event| known.take_namespace(event))
            }
            () = catalogs.closed() => return,
            else => return,
        };
        if told {
            catalogs.send_replace(Arc::new(known.catalog.clone()));
        }
    }
}

/// Says once when the API server goes away, and once when it is back.
#[derive(Debug, Default)]
struct Away(bool);

impl Away {
    fn see<T, E: std::fmt::Display>(
        &mut self,
        what: &'static str,
        event: Result<Event<T>, E>,
    ) -> Option<Event<T>> {
        match event {
            Ok(event) => {
                // Asking anew has begun, which says nothing yet.
                if self.0 && !matches!(event, Event::Init) {
                    info!("the API server answers again");
                    self.0 = false;
                }
                Some(event)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.0, true) {
                    warn!(%error, what, "the API server cannot be asked; what was known stays in force");
                }
                None
            }
        }
    }
}

/// What both watches have told. A listing takes effect as a whole.
#[derive(Debug)]
struct Known {
    catalog: Catalog,
    pods: Listing<Vec<PodFacts>>,
    namespaces: Listing<BTreeMap<String, Names>>,
}

#[derive(Debug, Default)]
struct Listing<T> {
    /// Told so far, while it lasts.
    so_far: T,
    complete: bool,
}

impl Known {
    fn new(node: &str) -> Self {
        Self { catalog: Catalog::new(node), pods: Listing::default(), namespaces: Listing::default() }
    }

    /// Whether that changes anything for those who listen: not before both kinds are known, since nobody must take for
    /// not enrolled what is in a namespace that has not been listed.
    fn take_pod(&mut self, event: Event<Pod>) -> bool {
        match event {
            Event::Init => self.pods.so_far.clear(),
            Event::InitApply(pod) => self.pods.so_far.push(facts(&pod)),
            Event::InitDone => {
                self.catalog.set_pods(std::mem::take(&mut self.pods.so_far));
                self.pods.complete = true;
                return self.is_complete();
            }
            Event::Apply(pod) => {
                self.catalog.set_pod(facts(&pod));
                return self.is_complete();
            }
            Event::Delete(pod) => {
                let facts = facts(&pod);
                self.catalog.remove_pod(&facts.namespace, &facts.name);
                return self.is_complete();
            }
        }
        false
    }

    /// The same for namespaces.
    fn take_namespace(&mut self, event: Event<NamespaceMeta>) -> bool {
        let read = |one: NamespaceMeta| {
            (one.metadata.name.unwrap_or_default(), one.metadata.labels.unwrap_or_default())
        };
        match event {
            Event::Init => self.namespaces.so_far.clear(),
            Event::InitApply(one) => self.namespaces.so_far.extend([read(one)]),
            Event::InitDone => {
                self.catalog.set_namespaces(std::mem::take(&mut self.namespaces.so_far));
                self.namespaces.complete = true;
                return self.is_complete();
            }
            Event::Apply(one) => {
                let (name, labels) = read(one);
                self.catalog.set_namespace(name, labels);
                return self.is_complete();
            }
            Event::Delete(one) => {
                self.catalog.remove_namespace(&read(one).0);
                return self.is_complete();
            }
        }
        false
    }

    fn is_complete(&self) -> bool {
        self.pods.complete && self.namespaces.complete
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::{Known, NamespaceMeta, Pod};
    use crate::redirect::eligible::Verdict;

    fn pod(name: &str, node: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "books", "uid": name},
            "spec": {"nodeName": node, "containers": []},
        }))
        .expect("a pod")
    }

    fn namespace(mode: &str) -> NamespaceMeta {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "books", "labels": {"istio.io/dataplane-mode": mode}},
        }))
        .expect("a namespace")
    }

    fn captured(known: &Known) -> Vec<&str> {
        let captured = known.catalog.pods().filter(|pod| known.catalog.verdict(pod) == Verdict::Captured);
        captured.map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn nothing_is_told_before_both_kinds_are_known() {
        let mut known = Known::new("n");
        for event in [Event::Init, Event::InitApply(pod("a", "n")), Event::InitApply(pod("b", "n"))] {
            assert!(!known.take_pod(event));
        }
        assert!(!known.take_pod(Event::InitDone));
        assert!(!known.take_pod(Event::Apply(pod("c", "n"))));
        assert!(!known.take_namespace(Event::Init));
        assert!(!known.take_namespace(Event::InitApply(namespace("ambient"))));
        assert!(known.take_namespace(Event::InitDone));
        assert_eq!(captured(&known), ["a", "b", "c"]);
        assert!(known.take_pod(Event::Delete(pod("b", "n"))));
        assert!(known.take_pod(Event::Apply(pod("d", "another"))));
        assert_eq!(captured(&known), ["a", "c"]);
        assert!(known.take_namespace(Event::Apply(namespace("none"))));
        assert!(captured(&known).is_empty());
    }

    #[test]
    fn a_listing_after_a_break_takes_effect_as_a_whole() {
        let mut known = Known::new("n");
        known.take_namespace(Event::InitDone);
        known.take_namespace(Event::Apply(namespace("ambient")));
        known.take_pod(Event::InitDone);
        known.take_pod(Event::Apply(pod("gone", "n")));
        known.take_pod(Event::Init);
        assert!(!known.take_pod(Event::InitApply(pod("stays", "n"))));
        assert_eq!(captured(&known), ["gone"]);
        assert!(known.take_pod(Event::InitDone));
        assert_eq!(captured(&known), ["stays"]);
    }
}
