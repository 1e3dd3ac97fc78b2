//! Rules that are refused, and the field that is blamed.

use proto::routing as wire;

use super::full::full;
use super::{no_time, read_back, refused, to_wire};

fn forward(wire: &mut wire::Routing) -> &mut wire::Forward {
    match wire.http[0].action.as_mut().unwrap() {
        wire::http_rule::Action::Forward(one) => one,
        other => panic!("{other:?}"),
    }
}

fn retry(wire: &mut wire::Routing) -> &mut wire::Retry {
    forward(wire).retry.as_mut().unwrap()
}

fn split(wire: &mut wire::Routing) -> &mut Vec<wire::Weighted> {
    match forward(wire).destinations.as_mut().unwrap() {
        wire::forward::Destinations::Split(split) => &mut split.destinations,
        other => panic!("{other:?}"),
    }
}

fn redirect(wire: &mut wire::Routing) -> &mut wire::Redirect {
    match wire.http[1].action.as_mut().unwrap() {
        wire::http_rule::Action::Redirect(one) => one,
        other => panic!("{other:?}"),
    }
}

fn response(wire: &mut wire::Routing) -> &mut wire::DirectResponse {
    match wire.http[4].action.as_mut().unwrap() {
        wire::http_rule::Action::Response(one) => one,
        other => panic!("{other:?}"),
    }
}

fn condition(wire: &mut wire::Routing) -> &mut wire::HttpMatch {
    &mut wire.http[0].matches[0]
}

fn operations(wire: &mut wire::Routing) -> &mut wire::Operations {
    wire.http[0].headers.as_mut().unwrap().request.as_mut().unwrap()
}

fn fault(wire: &mut wire::Routing) -> &mut wire::Fault {
    wire.http[0].fault.as_mut().unwrap()
}

fn cors(wire: &mut wire::Routing) -> &mut wire::Cors {
    wire.http[0].cors.as_mut().unwrap()
}

fn present(value: bool) -> Option<wire::TextMatch> {
    Some(wire::TextMatch { kind: Some(wire::text_match::Kind::Present(value)) })
}

fn pattern(value: &str) -> Option<wire::TextMatch> {
    Some(wire::TextMatch { kind: Some(wire::text_match::Kind::Regex(value.into())) })
}

#[test]
fn refuses_wrong_names_and_sources() {
    refused(&[
        ("name", |wire| wire.hostname = "other".into()),
        ("name", |wire| wire.namespace = "other".into()),
        ("sources[0].kind", |wire| wire.sources[0].kind.clear()),
        ("sources[1].name", |wire| wire.sources[1].name.clear()),
        ("http[0].source", |wire| wire.http[0].source = None),
        ("http[0].source.resource", |wire| wire.http[0].source.as_mut().unwrap().resource = 3),
        ("http[0].action", |wire| wire.http[0].action = None),
        ("requires", |wire| wire.requires.push(String::new())),
    ]);
}

#[test]
fn refuses_wrong_conditions() {
    refused(&[
        ("http[0].matches[0].scope.port", |wire| condition(wire).scope.as_mut().unwrap().port = 65_536),
        ("http[0].matches[0].scope.source_namespace", |wire| {
            condition(wire).scope.as_mut().unwrap().source_namespace = Some(String::new());
        }),
        ("http[0].matches[0].path.kind", |wire| condition(wire).path.as_mut().unwrap().kind = None),
        ("http[0].matches[0].path.regex", |wire| {
            condition(wire).path.as_mut().unwrap().kind = Some(wire::path_match::Kind::Regex("(".into()));
        }),
        ("http[0].matches[0].scheme.kind", |wire| condition(wire).scheme.as_mut().unwrap().kind = None),
        ("http[0].matches[0].scheme.present", |wire| condition(wire).scheme = present(false)),
        ("http[0].matches[0].method.regex", |wire| condition(wire).method = pattern("a{2000}")),
        ("http[0].matches[0].authority.regex", |wire| condition(wire).authority = pattern("(?=a)")),
        ("http[0].matches[0].headers[0].name", |wire| condition(wire).headers[0].name = "a b".into()),
        ("http[0].matches[0].headers[1].name", |wire| condition(wire).headers[1].name = ":status".into()),
        ("http[0].matches[0].headers[0].value", |wire| condition(wire).headers[0].value = None),
        ("http[0].matches[0].headers[0].value.regex", |wire| condition(wire).headers[0].value = pattern("")),
        ("http[0].matches[0].without_headers[0].name", |wire| {
            condition(wire).without_headers[0].name.clear()
        }),
        ("http[0].matches[0].query[0].name", |wire| condition(wire).query[0].name.clear()),
        ("http[0].matches[0].query[0].value", |wire| condition(wire).query[0].value = None),
        ("http[0].matches[0].query[0].value.kind", |wire| {
            condition(wire).query[0].value = Some(wire::TextMatch::default());
        }),
    ]);
}

