//! As much of Go's templates as the charts use: values, pipelines, `if`, `range`, `with`, `define` and `include`, and a
//! handful of functions. What is not known is refused, so that a chart that goes beyond it is noticed by the tests.

mod evaluate;
mod functions;
mod read;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use self::read::Node;

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// It is not understood.
    #[error("line {line}: {what}")]
    Syntax { line: usize, what: String },
    /// It cannot be carried out.
    #[error("{0}")]
    Evaluation(String),
}

/// Templates that can use each other.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    /// By file, or by the name of a `define`.
    bodies: BTreeMap<String, Vec<Node>>,
}

impl Templates {
    /// Reads one.
    ///
    /// # Errors
    /// It is not understood.
    pub(crate) fn add(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        let (body, defined) = read::read(text)?;
        self.bodies.insert(name.to_owned(), body);
        self.bodies.extend(defined);
        Ok(())
    }

    /// What comes of one.
    ///
    /// # Errors
    /// It asks for what does not exist.
    pub(crate) fn render(&self, name: &str, context: &Value) -> Result<String, TemplateError> {
        evaluate::render(&self.bodies, name, context, 0)
    }
}
