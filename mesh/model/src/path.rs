//! The one canonical path of a request. It is made once, from the request target as it came, and policy, routing and
//! the upstream all get the same one. What could be read in two ways is refused (`docs/decisions/0012`).
//!
//! It begins with `/`, has no empty, `.` or `..` segment, escapes exactly what RFC 3986 does not allow raw in a path, and
//! writes escapes in upper case. An empty last segment stays: `/a` and `/a/` differ.

use std::borrow::Cow;

use http::Method;
use thiserror::Error;

/// A request target, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The canonical path, or `*` of `OPTIONS *`.
    pub path: Cow<'a, str>,
    /// What follows the first `?`, as sent.
    pub query: Option<&'a str>,
    /// Scheme and authority of a target in absolute form, which take the place of what `Host` says (RFC 9112, 3.2.2).
    pub absolute: Option<Absolute<'a>>,
}

/// What a target in absolute form says beyond path and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absolute<'a> {
    /// `http` or `https`, in either case, as sent.
    pub scheme: &'a str,
    /// Host and port as sent; never empty, without user information.
    pub authority: &'a str,
}

/// Why a request target is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Neither `/…`, nor `http(s)://…`, nor the `*` of OPTIONS.
    #[error("the request target is neither a path, nor an http or https URI, nor the * of OPTIONS")]
    Form,
    /// The authority of an absolute form is empty or has user information.
    #[error(
        "the request target's authority is empty, or has user information before an @; send host and port only"
    )]
    Authority,
    /// A `%` without two hexadecimal digits.
    #[error("the request target has a % that two hexadecimal digits do not follow; write it %25")]
    Escape,
    /// `%2F` or `%5C`.
    #[error(
        "the path has an escaped slash (%2F or %5C), which some read as a separator and some do not; send it unescaped or leave it out"
    )]
    EscapedSlash,
    /// `\`.
    #[error("the path has a backslash, which some read as a slash and some do not; write a slash")]
    Backslash,
    /// `#`.
    #[error("the request target has a fragment (#), which is never sent to a server; leave it out")]
    Fragment,
    /// A blank or control character, raw, or a control character escaped (`%00` to `%1F`, `%7F`).
    #[error(
        "the request target has a blank or a control character; escape the blank (%20), leave out the other"
    )]
    Control,
    /// `..` behind an empty segment (`/a//../b`): it takes away the empty one, or the one before.
    #[error(
        "the path has .. behind an empty segment (//), which is read in two ways; leave one of the two out"
    )]
    ParentOfNothing,
    /// A parameter of an empty, `.` or `..` segment (`/..;/`): some leave it off first, some do not.
    #[error(
        "the path has a parameter (;) of an empty, . or .. segment, which is read in two ways; leave it out"
    )]
    ParameterOfNothing,
}

/// Reads a request target as it stood in the request line, or in `:path`.
///
/// # Errors
/// The reason for which the request is to be refused with 400.
pub fn target<'a>(method: &Method, raw: &'a str) -> Result<Target<'a>, Refusal> {
    if raw == "*" {
        let any = Target { path: raw.into(), query: None, absolute: None };
        return if *method == Method::OPTIONS { Ok(any) } else { Err(Refusal::Form) };
    }
    let (absolute, rest) = if raw.starts_with('/') { (None, raw) } else { absolute(raw)? };
    if rest.contains('#') {
        return Err(Refusal::Fragment);
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    if query.is_some_and(|query| query.bytes().any(|byte| byte <= b' ' || byte == DEL)) {
        return Err(Refusal::Control);
    }
    let path = match (path, absolute) {
        // RFC 9112, 3.2.4: of a server as a whole, by way of a proxy.
        ("", Some(_)) if *method == Method::OPTIONS && query.is_none() => "*".into(),
        ("", _) => "/".into(),
        _ => canonical(path)?,
    };
    Ok(Target { path, query, absolute })
}

