//! Parser events to a tree: duplicate keys found, aliases and merge keys resolved, within the budget.

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, ScalarStyle, Span, Tag};

use super::{Document, Fault, MAX_DEPTH, MAX_FINDINGS, is_nothing};
use crate::{
    finding::Code,
    node::{Entry, Node, Path, Value},
    position::Mark,
    scalar::{self, Scalar},
};

/// Collects the events of one document at a time.
pub(super) struct Builder<'b> {
    first_line: u32,
    budget: &'b mut usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    faults: Vec<Fault>,
}

/// A collection whose end has not come yet.
struct Frame {
    anchor: usize,
    at: Mark,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, known: HashSet<String>, key: Option<(String, Mark)> },
}

impl<'b> Builder<'b> {
    pub(super) fn new(first_line: u32, budget: &'b mut usize) -> Self {
        Self {
            first_line,
            budget,
            stack: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            faults: Vec::new(),
        }
    }

    /// The document that has just ended; `None` when it said nothing.
    pub(super) fn finish(&mut self) -> Option<Document> {
        self.anchors.clear();
        let root = self.root.take().filter(|root| !is_nothing(root));
        let faults = std::mem::take(&mut self.faults);
        (root.is_some() || !faults.is_empty()).then_some(Document { root, faults })
    }

    /// The document that cannot be read to its end.
    pub(super) fn broken(&mut self, fault: Fault) -> Document {
        let mut faults = std::mem::take(&mut self.faults);
        faults.push(fault);
        Document { root: None, faults }
    }

    /// One event in. Fails where going on makes no sense.
    pub(super) fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Fault> {
        let at = self.mark(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, at)?;
                let scalar = meaning(&text, style, tag.as_deref());
                self.put(Node { at, value: Value::Scalar(scalar, text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(at, anchor, Content::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.open(at, anchor, Content::Map { entries: Vec::new(), known: HashSet::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => self.alias(id, at),
            _ => Ok(()),
        }
    }

    fn mark(&self, span: &Span) -> Mark {
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        let column = u32::try_from(span.start.col()).unwrap_or(u32::MAX);
        Mark::new(line.saturating_add(self.first_line), column.saturating_add(1))
    }

    fn spend(&mut self, nodes: usize, at: Mark) -> Result<(), Fault> {
        match self.budget.checked_sub(nodes) {
            Some(left) => *self.budget = left,
            None => {
                let message = "the file holds too many values (aliases counted as often as they are used)";
                return Err(Fault::new(Code::Syntax, at, message));
            }
        }
        Ok(())
    }

    fn open(&mut self, at: Mark, anchor: usize, content: Content) -> Result<(), Fault> {
        self.spend(1, at)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(Fault::new(Code::Syntax, at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.stack.push(Frame { anchor, at, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Frame { anchor, at, content }) = self.stack.pop() else { return Ok(()) };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(self.merged(entries)?),
        };
        self.put(Node { at, value }, anchor)
    }

    fn alias(&mut self, id: usize, at: Mark) -> Result<(), Fault> {
        let Some(node) = self.anchors.get(&id) else {
            return Err(Fault::new(Code::Syntax, at, "this alias stands inside the value that it names"));
        };
        let (nodes, depth) = size(node);
        let node = node.clone();
        if self.stack.len() + depth > MAX_DEPTH {
            return Err(Fault::new(Code::Syntax, at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.spend(nodes, at)?;
        self.put(node, 0)
    }

    /// A finished value goes where it belongs: it is the root, an item, a key or a key's value.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.spend(size(&node).0, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, known, key } => match key.take() {
                None => *key = Some(key_text(node)?),
                // A merge key may stand several times.
                Some((key, at)) if key == "<<" || known.insert(key.clone()) => {
                    entries.push(Entry { key, at, node });
                }
                Some((key, at)) => {
                    let first = entries.iter().find(|entry| entry.key == key).map_or(at, |entry| entry.at);
                    self.duplicate(&key, at, first);
                }
            },
        }
        Ok(())
    }

    fn duplicate(&mut self, key: &str, at: Mark, first: Mark) {
        if self.faults.len() >= MAX_FINDINGS {
            return;
        }
        let message = format!("duplicate key `{key}`: it stands already at line {}", first.line);
        let field = self.path_to(key);
        let mut fault = Fault::new(Code::Schema, at, message)
            .with_fix(format!("keep one `{key}`; a reader would take only one of the two"));
        fault.field = field;
        self.faults.push(fault);
    }

    /// The path of `key` in the innermost open object.
    fn path_to(&self, key: &str) -> String {
        fn extend(frames: &[Frame], parent: &Path<'_>, key: &str) -> String {
            match frames.split_first() {
                None => Path::Key(parent, key).to_string(),
                Some((frame, rest)) => match &frame.content {
                    _ if rest.is_empty() => Path::Key(parent, key).to_string(),
                    Content::List(items) => extend(rest, &Path::Index(parent, items.len()), key),
                    Content::Map { key: Some((open, _)), .. } => extend(rest, &Path::Key(parent, open), key),
                    Content::Map { .. } => extend(rest, parent, key),
                },
            }
        }
        extend(&self.stack, &Path::Root, key)
    }

    /// Resolves `<<`: what it brings in never replaces what is written beside it.
    fn merged(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>, Fault> {
        if !entries.iter().any(|entry| entry.key == "<<") {
            return Ok(entries);
        }
        let (merges, mut own): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|e| e.key == "<<");
        let mut known: HashSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
        for merge in merges {
            let sources = match merge.node.value {
                Value::Map(_) => vec![merge.node],
                Value::List(items) => items,
                Value::Scalar(..) => Vec::new(),
            };
            if sources.is_empty() || sources.iter().any(|node| !matches!(node.value, Value::Map(_))) {
                let message = "`<<` must name an object, or a list of objects, to merge";
                return Err(Fault::new(Code::Syntax, merge.at, message));
            }
            for entry in sources.into_iter().flat_map(|node| match node.value {
                Value::Map(entries) => entries,
                _ => Vec::new(),
            }) {
                if known.insert(entry.key.clone()) {
                    own.push(entry);
                }
            }
        }
        Ok(own)
    }
}

/// The text of a key. Numbers and booleans count as their text, as in Kubernetes (`8080: STRICT`).
fn key_text(node: Node) -> Result<(String, Mark), Fault> {
    match node.value {
        Value::Scalar(Scalar::Null, _) => {
            Err(Fault::new(Code::Syntax, node.at, "a key is missing before this `:`"))
        }
        Value::Scalar(_, text) => Ok((text, node.at)),
        _ => Err(Fault::new(Code::Syntax, node.at, "a key must be a plain word, not a list or an object")
            .with_fix(
                "quote it if it begins with `{` or `[`; a template (`{{ … }}`) has to be rendered first",
            )),
    }
}

fn meaning(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Scalar {
    match tag.and_then(|tag| tag.core_suffix()) {
        Some("str" | "binary") => Scalar::Text,
        _ if style == ScalarStyle::Plain => scalar::resolve(text),
        _ => Scalar::Text,
    }
}

/// How many values a tree holds, and how deep it is.
fn size(node: &Node) -> (usize, usize) {
    let children: Vec<&Node> = match &node.value {
        Value::Scalar(..) => return (1, 0),
        Value::List(items) => items.iter().collect(),
        Value::Map(entries) => entries.iter().map(|entry| &entry.node).collect(),
    };
    children.into_iter().map(size).fold((1, 1), |(nodes, depth), (n, d)| (nodes + n, depth.max(d + 1)))
}
