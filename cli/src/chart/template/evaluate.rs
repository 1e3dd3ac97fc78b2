//! A template's tree carried out.

use std::collections::BTreeMap;

use serde_json::Value;

use super::TemplateError;
use super::functions::{call, text, truth};
use super::read::{Expression, Node};

/// How far templates may include each other.
const DEEPEST: usize = 32;

/// What comes of the template `name`, at a depth of includes.
pub(super) fn render(
    bodies: &BTreeMap<String, Vec<Node>>,
    name: &str,
    context: &Value,
    depth: usize,
) -> Result<String, TemplateError> {
    if depth > DEEPEST {
        return Err(TemplateError::Evaluation(format!("{name:?} includes itself")));
    }
    let body = bodies
        .get(name)
        .ok_or_else(|| TemplateError::Evaluation(format!("there is no template {name:?}")))?;
    let mut out = String::new();
    let mut scope = Scope { bodies, root: context, variables: Vec::new(), depth };
    scope.write(body, context, &mut out)?;
    Ok(out)
}

struct Scope<'a> {
    bodies: &'a BTreeMap<String, Vec<Node>>,
    root: &'a Value,
    /// The innermost last.
    variables: Vec<(String, Value)>,
    depth: usize,
}

impl Scope<'_> {
    fn write(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Output(expression) => out.push_str(&text(&self.value(expression, dot)?)),
                Node::Set(name, expression) => {
                    let value = self.value(expression, dot)?;
                    self.variables.push((name.clone(), value));
                }
                Node::If(asked, then, otherwise) => {
                    let holds = truth(&self.value(asked, dot)?);
                    self.write(if holds { then } else { otherwise }, dot, out)?;
                }
                Node::With(given, then, otherwise) => {
                    let value = self.value(given, dot)?;
                    if truth(&value) {
                        self.write(then, &value, out)?
                    } else {
                        self.write(otherwise, dot, out)?
                    }
                }
                Node::Range { key, value, over, body, otherwise } => {
                    let entries = entries(self.value(over, dot)?)?;
                    if entries.is_empty() {
                        self.write(otherwise, dot, out)?;
                    }
                    for (at, entry) in entries {
                        let inside = self.variables.len();
                        self.variables.extend(key.clone().map(|name| (name, at)));
                        self.variables.extend(value.clone().map(|name| (name, entry.clone())));
                        self.write(body, &entry, out)?;
                        self.variables.truncate(inside);
                    }
                }
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn value(&self, expression: &Expression, dot: &Value) -> Result<Value, TemplateError> {
        match expression {
            Expression::Literal(value) => Ok(value.clone()),
            Expression::Path(None, keys) => Ok(at(dot, keys)),
            Expression::Path(Some(name), keys) if name.is_empty() => Ok(at(self.root, keys)),
            Expression::Path(Some(name), keys) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let unknown = || TemplateError::Evaluation(format!("there is no variable ${name}"));
                Ok(at(&found.ok_or_else(unknown)?.1, keys))
            }
            Expression::Call(name, given) => {
                let given = given.iter().map(|one| self.value(one, dot)).collect::<Result<Vec<_>, _>>()?;
                match (&**name, &given[..]) {
                    ("include", [Value::String(name), context]) => {
                        render(self.bodies, name, context, self.depth + 1).map(Value::from)
                    }
                    _ => call(name, &given),
                }
            }
        }
    }
}

/// What stands under these keys; nothing where one is missing, as with helm.
fn at(value: &Value, keys: &[String]) -> Value {
    let mut value = value;
    for key in keys {
        value = value.get(key).unwrap_or(&Value::Null);
    }
    value.clone()
}

/// Keys and values in the order of Go: of a map, by its keys.
fn entries(value: Value) -> Result<Vec<(Value, Value)>, TemplateError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok(list.into_iter().enumerate().map(|(at, one)| (at.into(), one)).collect()),
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().collect();
            Ok(sorted.into_iter().map(|(key, one)| (key.into(), one)).collect())
        }
        other => Err(TemplateError::Evaluation(format!("range over {other}, which is neither list nor map"))),
    }
}
