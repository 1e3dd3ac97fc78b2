//! What many messages of a routing have in common: lists, times, shares, names.

use std::time::Duration;

use http::StatusCode;
use http::uri::Authority;
use model::address::Str;
use model::route::Fraction;

use super::{FieldError, Reason, Strings, fields};

/// Reads every item of a list.
pub(super) fn each<W, M>(
    field: &str,
    wire: &[W],
    mut read: impl FnMut(&W) -> Result<M, FieldError>,
) -> Result<Box<[M]>, FieldError> {
    let read = |(index, one)| read(one).map_err(|error| error.within(format_args!("{field}[{index}]")));
    wire.iter().enumerate().map(read).collect()
}

/// Reads a message that may be missing.
pub(super) fn optional<'w, W, M>(
    field: &str,
    wire: Option<&'w W>,
    read: impl FnOnce(&'w W) -> Result<M, FieldError>,
) -> Result<Option<M>, FieldError> {
    wire.map(read).transpose().map_err(|error| error.within(field))
}

/// A message that may not be missing.
pub(super) fn required<'w, W>(field: &'static str, wire: Option<&'w W>) -> Result<&'w W, FieldError> {
    wire.ok_or(FieldError::new(field, Reason::Missing))
}

/// A value that is refused for what it is.
#[expect(
    clippy::needless_pass_by_value,
    reason = "errors and arguments of a format, made where they are passed"
)]
pub(super) fn invalid(field: &'static str, error: impl ToString) -> FieldError {
    FieldError::new(field, Reason::Malformed(error.to_string()))
}

/// A number of an enumeration that has no meaning.
pub(super) fn unknown(field: &'static str, number: i32) -> FieldError {
    FieldError::new(field, Reason::UnknownValue(number))
}

/// A text that is not empty.
pub(super) fn name(strings: &mut Strings, field: &'static str, text: &str) -> Result<Str, FieldError> {
    if text.is_empty() {
        return Err(FieldError::new(field, Reason::Missing));
    }
    Ok(strings.get(text))
}

/// A text that may be missing, but not be empty.
pub(super) fn optional_name(
    strings: &mut Strings,
    field: &'static str,
    text: Option<&String>,
) -> Result<Option<Str>, FieldError> {
    text.map(|text| name(strings, field, text)).transpose()
}

/// A host with or without a port.
pub(super) fn authority(
    strings: &mut Strings,
    field: &'static str,
    text: Option<&String>,
) -> Result<Option<Str>, FieldError> {
    let read = |text: &String| match Authority::try_from(text.as_str()) {
        Ok(_) => Ok(strings.get(text)),
        Err(_) => Err(FieldError::new(field, Reason::Form { text: text.clone(), form: "HOST or HOST:PORT" })),
    };
    text.map(read).transpose()
}

/// A port; 0 is none.
pub(super) fn optional_port(field: &'static str, number: u32) -> Result<Option<u16>, FieldError> {
    let port = fields::port(number).map_err(|reason| FieldError::new(field, reason))?;
    Ok(Some(port).filter(|port| *port != 0))
}

pub(super) fn port(field: &'static str, number: u32) -> Result<u16, FieldError> {
    optional_port(field, number)?.ok_or(FieldError::new(field, Reason::Port(0)))
}

/// A status that ends an exchange: 200 to 599.
pub(super) fn status(field: &'static str, number: u32) -> Result<StatusCode, FieldError> {
    let code = u16::try_from(number).ok().filter(|code| (200..600).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| invalid(field, format_args!("{number} is not a status from 200 to 599")))
}

/// Millionths.
pub(super) fn share(field: &'static str, millionths: u32) -> Result<Fraction, FieldError> {
    if millionths > Fraction::ALL.as_millionths() {
        return Err(invalid(field, format_args!("{millionths} millionths are more than all")));
    }
    Ok(Fraction::millionths(millionths))
}

/// A whole number of percent.
pub(super) fn percent(field: &'static str, number: u32) -> Result<u32, FieldError> {
    if number > 100 {
        Err(invalid(field, format_args!("{number} percent are more than all")))
    } else {
        Ok(number)
    }
}

/// A number in a range; never one that is none.
pub(super) fn within(field: &'static str, number: f64, least: f64, most: f64) -> Result<f64, FieldError> {
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(invalid(field, format_args!("{number} does not lie in {least} to {most}")))
}

/// A length of time that may be missing.
pub(super) fn optional_time(
    field: &'static str,
    wire: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, FieldError> {
    let read = |one: &prost_types::Duration| {
        let seconds = u64::try_from(one.seconds).ok();
        let nanos = u32::try_from(one.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let time = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
        time.ok_or_else(|| {
            invalid(field, format_args!("{} s {} ns is no length of time", one.seconds, one.nanos))
        })
    };
    wire.map(read).transpose()
}

/// A length of time.
pub(super) fn time(
    field: &'static str,
    wire: Option<&prost_types::Duration>,
) -> Result<Duration, FieldError> {
    optional_time(field, wire)?.ok_or(FieldError::new(field, Reason::Missing))
}

/// A length of time as it is sent; the API's longest are some thousand years.
pub(super) fn time_to_wire(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
    }
}

/// A text as it is sent.
pub(super) fn text(text: &Str) -> String {
    text.to_string()
}

/// Texts as they are sent.
pub(super) fn texts(texts: &[Str]) -> Vec<String> {
    texts.iter().map(text).collect()
}
