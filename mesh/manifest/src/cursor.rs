//! Walking down a tree with the path at hand, for the checks: each step knows its place and its name.

use crate::{
    node::{Node, Value},
    position::Mark,
};

/// A value, where it stands and what it is called.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) node: &'a Node,
    /// Where to point at: the value, or the key when the value is empty.
    pub(crate) at: Mark,
    /// Where the key stands.
    pub(crate) key_at: Mark,
    /// The path, as in findings.
    pub(crate) path: String,
}

impl<'a> Cursor<'a> {
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { node, at: node.at, key_at: node.at, path: String::new() }
    }

    /// The value of `key`, if there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let entry = self.node.entry(key).filter(|entry| !entry.node.is_null())?;
        Some(self.child(key, &entry.node, entry.at))
    }

    /// Every key and its value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a str, Self)> {
        self.node
            .entries()
            .iter()
            .map(|entry| (entry.key.as_str(), self.child(&entry.key, &entry.node, entry.at)))
    }

    /// Every item of the list under `key`.
    pub(crate) fn items(&self, key: &str) -> Vec<Self> {
        self.get(key).map(|list| list.own_items()).unwrap_or_default()
    }

    /// Every item, when this is a list.
    pub(crate) fn own_items(&self) -> Vec<Self> {
        let item = |(index, node): (usize, &'a Node)| Self {
            node,
            at: node.at,
            key_at: node.at,
            path: format!("{}[{index}]", self.path),
        };
        self.node.items().iter().enumerate().map(item).collect()
    }

    /// The text, empty when it is none.
    pub(crate) fn text(&self) -> &'a str {
        self.node.text().unwrap_or_default()
    }

    /// True for a list or an object that is there and holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            Value::Scalar(..) => false,
        }
    }

    fn child(&self, key: &str, node: &'a Node, key_at: Mark) -> Self {
        let at = if node.is_null() { key_at } else { node.at };
        let path = match (self.path.is_empty(), key.contains(['.', '[', '/', '"']) || key.is_empty()) {
            (_, true) => format!("{}[{key:?}]", self.path),
            (true, false) => key.to_owned(),
            (false, false) => format!("{}.{key}", self.path),
        };
        Self { node, at, key_at, path }
    }
}