/// Parts a target in absolute form from its path and query.
fn absolute(raw: &str) -> Result<(Option<Absolute<'_>>, &str), Refusal> {
    let (scheme, rest) = raw.split_once("://").ok_or(Refusal::Form)?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(Refusal::Form);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let odd = |byte: u8| byte == b'@' || byte == b'\\' || byte <= b' ' || byte == DEL;
    if authority.is_empty() || authority.bytes().any(odd) {
        return Err(Refusal::Authority);
    }
    Ok((Some(Absolute { scheme, authority }), rest))
}

/// The canonical form of a path, without query.
///
/// # Errors
/// The reason for which the request is to be refused with 400.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::Form);
    }
    if is_plain(path) {
        return Ok(path.into());
    }
    Ok(without_dots(&respelt(path)?)?.into())
}

/// Whether a path that a rule has put together may be sent: it can be read in one way, and no `.` or `..` in it leads out of where
/// the rule leads. A client can only have such a segment made of what it sends, which has none itself.
pub fn is_straight(path: &str) -> bool {
    let straight = |path: String| {
        path.split('/').all(|segment| !matches!(segment, "." | "..")) && without_dots(&path).is_ok()
    };
    path.starts_with('/') && (is_plain(path) || respelt(path).is_ok_and(straight))
}

const DEL: u8 = 0x7f;

/// Whether nothing of the path is spelt in one of several ways: most are.
fn is_plain(path: &str) -> bool {
    let mut last = 0;
    path.bytes().all(|byte| {
        let plain = byte != b';' && is_raw(byte) && !(last == b'/' && matches!(byte, b'/' | b'.'));
        last = byte;
        plain
    })
}

/// Whether a byte stands unescaped in a path (RFC 3986, 3.3: pchar), or parts its segments.
fn is_raw(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,;=:@".contains(&byte)
}

/// Whether a byte means the same escaped or not (RFC 3986, 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Each byte in its one spelling.
fn respelt(path: &str) -> Result<String, Refusal> {
    let mut text = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let byte = escaped(&mut bytes).ok_or(Refusal::Escape)?;
                match byte {
                    b'/' | b'\\' => return Err(Refusal::EscapedSlash),
                    0..b' ' | DEL => return Err(Refusal::Control),
                    _ if is_unreserved(byte) => text.push(char::from(byte)),
                    _ => escape(byte, &mut text),
                }
            }
            b'\\' => return Err(Refusal::Backslash),
            b'#' => return Err(Refusal::Fragment),
            0..=b' ' | DEL => return Err(Refusal::Control),
            _ if is_raw(byte) => text.push(char::from(byte)),
            _ => escape(byte, &mut text),
        }
    }
    Ok(text)
}

/// The byte that two hexadecimal digits stand for.
fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(bytes.next()?).to_digit(16);
    u8::try_from(digit()? << 4 | digit()?).ok()
}

fn escape(byte: u8, text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    text.extend(['%', digit(byte >> 4), digit(byte)]);
}

/// Without `.` and `..` (RFC 3986, 5.2.4), then without empty segments but the last. Where it matters which of the two
/// comes first, the path is refused.
fn without_dots(path: &str) -> Result<String, Refusal> {
    let mut kept: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in path.split('/').skip(1) {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            ".." if kept.pop() == Some("") => return Err(Refusal::ParentOfNothing),
            ".." => {}
            _ if segment.split_once(';').is_some_and(|(name, _)| matches!(name, "" | "." | "..")) => {
                return Err(Refusal::ParameterOfNothing);
            }
            _ => kept.push(segment),
        }
    }
    let mut text = String::with_capacity(path.len());
    for segment in kept.iter().filter(|segment| !segment.is_empty()) {
        text.push('/');
        text.push_str(segment);
    }
    if open || text.is_empty() {
        text.push('/');
    }
    Ok(text)
}

/// A piece of a path in a rule, in the spelling that canonical paths have; what no canonical path contains stays as it is
/// and never matches.
pub fn pattern(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_raw) {
        return text.into();
    }
    respelt(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests;
