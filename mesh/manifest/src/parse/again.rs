//! A text of which an earlier version was read: where all that differs lies within the list of rules of one VirtualService,
//! those rules are read and the others taken over. A host may have thousands of rules, and people change one of them.
//!
//! What comes of it is what [`parse`](super::parse) makes of the whole text. That holds because a YAML parser goes from left
//! to right: up to the first changed item everything is as it was, and behind the last one again, provided that these
//! items read by themselves are a list of their own that ends where they end. Whatever is out of the ordinary (findings,
//! anchors, flow style, a change elsewhere) is left to reading everything.

use std::{path::Path, sync::Arc};

use super::{Parsed, Reader};
use crate::{
    istio::VirtualService,
    node::{Entry, Node, Value},
    object::{Object, Typed},
    raw::Raw,
    yaml,
};

/// Texts of fewer bytes are read as a whole: it takes no longer.
const WORTH: usize = 8 << 10;

/// A text and what it said.
#[derive(Debug)]
pub(crate) struct Earlier {
    text: String,
    object: Arc<Object>,
}

impl Earlier {
    /// Remembers a text, if a later version of it can be read by it.
    pub(crate) fn new(text: String, is_plain: bool, objects: &[Arc<Object>]) -> Option<Self> {
        let [object] = objects else { return None };
        let rules = matches!(&object.spec, Typed::VirtualService(rules) if !rules.http.is_empty());
        // Directives change what tags mean below them.
        let directives = text.starts_with(['%', '\u{feff}']) || text.contains("\n%");
        let worth = is_plain && rules && text.len() >= WORTH && !text.contains('\r') && !directives;
        worth.then(|| Self { text, object: object.clone() })
    }

    /// What a later version says; nothing if only reading all of it tells.
    pub(crate) fn reread(&self, text: &str, file: &Arc<Path>) -> Option<Parsed> {
        let Typed::VirtualService(rules) = &self.object.spec else { return None };
        let tree = self.object.tree();
        let items = tree.get("spec")?.get("http")?.items();
        if text.contains('\r') || items.len() != rules.http.len() {
            return None;
        }
        let change = Change::between(&self.text, text, items)?;
        if change.end == items.len() && !ends_with_rules(tree) {
            return None;
        }
        let read = change.items(text)?;
        if items.len() + read.len() == change.end - change.first {
            return None;
        }
        let changed = rules_of(&with_rules(tree, read.clone())?, file, &self.object)?;
        let mut tree = moved(tree, change.behind, change.moved)?;
        let Value::List(all) = &mut rules_in(&mut tree)?.value else { return None };
        all.splice(change.first..change.end, read);
        if text.len() > yaml::MAX_NODES && tree.count() > yaml::MAX_NODES {
            return None;
        }
        let mut rules = rules.clone();
        rules.http.splice(change.first..change.end, changed.http);
        let object = Object {
            api_version: self.object.api_version.clone(),
            kind: self.object.kind.clone(),
            metadata: self.object.metadata.clone(),
            spec: Typed::VirtualService(rules),
            position: self.object.position.clone(),
            raw: Raw::new(Arc::new(tree)),
        };
        Some(Parsed { objects: vec![object], findings: Vec::new(), is_plain: true })
    }
}

/// Which items differ: those from `first` up to `end` of the earlier text are the bytes from `from` to `to` of the later.
struct Change {
    first: usize,
    end: usize,
    from: usize,
    to: usize,
    /// Lines before these bytes.
    lines: u32,
    /// The column of the list, from 0.
    column: usize,
    /// The line, from 1, from which on everything has moved, and by how many lines.
    behind: u32,
    moved: i64,
}

impl Change {
    fn between(old: &str, new: &str, items: &[Arc<Node>]) -> Option<Self> {
        let same = old.bytes().zip(new.bytes()).take_while(|(one, other)| one == other).count();
        // Whole lines; a line that goes on is another one.
        let before = old.as_bytes()[..same].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let most = old.len().min(new.len()) - before;
        let tail = old.bytes().rev().zip(new.bytes().rev()).take(most);
        let tail = tail.take_while(|(one, other)| one == other).count();
        let behind = old.as_bytes()[old.len() - tail..].iter().position(|byte| *byte == b'\n');
        let behind = behind.map_or(old.len(), |end| old.len() - tail + end + 1);
        let starts = Starts::of(old);
        let (changed, kept) = (starts.line_at(before), starts.line_at(behind));
        let line = |item: &Arc<Node>| item.at.line;
        // The one before the change may go on in it.
        let first = items.partition_point(|item| line(item) < changed).saturating_sub(1);
        if line(items.get(first)?) > changed {
            return None;
        }
        let end = items.partition_point(|item| line(item) < kept).max(first);
        let from = starts.offset(line(&items[first]))?;
        let (stop, behind_line) = match items.get(end) {
            Some(item) => (starts.offset(line(item))?, line(item)),
            None => (old.len(), u32::MAX),
        };
        // All behind the last item is read with it; it has to end with a line.
        if end == items.len() && !new.ends_with('\n') {
            return None;
        }
        let column = dash(&old[from..])?;
        if end < items.len() && dash(&old[stop..]) != Some(column) {
            return None;
        }
        let to = (new.len() + stop).checked_sub(old.len()).filter(|to| *to >= from)?;
        let lines = |text: &str| i64::try_from(text.bytes().filter(|byte| *byte == b'\n').count()).ok();
        let moved = lines(&new[from..to])? - lines(&old[from..stop])?;
        let lines = line(&items[first]) - 1;
        Some(Self { first, end, from, to, lines, column, behind: behind_line, moved })
    }

