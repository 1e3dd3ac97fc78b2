//! Field by field: what is written in a rule is what the model has.

use std::time::Duration;

use model::route::action::PathRewrite;
use model::route::cors::UnmatchedPreflights;
use model::route::fault::{Abort, AbortWith, Delay};
use model::route::redirect::{RedirectPath, RedirectPort};
use model::route::regex::Substitution;
use model::route::retry::RetryCondition;
use model::route::template::Template;
use model::route::{
    Cors, Fault, Fraction, HeaderKey, HeaderMatch, HttpMatch, PathMatch, QueryMatch, Regex, RetryPolicy,
    Scope, TextMatch,
};

use super::*;

const SERVICES: &[&str] = &["shop/cart 80", "shop/reviews 9080 9443"];

/// The one rule of a VirtualService for `cart`: what is said, and a destination if it wants one.
fn rule(said: &str) -> HttpRule {
    let route = match ["redirect", "directResponse", "route"].iter().any(|key| said.starts_with(key)) {
        true => "",
        false => ", route: [{destination: {host: cart}}]",
    };
    let spec = format!("{{hosts: [cart], http: [{{{said}{route}}}]}}");
    let outcome = fresh(&objects(SERVICES, &virtual_service("shop/v", &spec)));
    assert!(outcome.unresolved.is_empty(), "{said}: {:?}", outcome.unresolved);
    outcome.routings[&key("shop/cart")].http[0].clone()
}

fn forward(said: &str) -> Forward {
    let Action::Forward(forward) = rule(said).action else { panic!("{said}") };
    *forward
}

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.into())
}

#[test]
fn matches() {
    let none = HttpMatch::default();
    let path = |path| HttpMatch { path: Some(path), ..HttpMatch::default() };
    let regex = |text| Regex::new(text).unwrap();
    let header = |name, value| HeaderMatch { key: HeaderKey::parse(name).unwrap(), value };
    for (said, expected) in [
        ("uri: {exact: /a}", path(PathMatch::Exact("/a".into()))),
        ("uri: {prefix: /a}", path(PathMatch::Prefix("/a".into()))),
        ("uri: {regex: '/a+'}", path(PathMatch::Regex(regex("/a+")))),
        ("uri: {}", none.clone()),
        (
            "uri: {prefix: /a}, ignoreUriCase: true",
            HttpMatch { ignore_path_case: true, ..path(PathMatch::Prefix("/a".into())) },
        ),
        ("name: m", HttpMatch { name: Some("m".into()), ..none.clone() }),
        ("scheme: {exact: https}", HttpMatch { scheme: Some(exact("https")), ..none.clone() }),
        ("method: {prefix: P}", HttpMatch { method: Some(TextMatch::Prefix("P".into())), ..none.clone() }),
        (
            "authority: {regex: 'a.*'}",
            HttpMatch {
                authority: Some(TextMatch::Regex(Regex::ignoring_case("a.*").unwrap())),
                ..none.clone()
            },
        ),
        (
            "headers: {x-user: {exact: jason}, ':path': {regex: '.*'}, x-any: {}}",
            HttpMatch {
                headers: [
                    header(":path", TextMatch::Regex(regex(".*"))),
                    header("x-any", TextMatch::Present),
                    header("x-user", exact("jason")),
                ]
                .into(),
                ..none.clone()
            },
        ),
        (
            // Hosts have no case, wherever they are looked for.
            "headers: {':authority': {regex: 'a.*'}}",
            HttpMatch {
                headers: [header(":authority", TextMatch::Regex(Regex::ignoring_case("a.*").unwrap()))]
                    .into(),
                ..none.clone()
            },
        ),
        (
            "withoutHeaders: {x-user: {prefix: j}, x-any: {}, x-star: {regex: '*'}}",
            HttpMatch {
                without_headers: [
                    header("x-any", TextMatch::Present),
                    header("x-star", TextMatch::Present),
                    header("x-user", TextMatch::Prefix("j".into())),
                ]
                .into(),
                ..none.clone()
            },
        ),
        (
            "queryParams: {q: {exact: ''}, r: {regex: '1+'}}",
            HttpMatch {
                query: [
                    QueryMatch { name: "q".into(), value: exact("") },
                    QueryMatch { name: "r".into(), value: TextMatch::Regex(regex("1+")) },
                ]
                .into(),
                ..none.clone()
            },
        ),
        (
            "port: 81, sourceLabels: {app: web}, sourceNamespace: bank",
            HttpMatch {
                scope: Scope {
                    port: Some(81),
                    source_labels: [("app".into(), "web".into())].into(),
                    source_namespace: Some("bank".into()),
                },
                ..none.clone()
            },
        ),
    ] {
        assert_eq!(*rule(&format!("match: [{{{said}}}]")).matches, [expected], "{said}");
    }
    assert!(rule("name: r").matches.is_empty());
    assert_eq!(rule("name: r").name.as_deref(), Some("r"));
}

