//! An object as JSON. Few are ever asked for it, and made of a tree it takes more room than that, so that it is made
//! when somebody asks first; whether two objects say the same is told by their trees.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use crate::node::Node;

/// A document as JSON, fields in the order in which they were written. Equal are those that say the same, wherever it
/// stands and in whatever order.
#[derive(Clone)]
pub struct Raw {
    tree: Arc<Node>,
    json: OnceLock<Value>,
}

impl Raw {
    pub(crate) fn new(tree: Arc<Node>) -> Self {
        Self { tree, json: OnceLock::new() }
    }

    /// A value of its own, to be changed.
    pub fn json(&self) -> Value {
        self.json.get().cloned().unwrap_or_else(|| self.tree.to_json())
    }

    /// Whether both say the same under `key`, be it nothing.
    pub fn has_same(&self, other: &Self, key: &str) -> bool {
        match (self.tree.get(key), other.tree.get(key)) {
            (Some(one), Some(other)) => one.says_the_same(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// The tree that it is made of.
    pub(crate) fn tree(&self) -> &Node {
        &self.tree
    }
}

impl Deref for Raw {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.json.get_or_init(|| self.tree.to_json())
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.tree.says_the_same(&other.tree)
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}
