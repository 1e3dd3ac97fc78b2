//! Single values that VirtualServices and DestinationRules share: lengths of time, parts of a hundred, expressions,
//! names and values of headers, ports.

use std::time;

use model::route::regex::InvalidRegex;
use model::route::template::is_command;
use regex::bytes::RegexBuilder;

use super::Report;
use crate::{cursor::Cursor, istio::Duration, node::Value, scalar::Scalar};

/// Istio's limit of the length of an expression, in bytes.
const MAX_REGEX: usize = 1024;
/// What a compiled expression may take, in bytes.
const MAX_PROGRAM: usize = 1 << 20;

/// A length of time that something may take: at least a millisecond, in whole milliseconds, as Istio wants it.
pub(super) fn duration(of: &Cursor<'_>, key: &str, report: &mut Report<'_>) {
    let Some(value) = of.get(key) else { return };
    let Some(Duration(length)) = Duration::parse(value.text()) else { return };
    if length < time::Duration::from_millis(1) {
        let fix = Some(format!("at least `1ms`; leave `{key}` out for what it is without"));
        report.error(&value, format!("`{}` is too short", value.text()), fix);
    } else if length.subsec_nanos() % 1_000_000 != 0 {
        report.error(&value, format!("`{}` is finer than a millisecond", value.text()), None);
    }
}

/// A whole number that must not be negative.
pub(super) fn not_negative(of: &Cursor<'_>, keys: &[&str], report: &mut Report<'_>) {
    for value in keys.iter().filter_map(|key| of.get(key)) {
        if number(&value).is_some_and(|number| number < 0.0) {
            report.error(&value, "a negative number", None);
        }
    }
}

/// The number that a value is.
pub(super) fn number(value: &Cursor<'_>) -> Option<f64> {
    value.node.to_json().as_f64()
}

/// A whole number from 0 to 100.
pub(super) fn whole_percent(of: &Cursor<'_>, key: &str, report: &mut Report<'_>) {
    let Some(value) = of.get(key) else { return };
    if number(&value).is_some_and(|number| !(0.0..=100.0).contains(&number)) {
        report.error(&value, "not a number from 0 to 100", None);
    }
}

/// `percentage: {value: …}`: 0 to 100, and nothing that is too small to count.
pub(super) fn percentage(of: &Cursor<'_>, key: &str, report: &mut Report<'_>) {
    let Some(percentage) = of.get(key) else { return };
    let Some(value) = percentage.get("value") else {
        let fix = Some("write `{value: 10}` for ten of a hundred".to_owned());
        return report.warning(&percentage, "no `value`: it counts as 0", fix);
    };
    let Some(number) = number(&value) else { return };
    if !(0.0..=100.0).contains(&number) {
        report.error(&value, "not a number from 0 to 100", None);
    } else if number > 0.0 && number < 0.0001 {
        report.error(&value, "less than 0.0001 of a hundred cannot be counted", Some("write 0".to_owned()));
    }
}

/// A port from 1 to 65535.
pub(super) fn port(value: &Cursor<'_>, report: &mut Report<'_>) {
    if let Value::Scalar(Scalar::Int(number), _) = value.node.value
        && !(1..=65535).contains(&number)
    {
        report.error(value, format!("{number} is not a port number from 1 to 65535"), None);
    }
}

