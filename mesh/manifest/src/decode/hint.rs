//! The likely fix for a field in the wrong place or with the wrong name.

use super::De;
use crate::{
    node::{Entry, Value},
    scalar::Scalar,
    suggest::nearest,
};

/// How many field names a fix lists at most.
const MAX_LISTED: usize = 14;

/// A struct around the one being read.
pub(super) struct Scope<'a> {
    pub(super) parent: Option<&'a Scope<'a>>,
    pub(super) object: &'a De<'a>,
    pub(super) known: Option<&'static [&'static str]>,
}

/// The fix for a key that its struct does not have: it belongs to a struct further out (indented too far), or
/// to an empty one before it (not indented enough), or it is misspelt.
pub(super) fn for_unknown(
    entry: &Entry,
    siblings: &[Entry],
    known: &'static [&'static str],
    scope: Option<&Scope<'_>>,
) -> Option<String> {
    indented_too_far(entry, scope)
        .or_else(|| nearest(&entry.key, known.iter().copied()).map(|word| format!("did you mean `{word}`?")))
        .or_else(|| indented_too_little(entry, siblings))
        .or_else(|| match known {
            [] => None,
            ["matchLabels"] => Some(format!("labels stand under `matchLabels`: {{{}: …}}", entry.key)),
            known if known.len() <= MAX_LISTED => Some(format!("known here: {}", known.join(", "))),
            _ => None,
        })
}

fn indented_too_far(entry: &Entry, mut scope: Option<&Scope<'_>>) -> Option<String> {
    while let Some(outer) = scope {
        if outer.known.is_some_and(|known| known.contains(&entry.key.as_str())) {
            let path = outer.object.path.to_string();
            let owner = if path.is_empty() { "the document itself".to_owned() } else { format!("`{path}`") };
            let fields_at = outer.object.node.at;
            return Some(match fields_at.is_known() {
                true => format!(
                    "`{}` is a field of {owner}: indent it by {} instead of {}",
                    entry.key,
                    fields_at.column - 1,
                    entry.at.column.saturating_sub(1),
                ),
                false => format!("`{}` is a field of {owner}", entry.key),
            });
        }
        scope = outer.parent;
    }
    None
}

fn indented_too_little(entry: &Entry, siblings: &[Entry]) -> Option<String> {
    let before = siblings.iter().take_while(|sibling| sibling.at != entry.at);
    let empty = before.filter(|sibling| sibling.node.is_null() && sibling.at.is_known()).last()?;
    Some(format!(
        "`{}` in line {} is empty: if `{}` belongs to it, indent it further",
        empty.key, empty.at.line, entry.key
    ))
}

/// The fix for a scalar where an object is wanted: the one field it may have been meant for.
pub(super) fn for_scalar(de: De<'_>, known: Option<&'static [&'static str]>) -> Option<String> {
    match (&de.node.value, known?) {
        (Value::Scalar(Scalar::Null, _), _) => None,
        (Value::Scalar(_, text), [only]) => Some(format!("write {{{only}: {text}}}")),
        (_, []) => None,
        (_, known) if known.len() <= MAX_LISTED => Some(format!("its fields are {}", known.join(", "))),
        _ => None,
    }
}
