//! What is said of an object that somebody is about to write: refused, taken with warnings, or taken. Pure.
//!
//! Refused is what is wrong with the object itself, whatever else there is. What only other objects make wrong is warned of: they
//! may come in any order. An object that was wrong before may be changed in all that does not say what it does,
//! so that finalizers and labels of it can be.

use std::path::Path;
use std::sync::Arc;

use manifest::{API_SERVER, Code, Finding, Level, Object, Typed, analyze_one, from_json};
use model::mesh::Settings;
use model::traffic::health::ANNOTATION as HEALTH_CHECK;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::source::kube::revision::Revision;
use crate::translate::authz::{self, Fate};

/// What `kubectl apply` writes onto each object: a copy of it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Warnings of one answer, and the bytes of one: API servers cut off what is longer.
const WARNINGS: usize = 12;
const LENGTH: usize = 256;
/// Bytes of what an object is refused with.
const REASONS: usize = 4096;

/// The question.
#[derive(Debug, Deserialize)]
pub(super) struct Review {
    pub(super) request: Asked,
}

/// What is about to be done.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    uid: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Judgement {
    /// Why the object is not taken; nothing: it is.
    pub(super) refused: Option<String>,
    pub(super) warnings: Vec<String>,
}

impl Review {
    /// As API servers read it.
    pub(super) fn answer(&self, judged: &Judgement) -> Value {
        let mut response = json!({"uid": self.request.uid, "allowed": judged.refused.is_none()});
        if let Some(refused) = &judged.refused {
            response["status"] = json!({"code": 422, "reason": "Invalid", "message": refused});
        }
        if !judged.warnings.is_empty() {
            response["warnings"] = json!(judged.warnings);
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }
}

/// Judges an object beside those that are known.
pub(super) fn judge(asked: &Asked, known: &[Arc<Object>], mesh: &Settings, revision: &Revision) -> Judgement {
    if !matches!(asked.operation.as_str(), "CREATE" | "UPDATE") || !asked.object.is_object() {
        return Judgement::default();
    }
    let mut parsed = from_json(&whole(asked), &Arc::from(Path::new(API_SERVER)));
    let object = parsed.objects.pop().map(Arc::new);
    // Another revision's is for that one's webhook.
    if object.as_ref().is_some_and(|object| !revision.sees(object)) {
        return Judgement::default();
    }
    let (mut wrong, mut odd) = (Vec::new(), Vec::new());
    for finding in &parsed.findings {
        match (finding.level, finding.code) {
            (_, Code::IgnoredKind) | (Level::Info, _) => {}
            // Whoever moves from another mesh has some, and is told.
            (_, Code::UnsupportedKind) | (Level::Warning, _) => odd.push(said(finding)),
            (Level::Error, _) => wrong.push(said(finding)),
        }
    }
    if let Some(object) = &object {
        if wrong.is_empty() {
            wrong.extend(refused_by_policy(object, mesh));
        }
        let key = object.key();
        let mut all: Vec<Arc<Object>> = known.iter().filter(|one| one.key() != key).cloned().collect();
        all.push(object.clone());
        let others = analyze_one(object, &all, &mesh.root_namespace);
        odd.extend(others.iter().filter(|finding| finding.level > Level::Info).map(said));
    }
    odd.dedup();
    let same = asked.operation == "UPDATE" && said_by(&asked.object) == said_by(&asked.old_object);
    if same {
        odd = [std::mem::take(&mut wrong), odd].concat();
    }
    let refused = (!wrong.is_empty()).then(|| shortened(&wrong.join("; "), REASONS));
    let warnings = odd.iter().take(WARNINGS).map(|text| shortened(text, LENGTH)).collect();
    Judgement { refused, warnings }
}

/// What of an object says what it does: its `spec`, and the annotation that stands in the place of a field.
fn said_by(object: &Value) -> (Option<&Value>, Option<&Value>) {
    let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
    (object.get("spec"), annotations.and_then(|all| all.get(HEALTH_CHECK)))
}

/// The object as it is going to be, with what the API server adds only later.
fn whole(asked: &Asked) -> Value {
    let mut object = asked.object.clone();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return object };
    metadata.shift_remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(LAST_APPLIED);
    }
    if let Some(namespace) = asked.namespace.as_ref().filter(|namespace| !namespace.is_empty()) {
        metadata.entry("namespace").or_insert_with(|| json!(namespace));
    }
    if metadata.get("name").is_none_or(|name| name == "") {
        let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
        let name = format!("{prefix}x");
        metadata.insert("name".to_owned(), name.into());
    }
    object
}

/// A policy that reads well but cannot be enforced, so that all it is for would be refused.
fn refused_by_policy(object: &Object, mesh: &Settings) -> Option<String> {
    if !matches!(object.spec, Typed::AuthorizationPolicy(_)) {
        return None;
    }
    match authz::policy(object, mesh).fate {
        Fate::Refused(reason) => Some(reason.to_string()),
        _ => None,
    }
}

/// A finding without a place: nobody sees the lines of what he has sent.
fn said(finding: &Finding) -> String {
    let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
    let fix = finding.fix.as_ref().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
    // Here all there is is known, which an analysis of files cannot say of itself.
    let message = finding.message.replace("among these files", "in the cluster");
    let message = message.replace("in these files", "in the cluster");
    format!("{field}{message} ({}){fix}", finding.code)
}

fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
