//! Text that is not YAML, explained: the parser's place and words, or rather the cause that people make most
//! often (a tab, an indentation that fits no line above, a colon too many, a space or bracket too few).

use serde_saphyr::granit_parser::ScanError;

use super::Fault;
use crate::{finding::Code, position::Mark};

/// The fault behind the parser's `error` in `text`, which stands `first_line` lines into the file.
pub(super) fn explain(text: &str, first_line: u32, error: &ScanError) -> Fault {
    let lines: Vec<&str> = text.lines().collect();
    let row = error.marker().line().saturating_sub(1).min(lines.len().saturating_sub(1));
    let place = Place { lines: &lines, row, first_line };
    place
        .tab()
        .or_else(|| place.unclosed())
        .or_else(|| place.indentation())
        .or_else(|| place.second_colon())
        .or_else(|| place.missing_space())
        .unwrap_or_else(|| {
            let line = u32::try_from(error.marker().line()).unwrap_or(u32::MAX).saturating_add(first_line);
            let column = u32::try_from(error.marker().col()).unwrap_or(u32::MAX).saturating_add(1);
            Fault::new(Code::Syntax, Mark::new(line, column), format!("not valid YAML: {}", error.info()))
        })
}

/// The line at which the parser gave up, and those around it.
struct Place<'a> {
    lines: &'a [&'a str],
    row: usize,
    first_line: u32,
}

/// A column in which an object or a list begins, and the line that shows it.
#[derive(Clone, Copy, PartialEq)]
struct Level {
    column: usize,
    row: usize,
    is_item: bool,
}

impl Place<'_> {
    fn mark(&self, row: usize, column: usize) -> Mark {
        let line = u32::try_from(row + 1).unwrap_or(u32::MAX).saturating_add(self.first_line);
        Mark::new(line, u32::try_from(column + 1).unwrap_or(u32::MAX))
    }

    fn fault(&self, row: usize, column: usize, message: String, fix: String) -> Fault {
        Fault::new(Code::Syntax, self.mark(row, column), message).with_fix(fix)
    }

    /// A tab among the spaces at the beginning of a line, at or shortly before the place.
    fn tab(&self) -> Option<Fault> {
        let near = self.row.saturating_sub(2)..=(self.row + 1).min(self.lines.len().saturating_sub(1));
        near.into_iter().find_map(|row| {
            let line = self.lines.get(row)?;
            let column = line.find(|c: char| c != ' ')?;
            line[column..].starts_with('\t').then(|| {
                let message = "a tab in the indentation; YAML wants spaces".to_owned();
                self.fault(row, column, message, "replace each tab by two spaces".to_owned())
            })
        })
    }

    /// A quote or a bracket that a value begins with and that does not end in the same line, while the next
    /// line looks like the next key.
    fn unclosed(&self) -> Option<Fault> {
        let near = self.row.saturating_sub(1)..=self.row;
        near.into_iter().find_map(|row| {
            let line = self.lines.get(row)?;
            let column = value_column(line)?;
            let value = line[column..].trim_end();
            let opening = value.chars().next().filter(|c| "\"'[{".contains(*c))?;
            let closing = match opening {
                '[' => ']',
                '{' => '}',
                quote => quote,
            };
            let next_is_key = self.lines.get(row + 1).is_none_or(|next| next.contains(':'));
            (next_is_key && !value[1..].contains(closing)).then(|| {
                let message = format!("`{opening}` is opened here and not closed in this line");
                self.fault(row, column, message, format!("close it with `{closing}`"))
            })
        })
    }

    /// A line that begins in a column in which no line it could belong to begins.
    fn indentation(&self) -> Option<Fault> {
        let near = self.row.saturating_sub(1)..=self.row;
        near.into_iter().rev().find_map(|row| self.misplaced(row))
    }

    fn misplaced(&self, row: usize) -> Option<Fault> {
        let line = *self.lines.get(row)?;
        let column = indent(line)?;
        let levels = levels(&self.lines[..row]);
        let last = *levels.last()?;
        let after_value = value_column(self.lines[last.row]).is_some();
        let fits = match column > last.column {
            true => !after_value,
            false => levels.iter().any(|level| level.column == column),
        };
        if fits {
            return None;
        }
        let is_item = line[column..].starts_with("- ");
        let alike = levels.iter().filter(|level| level.is_item == is_item);
        let like = alike.min_by_key(|level| level.column.abs_diff(column)).unwrap_or(&last);
        let word = first_word(line);
        let message = match column > last.column {
            true => format!("`{word}` is indented by {column}, but the line above it is complete"),
            false => format!("`{word}` is indented by {column}, which fits no line above it"),
        };
        let fix = format!(
            "indent it by {}, like `{}` in line {}",
            like.column,
            first_word(self.lines[like.row]),
            self.mark(like.row, 0).line
        );
        Some(self.fault(row, column, message, fix))
    }

    /// `key: some: text`, which YAML reads as a key inside a value.
    fn second_colon(&self) -> Option<Fault> {
        let line = self.lines.get(self.row)?;
        let column = value_column(line)?;
        let value = line[column..].trim_end();
        let quoted = value.starts_with(['"', '\'', '{', '[', '|', '>', '&', '*', '!', '#']);
        if quoted || !(value.contains(": ") || value.ends_with(':')) {
            return None;
        }
        let message = format!("a second `: ` in the value of `{}`", first_word(line));
        let fix = format!("quote the value: \"{}\"", value.replace('"', "\\\""));
        Some(self.fault(self.row, column, message, fix))
    }

    /// `key:value`, which YAML reads as one word.
    fn missing_space(&self) -> Option<Fault> {
        let near = self.row.saturating_sub(1)..=self.row;
        near.into_iter().find_map(|row| {
            let line = self.lines.get(row)?;
            if line.contains(": ") || line.trim_end().ends_with(':') {
                return None;
            }
            let colon = line.find(':')?;
            let (key, value) = (first_word(&line[..colon]), line[colon + 1..].trim());
            (!key.is_empty() && !key.contains(' ') && !value.is_empty()).then(|| {
                let message = format!("no space after the `:` of `{key}`");
                self.fault(row, colon, message, format!("write `{key}: {value}`"))
            })
        })
    }
}

