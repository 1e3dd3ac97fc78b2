//! A template's pieces as a tree.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::TemplateError;
use super::words::{Piece, Word, pieces, words};

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Passed on as it is.
    Text(String),
    /// Its value is written.
    Output(Expression),
    /// `$name := value`
    Set(String, Expression),
    /// `if`, with `else if` as an `If` inside the second.
    If(Expression, Vec<Node>, Vec<Node>),
    /// `with`
    With(Expression, Vec<Node>, Vec<Node>),
    /// `range`, with the names that it gives to key and value.
    Range {
        key: Option<String>,
        value: Option<String>,
        over: Expression,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// What has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// `.a.b` or `$x.a.b`: the variable's name (none: the dot), and the keys.
    Path(Option<String>, Vec<String>),
    /// A text, a number, true or false.
    Literal(serde_json::Value),
    /// A function and what it is given.
    Call(String, Vec<Expression>),
}

/// A file's body, and what it defines.
pub(super) type Read = (Vec<Node>, BTreeMap<String, Vec<Node>>);

pub(super) fn read(text: &str) -> Result<Read, TemplateError> {
    let mut reader = Reader { pieces: pieces(text)?.into_iter().peekable(), defined: BTreeMap::new() };
    let (body, end) = reader.body()?;
    match end {
        None => Ok((body, reader.defined)),
        Some((word, line)) => {
            Err(TemplateError::Syntax { line, what: format!("{word} without a beginning") })
        }
    }
}

struct Reader<'a> {
    pieces: Peekable<IntoIter<Piece<'a>>>,
    defined: BTreeMap<String, Vec<Node>>,
}

/// What ended a body: `end`, `else` or `else if …` and its line.
type End = Option<(String, usize)>;

impl Reader<'_> {
    fn body(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (action, line) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.to_owned()));
                    continue;
                }
                Piece::Action(action, line) => (action, line),
            };
            let (keyword, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
            match keyword {
                "end" | "else" => return Ok((nodes, Some((action.to_owned(), line)))),
                "if" => nodes.push(self.condition(rest, line)?),
                "with" => {
                    let given = expression(rest, line)?;
                    let (then, otherwise) = self.branches(line)?;
                    nodes.push(Node::With(given, then, otherwise));
                }
                "range" => nodes.push(self.range(rest, line)?),
                "define" => {
                    let name = rest.trim().trim_matches('"').to_owned();
                    let (body, otherwise) = self.branches(line)?;
                    if !otherwise.is_empty() {
                        return Err(TemplateError::Syntax { line, what: "else in a define".to_owned() });
                    }
                    self.defined.insert(name, body);
                }
                _ => nodes.push(plain(action, line)?),
            }
        }
        Ok((nodes, None))
    }

    fn condition(&mut self, rest: &str, line: usize) -> Result<Node, TemplateError> {
        let asked = expression(rest, line)?;
        let (then, otherwise) = self.branches(line)?;
        Ok(Node::If(asked, then, otherwise))
    }

    /// What is done, and what else, up to the `end`.
    fn branches(&mut self, line: usize) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let unended = || TemplateError::Syntax { line, what: "a block without its end".to_owned() };
        let (then, end) = self.body()?;
        let (word, line) = end.ok_or_else(unended)?;
        if word == "end" {
            return Ok((then, Vec::new()));
        }
        if let Some(rest) = word.strip_prefix("else if ") {
            return Ok((then, vec![self.condition(rest, line)?]));
        }
        let (otherwise, end) = self.body()?;
        match end.ok_or_else(unended)? {
            (word, _) if word == "end" => Ok((then, otherwise)),
            (word, line) => Err(TemplateError::Syntax { line, what: format!("{word} after else") }),
        }
    }

    fn range(&mut self, rest: &str, line: usize) -> Result<Node, TemplateError> {
        let words = words(rest, line)?;
        let (names, over) = match words.iter().position(|word| *word == Word::Mark(":=")) {
            None => (&words[..0], &words[..]),
            Some(at) => (&words[..at], &words[at + 1..]),
        };
        let mut names: Vec<String> = names.iter().filter_map(variable).collect();
        let value = names.pop();
        let key = names.pop();
        let over = pipeline(over, line)?;
        let (body, otherwise) = self.branches(line)?;
        Ok(Node::Range { key, value, over, body, otherwise })
    }
}

