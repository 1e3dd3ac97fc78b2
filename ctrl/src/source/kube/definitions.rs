//! Which kinds of the mesh the API server knows, and in which version: definitions are installed, upgraded and removed
//! while the controller runs. Their metadata is watched; a definition itself, whose schema is large, is fetched only when
//! it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use super::kinds::Watched;
use super::outage::Outage;

/// The version to ask for, by the definition's name; nothing before all definitions were listed.
pub(super) type Served = Option<BTreeMap<String, &'static str>>;

/// After a definition could not be fetched.
const AGAIN: Duration = Duration::from_secs(2);

/// Tells `served` what there is, for as long as anybody listens.
pub(super) async fn run(client: Client, kinds: Vec<Watched>, outage: Outage, served: watch::Sender<Served>) {
    let ours: BTreeMap<String, Watched> = kinds.into_iter().map(|kind| (kind.definition(), kind)).collect();
    let metadata = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let definitions = Api::<CustomResourceDefinition>::all(client);
    let mut events = pin!(watcher(metadata, Config::default()).backoff(DefaultBackoff::default()));
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(one)) => {
                listed.extend(one.metadata.name.filter(|name| ours.contains_key(name)));
            }
            Ok(Event::InitDone) => {
                let mut now = BTreeMap::new();
                for name in std::mem::take(&mut listed) {
                    let version = fetch(&definitions, &name, &ours[&name], &outage).await;
                    now.extend(version.map(|version| (name, version)));
                }
                tell(&served, |served| *served = Some(now));
            }
            Ok(Event::Apply(one)) => {
                let Some(name) = one.metadata.name.filter(|name| ours.contains_key(name)) else { continue };
                let version = fetch(&definitions, &name, &ours[&name], &outage).await;
                tell(&served, |served| {
                    let served = served.get_or_insert_default();
                    match version {
                        Some(version) => served.insert(name, version),
                        None => served.remove(&name),
                    };
                });
            }
            Ok(Event::Delete(one)) => {
                let name = one.metadata.name.unwrap_or_default();
                tell(&served, |served| {
                    served.get_or_insert_default().remove(&name);
                });
            }
            Err(error) => outage.note("CustomResourceDefinition", &error),
        }
    }
}

/// Wakes the watches only where something is different.
fn tell(served: &watch::Sender<Served>, change: impl FnOnce(&mut Served)) {
    served.send_if_modified(|served| {
        let before = served.clone();
        change(served);
        *served != before
    });
}

/// The version of a kind to ask for; `None` where its definition is gone, or not in force yet.
async fn fetch(
    definitions: &Api<CustomResourceDefinition>,
    name: &str,
    kind: &Watched,
    outage: &Outage,
) -> Option<&'static str> {
    loop {
        match definitions.get_opt(name).await {
            Ok(definition) => return definition.and_then(|definition| preferred(&definition, kind.versions)),
            Err(error) => outage.note("CustomResourceDefinition", &error),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The first of `versions` that an established definition serves.
fn preferred(definition: &CustomResourceDefinition, versions: &[&'static str]) -> Option<&'static str> {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let established = conditions.clone().any(|one| one.type_ == "Established" && one.status == "True");
    let serves =
        |version: &&&str| definition.spec.versions.iter().any(|one| one.served && one.name == **version);
    versions.iter().find(serves).copied().filter(|_| established)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(versions: &[(&str, bool)], established: &str) -> CustomResourceDefinition {
        let versions =
            versions.iter().map(|(name, served)| json!({"name": name, "served": served, "storage": false}));
        let conditions = json!([{"type": "Established", "status": established, "reason": "", "message": ""}]);
        let value = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"},
            "spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "X", "plural": "xs"},
                     "versions": versions.collect::<Vec<_>>()},
            "status": {"conditions": conditions},
        });
        serde_json::from_value(value).expect("a definition")
    }

    #[test]
    fn the_newest_version_that_is_served_is_asked_for() {
        const ALL: &[&str] = &["v1", "v1beta1", "v1alpha3"];
        for (versions, established, wanted) in [
            (&[("v1alpha3", true), ("v1beta1", true), ("v1", true)][..], "True", Some("v1")),
            (&[("v1alpha3", true), ("v1beta1", true), ("v1", false)], "True", Some("v1beta1")),
            (&[("v1alpha3", true)], "True", Some("v1alpha3")),
            (&[("v2", true)], "True", None),
            (&[("v1", true)], "False", None),
        ] {
            assert_eq!(
                preferred(&definition(versions, established), ALL),
                wanted,
                "{versions:?} {established}"
            );
        }
    }
}