/// The columns in which the objects and lists that are open after `lines` begin, outermost first. An item
/// (`- key: …`) opens two; a list may begin in the column of the key it belongs to.
fn levels(lines: &[&str]) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for (row, line) in lines.iter().enumerate() {
        let Some(mut column) = indent(line) else { continue };
        let mut rest = &line[column..];
        let is_item = rest.starts_with("- ");
        levels.retain(|level| level.column < column || (is_item && level.column == column && !level.is_item));
        levels.push(Level { column, row, is_item });
        while let Some(item) = rest.strip_prefix("- ") {
            let inner = item.trim_start();
            column += rest.len() - inner.len();
            levels.push(Level { column, row, is_item: inner.starts_with("- ") });
            rest = inner;
        }
    }
    levels
}

/// The number of spaces before the first character; `None` for empty lines, comments and markers.
fn indent(line: &str) -> Option<usize> {
    let column = line.find(|c: char| c != ' ')?;
    let rest = &line[column..];
    (!rest.starts_with(['#', '\r', '\t']) && !rest.starts_with("---")).then_some(column)
}

/// Where the value after the first `key: ` of a line begins; `None` where the line has none.
fn value_column(line: &str) -> Option<usize> {
    let colon = line.find(": ")?;
    let value = line[colon + 1..].trim_start();
    (!value.is_empty() && !value.starts_with('#')).then(|| line.len() - value.len())
}

/// The key or word that a line begins with, without the dash of a list item.
fn first_word(line: &str) -> &str {
    let text = line.trim().trim_start_matches("- ").trim_start();
    let end = text.find(": ").or_else(|| text.strip_suffix(':').map(str::len)).unwrap_or(text.len());
    text.get(..end.min(40)).unwrap_or(text)
}
