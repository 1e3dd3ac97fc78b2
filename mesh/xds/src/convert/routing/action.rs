//! What rules do: forward, redirect, answer.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderName, StatusCode};
use model::route::action::PathRewrite;
use model::route::redirect::{RedirectPath, RedirectPort};
use model::route::regex::Allowance;
use model::route::retry::RetryCondition;
use model::route::{
    Destination, Destinations, DirectResponse, Forward, Mirror, Redirect, RetryOn, RetryPolicy, Weighted,
};
use proto::routing as wire;
use wire::forward::{Destinations as WireDestinations, RewritePath};

use super::filters::{self, header_name};
use super::parts::{
    authority, each, invalid, optional, optional_name, optional_port, optional_time, port, required, share,
    status, text, texts, time, time_to_wire,
};
use super::{FieldError, Reason, Strings, fields};

/// The largest body of an answer, in bytes, as in Istio.
const MAX_BODY: usize = 1 << 20;

pub(super) fn forward(
    strings: &mut Strings,
    regexes: &mut Allowance,
    wire: &wire::Forward,
) -> Result<Forward, FieldError> {
    let rewrite_path = match &wire.rewrite_path {
        Some(RewritePath::Replace(path)) => Some(PathRewrite::Replace(path_text(strings, "replace", path)?)),
        Some(RewritePath::Substitute(one)) => Some(PathRewrite::Regex(
            regexes
                .substitution(&one.pattern, &one.replacement)
                .map_err(|error| invalid("substitute", error))?,
        )),
        None => None,
    };
    Ok(Forward {
        destinations: match required("destinations", wire.destinations.as_ref())? {
            WireDestinations::Only(one) => only(strings, one)?,
            WireDestinations::Split(split) => self::split(strings, split)?,
        },
        missing: wire.missing.iter().map(|missing| strings.get(missing)).collect(),
        rewrite_path,
        rewrite_authority: authority(strings, "rewrite_authority", wire.rewrite_authority.as_ref())?,
        timeout: optional_time("timeout", wire.timeout.as_ref())?,
        retry: optional("retry", wire.retry.as_ref(), retry)?,
        mirrors: each("mirrors", &wire.mirrors, |one| mirror(strings, one))?,
    })
}

/// A path in place of another begins as paths do: whatever it is put before or behind, a host stays a host.
fn path_text(
    strings: &mut Strings,
    field: &'static str,
    path: &str,
) -> Result<model::address::Str, FieldError> {
    if path.starts_with('/') {
        return Ok(strings.get(path));
    }
    Err(FieldError::new(field, Reason::Form { text: path.to_owned(), form: "/PATH" }))
}

pub(super) fn only(strings: &mut Strings, wire: &wire::Destination) -> Result<Destinations, FieldError> {
    destination(strings, wire).map(Destinations::One).map_err(|error| error.within("only"))
}

pub(super) fn split(strings: &mut Strings, wire: &wire::Split) -> Result<Destinations, FieldError> {
    let all = each("split.destinations", &wire.destinations, |one| {
        let inner = required("destination", one.destination.as_ref())?;
        let destination = destination(strings, inner).map_err(|error| error.within("destination"))?;
        Ok(Weighted { weight: one.weight, destination })
    })?;
    let sum: u64 = all.iter().map(|one| u64::from(one.weight)).sum();
    if u32::try_from(sum).is_err() {
        return Err(invalid(
            "split.destinations",
            format_args!("the weights add up to {sum}, more than {}", u32::MAX),
        ));
    }
    Ok(Destinations::Split(all))
}

fn destination(strings: &mut Strings, wire: &wire::Destination) -> Result<Destination, FieldError> {
    Ok(Destination {
        service: fields::host(strings, &wire.namespace, &wire.hostname)?,
        subset: optional_name(strings, "subset", wire.subset.as_ref())?,
        port: optional_port("port", wire.port)?,
        headers: filters::headers(strings, wire.headers.as_ref()).map_err(|error| error.within("headers"))?,
    })
}

