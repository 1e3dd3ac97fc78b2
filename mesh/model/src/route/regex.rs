//! Regular expressions that users write: RE2's syntax and meaning, in linear time and bounded in size.
//!
//! Envoy reads them with RE2; the `regex` crate is of the same family and differs in some of the syntax. [`syntax`]
//! rewrites what can be said otherwise and refuses the rest, so that no pattern silently means something else here.
//! Character classes such as `\w` are ASCII, as in RE2.

mod syntax;

use std::borrow::Cow;

use regex::bytes::{self, RegexBuilder};
use thiserror::Error;

use crate::address::Str;

/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 4096;
/// How large a compiled pattern may be, in bytes. `[0-9]{1000}` fits, repetitions of repetitions do not.
const MAX_COMPILED: usize = 1 << 20;
/// What one search may cache, in bytes.
const MAX_CACHE: usize = 1 << 18;

/// A regular expression that is compared with the whole of a text.
#[derive(Debug, Clone)]
pub struct Regex {
    pattern: Str,
    ignore_case: bool,
    compiled: bytes::Regex,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidRegex {
    /// It says nothing.
    #[error("the regular expression is empty")]
    Empty,
    /// It is too long.
    #[error("a regular expression of {0} bytes; at most {MAX_PATTERN} are read")]
    TooLong(usize),
    /// It needs too much memory.
    #[error("the regular expression is too large once compiled; use smaller repetitions")]
    TooLarge,
    /// It is not one, or not in the syntax of RE2.
    #[error("not a regular expression in RE2's syntax: {0}")]
    Syntax(Cow<'static, str>),
    /// A substitution names a group that there is not, or an escape that has no meaning.
    #[error(
        "{0:?} is no substitution: after a backslash there is a group's number, at most {1}, or a backslash"
    )]
    Substitution(String, usize),
}

impl Regex {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is empty, too long, too large or not RE2's.
    pub fn new(pattern: &str) -> Result<Self, InvalidRegex> {
        let compiled = compile(pattern, |inner| format!(r"\A(?:{inner})\z"), false)?;
        Ok(Self { pattern: pattern.into(), ignore_case: false, compiled })
    }

    /// Reads a pattern for texts whose case says nothing, such as host names.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn ignoring_case(pattern: &str) -> Result<Self, InvalidRegex> {
        let compiled = compile(pattern, |inner| format!(r"\A(?:{inner})\z"), true)?;
        Ok(Self { pattern: pattern.into(), ignore_case: true, compiled })
    }

    /// Whether all of the text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &Str {
        &self.pattern
    }
}

/// Equal patterns mean the same.
impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, self.ignore_case) == (&other.pattern, other.ignore_case)
    }
}

impl Eq for Regex {}

/// `uriRegexRewrite`: every place where a pattern matches is replaced.
#[derive(Debug, Clone)]
pub struct Substitution {
    pattern: Str,
    replacement: Str,
    compiled: bytes::Regex,
    parts: Box<[Part]>,
}

/// A part of a replacement.
#[derive(Debug, Clone)]
enum Part {
    Text(Str),
    Group(usize),
}

impl Substitution {
    /// Reads a pattern, which need not match the whole, and a replacement in RE2's form: `\1` to `\9` are groups, `\0`
    /// all that matched, `\\` a backslash.
    ///
    /// # Errors
    /// The pattern is refused, or the replacement names a group that the pattern does not have.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, InvalidRegex> {
        let compiled = compile(pattern, str::to_owned, false)?;
        let parts = parts(replacement, compiled.captures_len() - 1)?;
        Ok(Self { pattern: pattern.into(), replacement: replacement.into(), compiled, parts })
    }

    /// The text with all matches replaced. Bytes that are no longer UTF-8 are the caller's to refuse.
    pub fn replace(&self, text: &str) -> Vec<u8> {
        let write = |captures: &bytes::Captures<'_>, out: &mut Vec<u8>| {
            for part in &self.parts {
                match part {
                    Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                    Part::Group(group) => {
                        out.extend_from_slice(captures.get(*group).map_or(&[], |found| found.as_bytes()));
                    }
                }
            }
        };
        let (mut out, mut done) = (Vec::with_capacity(text.len()), 0);
        for captures in self.compiled.captures_iter(text.as_bytes()) {
            let Some(all) = captures.get(0) else { continue };
            out.extend_from_slice(&text.as_bytes()[done..all.start()]);
            write(&captures, &mut out);
            done = all.end();
        }
        out.extend_from_slice(&text.as_bytes()[done..]);
        out
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &Str {
        &self.pattern
    }

    /// The replacement as it was written.
    pub fn replacement(&self) -> &Str {
        &self.replacement
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, &self.replacement) == (&other.pattern, &other.replacement)
    }
}

impl Eq for Substitution {}

/// Compiles a pattern. Without Unicode, `.` is one byte and classes are ASCII; a pattern that names characters beyond
/// that is compiled with it.
fn compile(
    pattern: &str,
    wrap: impl Fn(&str) -> String,
    ignore_case: bool,
) -> Result<bytes::Regex, InvalidRegex> {
    match pattern.len() {
        0 => return Err(InvalidRegex::Empty),
        length if length > MAX_PATTERN => return Err(InvalidRegex::TooLong(length)),
        _ => {}
    }
    let inner = syntax::translate(pattern)?;
    // Compiled by itself first: `a)(b` is no pattern, though it is one between parentheses.
    let build = |unicode: bool, text: &str| {
        RegexBuilder::new(text)
            .unicode(unicode)
            .case_insensitive(ignore_case)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_CACHE)
            .build()
    };
    let unicode = match build(false, &inner) {
        Err(regex::Error::Syntax(_)) => true,
        Err(error) => return Err(refused(error)),
        Ok(_) => false,
    };
    build(unicode, &inner).and_then(|_| build(unicode, &wrap(&inner))).map_err(refused)
}

fn refused(error: regex::Error) -> InvalidRegex {
    match error {
        regex::Error::CompiledTooBig(_) => InvalidRegex::TooLarge,
        // The crate shows the pattern and points at the place; the last line says what is wrong with it.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            InvalidRegex::Syntax(Cow::Owned(last.trim_start_matches("error: ").to_owned()))
        }
    }
}

fn parts(replacement: &str, groups: usize) -> Result<Box<[Part]>, InvalidRegex> {
    let invalid = || InvalidRegex::Substitution(replacement.to_owned(), groups);
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut letters = replacement.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('\\') => text.push('\\'),
            Some(digit @ '0'..='9') => {
                let group = usize::from(digit as u8 - b'0');
                if group > groups {
                    return Err(invalid());
                }
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                }
                parts.push(Part::Group(group));
            }
            _ => return Err(invalid()),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    Ok(parts.into())
}

#[cfg(test)]
mod tests;
