//! What a rule for HTTP does with requests: changes them, answers them, harms them on purpose.

use model::route::fault::GRPC_STATUS;

use super::super::matches;
use crate::{
    check::{Report, values},
    cursor::Cursor,
    istio::Duration,
    suggest::nearest,
};

/// Larger bodies are warned of, and refused: Istio's limits.
const LARGE_BODY: usize = 100 * 1024;
const MAX_BODY: usize = 1024 * 1024;

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

fn text<'a>(of: &Cursor<'a>, key: &str) -> Option<Cursor<'a>> {
    of.get(key).filter(|value| !value.text().is_empty())
}

/// Changes of path and authority.
pub(super) fn rewrite(rule: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(rewrite) = rule.get("rewrite") else { return };
    if !values::says_something(&rewrite, "rewrite", &["uri", "authority", "uriRegexRewrite"], report) {
        return;
    }
    values::only_one(&rewrite, &["uri", "uriRegexRewrite"], report);
    let Some(regex) = rewrite.get("uriRegexRewrite") else { return };
    for key in ["match", "rewrite"] {
        if text(&regex, key).is_none() {
            report.error(
                &regex,
                format!("`{key}` is missing"),
                Some("it takes both `match` and `rewrite`".to_owned()),
            );
        }
    }
    if let Some(matched) = text(&regex, "match") {
        values::regex(&matched, report);
    }
}

/// The client is sent elsewhere.
pub(super) fn redirect(rule: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(redirect) = rule.get("redirect") else { return };
    let says = ["uri", "prefixRewrite", "authority", "port", "derivePort", "scheme"];
    if !values::says_something(&redirect, "redirect", &says, report) {
        return;
    }
    values::only_one(&redirect, &["uri", "prefixRewrite"], report);
    values::only_one(&redirect, &["port", "derivePort"], report);
    if let Some(prefix) = text(&redirect, "prefixRewrite") {
        for one in rule.items("match") {
            if one.get("uri").is_some_and(|uri| uri.get("prefix").is_none()) {
                let fix = Some("match `uri` by `prefix`, or redirect to a whole `uri`".to_owned());
                report.error_at_key(&prefix, "`prefixRewrite` where the path is not matched by prefix", fix);
                break;
            }
        }
    }
    if let Some(code) = redirect.get("redirectCode")
        && values::number(&code).is_some_and(|code| code != 0.0 && !(300.0..400.0).contains(&code))
    {
        report.error(&code, "not a status from 300 to 399", None);
    } else if let Some(code) = redirect.get("redirectCode")
        && values::number(&code).is_some_and(|code| ![301.0, 302.0, 303.0, 307.0, 308.0].contains(&code))
    {
        report.warning(&code, "it counts as 301, as in Istio", Some("301, 302, 303, 307 or 308".to_owned()));
    }
    if let Some(scheme) =
        text(&redirect, "scheme").filter(|scheme| !["http", "https"].contains(&scheme.text()))
    {
        report.error(&scheme, format!("`{}` is neither `http` nor `https`", scheme.text()), None);
    }
    if let Some(port) = redirect.get("port") {
        values::port(&port, report);
    }
}

fn status(at: &Cursor<'_>, report: &mut Report<'_>) {
    if values::number(at).is_some_and(|status| !(200.0..600.0).contains(&status)) {
        report.error(at, "not a status from 200 to 599", None);
    }
}

/// The answer itself.
pub(super) fn direct_response(rule: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(response) = rule.get("directResponse") else { return };
    match response.get("status") {
        Some(at) => status(&at, report),
        None => report.error(&response, "the answer has no status", Some("add `status:`".to_owned())),
    }
    let Some(body) = response.get("body") else { return };
    values::only_one(&body, &["string", "bytes"], report);
    let (key, length) = match (body.get("string"), body.get("bytes")) {
        (Some(string), _) => (string.clone(), string.text().len()),
        (None, Some(bytes)) => {
            let typed = crate::istio::HttpBody { bytes: Some(bytes.text().to_owned()), string: None };
            match typed.content() {
                Some(content) => (bytes, content.len()),
                None => {
                    return report.error(&bytes, "not Base64", Some("a text goes into `string`".to_owned()));
                }
            }
        }
        (None, None) => return,
    };
    if length > MAX_BODY {
        report.error_at_key(&key, "a body of more than 1 MiB", None);
    } else if length > LARGE_BODY {
        report.warning(&key, "a body of more than 100 KiB, which every waypoint is sent and holds", None);
    }
}

