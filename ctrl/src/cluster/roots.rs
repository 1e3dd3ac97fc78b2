//! Gives every namespace the certificates that the mesh is trusted by, where Istio's clients look for them: in the
//! ConfigMap `istio-ca-root-cert`. What somebody changes or removes there is put right.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use super::answer::answered;
use super::statuses::MANAGER;
use crate::core::{Core, Held};
use crate::source::kube::outage::Outage;

/// The ConfigMap, and the key in it.
const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// After a round in which something could not be written.
const AGAIN: Duration = Duration::from_secs(5);

/// What stands in the ConfigMap, by namespace.
type There = BTreeMap<String, Option<String>>;

/// Runs for as long as the controller does.
pub(super) async fn run(client: Client, core: Core, outage: Outage, mut leads: watch::Receiver<bool>) {
    let named = Config::default().fields(&format!("metadata.name={NAME}"));
    let maps = watcher(Api::<ConfigMap>::all(client.clone()), named).backoff(DefaultBackoff::default());
    let mut events = pin!(maps);
    let mut changes = core.changes();
    let (mut there, mut listing) = (There::new(), There::new());
    let (mut listed, mut failed) = (false, false);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Init)) => listing.clear(),
                Some(Ok(Event::InitApply(map))) => note(&mut listing, map),
                Some(Ok(Event::InitDone)) => (there, listed) = (std::mem::take(&mut listing), true),
                Some(Ok(Event::Apply(map))) => note(&mut there, map),
                Some(Ok(Event::Delete(map))) => drop(there.remove(&map.metadata.namespace.unwrap_or_default())),
                Some(Err(error)) => outage.note("ConfigMap", &error),
                None => return,
            },
            changed = changes.changed() => if changed.is_err() { return },
            changed = leads.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if failed => {}
        }
        if !listed || !*leads.borrow() {
            continue;
        }
        let (namespaces, pem) = wanted(&core.read());
        failed = false;
        for namespace in lacking(&namespaces, &there, &pem) {
            if !*leads.borrow() {
                break;
            }
            match answered(write(&client, &namespace, &pem)).await {
                // As it will be told of; until then it is not written again.
                Ok(()) => drop(there.insert(namespace, Some(pem.clone()))),
                Err(kube::Error::Api(status)) if is_going(status.code, &status.message) => {}
                Err(error) => {
                    failed = true;
                    outage.note("ConfigMap", &error);
                }
            }
        }
    }
}

fn note(there: &mut There, map: ConfigMap) {
    let text = map.data.and_then(|mut data| data.remove(KEY));
    there.insert(map.metadata.namespace.unwrap_or_default(), text);
}

/// The namespaces that are not being removed, and what is to stand in each.
fn wanted(held: &Held) -> (BTreeSet<String>, String) {
    let all = held.compiler.index().objects_of("", "Namespace");
    let stay = all.filter(|namespace| namespace.metadata.deletion_timestamp.is_none());
    (stay.map(|namespace| namespace.metadata.name.clone()).collect(), bundle(held))
}

/// All roots that are trusted, as PEM.
pub(super) fn bundle(held: &Held) -> String {
    let roots = &held.compiler.context().settings.trust.roots;
    roots.iter().map(|root| pem::encode(&pem::Pem::new("CERTIFICATE", root.to_vec()))).collect()
}

/// Namespaces where something else stands, or nothing.
fn lacking(namespaces: &BTreeSet<String>, there: &There, pem: &str) -> Vec<String> {
    if pem.is_empty() {
        return Vec::new();
    }
    let has = |namespace: &&String| there.get(*namespace).and_then(Option::as_deref) == Some(pem);
    namespaces.iter().filter(|namespace| !has(namespace)).cloned().collect()
}

/// Whether the API server refuses because the namespace is on its way out, or gone. That we may not write there names the
/// namespace too, and is to be told.
fn is_going(code: u16, message: &str) -> bool {
    match code {
        403 => message.contains("being terminated"),
        404 => message.contains("namespace"),
        _ => false,
    }
}

async fn write(client: &Client, namespace: &str, pem: &str) -> Result<(), kube::Error> {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {"istio.io/config": "true"}},
        "data": {KEY: pem},
    });
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    maps.patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_goes_is_no_fault_and_a_right_that_lacks_is() {
        for (code, message, going) in [
            (404, r#"namespaces "shop" not found"#, true),
            (
                403,
                r#"configmaps "istio-ca-root-cert" is forbidden: unable to create new content in namespace shop because it is being terminated"#,
                true,
            ),
            (
                403,
                r#"configmaps "istio-ca-root-cert" is forbidden: User "system:serviceaccount:istio-system:ctrl" cannot patch resource "configmaps" in API group "" in the namespace "shop""#,
                false,
            ),
            (409, "conflict in the namespace", false),
        ] {
            assert_eq!(is_going(code, message), going, "{message}");
        }
    }

    #[test]
    fn namespaces_lack_what_is_not_there_or_is_something_else() {
        let namespaces = BTreeSet::from(["a".to_owned(), "b".to_owned(), "c".to_owned(), "d".to_owned()]);
        let there = There::from([
            ("a".to_owned(), Some("roots".to_owned())),
            ("b".to_owned(), Some("older roots".to_owned())),
            ("c".to_owned(), None),
            ("gone".to_owned(), None),
        ]);
        assert_eq!(lacking(&namespaces, &there, "roots"), ["b", "c", "d"]);
        assert_eq!(lacking(&namespaces, &there, ""), Vec::<String>::new(), "no roots are none to give out");
    }
}
