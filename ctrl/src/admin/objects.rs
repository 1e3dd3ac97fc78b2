//! `/objects/KIND?namespace=&name=` and `/findings`.

use daemon::http::{Answer, Call};
use manifest::{Finding, Object};
use serde_json::{Value, json};

use super::kinds;
use crate::core::{Core, Held};
use crate::status;

/// Objects of a kind as they were given, with their conditions, by namespace and name. Without a namespace of all.
pub(super) fn list(core: &Core, call: &Call) -> Answer {
    let asked = call.path.strip_prefix("/objects/").unwrap_or_default().trim_end_matches('/');
    let (namespace, name) = (call.parameter("namespace"), call.parameter("name"));
    let given = |wanted: &Option<String>, value: Option<&str>| {
        wanted.as_deref().filter(|wanted| !wanted.is_empty()).is_none_or(|wanted| value == Some(wanted))
    };
    let held = core.read();
    let index = held.compiler.index();
    let of_kind = || index.objects().filter(|object| kinds::means(asked, &object.kind));
    let wanted = of_kind().filter(|object| {
        // What lives in no namespace is in none that is asked for, but asked for by its kind.
        let in_namespace =
            object.metadata.namespace.is_none() || given(&namespace, object.metadata.namespace.as_deref());
        in_namespace && given(&name, Some(&object.metadata.name))
    });
    let found: Vec<Value> = wanted.map(|object| with_status(&held, object)).collect();
    if found.is_empty() && !kinds::is_known(asked) && of_kind().next().is_none() {
        let text = format!("there is no kind {asked:?}; there are: {}\n", kinds::all());
        return Answer::text(404, text);
    }
    Answer::json(&found)
}

/// The object with what became of it under `status.conditions`.
fn with_status(held: &Held, object: &Object) -> Value {
    let mut value = object.raw.clone();
    let conditions = status::conditions(&held.compiler, object, &held.findings);
    let Some(fields) = value.as_object_mut() else { return value };
    if conditions.is_empty() {
        return value;
    }
    let status = fields.entry("status").or_insert_with(|| json!({}));
    if let Some(status) = status.as_object_mut() {
        let mut all: Vec<Value> = match status.get("conditions").and_then(Value::as_array) {
            // Ours replace those of the same type that were written into the file.
            Some(written) => {
                let ours = |one: &&Value| !conditions.iter().any(|c| one["type"] == c.kind);
                written.iter().filter(ours).cloned().collect()
            }
            None => Vec::new(),
        };
        all.extend(conditions.iter().map(|condition| json!(condition)));
        status.insert("conditions".to_owned(), Value::Array(all));
        if let Some(addresses) = status::addresses(&held.compiler, object) {
            status.insert("addresses".to_owned(), addresses);
        }
    }
    value
}

/// What is wrong with the manifests, each by itself and all together.
pub(super) fn findings(core: &Core) -> Answer {
    let held = core.read();
    let index = held.compiler.index();
    let objects: Vec<_> = index.objects().cloned().collect();
    let mut findings = held.findings.clone();
    let root_namespace = index.root_namespace().clone();
    drop(held);
    findings.extend(manifest::analyze(&objects, &root_namespace));
    findings.sort_by(|one: &Finding, other| one.position.cmp(&other.position));
    findings.dedup();
    Answer::json(&findings)
}