#[test]
fn weights_and_headers_of_destinations() {
    let forward = forward(
        "route: [{destination: {host: cart}, weight: 95, headers: {request: {set: {x: y}}}}, {destination: {host: reviews}, weight: 5}]",
    );
    let Destinations::Split(all) = forward.destinations else { panic!() };
    assert_eq!([all[0].weight, all[1].weight], [95, 5]);
    let request = all[0].destination.headers.request.as_deref().unwrap();
    assert_eq!(*request.set, [("x".parse().unwrap(), Template::parse("y").unwrap())]);
    assert_eq!(all[1].destination.headers.request, None);
}

#[test]
fn timeouts_and_retries() {
    assert_eq!(forward("timeout: 1.5s").timeout, Some(Duration::from_millis(1500)));
    assert_eq!(
        (forward("name: r").timeout, forward("name: r").retry),
        (None, Some(RetryPolicy::shared_default()))
    );
    assert_eq!(forward("retries: {attempts: 0}").retry, None);
    assert_eq!(*forward("retries: {attempts: 2}").retry.unwrap(), RetryPolicy::default());
    let all = forward(
        "retries: {attempts: 5, perTryTimeout: 2s, retryOn: '5xx,503', retryRemoteLocalities: true, \
         retryIgnorePreviousHosts: false, backoff: 100ms}",
    );
    let expected = RetryPolicy {
        attempts: 5,
        on: [RetryCondition::FiveXx, RetryCondition::RetriableStatusCodes].into_iter().collect(),
        status_codes: [503.try_into().unwrap()].into(),
        headers: Box::default(),
        per_try_timeout: Some(Duration::from_secs(2)),
        backoff: Duration::from_millis(100),
        remote_localities: true,
        ignore_previous_hosts: Some(false),
    };
    assert_eq!(*all.retry.unwrap(), expected);
}

#[test]
fn faults() {
    let percent = |percent| Fraction::percent(percent).unwrap();
    let delay = |share| Some(Delay { after: Duration::from_secs(5), share });
    for (said, delay, abort) in [
        ("{delay: {fixedDelay: 5s, percentage: {value: 0.1}}}", delay(percent(0.1)), None),
        ("{delay: {fixedDelay: 5s, percent: 10}}", delay(percent(10.0)), None),
        ("{delay: {fixedDelay: 5s}}", delay(Fraction::NONE), None),
        (
            "{abort: {httpStatus: 503, percentage: {value: 100}}}",
            None,
            Some(Abort { with: AbortWith::Http(503.try_into().unwrap()), share: Fraction::ALL }),
        ),
        (
            "{abort: {grpcStatus: UNAVAILABLE}}",
            None,
            Some(Abort { with: AbortWith::Grpc(14), share: Fraction::NONE }),
        ),
    ] {
        assert_eq!(rule(&format!("fault: {said}")).fault.as_deref(), Some(&Fault { delay, abort }), "{said}");
    }
    assert_eq!(rule("fault: {abort: {percentage: {value: 1}}}").fault, None);
}

