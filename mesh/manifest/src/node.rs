//! A document as a tree in which every value and every key knows where it stands. Everything after the
//! parser works on this: decoding into types, validation, and pointing at `spec.rules[0]` later.

use std::fmt;

use crate::{position::Mark, scalar::Scalar};

/// One value of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value begins; of an object, where its first key stands.
    pub at: Mark,
    /// The value itself.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A scalar, with its text as written.
    Scalar(Scalar, String),
    /// A list.
    List(Vec<Node>),
    /// An object; keys are unique and in the order in which they were written.
    Map(Vec<Entry>),
}

/// One key of an object and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key stands.
    pub at: Mark,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// The value of `key`, when this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The entry of `key`, when this is an object that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The keys and values; none unless this is an object.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items; none unless this is a list.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text, when this is a string.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Scalar::Text, text) => Some(text),
            _ => None,
        }
    }

    /// True for `null`, `~` and nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Scalar::Null, _))
    }

    /// Where `path` stands: the key of an object's entry, the beginning of a list's item. A path that leads
    /// nowhere gives the deepest part of it that exists.
    pub fn locate(&self, path: &[Step<'_>]) -> Mark {
        let mut node = self;
        let mut mark = self.at;
        for step in path {
            match step {
                Step::Key(key) => match node.entry(key) {
                    Some(entry) => (node, mark) = (&entry.node, entry.at),
                    None => return mark,
                },
                Step::Index(index) => match node.items().get(*index) {
                    Some(item) => (node, mark) = (item, item.at),
                    None => return mark,
                },
            }
        }
        mark
    }

    /// The same document as JSON, keys in the order in which they were written.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(Scalar::Null, _) => serde_json::Value::Null,
            Value::Scalar(Scalar::Bool(value), _) => (*value).into(),
            Value::Scalar(Scalar::Int(value), _) => (*value).into(),
            Value::Scalar(Scalar::Unsigned(value), _) => (*value).into(),
            Value::Scalar(Scalar::Float(value), _) => (*value).into(),
            Value::Scalar(Scalar::Text, text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
            }
        }
    }

    /// A tree without places, from JSON that came over a wire.
    pub fn from_json(value: &serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Scalar(Scalar::Null, String::new()),
            serde_json::Value::Bool(value) => Value::Scalar(Scalar::Bool(*value), value.to_string()),
            serde_json::Value::Number(number) => Value::Scalar(json_number(number), number.to_string()),
            serde_json::Value::String(text) => Value::Scalar(Scalar::Text, text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        at: Mark::default(),
                        node: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { at: Mark::default(), value }
    }

    /// What this is, for error messages: `a string`, `an object`, …
    pub(crate) const fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Scalar::Null, _) => "empty",
            Value::Scalar(Scalar::Bool(_), _) => "a boolean",
            Value::Scalar(Scalar::Int(_) | Scalar::Unsigned(_), _) => "an integer",
            Value::Scalar(Scalar::Float(_), _) => "a number",
            Value::Scalar(Scalar::Text, _) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
        }
    }
}

fn json_number(number: &serde_json::Number) -> Scalar {
    if let Some(value) = number.as_i64() {
        Scalar::Int(value)
    } else if let Some(value) = number.as_u64() {
        Scalar::Unsigned(value)
    } else {
        Scalar::Float(number.as_f64().unwrap_or_default())
    }
}

/// One step of a path into a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Into the value of a key.
    Key(&'a str),
    /// Into the item of a list, from 0.
    Index(usize),
}

/// A path into a document while walking down: cheap to extend, shown as `spec.rules[0].from`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    /// The document itself.
    Root,
    /// The value of a key of the parent.
    Key(&'a Path<'a>, &'a str),
    /// An item of the parent.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, key) if key.is_empty() || key.contains(['.', '[', '/', '"']) => {
                write!(f, "{parent}[{key:?}]")
            }
            Self::Key(Path::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
        }
    }
}