fn variable(word: &Word) -> Option<String> {
    match word {
        Word::Name(name) => name.strip_prefix('$').map(str::to_owned),
        _ => None,
    }
}

/// An action that is neither block nor end of one.
fn plain(action: &str, line: usize) -> Result<Node, TemplateError> {
    let words = words(action, line)?;
    if let [name, Word::Mark(":="), value @ ..] = &words[..]
        && let Some(name) = variable(name)
    {
        return Ok(Node::Set(name, pipeline(value, line)?));
    }
    Ok(Node::Output(pipeline(&words, line)?))
}

fn expression(text: &str, line: usize) -> Result<Expression, TemplateError> {
    pipeline(&words(text, line)?, line)
}

/// `a | b x | c`: each is given what came before as its last.
fn pipeline(words: &[Word], line: usize) -> Result<Expression, TemplateError> {
    let mut depth = 0_i32;
    let mut before: Option<Expression> = None;
    let stages = words.split(|word| {
        depth += match word {
            Word::Mark("(") => 1,
            Word::Mark(")") => -1,
            _ => 0,
        };
        depth == 0 && *word == Word::Mark("|")
    });
    for stage in stages {
        before = Some(command(stage, before.take(), line)?);
    }
    before.ok_or_else(|| TemplateError::Syntax { line, what: "nothing to write".to_owned() })
}

/// A function with what it is given, or a single value.
fn command(words: &[Word], last: Option<Expression>, line: usize) -> Result<Expression, TemplateError> {
    let wrong = |what: String| TemplateError::Syntax { line, what };
    let mut operands = Vec::new();
    let mut rest = words;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        operands.push(match first {
            Word::Text(text) => Expression::Literal(text.clone().into()),
            Word::Name(name) => named(name),
            Word::Mark("(") => {
                let end = closing(after).ok_or_else(|| wrong("( without )".to_owned()))?;
                rest = &after[end + 1..];
                pipeline(&after[..end], line)?
            }
            Word::Mark(mark) => return Err(wrong(format!("{mark} is not expected"))),
        });
    }
    operands.extend(last);
    let mut operands = operands.into_iter();
    match operands.next() {
        // A name alone is a function without anything given.
        Some(Expression::Call(name, _)) if matches!(words.first(), Some(Word::Name(_))) => {
            Ok(Expression::Call(name, operands.collect()))
        }
        Some(value) if operands.len() == 0 => Ok(value),
        Some(_) => Err(wrong("a value is not a function".to_owned())),
        None => Err(wrong("nothing to write".to_owned())),
    }
}

/// Where the parenthesis that was opened before is closed.
fn closing(words: &[Word]) -> Option<usize> {
    let mut depth = 1;
    words.iter().position(|word| {
        depth += match word {
            Word::Mark("(") => 1,
            Word::Mark(")") => -1,
            _ => 0,
        };
        depth == 0
    })
}

fn named(name: &str) -> Expression {
    let keys = |path: &str| path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if let Some(path) = name.strip_prefix('.') {
        return Expression::Path(None, keys(path));
    }
    if let Some(variable) = name.strip_prefix('$') {
        let (variable, path) = variable.split_once('.').unwrap_or((variable, ""));
        return Expression::Path(Some(variable.to_owned()), keys(path));
    }
    match name {
        "true" => Expression::Literal(true.into()),
        "false" => Expression::Literal(false.into()),
        "nil" => Expression::Literal(serde_json::Value::Null),
        _ => match name.parse::<i64>() {
            Ok(number) => Expression::Literal(number.into()),
            Err(_) => Expression::Call(name.to_owned(), Vec::new()),
        },
    }
}