#[test]
fn refuses_wrong_destinations() {
    refused(&[
        ("http[0].forward.destinations", |wire| forward(wire).destinations = None),
        ("http[0].forward.split.destinations[0].destination", |wire| split(wire)[0].destination = None),
        ("http[0].forward.split.destinations[1].destination.hostname", |wire| {
            split(wire)[1].destination.as_mut().unwrap().hostname.clear();
        }),
        ("http[0].forward.split.destinations[1].destination.port", |wire| {
            split(wire)[1].destination.as_mut().unwrap().port = 70_000;
        }),
        ("http[0].forward.split.destinations[1].destination.subset", |wire| {
            split(wire)[1].destination.as_mut().unwrap().subset = Some(String::new());
        }),
        ("http[0].forward.split.destinations[0].destination.headers.request.set[0].value", |wire| {
            let headers = split(wire)[0].destination.as_mut().unwrap().headers.as_mut().unwrap();
            headers.request.as_mut().unwrap().set[0].value = "%NOTHING%".into();
        }),
        ("http[0].forward.split.destinations", |wire| split(wire)[0].weight = u32::MAX),
        ("http[0].forward.mirrors[0].destination", |wire| forward(wire).mirrors[0].destination = None),
        ("http[0].forward.mirrors[0].share", |wire| forward(wire).mirrors[0].share = 1_000_001),
        ("default.destinations", |wire| wire.default.as_mut().unwrap().destinations = None),
        ("default.only.hostname", |wire| {
            match wire.default.as_mut().unwrap().destinations.as_mut().unwrap() {
                wire::forward::Destinations::Only(one) => one.hostname.clear(),
                other => panic!("{other:?}"),
            }
        }),
    ]);
}

#[test]
fn refuses_wrong_rewrites_timeouts_and_retries() {
    use wire::forward::RewritePath::{Replace, Substitute};
    refused(&[
        ("http[0].forward.replace", |wire| forward(wire).rewrite_path = Some(Replace("v2".into()))),
        ("http[0].forward.replace", |wire| forward(wire).rewrite_path = Some(Replace(String::new()))),
        ("http[0].forward.substitute", |wire| {
            let one = wire::Substitution { pattern: "a".into(), replacement: r"\1".into() };
            forward(wire).rewrite_path = Some(Substitute(one));
        }),
        ("http[0].forward.rewrite_authority", |wire| forward(wire).rewrite_authority = Some("a b".into())),
        ("http[0].forward.timeout", |wire| forward(wire).timeout = no_time()),
        ("http[0].forward.timeout", |wire| forward(wire).timeout.as_mut().unwrap().nanos = 1_000_000_000),
        ("http[0].forward.timeout", |wire| forward(wire).timeout.as_mut().unwrap().nanos = -1),
        ("http[0].forward.retry.attempts", |wire| retry(wire).attempts = 0),
        ("http[0].forward.retry.on", |wire| retry(wire).on.push(0)),
        ("http[0].forward.retry.on", |wire| retry(wire).on.push(17)),
        ("http[0].forward.retry.on", |wire| retry(wire).on.push(i32::MIN)),
        ("http[0].forward.retry.status_codes", |wire| retry(wire).status_codes.push(99)),
        ("http[0].forward.retry.status_codes", |wire| retry(wire).status_codes.push(70_000)),
        ("http[0].forward.retry.headers[0].name", |wire| retry(wire).headers[0] = "a b".into()),
        ("http[0].forward.retry.per_try_timeout", |wire| retry(wire).per_try_timeout = no_time()),
        ("http[0].forward.retry.backoff", |wire| retry(wire).backoff = None),
    ]);
}

#[test]
fn refuses_wrong_redirects_and_answers() {
    use wire::redirect::{Path, Port};
    refused(&[
        ("http[1].redirect.whole", |wire| redirect(wire).path = Some(Path::Whole("new".into()))),
        ("http[1].redirect.prefix", |wire| redirect(wire).path = Some(Path::Prefix("@evil.example".into()))),
        ("http[1].redirect.authority", |wire| redirect(wire).authority = Some("a/b".into())),
        ("http[1].redirect.number", |wire| redirect(wire).port = Some(Port::Number(0))),
        ("http[1].redirect.number", |wire| redirect(wire).port = Some(Port::Number(65_536))),
        ("http[1].redirect.of_request", |wire| redirect(wire).port = Some(Port::OfRequest(false))),
        ("http[1].redirect.scheme", |wire| redirect(wire).scheme = Some("ht tp".into())),
        ("http[1].redirect.scheme", |wire| redirect(wire).scheme = Some(String::new())),
        ("http[1].redirect.code", |wire| redirect(wire).code = 300),
        ("http[1].redirect.code", |wire| redirect(wire).code = 0),
        ("http[4].response.status", |wire| response(wire).status = 199),
        ("http[4].response.status", |wire| response(wire).status = 600),
        ("http[4].response.body", |wire| response(wire).body = Some(vec![0; (1 << 20) + 1].into())),
    ]);
    let mut largest = to_wire(&full());
    response(&mut largest).body = Some(vec![0; 1 << 20].into());
    assert!(read_back(&largest).is_ok());
}

