//! JSON that is not YAML: text indented with tabs, and characters escaped as surrogate pairs. Both are rare,
//! so the ordinary way is tried first and this only answers when it has to.

use serde_saphyr::granit_parser::Parser;

use super::{Document, Fault, MAX_DEPTH};
use crate::{finding::Code, node::Node, position::Mark};

/// The document, when `text` is JSON that the YAML parser would refuse or misread; `None` sends it there.
pub(super) fn document(text: &str) -> Option<Document> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let surrogates = text.contains("\\ud") || text.contains("\\uD");
    if !surrogates && Parser::new_from_str(text).all(|event| event.is_ok()) {
        return None;
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if depth(&value) <= MAX_DEPTH => {
            Some(Document { root: Some(Node::from_json(&value)), faults: Vec::new() })
        }
        Ok(_) => None,
        // A flow mapping of YAML, or broken YAML: its own parser says more.
        Err(_) if !looks_like_json(text) => None,
        Err(error) => {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
            let column = u32::try_from(error.column()).unwrap_or(u32::MAX);
            let full = error.to_string();
            let message = full.split(" at line ").next().unwrap_or(&full);
            let fault = Fault::new(
                Code::Syntax,
                Mark::new(line, column.max(1)),
                format!("not valid JSON: {message}"),
            );
            Some(Document { root: None, faults: vec![fault] })
        }
    }
}

/// JSON's keys are quoted; YAML's flow mappings mostly are not.
fn looks_like_json(text: &str) -> bool {
    text.trim_start().trim_start_matches(['{', '[']).trim_start().starts_with('"')
}

fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
