//! Requests that a host's routing says something of.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use model::address::Str;
use model::authz::{Policy, PolicyScope};
use model::mesh::Update;
use model::route::fault::{Abort, AbortWith};
use model::route::headers::Operations;
use model::route::template::Template;
use model::route::{
    Action, Destination, Destinations, DirectResponse, Fault, Forward, Fraction, HeaderChanges, HeaderKey,
    HeaderMatch, HttpMatch, HttpRule, PathMatch, Redirect, ResourceName, RetryPolicy, Routing, RuleList,
    RuleSource, TextMatch,
};
use model::traffic::{self, Subset};
use model::workload::PolicyName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::fixtures::key;
use super::requests::{FAILURES, application, get, http1, whole};
use super::world::{HTTP, World, run};

pub(super) fn rule(index: u32, matches: Vec<HttpMatch>, action: Action) -> HttpRule {
    let resource = Arc::new(ResourceName {
        kind: "VirtualService".into(),
        namespace: "shop".into(),
        name: "reviews".into(),
    });
    HttpRule {
        source: RuleSource { resource, list: RuleList::Http, index },
        name: None,
        matches: matches.into(),
        action,
        headers: HeaderChanges::default(),
        fault: None,
        cors: None,
    }
}

fn path(path: &str) -> HttpMatch {
    HttpMatch { path: Some(PathMatch::Exact(path.into())), ..HttpMatch::default() }
}

fn header(name: &'static str, value: &str) -> HttpMatch {
    let key = HeaderKey::Name(http::HeaderName::from_static(name));
    HttpMatch {
        headers: [HeaderMatch { key, value: TextMatch::Exact(value.into()) }].into(),
        ..HttpMatch::default()
    }
}

fn subset(name: &str) -> Destination {
    Destination { subset: Some(name.into()), ..Destination::of(key("reviews")) }
}

pub(super) fn to(destination: Destination) -> Forward {
    Forward { destinations: Destinations::One(destination), ..Forward::default() }
}

pub(super) fn forward(forward: Forward) -> Action {
    Action::Forward(Box::new(forward))
}

fn routing(rules: Vec<HttpRule>) -> Routing {
    let version = |name: &str| Subset {
        name: name.into(),
        labels: BTreeMap::from([(Str::from("version"), Str::from(name))]),
        policy: None,
    };
    let destination = traffic::Destination {
        subsets: [version("v1"), version("v2"), version("v3")].into(),
        ..Default::default()
    };
    Routing {
        host: key("reviews"),
        http: rules.into(),
        tls: Box::default(),
        tcp: Box::default(),
        default: Some(Box::new(Forward::to_service(key("reviews")))),
        destinations: [(key("reviews"), Arc::new(destination))].into(),
    }
}

#[test]
fn a_dark_launch_by_header_goes_to_its_subset_and_the_rest_to_the_other() {
    run(async {
        let world = World::new(application).await;
        world.second(application).await;
        world.waypoint.routings.set(routing(vec![
            rule(0, vec![header("end-user", "jason")], forward(to(subset("v2")))),
            rule(1, vec![path("/missing")], forward(to(subset("v3")))),
            rule(2, vec![], forward(to(subset("v1")))),
        ]));
        let mut client = http1(&world, HTTP).await;
        for (user, pod) in [(None, 2), (Some("jason"), 3), (Some("else"), 2)] {
            let mut request = get("/");
            if let Some(user) = user {
                request.headers_mut().insert("end-user", HeaderValue::from_static(user));
            }
            assert_eq!(whole(client.send_request(request).await.unwrap()).await.0, 200);
            if user != Some("else") {
                assert_eq!(world.last_pod(), pod, "{user:?}");
            }
        }
        assert_eq!(world.connects.borrow().len(), 2, "the third went over the first connection");
        let (status, text) = whole(client.send_request(get("/missing")).await.unwrap()).await;
        assert_eq!(status, 503);
        assert!(text.contains("subset v3"), "{text}");
    });
}

