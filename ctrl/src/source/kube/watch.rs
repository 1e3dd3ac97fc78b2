//! The watch of one kind: listed in pages, then told of every change, resumed where it broke off, listed again only
//! where the server has forgotten that place. Also while the kind's definition is not installed: then there is nothing.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, DefaultBackoff, watcher};
use kube::{Api, Client};
use manifest::{API_SERVER, Code, Finding, Object, from_json};
use tokio::sync::{mpsc, watch};

use super::definitions::Served;
use super::gather::News;
use super::listing::{Difference, Listing};
use super::outage::Outage;

/// What `kubectl apply` writes onto each object: a copy of it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One watch: which it is, and whom it tells.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) number: usize,
    pub(super) listing: Listing,
    pub(super) served: watch::Receiver<Served>,
    pub(super) outage: Outage,
    pub(super) to: mpsc::Sender<News>,
}

impl Watch {
    /// Runs for as long as somebody listens.
    pub(super) async fn run(mut self, client: Client) {
        loop {
            let going_on = match self.version() {
                Wanted::Unknown => self.served.changed().await.is_ok(),
                Wanted::Absent => {
                    let absent = self.listing.absent();
                    self.tell(absent, "").await && self.served.changed().await.is_ok()
                }
                Wanted::Version(version) => self.follow(&client, version).await,
            };
            if !going_on {
                return;
            }
        }
    }

    fn version(&mut self) -> Wanted {
        let watched = self.listing.watched();
        if !watched.custom {
            return Wanted::Version(watched.versions[0]);
        }
        match &*self.served.borrow_and_update() {
            None => Wanted::Unknown,
            Some(served) => {
                served.get(&watched.definition()).map_or(Wanted::Absent, |version| Wanted::Version(version))
            }
        }
    }

    /// Watches until another version is served, or none. False: nobody listens any more.
    async fn follow(&mut self, client: &Client, version: &'static str) -> bool {
        let resource = self.listing.watched().resource(version);
        let objects = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let mut events = pin!(watcher(objects, Config::default()).backoff(DefaultBackoff::default()));
        loop {
            tokio::select! {
                changed = self.served.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    if !matches!(self.version(), Wanted::Version(now) if now == version) {
                        return true;
                    }
                }
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        let difference = self.listing.take(event);
                        if let Some(difference) = difference
                            && !self.tell(difference, &resource.api_version).await
                        {
                            return false;
                        }
                    }
                    Some(Err(error)) => self.fail(&error),
                    None => return false,
                },
            }
        }
    }

    /// A definition that is being installed or removed is not found for a moment, which is not worth a word.
    fn fail(&self, error: &watcher::Error) {
        let of_server = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
            watcher::Error::WatchError(status) => Some(status.code),
            _ => None,
        };
        match of_server {
            Some(404) if self.listing.watched().custom => {}
            // The place where the watch was is forgotten; it is listed anew.
            Some(410) => {}
            _ => self.outage.note(self.listing.watched().kind, error),
        }
    }

    async fn tell(&self, difference: Difference, api_version: &str) -> bool {
        let kind = self.listing.watched().kind;
        let objects =
            difference.objects.into_iter().filter_map(|object| read(object, api_version, kind)).collect();
        let news =
            News { watch: self.number, objects, removed: difference.removed, complete: difference.complete };
        self.to.send(news).await.is_ok()
    }
}

/// What to ask for.
enum Wanted {
    /// Not known yet.
    Unknown,
    /// The kind is not installed.
    Absent,
    Version(&'static str),
}

/// The object in its type, with what is wrong with it. Who wrote which field, and the copy that `kubectl` keeps, are
/// most of an object's size and of no use here.
fn read(mut object: DynamicObject, api_version: &str, kind: &str) -> Option<(Arc<Object>, Vec<Finding>)> {
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    // Items of a list do not say what they are.
    object.types = None;
    let mut value = serde_json::to_value(&object).ok()?;
    let fields = value.as_object_mut()?;
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.into());
    let mut parsed = from_json(&value, &Arc::from(Path::new(API_SERVER)));
    // People are not to be told that what the cluster itself needs is of no use here.
    parsed.findings.retain(|finding| finding.code != Code::IgnoredKind);
    let object = parsed.objects.pop()?;
    Some((Arc::new(object), parsed.findings))
}

#[cfg(test)]
mod tests {
    use manifest::Typed;
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_read_as_from_a_file_without_what_only_the_server_needs() {
        let object: DynamicObject = serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "shop", "resourceVersion": "7", "generation": 2,
                "annotations": {LAST_APPLIED: "{}", "istio.io/dry-run": "true"},
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"action": "DENY", "rules": [{}]},
            "status": {"conditions": []},
        }))
        .expect("an object");
        let (read, findings) = read(object, "security.istio.io/v1", "AuthorizationPolicy").expect("readable");
        assert!(matches!(read.spec, Typed::AuthorizationPolicy(_)), "{findings:?}");
        assert_eq!(read.key().to_string(), "AuthorizationPolicy shop/p");
        assert_eq!(read.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(read.raw["metadata"]["annotations"], json!({"istio.io/dry-run": "true"}));
        assert_eq!(read.raw["metadata"].get("managedFields"), None);
    }

    #[test]
    fn a_mistake_that_the_server_let_pass_breaks_the_object_and_is_told() {
        let object: DynamicObject = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"rules": [{"form": []}]},
        }))
        .expect("an object");
        let (read, findings) = read(object, "security.istio.io/v1", "AuthorizationPolicy").expect("readable");
        assert!(matches!(read.spec, Typed::Broken));
        assert_eq!(findings[0].object.as_deref(), Some("AuthorizationPolicy shop/p"));
        assert!(findings[0].to_string().starts_with("kubernetes: error: "), "{}", findings[0]);
    }
}