#[test]
fn refuses_wrong_headers_faults_and_cors() {
    use wire::abort::With;
    refused(&[
        ("http[0].headers.request.remove[0].name", |wire| {
            operations(wire).remove[0] = "content-length".into()
        }),
        ("http[0].headers.request.remove[0].name", |wire| operations(wire).remove[0] = ":path".into()),
        ("http[0].headers.request.set[0].name", |wire| {
            operations(wire).set[0].name = "Transfer-Encoding".into()
        }),
        ("http[0].headers.request.set[0].value", |wire| operations(wire).set[0].value = "a\r\nb: c".into()),
        ("http[0].headers.request.add[1].value", |wire| operations(wire).add[1].value = "100%".into()),
        ("http[0].headers.request.add[0].name", |wire| operations(wire).add[0].name = "host".into()),
        ("http[0].headers.request.authority", |wire| operations(wire).authority = Some(String::new())),
        ("http[0].headers.response.authority", |wire| {
            wire.http[0].headers.as_mut().unwrap().response.as_mut().unwrap().authority = Some("a".into());
        }),
        ("http[0].fault.delay.after", |wire| fault(wire).delay.as_mut().unwrap().after = None),
        ("http[0].fault.delay.share", |wire| fault(wire).delay.as_mut().unwrap().share = u32::MAX),
        ("http[0].fault.abort.with", |wire| fault(wire).abort.as_mut().unwrap().with = None),
        ("http[0].fault.abort.http_status", |wire| {
            fault(wire).abort.as_mut().unwrap().with = Some(With::HttpStatus(0));
        }),
        ("http[0].fault.abort.grpc_status", |wire| {
            fault(wire).abort.as_mut().unwrap().with = Some(With::GrpcStatus(17));
        }),
        ("http[0].fault.abort.share", |wire| fault(wire).abort.as_mut().unwrap().share = 1_000_001),
        ("http[0].cors.allow_origins[0].kind", |wire| cors(wire).allow_origins[0].kind = None),
        ("http[0].cors.allow_methods", |wire| cors(wire).allow_methods = Some("GET\n".into())),
        ("http[0].cors.allow_headers", |wire| cors(wire).allow_headers = Some(String::new())),
        ("http[0].cors.expose_headers", |wire| cors(wire).expose_headers = Some("\u{e4}".into())),
        ("http[0].cors.unmatched_preflights", |wire| cors(wire).unmatched_preflights = 2),
    ]);
}

#[test]
fn refuses_wrong_streams() {
    fn tls(wire: &mut wire::Routing) -> &mut wire::TlsMatch {
        &mut wire.tls[0].matches[0]
    }
    refused(&[
        ("tls[0].source", |wire| wire.tls[0].source = None),
        ("tls[0].matches", |wire| wire.tls[0].matches.clear()),
        ("tls[0].matches[0].sni_hosts", |wire| tls(wire).sni_hosts.clear()),
        ("tls[0].matches[0].sni_hosts", |wire| tls(wire).sni_hosts[0] = "a*.example".into()),
        ("tls[0].matches[0].sni_hosts", |wire| tls(wire).sni_hosts[0] = "*.".into()),
        ("tls[0].matches[0].sni_hosts", |wire| tls(wire).sni_hosts[0] = "*a".into()),
        ("tls[0].matches[0].sni_hosts", |wire| tls(wire).sni_hosts[0].clear()),
        ("tls[0].matches[0].tcp.destination_subnets", |wire| {
            tls(wire).tcp.as_mut().unwrap().destination_subnets[0].length = 33;
        }),
        ("tls[0].to", |wire| wire.tls[0].to = None),
        ("tls[0].to.destinations", |wire| wire.tls[0].to.as_mut().unwrap().destinations = None),
        ("tcp[0].source.resource", |wire| wire.tcp[0].source.as_mut().unwrap().resource = 9),
        ("tcp[0].matches[0].scope.port", |wire| {
            wire.tcp[0].matches[0].scope.as_mut().unwrap().port = 1 << 20
        }),
        ("tcp[0].matches[0].destination_subnets", |wire| {
            wire.tcp[0].matches[0].destination_subnets[0].address = vec![10].into();
        }),
        ("tcp[0].to.split.destinations[0].destination", |wire| {
            match wire.tcp[0].to.as_mut().unwrap().destinations.as_mut().unwrap() {
                wire::stream_target::Destinations::Split(split) => split.destinations[0].destination = None,
                other => panic!("{other:?}"),
            }
        }),
    ]);
}
