//! Labels that ask for the mesh in words that it does not know: nothing would be captured, and nobody would say so.

use super::finding;
use crate::{
    cursor::Cursor,
    enrolment::{MODE, MODES},
    finding::{Code, Finding, Level},
    object::{Object, Typed},
    position::Position,
    suggest::nearest,
};

/// Warnings about the labels of a namespace, a pod, or the pods that something makes.
pub(super) fn check(object: &Object) -> Vec<Finding> {
    let root = Cursor::root(object.tree());
    let template = match &object.spec {
        Typed::Namespace(_) | Typed::Pod(_) => Some(root),
        _ => root.get("spec").and_then(|spec| spec.get("template")),
    };
    let labels = template.and_then(|it| it.get("metadata")).and_then(|metadata| metadata.get("labels"));
    let Some(labels) = labels else { return Vec::new() };
    labels.fields().filter_map(|(key, value)| label(object, key, &value)).collect()
}

fn label(object: &Object, key: &str, value: &Cursor<'_>) -> Option<Finding> {
    let warning =
        |at, message| finding(Level::Warning, Code::SchemaWarning, object, at, &value.path, message);
    if key == MODE {
        let mode = value.text();
        if MODES.contains(&mode) {
            return None;
        }
        let message = format!("`{mode}` is no mode of the mesh: it counts as if the label were not there");
        let fix = nearest(mode, MODES).map_or_else(
            || "`ambient` enrols, `none` keeps out".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        return Some(warning(Position::new(object.file(), value.at), message).with_fix(fix));
    }
    if !key.starts_with("istio.io/") || nearest(key, [MODE]).is_none() {
        return None;
    }
    let message = format!("nobody heeds the label `{key}`");
    let finding = warning(Position::new(object.file(), value.key_at), message);
    Some(finding.with_fix(format!("did you mean `{MODE}`?")))
}
