//! How a text is compared (`networking.istio.io` `StringMatch`).

use super::regex::Regex;
use crate::address::Str;

/// A condition on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// Equal.
    Exact(Str),
    /// Begins with this, whatever follows.
    Prefix(Str),
    /// Matches as a whole.
    Regex(Regex),
    /// Is there: the API's `{}`, and the regex `*`, which is none and stands for this in Istio.
    Present,
}

impl TextMatch {
    /// Whether a text that is there fulfils it. Texts are bytes: a header's value need not be UTF-8.
    pub fn holds(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => expected.as_bytes() == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Regex(regex) => regex.matches(text),
            Self::Present => true,
        }
    }

    /// The same where upper and lower case (ASCII) do not differ; a regex says for itself whether they do.
    pub fn holds_ignoring_case(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => expected.as_bytes().eq_ignore_ascii_case(text),
            Self::Prefix(prefix) => starts_ignoring_case(text, prefix.as_bytes()),
            Self::Regex(_) | Self::Present => self.holds(text),
        }
    }
}

/// Whether a text begins with a prefix, whatever the case of ASCII letters.
pub(super) fn starts_ignoring_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