#[test]
fn mirrors() {
    for (said, expected) in [
        ("mirror: {host: reviews}", vec![("reviews.shop", 1_000_000)]),
        ("mirror: {host: reviews}, mirrorPercentage: {value: 2.5}", vec![("reviews.shop", 25_000)]),
        ("mirror: {host: reviews}, mirrorPercent: 3", vec![("reviews.shop", 30_000)]),
        ("mirror: {host: reviews}, mirrorPercentage: {value: 0}", vec![]),
        (
            "mirrors: [{destination: {host: reviews, port: {number: 9443}}, percentage: {value: 1}}, {destination: {host: cart}}]",
            vec![("reviews.shop:9443", 10_000), ("cart.shop:80", 1_000_000)],
        ),
    ] {
        let mirrors = forward(said).mirrors;
        let found: Vec<(String, u32)> =
            mirrors.iter().map(|one| (shown(&one.destination), one.share.as_millionths())).collect();
        let expected: Vec<(String, u32)> =
            expected.into_iter().map(|(to, share)| (to.to_owned(), share)).collect();
        assert_eq!(found, expected, "{said}");
    }
    // A mirror that is not there is a reference that does not resolve.
    let spec = "{hosts: [cart], http: [{route: [{destination: {host: cart}}], mirror: {host: nobody}}]}";
    let outcome = fresh(&objects(SERVICES, &virtual_service("shop/v", spec)));
    assert_eq!(
        rules(&outcome, "shop/cart"),
        ["shop/v http[0] 0 -> cart.shop:80 without Service nobody.shop.svc.cluster.local"]
    );
}

#[test]
fn headers_of_requests_and_responses() {
    let rule = rule(
        "headers: {request: {set: {x-a: '1', Host: h}, add: {x-b: '%REQ(x-c)%'}, remove: [x-d]}, response: {add: {x-e: '100%%'}}}",
    );
    let request = rule.headers.request.as_deref().unwrap();
    assert_eq!(request.authority.as_deref(), Some("h"));
    assert_eq!(*request.set, [("x-a".parse().unwrap(), Template::parse("1").unwrap())]);
    assert_eq!(*request.add, [("x-b".parse().unwrap(), Template::parse("%REQ(x-c)%").unwrap())]);
    assert_eq!(*request.remove, ["x-d".parse::<::http::HeaderName>().unwrap()]);
    let response = rule.headers.response.as_deref().unwrap();
    assert_eq!(*response.add, [("x-e".parse().unwrap(), Template::parse("100%%").unwrap())]);
}

#[test]
fn rewrites() {
    for (said, path, authority) in [
        ("{uri: /b}", Some(PathRewrite::Replace("/b".into())), None),
        ("{authority: b}", None, Some("b")),
        (
            "{uriRegexRewrite: {match: '/(a+)', rewrite: '/\\1'}}",
            Some(PathRewrite::Regex(Substitution::new("/(a+)", "/\\1").unwrap())),
            None,
        ),
    ] {
        let forward = forward(&format!("rewrite: {said}"));
        assert_eq!((forward.rewrite_path, forward.rewrite_authority.as_deref()), (path, authority), "{said}");
    }
}

#[test]
fn redirects() {
    for (said, path, port, code) in [
        ("uri: /b", Some(RedirectPath::Whole("/b".into())), None, 301),
        ("prefixRewrite: /b, redirectCode: 308", Some(RedirectPath::Prefix("/b".into())), None, 308),
        ("port: 81", None, Some(RedirectPort::Number(81)), 301),
        ("derivePort: FROM_REQUEST_PORT, redirectCode: 300", None, Some(RedirectPort::OfRequest), 301),
        ("derivePort: FROM_PROTOCOL_DEFAULT", None, None, 301),
    ] {
        let Action::Redirect(redirect) = rule(&format!("redirect: {{{said}}}")).action else {
            panic!("{said}")
        };
        assert_eq!((redirect.path, redirect.port, redirect.code.as_u16()), (path, port, code), "{said}");
    }
    let Action::Redirect(redirect) = rule("redirect: {scheme: https, authority: b}").action else { panic!() };
    assert_eq!((redirect.scheme.as_deref(), redirect.authority.as_deref()), (Some("https"), Some("b")));
}

#[test]
fn answers() {
    for (said, body) in [
        ("", None),
        (", body: {string: hello}", Some(b"hello".as_slice())),
        (", body: {bytes: aGVsbG8=}", Some(b"hello".as_slice())),
    ] {
        let Action::Respond(response) = rule(&format!("directResponse: {{status: 418{said}}}")).action else {
            panic!("{said}")
        };
        assert_eq!((response.status.as_u16(), response.body.as_deref()), (418, body));
    }
}

