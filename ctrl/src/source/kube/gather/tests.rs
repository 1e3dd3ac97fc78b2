//! What watches tell, and the batches it comes to.

use std::path::Path;

use manifest::{Typed, from_json};
use serde_json::json;

use super::*;

fn policy(name: &str, action: &str) -> (Arc<Object>, Vec<Finding>) {
    let value = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": {"action": action, "rules": [{}]},
    });
    let mut parsed = from_json(&value, &Arc::from(Path::new("kubernetes")));
    (Arc::new(parsed.objects.pop().expect("an object")), parsed.findings)
}

fn news(watch: usize, objects: Vec<(Arc<Object>, Vec<Finding>)>, removed: Vec<Key>, complete: bool) -> News {
    News { watch, objects, removed, complete }
}

/// Names of what is in a batch and what it takes away, and how many findings stand, if they are others than before.
fn shown(batch: Option<Batch>) -> Option<(Vec<String>, Vec<String>, Option<usize>)> {
    let batch = batch?;
    Some((
        batch.upserted.iter().map(|object| object.metadata.name.clone()).collect(),
        batch.removed.iter().map(|key| key.name.clone()).collect(),
        batch.findings_changed.then_some(batch.findings.len()),
    ))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_first_batch_waits_for_every_kind_and_comes_though_there_is_nothing() {
    let mut gather = Gather::new(2);
    gather.take(news(0, vec![], vec![], true));
    assert_eq!(shown(gather.batch()), None);
    gather.take(news(1, vec![], vec![], false));
    assert_eq!(shown(gather.batch()), None, "told of, but not of all");
    gather.take(news(1, vec![], vec![], true));
    assert_eq!(shown(gather.batch()), Some((names(&[]), names(&[]), Some(0))));
    assert_eq!(shown(gather.batch()), None, "once");
}

#[test]
fn the_last_word_on_an_object_counts() {
    let mut gather = Gather::new(1);
    gather.take(news(0, vec![policy("a", "DENY"), policy("b", "DENY")], vec![], true));
    gather.take(news(0, vec![policy("c", "DENY")], vec![policy("a", "DENY").0.key()], false));
    gather.take(news(0, vec![], vec![policy("c", "DENY").0.key()], false));
    gather.take(news(0, vec![policy("c", "ALLOW")], vec![], false));
    assert_eq!(gather.waiting(), 3);
    assert_eq!(shown(gather.batch()), Some((names(&["b", "c"]), names(&["a"]), Some(0))));
}

#[test]
fn findings_stand_until_their_object_is_mended_or_gone() {
    let mut gather = Gather::new(1);
    gather.take(news(0, vec![policy("a", "DNEY"), policy("b", "DNEY")], vec![], true));
    let batch = gather.batch().expect("a batch");
    assert!(batch.upserted.iter().all(|object| matches!(object.spec, Typed::Broken)));
    assert_eq!(batch.findings.len(), 2, "{:?}", batch.findings);
    gather.take(news(0, vec![policy("a", "DENY")], vec![], false));
    assert_eq!(shown(gather.batch()), Some((names(&["a"]), names(&[]), Some(1))));
    gather.take(news(0, vec![policy("a", "ALLOW")], vec![], false));
    assert_eq!(shown(gather.batch()), Some((names(&["a"]), names(&[]), None)));
    gather.take(news(0, vec![], vec![policy("b", "DNEY").0.key()], false));
    assert_eq!(shown(gather.batch()), Some((names(&[]), names(&["b"]), Some(0))));
}
