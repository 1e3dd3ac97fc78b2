//! How a waypoint reads a request's target and host where Envoy does not read it so (docs/decisions/0012 and 0013), as one
//! reads it there: Envoy is asked with what is meant, so that all the rest is compared.

use crate::raw::bytes;

/// What a request is to a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// What this one is to Envoy.
    As(String),
    /// It has two readings, and is refused with 400.
    Refused,
}

/// Reads a request of HTTP/1.1, as text of Latin-1.
pub fn reading(request: &str) -> Reading {
    let (start, rest) = request.split_once("\r\n").unwrap_or((request, ""));
    let words: Vec<&str> = start.split(' ').collect();
    let [method, target, version] = words.as_slice() else {
        // Blanks in the target: both refuse it.
        return Reading::As(request.to_owned());
    };
    // What is behind # is never sent on.
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (target, String::new()),
    };
    let (origin, path) = match path.split_once("://") {
        Some((scheme, rest)) => {
            let slash = rest.find('/').unwrap_or(rest.len());
            (format!("{scheme}://{}", &rest[..slash]), &rest[slash..])
        }
        None => (String::new(), path),
    };
    let Some(path) = canonical(path) else { return Reading::Refused };
    let rest: Vec<String> = rest
        .split("\r\n")
        .map(|line| match line.strip_prefix("host: ") {
            // Hosts are in lower case.
            Some(host) => format!("host: {}", host.to_ascii_lowercase()),
            None => line.to_owned(),
        })
        .collect();
    Reading::As(format!("{method} {origin}{path}{query} {version}\r\n{}", rest.join("\r\n")))
}

/// A path with its escapes in upper case, what may not stand raw escaped, and without empty segments; dots are left to Envoy.
fn canonical(path: &str) -> Option<String> {
    if path.contains('\\') || String::from_utf8(bytes(path)).is_err() {
        return None;
    }
    let escaped = escapes(path)?;
    if escaped.contains("%2F") || escaped.contains("%5C") {
        return None;
    }
    let Some(segments) = escaped.strip_prefix('/') else { return Some(escaped) };
    let mut kept: Vec<&str> = Vec::new();
    for segment in segments.split('/') {
        let plain = segment.replace("%2E", ".");
        let name = plain.split(';').next().unwrap_or_default();
        if plain.contains(';') && matches!(name, "" | "." | "..") {
            return None;
        }
        match plain.as_str() {
            "." => {}
            ".." if kept.pop() == Some("") => return None,
            ".." => {}
            _ => kept.push(segment),
        }
    }
    let mut merged = String::new();
    for letter in escaped.chars() {
        if letter != '/' || !merged.ends_with('/') {
            merged.push(letter);
        }
    }
    Some(merged)
}

fn escapes(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = path.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '%' => {
                let digits: String = rest.by_ref().take(2).collect();
                if digits.len() != 2 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                out.push_str(&format!("%{}", digits.to_ascii_uppercase()));
            }
            '"' | '<' | '>' | '^' | '`' | '{' | '|' | '}' | '\u{80}'..='\u{ff}' => {
                out.push_str(&format!("%{:02X}", u32::from(letter)));
            }
            _ => out.push(letter),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_the_decisions_say() {
        let as_is = |target: &str| Some(target.to_owned());
        for (target, read) in [
            ("/a/b", as_is("/a/b")),
            ("/a//b", as_is("/a/b")),
            ("//", as_is("/")),
            ("/a/../b?x=//", as_is("/a/../b?x=//")),
            ("/a%c3", as_is("/a%C3")),
            ("/{x}", as_is("/%7Bx%7D")),
            ("/\u{c3}\u{a9}", as_is("/%C3%A9")),
            ("/\u{e9}", None),
            ("/x#y", as_is("/x")),
            ("http://h//a", as_is("http://h/a")),
            ("/a//../b", None),
            ("/a//x/../..", None),
            ("/a%2fb", None),
            ("/..;/x", None),
            ("/a;x=1", as_is("/a;x=1")),
            ("/a\\b", None),
            ("/%zz", None),
        ] {
            let read = read.map_or(Reading::Refused, |target| {
                Reading::As(format!("GET {target} HTTP/1.1\r\nhost: h\r\n\r\n"))
            });
            assert_eq!(reading(&format!("GET {target} HTTP/1.1\r\nhost: H\r\n\r\n")), read, "{target}");
        }
    }
}
