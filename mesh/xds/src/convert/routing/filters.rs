//! What rules do beside their action: header operations, faults, CORS.

use http::{HeaderName, HeaderValue};
use model::route::cors::UnmatchedPreflights;
use model::route::fault::{Abort, AbortWith, Delay, GRPC_STATUS};
use model::route::headers::may_change;
use model::route::regex::Allowance;
use model::route::template::Template;
use model::route::{Cors, Fault, HeaderChanges, Operations};
use proto::routing as wire;

use super::condition::{plain_text, text_match_to_wire};
use super::parts::{
    authority, each, invalid, optional, required, share, status, text, time, time_to_wire, unknown,
};
use super::{FieldError, Reason, Strings};

pub(super) fn headers(
    strings: &mut Strings,
    wire: Option<&wire::HeaderChanges>,
) -> Result<HeaderChanges, FieldError> {
    let Some(wire) = wire else { return Ok(HeaderChanges::default()) };
    let request = optional("request", wire.request.as_ref(), |one| operations(strings, one).map(Box::new))?;
    let response =
        optional("response", wire.response.as_ref(), |one| operations(strings, one).map(Box::new))?;
    if response.as_ref().is_some_and(|one| one.authority.is_some()) {
        return Err(invalid("response.authority", "responses have no authority"));
    }
    Ok(HeaderChanges { request, response })
}

fn operations(strings: &mut Strings, wire: &wire::Operations) -> Result<Operations, FieldError> {
    Ok(Operations {
        remove: each("remove", &wire.remove, |one| changeable(one))?,
        set: each("set", &wire.set, header)?,
        add: each("add", &wire.add, header)?,
        authority: authority(strings, "authority", wire.authority.as_ref())?,
    })
}

fn header(wire: &wire::Header) -> Result<(HeaderName, Template), FieldError> {
    let value = Template::parse(&wire.value).map_err(|error| invalid("value", error))?;
    Ok((changeable(&wire.name)?, value))
}

/// A header that a rule may change: not what frames a message.
fn changeable(name: &str) -> Result<HeaderName, FieldError> {
    let read = header_name("name", name)?;
    if may_change(&read) {
        return Ok(read);
    }
    Err(invalid("name", format_args!("{name} frames messages, which rules may not change")))
}

pub(super) fn header_name(field: &'static str, name: &str) -> Result<HeaderName, FieldError> {
    let form = || Reason::Form { text: name.to_owned(), form: "a header's name" };
    HeaderName::try_from(name).map_err(|_| FieldError::new(field, form()))
}

pub(super) fn fault(wire: &wire::Fault) -> Result<Fault, FieldError> {
    Ok(Fault {
        delay: optional("delay", wire.delay.as_ref(), |one| {
            Ok(Delay { after: time("after", one.after.as_ref())?, share: share("share", one.share)? })
        })?,
        abort: optional("abort", wire.abort.as_ref(), abort)?,
    })
}

fn abort(wire: &wire::Abort) -> Result<Abort, FieldError> {
    use wire::abort::With;
    let with = match required("with", wire.with.as_ref())? {
        With::HttpStatus(number) => AbortWith::Http(status("http_status", *number)?),
        With::GrpcStatus(number) => {
            let code = u8::try_from(*number).ok().filter(|code| usize::from(*code) < GRPC_STATUS.len());
            let none = || invalid("grpc_status", format_args!("{number} is not a gRPC status"));
            AbortWith::Grpc(code.ok_or_else(none)?)
        }
    };
    Ok(Abort { with, share: share("share", wire.share)? })
}

pub(super) fn cors(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::Cors,
) -> Result<Cors, FieldError> {
    Ok(Cors {
        allow_origins: each("allow_origins", &wire.allow_origins, |one| plain_text(strings, regexes, one))?,
        allow_methods: list("allow_methods", wire.allow_methods.as_ref())?,
        allow_headers: list("allow_headers", wire.allow_headers.as_ref())?,
        expose_headers: list("expose_headers", wire.expose_headers.as_ref())?,
        max_age: wire.max_age,
        allow_credentials: wire.allow_credentials,
        unmatched_preflights: match wire::UnmatchedPreflights::try_from(wire.unmatched_preflights) {
            Ok(wire::UnmatchedPreflights::Forward) => UnmatchedPreflights::Forward,
            Ok(wire::UnmatchedPreflights::Ignore) => UnmatchedPreflights::Ignore,
            Err(_) => return Err(unknown("unmatched_preflights", wire.unmatched_preflights)),
        },
    })
}

/// Names joined by commas, as a header has them.
fn list(field: &'static str, wire: Option<&String>) -> Result<Option<HeaderValue>, FieldError> {
    let read = |text: &String| {
        let visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let value = HeaderValue::from_str(text).ok().filter(|value| visible && !value.is_empty());
        value.ok_or_else(|| FieldError::new(field, Reason::Form { text: text.clone(), form: "NAME,NAME" }))
    };
    wire.map(read).transpose()
}

pub(super) fn headers_to_wire(one: &HeaderChanges) -> Option<wire::HeaderChanges> {
    let changes = wire::HeaderChanges {
        request: one.request.as_deref().map(operations_to_wire),
        response: one.response.as_deref().map(operations_to_wire),
    };
    (*one != HeaderChanges::default()).then_some(changes)
}

fn operations_to_wire(one: &Operations) -> wire::Operations {
    let header = |(name, value): &(HeaderName, Template)| wire::Header {
        name: name.to_string(),
        value: text(value.source()),
    };
    wire::Operations {
        remove: one.remove.iter().map(HeaderName::to_string).collect(),
        set: one.set.iter().map(header).collect(),
        add: one.add.iter().map(header).collect(),
        authority: one.authority.as_ref().map(text),
    }
}

pub(super) fn fault_to_wire(one: &Fault) -> wire::Fault {
    use wire::abort::With;
    wire::Fault {
        delay: one.delay.map(|delay| wire::Delay {
            after: Some(time_to_wire(delay.after)),
            share: delay.share.as_millionths(),
        }),
        abort: one.abort.map(|abort| wire::Abort {
            with: Some(match abort.with {
                AbortWith::Http(status) => With::HttpStatus(status.as_u16().into()),
                AbortWith::Grpc(code) => With::GrpcStatus(code.into()),
            }),
            share: abort.share.as_millionths(),
        }),
    }
}

pub(super) fn cors_to_wire(one: &Cors) -> wire::Cors {
    // Built of texts, so they are texts.
    let list = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    wire::Cors {
        allow_origins: one.allow_origins.iter().map(text_match_to_wire).collect(),
        allow_methods: one.allow_methods.as_ref().map(list),
        allow_headers: one.allow_headers.as_ref().map(list),
        expose_headers: one.expose_headers.as_ref().map(list),
        max_age: one.max_age,
        allow_credentials: one.allow_credentials,
        unmatched_preflights: match one.unmatched_preflights {
            UnmatchedPreflights::Forward => wire::UnmatchedPreflights::Forward,
            UnmatchedPreflights::Ignore => wire::UnmatchedPreflights::Ignore,
        }
        .into(),
    }
}
