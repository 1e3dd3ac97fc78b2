//! Values of the chart: its defaults, files of values, and `--set`, in this order, checked by the chart's schema.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{SCHEMA, VALUES, schema};

/// What is wrong with values.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValuesError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// It is no YAML.
    #[error("{}: {source}", path.display())]
    Yaml { path: PathBuf, source: Box<serde_saphyr::Error> },
    /// It is not a map.
    #[error("{}: values are a map of settings", path.display())]
    NoMap { path: PathBuf },
    /// They are not what the chart takes.
    #[error("{}; all settings with what they mean: lateen manifest --values", .0.join("; "))]
    Refused(Vec<String>),
    /// What is inside this command is wrong.
    #[error("the chart's own {0} cannot be read ({1}): a defect of this command; please report it")]
    Own(&'static str, String),
}

/// One `--set NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    keys: Vec<String>,
    value: Value,
}

/// Reads one as helm does: keys with dots between, `\.` for a dot in a key, `{a,b}` for a list; true, false, null and whole
/// numbers are such, all else is text.
pub(crate) fn setting(text: &str) -> Result<Setting, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as ctrl.replicas=3")?;
    let mut keys = vec![String::new()];
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        let key = keys.len() - 1;
        match c {
            '\\' => keys[key].extend(chars.next()),
            '.' => keys.push(String::new()),
            _ => keys[key].push(c),
        }
    }
    if keys.iter().any(String::is_empty) {
        return Err(format!("{name:?} has an empty part"));
    }
    let list = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let value = match list {
        None => scalar(value),
        Some("") => Value::Array(Vec::new()),
        Some(items) => items.split(',').map(|item| scalar(item.trim())).collect(),
    };
    Ok(Setting { keys, value })
}

fn scalar(text: &str) -> Value {
    let number = || text.parse::<i64>().ok().filter(|number| number.to_string() == text).map(Value::from);
    match text {
        "true" => true.into(),
        "false" => false.into(),
        "null" => Value::Null,
        _ => number().unwrap_or_else(|| text.into()),
    }
}

/// Only what somebody asked for: `kept` from before, then files, then settings, each over the one before.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn asked(kept: Value, files: &[PathBuf], settings: &[Setting]) -> Result<Value, ValuesError> {
    let mut asked = kept;
    for path in files {
        merge(&mut asked, file(path)?);
    }
    for Setting { keys, value } in settings {
        let nested = keys.iter().rev().fold(value.clone(), |inner, key| {
            let mut map = Map::new();
            map.insert(key.clone(), inner);
            Value::Object(map)
        });
        merge(&mut asked, nested);
    }
    Ok(asked)
}

/// The chart's values with what was asked for in place of its defaults.
///
/// # Errors
/// Something that the chart does not have, or of another kind; all of them are named.
pub(crate) fn complete(asked: &Value) -> Result<Value, ValuesError> {
    let own = |what, error: String| ValuesError::Own(what, error);
    let rules: Value =
        serde_json::from_str(SCHEMA).map_err(|error| own("values.schema.json", error.to_string()))?;
    let mut values: Value =
        serde_saphyr::from_str(VALUES).map_err(|error| own("values.yaml", error.to_string()))?;
    merge(&mut values, asked.clone());
    match &schema::check(&rules, &values)[..] {
        [] => Ok(values),
        wrong => Err(ValuesError::Refused(wrong.to_vec())),
    }
}

fn file(path: &Path) -> Result<Value, ValuesError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ValuesError::File { path: path.to_owned(), source })?;
    let read: Value = serde_saphyr::from_str(&text)
        .map_err(|source| ValuesError::Yaml { path: path.to_owned(), source: Box::new(source) })?;
    match read {
        Value::Null => Ok(Value::Object(Map::new())),
        map @ Value::Object(_) => Ok(map),
        _ => Err(ValuesError::NoMap { path: path.to_owned() }),
    }
}

/// Maps are joined, all else is replaced; null takes a setting away, as with helm.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match value {
                    Value::Null => drop(into.shift_remove(&key)),
                    value => merge(into.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (into, from) => *into = from,
    }
}