#[test]
fn a_rule_may_answer_by_itself() {
    run(async {
        let world = World::new(application).await;
        let redirect = Redirect {
            path: None,
            authority: Some("elsewhere.example".into()),
            port: None,
            scheme: None,
            code: StatusCode::FOUND,
        };
        let answer = DirectResponse { status: StatusCode::IM_A_TEAPOT, body: Some(b"short"[..].into()) };
        let abort = Abort { with: AbortWith::Http(StatusCode::IM_A_TEAPOT), share: Fraction::ALL };
        let fault = Fault { delay: None, abort: Some(abort) };
        let failing = HttpRule {
            fault: Some(Box::new(fault)),
            ..rule(2, vec![path("/fault")], forward(to(Destination::of(key("reviews")))))
        };
        let missing = Forward {
            missing: ["DestinationRule subset shop/reviews v9".into()].into(),
            ..Forward::default()
        };
        world.waypoint.routings.set(routing(vec![
            rule(0, vec![path("/redirect")], Action::Redirect(Box::new(redirect))),
            rule(1, vec![path("/answer")], Action::Respond(Box::new(answer))),
            failing,
            rule(3, vec![path("/gone")], forward(missing)),
        ]));
        let mut client = http1(&world, HTTP).await;
        let response = client.send_request(get("/redirect")).await.unwrap();
        assert_eq!(response.status(), 302);
        assert_eq!(response.headers()["location"], "http://elsewhere.example/redirect");
        drop(response);
        for (path, status, text) in [
            ("/answer", 418, "short"),
            ("/fault", 418, "fault filter abort"),
            ("/gone", 503, "the route's destinations do not resolve: DestinationRule subset shop/reviews v9"),
            ("/none", 404, ""),
        ] {
            let mut client = http1(&world, HTTP).await;
            let answered = whole(client.send_request(get(path)).await.unwrap()).await;
            assert_eq!(answered, (status, text.to_owned()), "{path}");
        }
        assert!(world.connects.borrow().is_empty(), "nobody was asked");
        let counted =
            |flags: &str| world.metric("istio_requests_total{", &[&format!("response_flags=\"{flags}\"")]);
        assert_eq!((counted("FI"), counted("NC"), counted("NR")), (Some(1.0), Some(1.0), Some(1.0)));
    });
}

#[test]
fn what_a_rule_changes_in_answers_it_changes_in_refusals_too() {
    run(async {
        let world = World::new(application).await;
        let template = |text: &str| Template::parse(text).unwrap();
        let set = [("x-rule", "yes"), ("x-code", "%RESPONSE_CODE%")]
            .map(|(name, value)| (http::HeaderName::from_static(name), template(value)));
        let changed = Operations { set: set.into(), ..Operations::default() };
        let headers = HeaderChanges { request: None, response: Some(Box::new(changed)) };
        let with = |rule: HttpRule| HttpRule { headers: headers.clone(), ..rule };
        let abort = Abort { with: AbortWith::Http(StatusCode::IM_A_TEAPOT), share: Fraction::ALL };
        let fault = Some(Box::new(Fault { delay: None, abort: Some(abort) }));
        let here = || forward(to(Destination::of(key("reviews"))));
        let limited =
            Forward { timeout: Some(Duration::from_millis(50)), ..to(Destination::of(key("reviews"))) };
        let answer = DirectResponse { status: StatusCode::ACCEPTED, body: None };
        world.waypoint.routings.set(routing(vec![
            with(HttpRule { fault, ..rule(0, vec![path("/fault")], here()) }),
            with(rule(1, vec![path("/never")], forward(limited))),
            with(rule(2, vec![path("/answer")], Action::Respond(Box::new(answer)))),
            with(rule(3, vec![path("/")], here())),
        ]));
        let ask = async |path: &str| {
            let response = http1(&world, HTTP).await.send_request(get(path)).await.unwrap();
            let said = ["x-rule", "x-code"].map(|name| {
                response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
            });
            (response.status().as_u16(), said.join(" "))
        };
        for (path, status, said) in [
            ("/", 200, "yes 200"),
            ("/fault", 418, "yes 418"),
            ("/never", 504, "yes 504"),
            ("/answer", 202, "yes 202"),
            ("/none", 404, " "),
        ] {
            assert_eq!(ask(path).await, (status, said.to_owned()), "{path}");
        }
        let nobody = Policy {
            name: PolicyName { namespace: "shop".into(), name: "nobody".into() },
            scope: PolicyScope::Namespace,
            action: model::authz::Action::Allow,
            rules: Box::default(),
            dry_run: false,
            invalid: None,
        };
        world.waypoint.take(vec![Update::Policy(nobody)]);
        assert_eq!(ask("/").await, (403, String::from("yes 403")));
        assert_eq!(ask("/answer").await, (403, String::from(" ")), "it is no answer of the rule's");
    });
}

