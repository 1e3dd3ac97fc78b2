//! Which fields a type reads, as its schema has them. So the table can be held against the types themselves.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::schema::types::schema;

/// Every field that a `T` reads, by its path (`[]` for items, `{}` for values by key), with a value where it has no
/// fields of its own.
pub(super) fn fields<T: for<'de> Deserialize<'de>>() -> Vec<(String, Option<Value>)> {
    let mut all = Vec::new();
    below(&schema::<T>(), "spec", &mut all);
    all
}

fn below(schema: &Value, path: &str, all: &mut Vec<(String, Option<Value>)>) {
    let sample = match schema["type"].as_str() {
        Some("object") => {
            for (key, value) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{key}");
                all.push((path.clone(), None));
                below(value, &path, all);
            }
            if let Some(value) = schema.get("additionalProperties") {
                below(value, &format!("{path}{{}}"), all);
            }
            return;
        }
        Some("array") => return below(&schema["items"], &format!("{path}[]"), all),
        Some("boolean") => json!(true),
        Some("integer") => json!(1),
        Some("number") => json!(1.0),
        // The last word of an enum is another than what it is where nothing is said; a text may be a length of time.
        Some("string") => {
            schema["enum"].as_array().and_then(|words| words.last().cloned()).unwrap_or(json!("1s"))
        }
        other => panic!("{path}: a type that this does not know: {other:?}"),
    };
    all.push((path.to_owned(), Some(sample)));
}
