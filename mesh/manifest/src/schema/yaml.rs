//! YAML as people read it: block style, every string that could be taken for something else in quotes.

use std::fmt::Write as _;

use serde_json::Value;

/// The document.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let _ = write!(out, "{margin}{}:", text(key));
                below(value, indent + 2, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                block(item, indent + 2, &mut inner);
                let _ = writeln!(out, "{margin}- {}", inner.trim());
            }
        }
        scalar => {
            let _ = writeln!(out, "{margin}{}", line(scalar));
        }
    }
}

fn below(value: &Value, indent: usize, out: &mut String) {
    let is_empty = match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    if is_empty {
        let _ = writeln!(out, " {}", line(value));
    } else {
        out.push('\n');
        block(value, indent, out);
    }
}

fn line(value: &Value) -> String {
    match value {
        Value::String(word) => text(word),
        other => other.to_string(),
    }
}

/// As it is where that is one word of letters that means nothing else, else in quotes as JSON has it.
fn text(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
    let means_else = matches!(
        word.to_ascii_lowercase().as_str(),
        "" | "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    let begins = word.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins && !means_else && word.chars().all(plain) {
        word.to_owned()
    } else {
        Value::from(word).to_string()
    }
}