#[test]
fn cross_origin() {
    let all = rule(
        "corsPolicy: {allowOrigins: [{exact: 'https://a'}, {prefix: 'https://b'}], allowMethods: [GET, POST], \
         allowHeaders: [x-a], exposeHeaders: [x-b, x-c], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}",
    );
    let expected = Cors {
        allow_origins: [exact("https://a"), TextMatch::Prefix("https://b".into())].into(),
        allow_methods: Some(::http::HeaderValue::from_static("GET,POST")),
        allow_headers: Some(::http::HeaderValue::from_static("x-a")),
        expose_headers: Some(::http::HeaderValue::from_static("x-b,x-c")),
        max_age: Some(86_400),
        allow_credentials: true,
        unmatched_preflights: UnmatchedPreflights::Ignore,
    };
    assert_eq!(all.cors.as_deref(), Some(&expected));
    let old = rule("corsPolicy: {allowOrigin: ['*']}").cors.unwrap();
    assert_eq!((&*old.allow_origins, old.allow_credentials), ([exact("*")].as_slice(), false));
}

#[test]
fn rules_for_tls_and_tcp() {
    let spec = "{hosts: [cart], tls: [{match: [\
                {sniHosts: [cart], destinationSubnets: [10.1.0.0/16], port: 443, sourceLabels: {c: d}, sourceNamespace: bank}, \
                {sniHosts: [cart], gateways: [g]}], route: [{destination: {host: cart}, weight: 3}, \
                {destination: {host: reviews, port: {number: 9443}}, weight: 1}]}, \
                {match: [{sniHosts: [cart], gateways: [g]}], route: [{destination: {host: cart}}]}], \
                tcp: [{match: [{destinationSubnets: [10.0.0.0/8, 'fd00::1'], port: 5432, sourceLabels: {a: b}, \
                sourceNamespace: web}], route: [\
                {destination: {host: cart}, weight: 1}, {destination: {host: nobody}, weight: 1}]}, \
                {match: [{gateways: [g]}], route: [{destination: {host: cart}}]}, {route: [{destination: {host: cart}}]}]}";
    let outcome = fresh(&objects(SERVICES, &virtual_service("shop/v", spec)));
    let routing = &outcome.routings[&key("shop/cart")];
    assert_eq!(routing.tls[0].source.to_string(), "VirtualService shop/v tls[0]");
    assert_eq!(&**routing.tls[0].matches[0].sni_hosts[0].as_str(), "cart");
    assert_eq!((routing.tls.len(), routing.tls[0].matches.len()), (1, 1), "the others are for gateways");
    let tls = &routing.tls[0].matches[0].tcp;
    assert_eq!(*tls.destination_subnets, ["10.1.0.0/16".parse().unwrap()]);
    let scope = |port, label: (&str, &str), namespace: &str| Scope {
        port: Some(port),
        source_labels: [(label.0.into(), label.1.into())].into(),
        source_namespace: Some(namespace.into()),
    };
    assert_eq!(tls.scope, scope(443, ("c", "d"), "bank"));
    let Destinations::Split(shares) = &routing.tls[0].destinations else { panic!("two were written") };
    let shares: Vec<_> = shares.iter().map(|one| (one.weight, shown(&one.destination))).collect();
    assert_eq!(shares, [(3, "cart.shop:80".to_owned()), (1, "reviews.shop:9443".to_owned())]);
    assert_eq!(routing.tcp.iter().map(|rule| rule.source.index).collect::<Vec<_>>(), [0, 2]);
    let first = &routing.tcp[0];
    assert_eq!(first.matches[0].destination_subnets.len(), 2);
    assert_eq!(first.matches[0].scope, scope(5432, ("a", "b"), "web"));
    assert_eq!(first.missing.join(""), "Service nobody.shop.svc.cluster.local");
    assert!(matches!(&first.destinations, Destinations::Split(all) if all.len() == 1));
    assert!(routing.tcp[1].matches.is_empty());
    assert!(outcome.unresolved.contains_key(&key("shop/cart")));
}
