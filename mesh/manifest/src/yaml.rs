//! Text to trees: YAML (and JSON, which is YAML) split into documents, each parsed into [`Node`]s with their
//! places. Bounded in depth, in nodes and thereby in what aliases can blow up to.

mod build;
mod json;
mod syntax;

use serde_saphyr::granit_parser::{self, Event, Parser};

use crate::{finding::Code, node::Node, position::Mark};
use build::Builder;

/// How deep a document may nest. Kubernetes objects stay under 20.
const MAX_DEPTH: usize = 100;
/// How many values a file may hold, those that aliases repeat counted each time.
const MAX_NODES: usize = 500_000;
/// How many documents of a file may be broken before the rest is not read.
const MAX_BROKEN: usize = 1000;
/// How many findings the text of one document may give before the rest is left out.
const MAX_FINDINGS: usize = 50;

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// The tree; `None` where the text is not YAML.
    pub(crate) root: Option<Node>,
    /// What was wrong with the text itself.
    pub(crate) faults: Vec<Fault>,
}

/// Something wrong with the text, before any schema comes in.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) at: Mark,
    pub(crate) message: String,
    pub(crate) field: String,
    pub(crate) fix: Option<String>,
}

impl Fault {
    fn new(code: Code, at: Mark, message: impl Into<String>) -> Self {
        Self { code, at, message: message.into(), field: String::new(), fix: None }
    }

    fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// All documents of `text`, empty ones left out. A document that is not YAML does not hide the others.
pub(crate) fn documents(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(document) = json::document(text) {
        return vec![document];
    }
    let mut budget = MAX_NODES;
    let mut documents = Vec::new();
    let (mut broken, mut looked_at) = (0, 0);
    for (first_line, part) in parts(text) {
        if broken >= MAX_BROKEN {
            let message =
                format!("more than {MAX_BROKEN} documents of this file are broken: the rest is not read");
            let fault = Fault::new(Code::Syntax, Mark::new(first_line.saturating_add(1), 1), message);
            documents.push(Document { root: None, faults: vec![fault] });
            break;
        }
        read_part(part, first_line, &mut budget, &mut documents);
        let new: &[Document] = &documents[looked_at..];
        broken += new.iter().filter(|document| document.root.is_none()).count();
        looked_at = documents.len();
    }
    documents
}

/// The text cut before each line that begins with `---`, each part with the number of lines before it. YAML
/// forbids such a line inside any scalar, so cutting there is safe, and one broken document spares the rest.
fn parts(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset, mut line) = (0, 0, 0, 0);
    for row in text.split_inclusive('\n') {
        let marker = row
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        // Directives (`%YAML 1.2`) belong to the marker that follows them.
        if marker && !is_only_directives(&text[start..offset]) {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, line);
        }
        offset += row.len();
        line += 1;
    }
    parts.push((start_line, &text[start..]));
    parts
}

fn is_only_directives(text: &str) -> bool {
    text.lines().any(|line| line.starts_with('%'))
        && text.lines().all(|line| line.is_empty() || line.starts_with(['%', '#']))
}

fn read_part(text: &str, first_line: u32, budget: &mut usize, documents: &mut Vec<Document>) {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder::new(first_line, budget);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                documents.push(builder.broken(syntax::explain(text, first_line, &error)));
                return;
            }
        };
        match event {
            Event::DocumentEnd => documents.extend(builder.finish()),
            event => {
                if let Err(fault) = builder.take(event, &span) {
                    documents.push(builder.broken(fault));
                    return;
                }
            }
        }
    }
}

/// True for a document that says nothing: `---` followed by comments.
fn is_nothing(node: &Node) -> bool {
    node.is_null()
}

#[cfg(test)]
mod tests;