    /// These items of the later text.
    fn items(&self, text: &str) -> Option<Vec<Arc<Node>>> {
        let part = text.get(self.from..self.to)?;
        if part.is_empty() {
            return Some(Vec::new());
        }
        // What begins a line may end the document, or all that is around the list.
        let within = |line: &str| line.trim_start().is_empty() || line.starts_with([' ', '#']);
        if dash(part) != Some(self.column) || !part.lines().all(within) {
            return None;
        }
        let [document] = <[_; 1]>::try_from(yaml::documents_from(part, self.lines)).ok()?;
        match document.root?.value {
            Value::List(items) if !document.anchored && document.faults.is_empty() => Some(items),
            _ => None,
        }
    }
}

/// Where the lines of a text begin.
struct Starts(Vec<usize>);

impl Starts {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self([0].into_iter().chain(ends.map(|(end, _)| end + 1)).collect())
    }

    /// The line, from 1, that begins here, or the last one.
    fn line_at(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    fn offset(&self, line: u32) -> Option<usize> {
        self.0.get(usize::try_from(line).ok()?.checked_sub(1)?).copied()
    }
}

/// The column of the dash that a text begins with, if it begins with an item of a list in block style.
fn dash(text: &str) -> Option<usize> {
    let column = text.find(|c| c != ' ')?;
    text[column..].starts_with("- ").then_some(column)
}

/// Whether nothing stands behind the rules for HTTP: what is read with the last of them is of the list.
fn ends_with_rules(tree: &Node) -> bool {
    let last = |node: &Node, key: &str| node.entries().last().is_some_and(|entry| entry.key == key);
    last(tree, "spec") && tree.get("spec").is_some_and(|spec| last(spec, "http"))
}

/// A document with other rules for HTTP in the place of its own.
fn with_rules(tree: &Node, rules: Vec<Arc<Node>>) -> Option<Node> {
    let mut tree = tree.clone();
    rules_in(&mut tree)?.value = Value::List(rules);
    Some(tree)
}

fn rules_in(tree: &mut Node) -> Option<&mut Node> {
    ["spec", "http"].into_iter().try_fold(tree, |node, key| match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node),
        _ => None,
    })
}

/// What a document with these rules says, if there is nothing wrong with it: each rule is checked by itself.
fn rules_of(tree: &Node, file: &Arc<Path>, earlier: &Object) -> Option<VirtualService> {
    let mut parsed = Parsed::default();
    Reader { file, parsed: &mut parsed, trusted: false }.object(tree.clone(), Vec::new());
    let [object] = <[_; 1]>::try_from(parsed.objects).ok()?;
    match object.spec {
        Typed::VirtualService(rules) if parsed.findings.is_empty() && object.position == earlier.position => {
            Some(*rules)
        }
        _ => None,
    }
}

/// The document with everything from a line on so many lines further down.
fn moved(tree: &Node, from: u32, by: i64) -> Option<Node> {
    fn shift(node: &mut Node, from: u32, by: i64) -> Option<()> {
        put(&mut node.at.line, from, by)?;
        match &mut node.value {
            Value::Scalar(..) => {}
            Value::List(items) => {
                // In order: those before the line stay shared.
                let first = items.partition_point(|item| item.at.line < from).saturating_sub(1);
                items[first..].iter_mut().try_for_each(|item| shift(Arc::make_mut(item), from, by))?;
            }
            Value::Map(entries) => {
                for Entry { at, node, .. } in entries {
                    put(&mut at.line, from, by)?;
                    shift(node, from, by)?;
                }
            }
        }
        Some(())
    }
    fn put(line: &mut u32, from: u32, by: i64) -> Option<()> {
        if *line >= from {
            *line = u32::try_from(i64::from(*line) + by).ok()?;
        }
        Some(())
    }
    let mut tree = tree.clone();
    if by != 0 {
        shift(&mut tree, from, by)?;
    }
    Some(tree)
}

#[cfg(test)]
mod tests;