/// Faults on purpose.
pub(super) fn fault(rule: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(fault) = rule.get("fault") else { return };
    values::says_something(&fault, "fault", &["delay", "abort"], report);
    if let Some(delay) = fault.get("delay") {
        values::percentage(&delay, "percentage", report);
        values::whole_percent(&delay, "percent", report);
        values::only_one(&delay, &["percent", "percentage"], report);
        values::duration(&delay, "fixedDelay", report);
        if delay.get("fixedDelay").is_none() && delay.get("exponentialDelay").is_none() {
            let fix = Some("add `fixedDelay:`, such as `5s`".to_owned());
            report.error_at_key(&delay, "the delay has no length", fix);
        }
    }
    for (key, share) in [("delay", vec!["percentage", "percent"]), ("abort", vec!["percentage"])] {
        let Some(one) = fault.get(key) else { continue };
        if share.iter().all(|share| one.get(share).is_none()) {
            let fix = Some("add `percentage: {value: 100}` for all".to_owned());
            report.warning_at_key(&one, format!("`{key}` without a `percentage` is for no request"), fix);
        }
    }
    let Some(abort) = fault.get("abort") else { return };
    values::percentage(&abort, "percentage", report);
    values::only_one(&abort, &["httpStatus", "grpcStatus", "http2Error"], report);
    if let Some(at) = abort.get("httpStatus") {
        status(&at, report);
    } else if let Some(grpc) = abort.get("grpcStatus") {
        if !GRPC_STATUS.contains(&grpc.text()) {
            let fix = nearest(grpc.text(), GRPC_STATUS).map(|near| format!("did you mean `{near}`?"));
            report.error(&grpc, format!("`{}` is not a status of gRPC", grpc.text()), fix);
        }
    } else if abort.get("http2Error").is_none() {
        let fix = Some("add `httpStatus:` or `grpcStatus:`".to_owned());
        report.warning(&abort, "the abort does not say with what: nothing is aborted", fix);
    }
}

/// Which pages of other origins may ask.
pub(super) fn cors(rule: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(cors) = rule.get("corsPolicy") else { return };
    values::only_one(&cors, &["allowOrigin", "allowOrigins"], report);
    for origin in cors.items("allowOrigins") {
        let ways: Vec<Cursor<'_>> =
            ["exact", "prefix", "regex"].iter().filter_map(|key| origin.get(key)).collect();
        values::only_one(&origin, &["exact", "prefix", "regex"], report);
        if ways.iter().all(|way| way.text().is_empty()) {
            let fix = Some("write `{exact: \"https://…\"}`, `{prefix: …}` or `{regex: …}`".to_owned());
            report.error(&origin, "the origin says nothing", fix);
        } else {
            matches::compared(&origin, false, report);
        }
    }
    for method in cors.items("allowMethods") {
        if !METHODS.contains(&method.text()) {
            let fix = nearest(method.text(), METHODS).map(|near| format!("did you mean `{near}`?"));
            report.error(&method, format!("`{}` is not a method", method.text()), fix);
        }
    }
    for name in ["allowHeaders", "exposeHeaders"].iter().flat_map(|key| cors.items(key)) {
        if name.text() != "*" && !values::is_header_name(name.text()) {
            report.error(&name, format!("`{}` cannot be the name of a header", name.text()), None);
        }
    }
    values::duration(&cors, "maxAge", report);
    if let Some(age) = cors.get("maxAge")
        && Duration::parse(age.text()).is_some_and(|age| age.0.subsec_nanos() != 0)
    {
        report.error(&age, "only whole seconds are possible here", None);
    }
}
