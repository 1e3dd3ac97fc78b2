//! How a rule compares paths: like any string, or by a template with `{*}` and `{**}`.

use std::fmt;

use thiserror::Error;

use super::StringMatch;
use crate::address::Str;
use crate::path;

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// As a string.
    Text(StringMatch),
    /// By a template.
    Template(Template),
}

/// A path with placeholders. `{*}` stands for one segment that is not empty; `{**}` for anything that follows, also
/// nothing, but for what is written behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    written: Str,
    /// Literals, between each two of which there is one segment.
    literals: Box<[Str]>,
    /// With `{**}`: what is written behind it.
    end: Option<Str>,
}

/// Why a text with `{*}` or `{**}` is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a path template: {reason}")]
pub struct TemplateError {
    text: String,
    reason: &'static str,
}

const ONE: &str = "{*}";
const ANY: &str = "{**}";

impl PathMatch {
    /// Reads a value of `paths`: a template where it has `{*}` or `{**}`, else `*`, `x*`, `*x` or the whole path.
    ///
    /// # Errors
    /// It has a placeholder and is no template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains(ONE) || text.contains(ANY) {
            return Template::parse(text).map(Self::Template);
        }
        let spelt = |text: &str| Str::from(path::pattern(text));
        Ok(Self::Text(match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => StringMatch::Presence,
            (Some(end), _) => StringMatch::Suffix(spelt(end)),
            (None, Some(start)) => StringMatch::Prefix(spelt(start)),
            (None, None) => StringMatch::Exact(spelt(text)),
        }))
    }

    /// Whether a canonical path is like this.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Text(text) => text.matches(path),
            Self::Template(template) => template.matches(path),
        }
    }

    /// What every path like this begins with; `None` where that cannot be said.
    pub(super) fn beginning(&self) -> Option<&Str> {
        match self {
            Self::Text(StringMatch::Exact(text) | StringMatch::Prefix(text)) => Some(text),
            Self::Text(StringMatch::Suffix(_) | StringMatch::Presence) => None,
            Self::Template(template) => template.literals.first(),
        }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A placeholder is not a segment of its own, something varies behind `{**}`, or there are other braces or stars.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let wrong = |reason| TemplateError { text: text.to_owned(), reason };
        if !text.starts_with('/') {
            return Err(wrong("it does not begin with a slash"));
        }
        let (start, end) = match text.split_once(ANY) {
            Some((start, end)) => (start, Some(end)),
            None => (text, None),
        };
        let literals: Vec<&str> = start.split(ONE).collect();
        let places = literals.len() - 1;
        if literals.iter().chain(&end).any(|literal| literal.contains(['{', '}', '*'])) {
            return Err(wrong(
                "other braces and stars than {*} and {**} have no meaning, nor has {*} behind {**}",
            ));
        }
        let apart = |(place, literal): (usize, &&str)| {
            (place == 0 || literal.starts_with('/') || literal.is_empty() && place == places && end.is_none())
                && (place == places && end.is_none() || literal.ends_with('/'))
        };
        if !literals.iter().enumerate().all(apart) {
            return Err(wrong(
                "{*} and {**} stand for whole segments, so a slash is before them, and behind {*}",
            ));
        }
        let spelt = |text: &str| Str::from(path::pattern(text));
        Ok(Self {
            written: text.into(),
            literals: literals.into_iter().map(spelt).collect(),
            end: end.map(spelt),
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether a canonical path is like this.
    pub fn matches(&self, path: &str) -> bool {
        let mut literals = self.literals.iter();
        let first = literals.next().and_then(|literal| path.strip_prefix(&**literal));
        let rest = literals.try_fold(first, |rest, literal| {
            let rest = rest?;
            // A literal begins with a slash or is the empty end: the segment ends where the next slash is.
            let end = rest.find('/').unwrap_or(rest.len());
            Some((end > 0).then(|| rest[end..].strip_prefix(&**literal)).flatten())
        });
        match (rest.flatten(), &self.end) {
            (None, _) => false,
            (Some(rest), None) => rest.is_empty(),
            (Some(rest), Some(end)) => rest.ends_with(&**end),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests;
