//! A template's text and actions apart, and the words of an action.

use super::TemplateError;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Passed on as it is.
    Text(&'a str),
    /// What stands between the braces, and its line.
    Action(&'a str, usize),
}

/// Cuts a template into pieces; `{{-` and `-}}` take the white space beside them away, comments go.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut line, mut trim) = (text, 1, false);
    while let Some(at) = rest.find("{{") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        line += before.matches('\n').count();
        let unclosed = || TemplateError::Syntax { line, what: "{{ without }}".to_owned() };
        let end = after.find("}}").ok_or_else(unclosed)?;
        let (inside, trim_before) = match after[..end].strip_prefix("- ") {
            Some(inside) => (inside, true),
            None => (&after[..end], false),
        };
        let (inside, trim_after) = match inside.strip_suffix(" -") {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        push(&mut pieces, before, trim, trim_before);
        let action = inside.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(action, line));
        }
        line += after[..end].matches('\n').count();
        trim = trim_after;
        rest = &after[end + 2..];
    }
    push(&mut pieces, rest, trim, false);
    Ok(pieces)
}

fn push<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str, from_start: bool, from_end: bool) {
    let text = if from_start { text.trim_start() } else { text };
    let text = if from_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// `.Values.x`, `$value`, a function's or keyword's name, a number.
    Name(String),
    /// `"text"`, without its quotes.
    Text(String),
    /// `|`, `(`, `)`, `,`, `:=`.
    Mark(&'static str),
}

/// The words of an action.
pub(super) fn words(action: &str, line: usize) -> Result<Vec<Word>, TemplateError> {
    const MARKS: [&str; 5] = [":=", "|", "(", ")", ","];
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while !rest.is_empty() {
        if let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) {
            words.push(Word::Mark(mark));
            rest = &rest[mark.len()..];
        } else if rest.starts_with('"') {
            let (text, after) = quoted(rest).ok_or_else(|| TemplateError::Syntax {
                line,
                what: format!("a text without its end: {rest}"),
            })?;
            words.push(Word::Text(text));
            rest = after;
        } else {
            let ends = |c: char| c.is_whitespace() || "|(),:\"".contains(c);
            let end = rest.find(ends).unwrap_or(rest.len());
            if end == 0 {
                return Err(TemplateError::Syntax { line, what: format!("not understood: {rest}") });
            }
            words.push(Word::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

/// A text in quotes at the start, and what follows it.
fn quoted(rest: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, &rest[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                other => text.push(other),
            },
            _ => text.push(c),
        }
    }
    None
}
