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
/// How large all compiled patterns of one host's routing may be, in bytes: some 4,000 of the size of `/users/[0-9]+/orders`,
/// or eight of the largest.
const MAX_TOGETHER: usize = 8 << 20;
/// The least that a compiled pattern counts.
const LEAST: usize = 1 << 10;
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
    /// It needs too much memory beside others.
    #[error(
        "the regular expressions of one host's rules are too large together once compiled: they may take {} MiB; use \
         smaller repetitions, or fewer expressions",
        MAX_TOGETHER >> 20
    )]
    Together,
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
        Allowance::default().regex(pattern)
    }

    /// Reads a pattern for texts whose case says nothing, such as host names.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn ignoring_case(pattern: &str) -> Result<Self, InvalidRegex> {
        Allowance::default().ignoring_case(pattern)
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
        Allowance::default().substitution(pattern, replacement)
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

/// What the compiled patterns of one host's routing may still take. One tenant's rules are read by the controller and by
/// every waypoint: a bound of each pattern alone would let many of them take all memory.
///
/// A pattern counts as the least power of two that it fits in, the same for whoever reads it. One that is too large counts
/// too, for the time that it took to find out.
#[derive(Debug)]
pub struct Allowance {
    left: usize,
    exceeded: bool,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: MAX_TOGETHER, exceeded: false }
    }
}

impl Allowance {
    /// As [`Regex::new`].
    ///
    /// # Errors
    /// The same, or nothing is left for it.
    pub fn regex(&mut self, pattern: &str) -> Result<Regex, InvalidRegex> {
        self.whole(pattern, false)
    }

    /// As [`Regex::ignoring_case`].
    ///
    /// # Errors
    /// The same, or nothing is left for it.
    pub fn ignoring_case(&mut self, pattern: &str) -> Result<Regex, InvalidRegex> {
        self.whole(pattern, true)
    }

    /// As [`Substitution::new`].
    ///
    /// # Errors
    /// The same, or nothing is left for it.
    pub fn substitution(&mut self, pattern: &str, replacement: &str) -> Result<Substitution, InvalidRegex> {
        let compiled = self.compile(pattern, str::to_owned, false)?;
        let parts = parts(replacement, compiled.captures_len() - 1)?;
        Ok(Substitution { pattern: pattern.into(), replacement: replacement.into(), compiled, parts })
    }

    fn whole(&mut self, pattern: &str, ignore_case: bool) -> Result<Regex, InvalidRegex> {
        let compiled = self.compile(pattern, |inner| format!(r"\A(?:{inner})\z"), ignore_case)?;
        Ok(Regex { pattern: pattern.into(), ignore_case, compiled })
    }

    /// Compiles a pattern. Without Unicode, `.` is one byte and classes are ASCII; a pattern that names characters beyond
    /// that is compiled with it.
    fn compile(
        &mut self,
        pattern: &str,
        wrap: impl Fn(&str) -> String,
        ignore_case: bool,
    ) -> Result<bytes::Regex, InvalidRegex> {
        match pattern.len() {
            0 => return Err(InvalidRegex::Empty),
            length if length > MAX_PATTERN => return Err(InvalidRegex::TooLong(length)),
            _ if self.exceeded || self.left < LEAST => return Err(self.exceed()),
            _ => {}
        }
        let inner = syntax::translate(pattern)?;
        let build = |unicode: bool, text: &str, size: usize| {
            RegexBuilder::new(text)
                .unicode(unicode)
                .case_insensitive(ignore_case)
                .size_limit(size)
                .dfa_size_limit(MAX_CACHE)
                .build()
        };
        // Compiled by itself first: `a)(b` is no pattern, though it is one between parentheses.
        let most = MAX_COMPILED.min(self.left);
        let unicode = match build(false, &inner, most) {
            Err(regex::Error::Syntax(_)) => {
                build(true, &inner, most).map_err(|error| self.refused(error))?;
                true
            }
            Err(error) => return Err(self.refused(error)),
            Ok(_) => false,
        };
        let text = wrap(&inner);
        let mut size = LEAST;
        loop {
            match build(unicode, &text, size.min(most)) {
                Ok(compiled) => {
                    self.left -= size.min(most);
                    return Ok(compiled);
                }
                Err(regex::Error::CompiledTooBig(_)) if size < most => size *= 2,
                Err(error) => return Err(self.refused(error)),
            }
        }
    }

    /// Whether a pattern was refused for want of room. Nothing is compiled any more then.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    fn exceed(&mut self) -> InvalidRegex {
        self.exceeded = true;
        InvalidRegex::Together
    }

    /// Why a pattern was not compiled. After one that is too large beside others there is room for none.
    fn refused(&mut self, error: regex::Error) -> InvalidRegex {
        match error {
            regex::Error::CompiledTooBig(_) if self.left < MAX_COMPILED => self.exceed(),
            regex::Error::CompiledTooBig(_) => {
                self.left -= MAX_COMPILED;
                InvalidRegex::TooLarge
            }
            error => syntax_error(&error),
        }
    }
}

/// The crate shows the pattern and points at the place; the last line says what is wrong with it.
fn syntax_error(error: &regex::Error) -> InvalidRegex {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    InvalidRegex::Syntax(Cow::Owned(last.trim_start_matches("error: ").to_owned()))
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
