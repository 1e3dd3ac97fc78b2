//! Which pod a person means.

use std::sync::Arc;

use super::{Entry, PodView, World};
use crate::local::manifests::ObjectName;
use crate::local::scheduler::Kind;
use crate::local::services;

impl World {
    /// The pod a name means: its own, KIND/NAME of what made it, or the unique beginning of one.
    pub(super) fn find(&self, namespace: &str, text: &str) -> Result<PodView, String> {
        let here: Vec<&Entry> =
            self.pods.values().filter(|entry| entry.owner.namespace == namespace && !entry.leaving).collect();
        let name = |entry: &Entry| entry.pod.metadata.name.clone().unwrap_or_default();
        let view = |entry: &&Entry| PodView { pod: entry.pod.clone(), live: Arc::clone(&entry.live) };
        let best = |mut found: Vec<&Entry>| {
            found.sort_by_key(|entry| (!services::is_ready(&entry.pod), name(entry)));
            found.first().map(view)
        };
        // As `get -o name` writes it.
        let text = ["pod/", "pods/", "po/"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
        if let Some((kind, wanted)) = text.split_once('/') {
            let found = match Kind::from_short(kind) {
                Some(kind) => {
                    here.into_iter().filter(|e| e.owner.kind == kind && e.owner.name == wanted).collect()
                }
                None if matches!(kind, "svc" | "service" | "services") => {
                    self.behind(namespace, wanted, &here)?
                }
                None => {
                    return Err(format!(
                        "{kind:?} is no kind that has pods; use deploy, sts, ds, job, svc or pod"
                    ));
                }
            };
            return best(found).ok_or_else(|| format!("{text} has no pod in namespace {namespace}"));
        }
        if let Some(entry) = here.iter().find(|entry| name(entry) == text) {
            return Ok(view(entry));
        }
        let beginning: Vec<&Entry> = here.into_iter().filter(|entry| name(entry).starts_with(text)).collect();
        match beginning.as_slice() {
            [] => Err(format!("there is no pod {text:?} in namespace {namespace}; see: lateen get pods -A")),
            [one] => Ok(view(one)),
            // Replicas of one owner are as good as each other.
            [first, rest @ ..] if rest.iter().all(|other| other.owner == first.owner) => {
                best(beginning).ok_or_else(String::new)
            }
            many => {
                let names = many.iter().map(|entry| name(entry)).collect::<Vec<_>>().join(", ");
                Err(format!("{text:?} is the beginning of several pods: {names}"))
            }
        }
    }

    fn behind<'a>(
        &self,
        namespace: &str,
        service: &str,
        pods: &[&'a Entry],
    ) -> Result<Vec<&'a Entry>, String> {
        let manifests = self.manifests.borrow();
        let key = ObjectName { namespace: namespace.to_owned(), name: service.to_owned() };
        let found = manifests.services.get(&key).ok_or_else(|| format!("there is no Service {key}"))?;
        let selector = found.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let labels =
            |entry: &Entry, key: &str| entry.pod.metadata.labels.as_ref().and_then(|l| l.get(key).cloned());
        let selected = |entry: &&&Entry| {
            !selector.is_empty()
                && selector.iter().all(|(key, value)| labels(entry, key).as_ref() == Some(value))
        };
        Ok(pods.iter().filter(selected).copied().collect())
    }
}