fn mirror(strings: &mut Strings, wire: &wire::Mirror) -> Result<Mirror, FieldError> {
    let inner = required("destination", wire.destination.as_ref())?;
    Ok(Mirror {
        destination: destination(strings, inner).map_err(|error| error.within("destination"))?,
        share: share("share", wire.share)?,
    })
}

/// Most routes have the same retries: Istio's default, which is then shared.
fn retry(wire: &wire::Retry) -> Result<Arc<RetryPolicy>, FieldError> {
    if wire.attempts == 0 {
        return Err(FieldError::new("attempts", Reason::Missing));
    }
    let code = |number: &u32| {
        let code = u16::try_from(*number).ok().and_then(|code| StatusCode::from_u16(code).ok());
        code.ok_or_else(|| invalid("status_codes", format_args!("{number} is not a status")))
    };
    let policy = RetryPolicy {
        attempts: wire.attempts,
        on: wire.on.iter().map(|number| condition(*number)).collect::<Result<RetryOn, _>>()?,
        status_codes: wire.status_codes.iter().map(code).collect::<Result<_, _>>()?,
        headers: each("headers", &wire.headers, |one| header_name("name", one))?,
        per_try_timeout: optional_time("per_try_timeout", wire.per_try_timeout.as_ref())?,
        backoff: time("backoff", wire.backoff.as_ref())?,
        remote_localities: wire.remote_localities,
        ignore_previous_hosts: wire.ignore_previous_hosts,
    };
    let default = RetryPolicy::shared_default();
    Ok(if policy == *default { default } else { Arc::new(policy) })
}

/// On the wire the conditions have the numbers of their places, from 1.
fn condition(number: i32) -> Result<RetryCondition, FieldError> {
    let place = number.checked_sub(1).and_then(|place| usize::try_from(place).ok());
    let known = place.and_then(|place| RetryCondition::ALL.get(place).copied());
    known.ok_or_else(|| super::parts::unknown("on", number))
}

pub(super) fn redirect(strings: &mut Strings, wire: &wire::Redirect) -> Result<Redirect, FieldError> {
    use wire::redirect::{Path, Port};
    let path = match &wire.path {
        Some(Path::Whole(path)) => Some(RedirectPath::Whole(path_text(strings, "whole", path)?)),
        Some(Path::Prefix(path)) => Some(RedirectPath::Prefix(path_text(strings, "prefix", path)?)),
        None => None,
    };
    let port = match wire.port {
        Some(Port::Number(number)) => Some(RedirectPort::Number(port("number", number)?)),
        Some(Port::OfRequest(true)) => Some(RedirectPort::OfRequest),
        Some(Port::OfRequest(false)) => return Err(FieldError::new("of_request", Reason::Missing)),
        None => None,
    };
    let scheme = optional_name(strings, "scheme", wire.scheme.as_ref())?;
    if let Some(scheme) = scheme.as_deref().filter(|scheme| Scheme::try_from(*scheme).is_err()) {
        return Err(FieldError::new(
            "scheme",
            Reason::Form { text: scheme.to_owned(), form: "http or https" },
        ));
    }
    let code = status("code", wire.code)?;
    if !matches!(code.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Err(invalid("code", format_args!("{code} is none of 301, 302, 303, 307 and 308")));
    }
    Ok(Redirect {
        path,
        authority: authority(strings, "authority", wire.authority.as_ref())?,
        port,
        scheme,
        code,
    })
}

pub(super) fn response(wire: &wire::DirectResponse) -> Result<DirectResponse, FieldError> {
    let length = wire.body.as_ref().map_or(0, Bytes::len);
    if length > MAX_BODY {
        return Err(invalid("body", format_args!("{length} bytes, more than the {MAX_BODY} of an answer")));
    }
    Ok(DirectResponse {
        status: status("status", wire.status)?,
        // A copy: what is read may be a view of a much larger message.
        body: wire.body.as_deref().map(Arc::from),
    })
}

