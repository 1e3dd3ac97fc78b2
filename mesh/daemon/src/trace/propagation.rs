//! The place of a request in its trace as its headers say it: W3C Trace Context, B3 in one header, B3 in several. Pure.

use std::str::FromStr;

use http::HeaderMap;

use super::{Span, TraceError, b3, w3c};

/// Formats that are understood. What a request says in one that is not is left as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Formats {
    /// `traceparent` and `tracestate`. Written always, also for those who came without.
    pub w3c: bool,
    /// `b3`. Written for those who came with it.
    pub b3: bool,
    /// `x-b3-traceid` and its like. Written for those who came with them.
    pub b3_multi: bool,
}

impl FromStr for Formats {
    type Err = TraceError;

    /// Reads a list with commas, by the names of `OTEL_PROPAGATORS`.
    fn from_str(text: &str) -> Result<Self, TraceError> {
        let mut formats = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "tracecontext" => formats.w3c = true,
                "b3" => formats.b3 = true,
                "b3multi" => formats.b3_multi = true,
                other => return Err(TraceError::Format(other.to_owned())),
            }
        }
        Ok(formats)
    }
}

/// What one format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// The trace and the span that asks.
    pub(super) parent: Option<(u128, u64)>,
    /// Whether it is sampled, if somebody has decided that.
    pub(super) sampled: Option<bool>,
    /// B3's debug flag: sampled, whatever else is decided.
    pub(super) debug: bool,
}

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Carried {
    pub(super) parent: Option<(u128, u64)>,
    pub(super) sampled: Option<bool>,
    debug: bool,
    /// Formats in which it says something.
    came: Formats,
}

impl Carried {
    /// Reads the headers. Of formats that disagree W3C's counts, then `b3`: those behind us are told the same in all.
    pub(super) fn read(headers: &HeaderMap, formats: Formats) -> Self {
        let w3c = formats.w3c.then(|| w3c::read(headers)).flatten();
        let b3 = formats.b3.then(|| b3::read(headers)).flatten();
        let b3_multi = formats.b3_multi.then(|| b3::read_multi(headers)).flatten();
        let came = Formats { w3c: w3c.is_some(), b3: b3.is_some(), b3_multi: b3_multi.is_some() };
        let said = [w3c, b3, b3_multi];
        let mut said = said.into_iter().flatten();
        // One that names no trace may still say whether to sample.
        let first = said.clone().find(|said| said.parent.is_some()).or_else(|| said.next());
        let Said { parent, sampled, debug } = first.unwrap_or_default();
        Self { parent, sampled: if debug { Some(true) } else { sampled }, debug, came }
    }

    /// Tells those behind us.
    pub(super) fn write(self, headers: &mut HeaderMap, formats: Formats, span: &Span, sampled: bool) {
        if formats.w3c {
            w3c::write(headers, span, sampled, self.came.w3c && self.parent.is_some());
        }
        if self.came.b3 {
            b3::write(headers, span, sampled, self.debug);
        }
        if self.came.b3_multi {
            b3::write_multi(headers, span, sampled, self.debug);
        }
    }
}

/// A number of so many hexadecimal digits in lower case; nothing where it is zero, which names nothing.
pub(super) fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(plain) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().filter(|number| *number != 0)
}

/// The only value of a header, as text.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
