//! Of several controllers side by side, which object is whose: by `istio.io/rev`, as Istio reads it. An object that names a
//! revision is that one's, of one that names none every revision takes account. All know all Gateways, because traffic goes
//! by them; a Gateway is run by the revision that it names, or its namespace, or by the default. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use manifest::{Batch, Object};

use crate::index::facts::REVISION as LABEL;

/// The revision of what names none.
pub const DEFAULT: &str = "default";

/// Which revision this controller is, and by which further names (tags) it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    name: String,
    tags: BTreeSet<String>,
}

impl Revision {
    /// Of this name and with these tags; the empty name is the default's.
    pub fn new(name: &str, tags: impl IntoIterator<Item = String>) -> Self {
        let name = if name.is_empty() { DEFAULT } else { name };
        Self { name: name.to_owned(), tags: tags.into_iter().collect() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a label's value is this revision.
    pub fn is(&self, named: &str) -> bool {
        named == self.name || self.tags.contains(named)
    }

    /// Whether what names no revision is this one's.
    pub fn is_default(&self) -> bool {
        self.is(DEFAULT)
    }

    /// Whether this revision takes account of an object. Of every Gateway, whoever runs it: traffic goes by it.
    pub fn sees(&self, object: &Object) -> bool {
        is_gateway(object) || named(object).is_none_or(|named| self.is(named))
    }

    /// Whether a Gateway, in a namespace with that label, is for this revision to run and to write the status of.
    pub fn runs(&self, gateway: &Object, namespace: Option<&str>) -> bool {
        named(gateway).or(namespace).map_or(self.is_default(), |named| self.is(named))
    }
}

/// The revision that an object of the mesh names itself.
pub(crate) fn named(object: &Object) -> Option<&str> {
    let of_mesh = object.api_version.contains(".istio.io/") || is_gateway(object);
    object.label(LABEL).filter(|named| of_mesh && !named.is_empty())
}

fn is_gateway(object: &Object) -> bool {
    object.kind == "Gateway" && object.api_version.starts_with("gateway.networking.k8s.io/")
}

/// The batch as a revision is to see it: what has become another's is gone.
pub(super) fn sieve(revision: &Revision, mut batch: Batch) -> Batch {
    let (seen, others): (_, Vec<Arc<Object>>) =
        std::mem::take(&mut batch.upserted).into_iter().partition(|object| revision.sees(object));
    batch.upserted = seen;
    batch.removed.extend(others.iter().map(|object| object.key()));
    batch
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use manifest::from_json;
    use serde_json::json;

    use super::*;

    fn object(api_version: &str, kind: &str, revision: &str) -> Arc<Object> {
        let labels = if revision.is_empty() { json!({}) } else { json!({LABEL: revision}) };
        let value = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"name": "x", "namespace": "shop", "labels": labels}, "spec": {},
        });
        Arc::new(from_json(&value, &Arc::from(Path::new("kubernetes"))).objects.remove(0))
    }

    fn policy(revision: &str) -> Arc<Object> {
        object("security.istio.io/v1", "AuthorizationPolicy", revision)
    }

    fn gateway(revision: &str) -> Arc<Object> {
        object("gateway.networking.k8s.io/v1", "Gateway", revision)
    }

    fn pod(revision: &str) -> Arc<Object> {
        object("v1", "Pod", revision)
    }

    fn revisions() -> [Revision; 3] {
        let of = |name: &str, tags: &[&str]| Revision::new(name, tags.iter().map(|tag| (*tag).to_owned()));
        [of("", &[]), of("canary", &["next"]), of("v1", &["default"])]
    }

    #[test]
    fn who_takes_account_of_an_object() {
        for (object, wanted) in [
            (policy(""), [true, true, true]),
            (policy("canary"), [false, true, false]),
            (policy("next"), [false, true, false]),
            (policy("default"), [true, false, true]),
            (gateway("canary"), [true, true, true]),
            (pod("canary"), [true, true, true]),
        ] {
            assert_eq!(revisions().map(|revision| revision.sees(&object)), wanted, "{}", object.raw);
        }
    }

    #[test]
    fn who_runs_a_gateway() {
        for (own, namespace, wanted) in [
            ("", None, [true, false, true]),
            ("", Some("next"), [false, true, false]),
            ("v1", Some("canary"), [false, false, true]),
            ("default", Some("canary"), [true, false, true]),
        ] {
            let runs = revisions().map(|revision| revision.runs(&gateway(own), namespace));
            assert_eq!(runs, wanted, "{own:?} in a namespace of {namespace:?}");
        }
    }

    #[test]
    fn what_becomes_anothers_is_gone() {
        let batch = Batch { upserted: vec![policy(""), policy("canary"), pod("")], ..Batch::default() };
        let kinds =
            |batch: &Batch| batch.upserted.iter().map(|object| object.kind.clone()).collect::<Vec<_>>();
        let seen = sieve(&revisions()[0], batch);
        assert_eq!(kinds(&seen), ["AuthorizationPolicy", "Pod"]);
        assert_eq!(seen.removed, [policy("").key()]);
    }
}
