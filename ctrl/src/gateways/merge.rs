//! Kubernetes' strategic merge patch, as far as the parameters of a Gateway need it: objects are merged, null removes, and
//! the lists whose items have a name are merged by it. Other lists are replaced as a whole.

use serde_json::{Map, Value};
use thiserror::Error;

/// In a patch: what is to be done with an object or with an item of a list.
const DIRECTIVE: &str = "$patch";
/// The lists that are merged, and what tells their items apart: the first of the fields that an item has.
const LISTS: [(&str, &[&str]); 10] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    // Those of a container, then those of a Service.
    ("ports", &["containerPort", "port"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey"]),
];

/// What a patch asks for that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum MergeError {
    /// A directive that nobody knows here.
    #[error("{0} is not carried; of the directives of a patch only $patch: replace and $patch: delete are")]
    Directive(String),
    /// An item of a list that is merged has nothing that tells it apart.
    #[error("an item of {list} has no {key}, by which it is merged")]
    Unnamed {
        /// The list.
        list: String,
        /// The field.
        key: &'static str,
    },
}

/// Merges `patch` into `there`.
///
/// # Errors
/// What of it is not carried.
pub(super) fn merge(there: &mut Value, patch: &Value) -> Result<(), MergeError> {
    let (Value::Object(there), Value::Object(patch)) = (&mut *there, patch) else {
        *there = clean(patch)?;
        return Ok(());
    };
    match directive(patch)? {
        Some("replace") => {
            there.clear();
        }
        Some("delete") => {
            there.clear();
            return Ok(());
        }
        _ => {}
    }
    for (key, value) in fields(patch) {
        match (there.get_mut(key), value) {
            (_, Value::Null) => drop(there.remove(key)),
            (Some(Value::Array(items)), Value::Array(patch)) => merge_list(key, items, patch)?,
            (Some(one), value) => merge(one, value)?,
            (None, value) => drop(there.insert(key.clone(), clean(value)?)),
        }
    }
    Ok(())
}

fn merge_list(list: &str, there: &mut Vec<Value>, patch: &[Value]) -> Result<(), MergeError> {
    let Some((_, keys)) = LISTS.iter().find(|(name, _)| *name == list) else {
        *there = patch.iter().map(clean).collect::<Result<_, _>>()?;
        return Ok(());
    };
    // An item that is only a directive is about the whole list.
    let of_all =
        |item: &&Value| item.as_object().is_some_and(|item| item.len() == 1 && item.contains_key(DIRECTIVE));
    if patch.iter().any(|item| of_all(&item) && item[DIRECTIVE] == "replace") {
        there.clear();
    }
    for item in patch.iter().filter(|item| !of_all(item)) {
        let none = Map::new();
        let given = item.as_object().unwrap_or(&none);
        let Some(key) = keys.iter().find(|key| given.contains_key(**key)) else {
            return Err(MergeError::Unnamed { list: list.to_owned(), key: keys[0] });
        };
        let at = there.iter().position(|one| one.get(key) == given.get(*key));
        match (at, directive(given)?) {
            (Some(at), Some("delete")) => drop(there.remove(at)),
            (None, Some("delete")) => {}
            (Some(at), _) => merge(&mut there[at], item)?,
            (None, _) => there.push(clean(item)?),
        }
    }
    Ok(())
}

/// A value without directives and without what it says is not to be there.
fn clean(value: &Value) -> Result<Value, MergeError> {
    Ok(match value {
        Value::Object(given) => {
            directive(given)?;
            let kept = fields(given).filter(|(_, value)| !value.is_null());
            let kept = kept.map(|(key, value)| Ok((key.clone(), clean(value)?)));
            Value::Object(kept.collect::<Result<_, _>>()?)
        }
        Value::Array(items) => Value::Array(items.iter().map(clean).collect::<Result<_, _>>()?),
        other => other.clone(),
    })
}

fn fields(object: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    object.iter().filter(|(key, _)| *key != DIRECTIVE)
}

fn directive(object: &Map<String, Value>) -> Result<Option<&str>, MergeError> {
    if let Some(key) = object.keys().find(|key| key.starts_with('$') && *key != DIRECTIVE) {
        return Err(MergeError::Directive(key.clone()));
    }
    match object.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(word)) if matches!(word.as_str(), "replace" | "delete" | "merge") => {
            Ok(Some(word))
        }
        Some(other) => Err(MergeError::Directive(format!("{DIRECTIVE}: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_are_merged_as_kubernetes_does() {
        let there = json!({
            "replicas": 1, "gone": {"a": 1}, "strategy": {"type": "RollingUpdate", "more": {"b": 2}},
            "containers": [{"name": "a", "image": "x", "env": [{"name": "P", "value": "1"}], "args": ["1", "2"]}],
            "volumeMounts": [{"mountPath": "/a", "name": "a"}],
            "ports": [{"port": 1, "name": "one"}, {"port": 2}],
        });
        for (about, patch, path, wanted) in [
            ("a value", json!({"replicas": 3}), "/replicas", json!(3)),
            ("null removes", json!({"gone": null}), "/gone", Value::Null),
            ("a new field", json!({"new": {"a": {"b": 1, "c": null}}}), "/new", json!({"a": {"b": 1}})),
            (
                "objects go into each other",
                json!({"strategy": {"more": {"c": 3}}}),
                "/strategy",
                json!({"type": "RollingUpdate", "more": {"b": 2, "c": 3}}),
            ),
            (
                "or are replaced",
                json!({"strategy": {"$patch": "replace", "type": "Recreate"}}),
                "/strategy",
                json!({"type": "Recreate"}),
            ),
            (
                "items by their names, also deep down",
                json!({"containers": [{"name": "a", "env": [{"name": "Q", "value": "2"}, {"name": "P", "value": "3"}]}]}),
                "/containers/0",
                json!({
                    "name": "a", "image": "x", "args": ["1", "2"],
                    "env": [{"name": "P", "value": "3"}, {"name": "Q", "value": "2"}],
                }),
            ),
            (
                "other lists as a whole",
                json!({"containers": [{"name": "a", "args": ["3"]}]}),
                "/containers/0/args",
                json!(["3"]),
            ),
            ("a further item", json!({"containers": [{"name": "b"}]}), "/containers/1", json!({"name": "b"})),
            (
                "an item less",
                json!({"ports": [{"port": 1, "$patch": "delete"}]}),
                "/ports",
                json!([{"port": 2}]),
            ),
            (
                "an item that is not there",
                json!({"ports": [{"port": 9, "$patch": "delete"}]}),
                "/ports/1",
                json!({"port": 2}),
            ),
            (
                "a whole list anew",
                json!({"ports": [{"$patch": "replace"}, {"port": 3}]}),
                "/ports",
                json!([{"port": 3}]),
            ),
        ] {
            let mut merged = there.clone();
            merge(&mut merged, &patch).expect(about);
            assert_eq!(merged.pointer(path).cloned().unwrap_or_default(), wanted, "{about}");
        }
    }

    #[test]
    fn what_is_not_carried_is_refused_by_name() {
        let there = json!({"ports": [{"port": 1}], "env": []});
        for (patch, part) in [
            (json!({"$retainKeys": ["a"]}), "$retainKeys"),
            (json!({"a": {"$setElementOrder/b": []}}), "$setElementOrder/b"),
            (json!({"$patch": "turn"}), "$patch: \"turn\""),
            (json!({"env": [{"value": "1"}]}), "env has no name"),
            (json!({"ports": ["x"]}), "ports has no containerPort"),
        ] {
            let error = merge(&mut there.clone(), &patch).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
