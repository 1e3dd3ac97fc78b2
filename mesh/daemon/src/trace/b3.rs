//! B3, Zipkin's format: in the one header `b3`, or in several that begin with `x-b3-`. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Span;
use super::propagation::{Said, hex, only};

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// A trace's number has 32 digits or, in the older form, 16.
fn parent(trace: &str, span: &str) -> Option<(u128, u64)> {
    let trace = trace.to_ascii_lowercase();
    let trace = hex(&trace, 32).or_else(|| hex(&trace, 16))?;
    Some((trace, u64::try_from(hex(&span.to_ascii_lowercase(), 16)?).ok()?))
}

/// Whether it is sampled, and by B3's debug flag.
fn state(text: &str) -> Option<(bool, bool)> {
    match text {
        "1" | "true" => Some((true, false)),
        "0" | "false" => Some((false, false)),
        "d" => Some((true, true)),
        _ => None,
    }
}

/// What `b3` says: `TRACE-SPAN[-STATE[-PARENT]]`, or the state alone.
pub(super) fn read(headers: &HeaderMap) -> Option<Said> {
    let text = only(headers, SINGLE.as_str())?;
    if let Some((sampled, debug)) = state(text) {
        return Some(Said { parent: None, sampled: Some(sampled), debug });
    }
    let mut fields = text.split('-');
    let parent = parent(fields.next()?, fields.next()?)?;
    let (sampled, debug) = match fields.next() {
        None => (None, false),
        Some(text) => {
            let (sampled, debug) = state(text)?;
            (Some(sampled), debug)
        }
    };
    Some(Said { parent: Some(parent), sampled, debug })
}

/// What the several headers say.
pub(super) fn read_multi(headers: &HeaderMap) -> Option<Said> {
    let [trace, span, sampled, flags] =
        [TRACE, SPAN, SAMPLED, FLAGS].map(|name| only(headers, name.as_str()));
    let parent = trace.zip(span).and_then(|(trace, span)| parent(trace, span));
    let debug = flags == Some("1");
    let sampled = sampled.and_then(state).map(|(sampled, _)| sampled);
    let says = parent.is_some() || sampled.is_some() || debug;
    says.then_some(Said { parent, sampled, debug })
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// Writes `b3`.
pub(super) fn write(headers: &mut HeaderMap, span: &Span, sampled: bool, debug: bool) {
    let state = match (debug, sampled) {
        (true, _) => 'd',
        (false, true) => '1',
        (false, false) => '0',
    };
    let mut text = format!("{:032x}-{:016x}-{state}", span.trace, span.id);
    if let Some(parent) = span.parent {
        text.push_str(&format!("-{parent:016x}"));
    }
    set(headers, SINGLE, &text);
}

/// Writes the several headers.
pub(super) fn write_multi(headers: &mut HeaderMap, span: &Span, sampled: bool, debug: bool) {
    set(headers, TRACE, &format!("{:032x}", span.trace));
    set(headers, SPAN, &format!("{:016x}", span.id));
    match span.parent {
        Some(parent) => set(headers, PARENT, &format!("{parent:016x}")),
        None => drop(headers.remove(PARENT)),
    }
    // Debug implies the decision, and is not to be said with it.
    if debug {
        headers.remove(SAMPLED);
        set(headers, FLAGS, "1");
    } else {
        headers.remove(FLAGS);
        set(headers, SAMPLED, if sampled { "1" } else { "0" });
    }
}