#[test]
fn what_fails_is_tried_again_with_its_body_as_often_as_the_rule_says() {
    run(async {
        let world = World::new(application).await;
        let retry = RetryPolicy {
            attempts: 2,
            status_codes: [StatusCode::SERVICE_UNAVAILABLE].into(),
            backoff: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let flaky = Forward { retry: Some(Arc::new(retry)), ..to(Destination::of(key("reviews"))) };
        world.waypoint.routings.set(routing(vec![rule(0, vec![], forward(flaky))]));
        for (failures, status) in [(2, 200), (3, 503)] {
            FAILURES.set(failures);
            let body =
                Full::new(bytes::Bytes::from_static(b"all of it")).map_err(|never| match never {}).boxed();
            let request = Request::post("/flaky").header("host", "h").body(body).unwrap();
            let answered = whole(http1(&world, HTTP).await.send_request(request).await.unwrap()).await;
            assert_eq!(answered, (status, String::from("all of it")));
            assert_eq!(FAILURES.get(), 0, "three tries were made");
        }
        assert_eq!(
            world.metric("istio_requests_total{", &["response_code=\"200\""]),
            Some(1.0),
            "one request"
        );
    });
}

thread_local! {
    /// Connections that [`unwilling`] has.
    static UNWILLING: Cell<u32> = const { Cell::new(0) };
}

/// An application that answers at once, asks for no body, and would have the connection stay.
async fn unwilling(mut socket: TcpStream, _port: u16) {
    UNWILLING.set(UNWILLING.get() + 1);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    socket.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    while socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    UNWILLING.set(UNWILLING.get() - 1);
}

#[test]
fn a_try_whose_body_nobody_asked_for_leaves_no_connection() {
    run(async {
        let world = World::new(unwilling).await;
        let retry = RetryPolicy {
            attempts: 2,
            status_codes: [StatusCode::SERVICE_UNAVAILABLE].into(),
            backoff: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let again = Forward { retry: Some(Arc::new(retry)), ..to(Destination::of(key("reviews"))) };
        world.waypoint.routings.set(routing(vec![rule(0, vec![], forward(again))]));
        let mut client = world.connect(HTTP).await;
        let head = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 503");
        for _ in 0..500 {
            if UNWILLING.get() == 0 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{} connections of tries are left", UNWILLING.get());
    });
}

#[test]
fn what_takes_too_long_ends_in_time() {
    run(async {
        let world = World::new(application).await;
        let limited =
            Forward { timeout: Some(Duration::from_millis(50)), ..to(Destination::of(key("reviews"))) };
        world.waypoint.routings.set(routing(vec![rule(0, vec![], forward(limited))]));
        let mut client = http1(&world, HTTP).await;
        let answered = whole(client.send_request(get("/never")).await.unwrap()).await;
        assert_eq!(answered, (504, String::from("upstream request timeout")));
        assert_eq!(world.metric("istio_requests_total{", &["response_flags=\"UT\""]), Some(1.0));
    });
}