/// An expression in RE2's syntax.
pub(super) fn regex(value: &Cursor<'_>, report: &mut Report<'_>) {
    let text = value.text();
    if text.is_empty() {
        let fix = Some("write `.*` for anything".to_owned());
        return report.error(value, "an empty expression", fix);
    }
    if text.len() > MAX_REGEX {
        return report.error(value, format!("an expression of more than {MAX_REGEX} bytes"), None);
    }
    if let Some(what) = not_re2(text) {
        let fix = Some("escape it with `\\` to mean the character itself".to_owned());
        return report.error(value, format!("`{text}`: {what} means something else in RE2's syntax"), fix);
    }
    // Told once: each further one would have to be compiled for it.
    if report.regexes.is_exceeded() {
        return;
    }
    if let Err(error @ InvalidRegex::Together) = report.regexes.regex(text) {
        return report.error(value, error.to_string(), None);
    }
    let compiled = RegexBuilder::new(text).unicode(false).size_limit(MAX_PROGRAM).build();
    if let Err(error) = compiled {
        let reason = match error {
            regex::Error::CompiledTooBig(_) => "it takes too much to match; repeat less".to_owned(),
            // The last line says what; the others draw where.
            error => {
                error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        };
        report.error(value, format!("`{text}` is not an expression in RE2's syntax: {reason}"), None);
    }
}

/// What would be read otherwise by the expressions of Rust than by RE2: operations on classes inside of classes, and a
/// few flags and anchors that RE2 does not have.
fn not_re2(text: &str) -> Option<&'static str> {
    let mut rest = text.chars().peekable();
    let mut in_class = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('<' | '>') if !in_class => return Some("`\\<` or `\\>`"),
                Some('b') if !in_class && rest.peek() == Some(&'{') => return Some("`\\b{`"),
                _ => {}
            },
            '[' if !in_class => {
                in_class = true;
                // A `]` that comes first is one of the class.
                if rest.peek() == Some(&'^') {
                    rest.next();
                }
                if rest.peek() == Some(&']') {
                    rest.next();
                }
            }
            '[' if rest.peek() == Some(&':') => {
                // `[:alpha:]`: up to its end.
                while let Some(c) = rest.next() {
                    if c == ':' && rest.peek() == Some(&']') {
                        rest.next();
                        break;
                    }
                }
            }
            '[' => return Some("`[` inside of brackets"),
            ']' => in_class = false,
            '&' | '~' | '-' if in_class && rest.peek() == Some(&c) => {
                return Some("a doubled `&`, `~` or `-` inside of brackets");
            }
            '(' if !in_class && rest.peek() == Some(&'?') => {
                rest.next();
                let flags: String =
                    rest.clone().take_while(|c| c.is_ascii_alphabetic() || *c == '-').collect();
                let named = matches!(rest.peek(), Some('P' | '<'));
                if !named && flags.contains(['x', 'R', 'u']) {
                    return Some("the flag `x`, `R` or `u`");
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether `text` can be the name of a header.
pub(super) fn is_header_name(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

/// A value that a header is given.
pub(super) fn header_value(value: &Cursor<'_>, report: &mut Report<'_>) {
    let text = value.text();
    if text.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return report.error(value, "a control character in a header's value", None);
    }
    let mut parts = text.split('%');
    parts.next();
    while let Some(command) = parts.next() {
        let fix = Some("write `%%` for a single `%`".to_owned());
        if parts.next().is_none() {
            return report.error(value, format!("`{text}`: a `%` without its partner"), fix);
        }
        let name = command.split('(').next().unwrap_or_default();
        if !command.is_empty() && !is_command(name) {
            report.error(value, format!("`%{command}%` is not supported in a header's value"), fix);
        }
    }
}

/// Only one of these keys; the first two that are there are told of.
pub(super) fn only_one(of: &Cursor<'_>, keys: &[&str], report: &mut Report<'_>) {
    let mut there = keys.iter().filter_map(|key| of.get(key).map(|value| (*key, value)));
    if let (Some((first, _)), Some((second, at))) = (there.next(), there.next()) {
        let fix = Some("keep the one that is meant".to_owned());
        report.error_at_key(&at, format!("`{second}` cannot stand beside `{first}`"), fix);
    }
}

/// Lists and objects with nothing in them where something is wanted, as for instance `retries:` alone.
pub(super) fn says_something(of: &Cursor<'_>, name: &str, keys: &[&str], report: &mut Report<'_>) -> bool {
    let says = keys.iter().any(|key| of.get(key).is_some());
    if !says {
        let fix = Some(format!("its fields are {}", keys.join(", ")));
        report.error_at_key(of, format!("`{name}` says nothing"), fix);
    }
    says
}

#[cfg(test)]
mod tests {
    use super::not_re2;

    #[test]
    fn what_rust_would_read_otherwise_is_told() {
        for (text, odd) in [
            ("^/api/v[0-9]+$", false),
            ("[[:alpha:]_-]+", false),
            ("[^]]", false),
            ("[]a]", false),
            (r"[\[]", false),
            ("(?i)a", false),
            ("(?P<x>a)(?<u>b)", false),
            ("a&&b--c", false),
            (r"\bword\b", false),
            ("[[a]]", true),
            ("[a&&b]", true),
            ("[a--b]", true),
            ("[a~~b]", true),
            ("(?x) a", true),
            ("(?i-u)a", true),
            (r"\<a", true),
            (r"\b{start}", true),
        ] {
            assert_eq!(not_re2(text).is_some(), odd, "{text}");
        }
    }
}
