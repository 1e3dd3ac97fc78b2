//! W3C Trace Context: `traceparent` and `tracestate`. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Span;
use super::propagation::{Said, hex, only};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// What it says; nothing where it is not there or breaks the format.
pub(super) fn read(headers: &HeaderMap) -> Option<Said> {
    let mut fields = only(headers, PARENT.as_str())?.split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    // Of versions to come the first four fields are read as those of this one (section 4.3).
    let more = fields.next().is_some();
    let version = match version {
        "00" if more => return None,
        "00" => 0,
        other => hex(other, 2)?,
    };
    if version == 0xff {
        return None;
    }
    let trace = hex(trace, 32)?;
    let span = u64::try_from(hex(span, 16)?).ok()?;
    let flags = if flags == "00" { 0 } else { hex(flags, 2)? };
    Some(Said { parent: Some((trace, span)), sampled: Some(flags & 1 == 1), debug: false })
}

/// Writes it. What others have put into `tracestate` goes on only as long as the trace does.
pub(super) fn write(headers: &mut HeaderMap, span: &Span, sampled: bool, goes_on: bool) {
    let text = format!("00-{:032x}-{:016x}-0{}", span.trace, span.id, u8::from(sampled));
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(PARENT, value);
    }
    if !goes_on {
        headers.remove(STATE);
    }
}
