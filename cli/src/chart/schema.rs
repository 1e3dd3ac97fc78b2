//! As much of JSON Schema as `values.schema.json` uses, with errors that name the setting and what it may be.

use serde_json::Value;

/// What of the schema's words is understood; a test sees to it that the chart uses no others.
#[cfg(test)]
pub(super) const WORDS: [&str; 12] = [
    "$schema",
    "title",
    "description",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "minimum",
    "maximum",
    "minLength",
];

/// What of `value` is not as the schema has it.
pub(super) fn check(schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    look(schema, value, "", &mut wrong);
    wrong
}

fn look(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let here = if path.is_empty() { "the values" } else { path };
    let types = types(schema);
    if !types.is_empty() && !types.iter().any(|kind| is(kind, value)) {
        wrong.push(format!("{here} is {value}, and must be {}", types.join(" or ")));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        wrong.push(format!("{here} is {value}, and must be one of {}", allowed.join(", ")));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        wrong.push(format!("{here} is {value}, and must be at least {least}"));
    }
    if let (Some(most), Some(number)) = (schema["maximum"].as_f64(), value.as_f64())
        && number > most
    {
        wrong.push(format!("{here} is {value}, and must be at most {most}"));
    }
    if let (Some(least), Some(text)) = (schema["minLength"].as_u64(), value.as_str())
        && (text.len() as u64) < least
    {
        wrong.push(format!("{here} must not be empty"));
    }
    match value {
        Value::Object(map) => {
            for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !map.contains_key(key) {
                    wrong.push(format!("{here} lacks {key}"));
                }
            }
            for (key, inner) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (&schema["properties"][key], &schema["additionalProperties"]) {
                    (Value::Null, Value::Bool(false)) => wrong.push(unknown(schema, &path, key)),
                    (Value::Null, rest) => look(rest, inner, &path, wrong),
                    (known, _) => look(known, inner, &path, wrong),
                }
            }
        }
        Value::Array(list) => {
            for (at, inner) in list.iter().enumerate() {
                look(&schema["items"], inner, &format!("{path}[{at}]"), wrong);
            }
        }
        _ => {}
    }
}

fn unknown(schema: &Value, path: &str, key: &str) -> String {
    let known = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let near = known.clone().find(|name| name.eq_ignore_ascii_case(key));
    match near {
        Some(near) => format!("there is no setting {path}; {near} is meant, perhaps"),
        None => format!("there is no setting {path}; there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}
