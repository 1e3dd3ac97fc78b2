//! Redirects, answers, faults and cross-origin rules, in the model's words.

use http::{HeaderValue, StatusCode};
use manifest::istio;
use model::route::cors::UnmatchedPreflights;
use model::route::fault::{Abort, AbortWith, Delay, grpc_status};
use model::route::redirect::{RedirectPath, RedirectPort};
use model::route::regex::Allowance;
use model::route::{Cors, DirectResponse, Fault, Fraction, Redirect, TextMatch};

use super::super::{http_match, layer4};
use super::{fraction, whole};

/// A redirect. Of the statuses there are 301, 302, 303, 307 and 308; Istio makes 301 of any other.
pub(super) fn redirect(written: &istio::Redirect) -> Result<Redirect, String> {
    let code = written.redirect_code.and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| [302, 303, 307, 308].contains(code)).unwrap_or(301);
    let from_request = written.derive_port == Some(istio::PortSelection::FromRequestPort);
    Ok(Redirect {
        path: layer4::word(&written.uri)
            .map(RedirectPath::Whole)
            .or_else(|| layer4::word(&written.prefix_rewrite).map(RedirectPath::Prefix)),
        authority: layer4::word(&written.authority),
        port: match layer4::port(written.port)? {
            Some(number) => Some(RedirectPort::Number(number)),
            None => from_request.then_some(RedirectPort::OfRequest),
        },
        scheme: layer4::word(&written.scheme),
        code: StatusCode::from_u16(code).map_err(|error| error.to_string())?,
    })
}

fn status(code: u32) -> Result<StatusCode, String> {
    let code = u16::try_from(code).map_err(|_| format!("{code} is no status"))?;
    StatusCode::from_u16(code).map_err(|_| format!("{code} is no status"))
}

/// The answer itself.
pub(super) fn direct_response(written: &istio::DirectResponse) -> Result<DirectResponse, String> {
    let body = match &written.body {
        None => None,
        Some(body) => Some(body.content().ok_or("the body is not Base64")?.into()),
    };
    Ok(DirectResponse { status: status(written.status)?, body })
}

/// Faults on purpose; `None` where none comes of it.
pub(super) fn fault(written: &istio::Fault) -> Result<Option<Fault>, String> {
    let share = |percent: Option<istio::Percent>| percent.map_or(Ok(Fraction::NONE), fraction);
    let delay = match &written.delay {
        Some(istio::Delay { fixed_delay: Some(after), percentage, percent, .. }) => {
            let share = match (percentage, percent) {
                (None, Some(percent)) => whole(f64::from(*percent))?,
                (percentage, _) => share(*percentage)?,
            };
            Some(Delay { after: after.0, share })
        }
        _ => None,
    };
    let abort = match &written.abort {
        None => None,
        Some(abort) => {
            let with = match (abort.http_status, &abort.grpc_status) {
                (Some(code), _) => Some(AbortWith::Http(status(code.unsigned_abs())?)),
                (None, Some(name)) => {
                    let code = grpc_status(name).ok_or_else(|| format!("`{name}` is no status of gRPC"))?;
                    Some(AbortWith::Grpc(code))
                }
                (None, None) => None,
            };
            let share = share(abort.percentage)?;
            with.map(|with| Abort { with, share })
        }
    };
    Ok((delay.is_some() || abort.is_some()).then_some(Fault { delay, abort }))
}

/// Which pages of other origins may ask.
pub(super) fn cors(written: &istio::CorsPolicy, regexes: &mut Allowance) -> Result<Cors, String> {
    let old = written.allow_origin.iter().map(|origin| Ok(TextMatch::Exact(origin.as_str().into())));
    let origins = old.chain(written.allow_origins.iter().map(|origin| http_match::text(origin, regexes)));
    let list = |words: &[String]| -> Result<Option<HeaderValue>, String> {
        let value = || HeaderValue::try_from(words.join(",")).map_err(|error| error.to_string());
        if words.is_empty() { Ok(None) } else { value().map(Some) }
    };
    Ok(Cors {
        allow_origins: origins.collect::<Result<_, String>>()?,
        allow_methods: list(&written.allow_methods)?,
        allow_headers: list(&written.allow_headers)?,
        expose_headers: list(&written.expose_headers)?,
        max_age: written.max_age.map(|age| age.0.as_secs()),
        allow_credentials: written.allow_credentials.unwrap_or_default(),
        unmatched_preflights: match written.unmatched_preflights {
            istio::UnmatchedPreflights::Ignore => UnmatchedPreflights::Ignore,
            _ => UnmatchedPreflights::Forward,
        },
    })
}