pub(super) fn forward_to_wire(one: &Forward) -> wire::Forward {
    let rewrite = |rewrite: &PathRewrite| match rewrite {
        PathRewrite::Replace(path) => RewritePath::Replace(text(path)),
        PathRewrite::Regex(one) => RewritePath::Substitute(wire::Substitution {
            pattern: text(one.pattern()),
            replacement: text(one.replacement()),
        }),
    };
    wire::Forward {
        destinations: Some(match &one.destinations {
            Destinations::One(one) => WireDestinations::Only(destination_to_wire(one)),
            Destinations::Split(all) => WireDestinations::Split(split_to_wire(all)),
        }),
        missing: texts(&one.missing),
        rewrite_path: one.rewrite_path.as_ref().map(rewrite),
        rewrite_authority: one.rewrite_authority.as_ref().map(text),
        timeout: one.timeout.map(time_to_wire),
        retry: one.retry.as_deref().map(retry_to_wire),
        mirrors: one.mirrors.iter().map(mirror_to_wire).collect(),
    }
}

fn mirror_to_wire(one: &Mirror) -> wire::Mirror {
    let destination = Some(destination_to_wire(&one.destination));
    wire::Mirror { destination, share: one.share.as_millionths() }
}

pub(super) fn split_to_wire(all: &[Weighted]) -> wire::Split {
    let one = |one: &Weighted| wire::Weighted {
        weight: one.weight,
        destination: Some(destination_to_wire(&one.destination)),
    };
    wire::Split { destinations: all.iter().map(one).collect() }
}

pub(super) fn destination_to_wire(one: &Destination) -> wire::Destination {
    wire::Destination {
        namespace: one.service.namespace().to_owned(),
        hostname: one.service.hostname().to_owned(),
        subset: one.subset.as_ref().map(text),
        port: one.port.unwrap_or_default().into(),
        headers: filters::headers_to_wire(&one.headers),
    }
}

fn retry_to_wire(one: &RetryPolicy) -> wire::Retry {
    let number = |condition: RetryCondition| {
        let place = RetryCondition::ALL.iter().position(|one| *one == condition);
        place.and_then(|place| i32::try_from(place + 1).ok()).unwrap_or_default()
    };
    wire::Retry {
        attempts: one.attempts,
        on: one.on.iter().map(number).collect(),
        status_codes: one.status_codes.iter().map(|code| code.as_u16().into()).collect(),
        headers: one.headers.iter().map(HeaderName::to_string).collect(),
        per_try_timeout: one.per_try_timeout.map(time_to_wire),
        backoff: Some(time_to_wire(one.backoff)),
        remote_localities: one.remote_localities,
        ignore_previous_hosts: one.ignore_previous_hosts,
    }
}

pub(super) fn redirect_to_wire(one: &Redirect) -> wire::Redirect {
    use wire::redirect::{Path, Port};
    wire::Redirect {
        path: one.path.as_ref().map(|path| match path {
            RedirectPath::Whole(path) => Path::Whole(text(path)),
            RedirectPath::Prefix(path) => Path::Prefix(text(path)),
        }),
        authority: one.authority.as_ref().map(text),
        port: one.port.map(|port| match port {
            RedirectPort::Number(number) => Port::Number(number.into()),
            RedirectPort::OfRequest => Port::OfRequest(true),
        }),
        scheme: one.scheme.as_ref().map(text),
        code: one.code.as_u16().into(),
    }
}

pub(super) fn response_to_wire(one: &DirectResponse) -> wire::DirectResponse {
    let body = one.body.as_deref().map(Bytes::copy_from_slice);
    wire::DirectResponse { status: one.status.as_u16().into(), body }
}
