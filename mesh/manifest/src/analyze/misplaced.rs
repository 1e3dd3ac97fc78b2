//! Annotations of ours on objects of a kind that they have no effect on.

use model::traffic::health::ANNOTATION;

use super::finding;
use crate::{
    Step,
    finding::{Code, Finding, Level},
    object::{Object, Typed},
};

/// A warning where checks are asked for on what is no DestinationRule.
pub(super) fn check(object: &Object) -> Option<Finding> {
    object.annotation(ANNOTATION)?;
    // Of one that is broken its own findings say why.
    if object.kind == "DestinationRule" || matches!(object.spec, Typed::Other) {
        return None;
    }
    let at = object.locate(&[Step::Key("metadata"), Step::Key("annotations"), Step::Key(ANNOTATION)]);
    let message = format!("`{ANNOTATION}` has no effect on a {}: nobody checks", object.kind);
    let field = format!("metadata.annotations[{ANNOTATION:?}]");
    let finding = finding(Level::Warning, Code::NotCarried, object, at, &field, message);
    Some(finding.with_fix("write it on the DestinationRule of the host"))
}
