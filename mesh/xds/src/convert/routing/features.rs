//! What a routing requires of its reader (design decision D14): names of abilities. A proxy announces those it has, a
//! controller sends it no routing that requires others, and who reads one nevertheless refuses it.

use model::route::action::{Forward, PathRewrite};
use model::route::{Action, HttpRule, Routing};

const HTTP: &str = "lateen.dev/routing.http";
const TLS: &str = "lateen.dev/routing.tls";
const TCP: &str = "lateen.dev/routing.tcp";
const REDIRECT: &str = "lateen.dev/routing.redirect";
const RESPONSE: &str = "lateen.dev/routing.direct-response";
const REWRITE: &str = "lateen.dev/routing.rewrite";
const SUBSTITUTE: &str = "lateen.dev/routing.regex-rewrite";
const HEADERS: &str = "lateen.dev/routing.headers";
const FAULT: &str = "lateen.dev/routing.fault";
const CORS: &str = "lateen.dev/routing.cors";
const MIRROR: &str = "lateen.dev/routing.mirror";
const RETRY: &str = "lateen.dev/routing.retry";
const TRAFFIC: &str = "lateen.dev/routing.traffic-policy";

/// Everything that this version can read.
pub const KNOWN: [&str; 13] =
    [HTTP, TLS, TCP, REDIRECT, RESPONSE, REWRITE, SUBSTITUTE, HEADERS, FAULT, CORS, MIRROR, RETRY, TRAFFIC];

/// What a routing requires, each ability once, in the order of [`KNOWN`].
pub fn required(routing: &Routing) -> Vec<&'static str> {
    let mut needed = Vec::new();
    needed.extend((!routing.http.is_empty()).then_some(HTTP));
    needed.extend((!routing.tls.is_empty()).then_some(TLS));
    needed.extend((!routing.tcp.is_empty()).then_some(TCP));
    needed.extend((!routing.destinations.is_empty()).then_some(TRAFFIC));
    routing.default.iter().for_each(|forward| of_forward(forward, &mut needed));
    routing.http.iter().for_each(|rule| of_rule(rule, &mut needed));
    KNOWN.into_iter().filter(|feature| needed.contains(feature)).collect()
}

fn of_rule(rule: &HttpRule, needed: &mut Vec<&'static str>) {
    match &rule.action {
        Action::Forward(forward) => of_forward(forward, needed),
        Action::Redirect(_) => needed.push(REDIRECT),
        Action::Respond(_) => needed.push(RESPONSE),
    }
    needed.extend((rule.headers != model::route::HeaderChanges::default()).then_some(HEADERS));
    needed.extend(rule.fault.is_some().then_some(FAULT));
    needed.extend(rule.cors.is_some().then_some(CORS));
}

fn of_forward(forward: &Forward, needed: &mut Vec<&'static str>) {
    match &forward.rewrite_path {
        Some(PathRewrite::Replace(_)) => needed.push(REWRITE),
        Some(PathRewrite::Regex(_)) => needed.push(SUBSTITUTE),
        None => {}
    }
    needed.extend(forward.rewrite_authority.is_some().then_some(REWRITE));
    needed.extend(forward.retry.is_some().then_some(RETRY));
    needed.extend((!forward.mirrors.is_empty()).then_some(MIRROR));
    let changed = |one: &model::route::Destination| one.headers != model::route::HeaderChanges::default();
    needed.extend(forward.destinations.all().any(changed).then_some(HEADERS));
}
