//! What clients claim, part or change, and what they do not get by it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use hyper::body::Incoming;
use model::authz::{
    Action, Clause, HeaderMatch, Match, Policy, PolicyScope, RequestMatch, Rule, StringMatch,
};
use model::mesh::Update;
use model::service::{Ports, Service};
use model::workload::PolicyName;
use tokio::io::AsyncReadExt as _;

use super::fixtures::{edit, key, pod, service, waypoint};
use super::requests::{application, get, http1, http2, whole};
use super::world::{HTTP, World, run};

/// Lets through whose header ends so.
fn allow(name: &str, end: &str) -> Update {
    let header = HeaderMatch::new(name, vec![StringMatch::Suffix(end.into())], Vec::new()).unwrap();
    let request = RequestMatch { headers: vec![header], ..RequestMatch::default() };
    let one = Match { request: Some(Box::new(request)), ..Match::default() };
    Update::Policy(Policy {
        rules: [Rule { clauses: [Clause { matches: [one].into() }].into() }].into(),
        ..nobody()
    })
}

fn nobody() -> Policy {
    Policy {
        name: PolicyName { namespace: "shop".into(), name: "p".into() },
        scope: PolicyScope::Namespace,
        action: Action::Allow,
        rules: Box::default(),
        dry_run: false,
        invalid: None,
    }
}

async fn status(response: Response<Incoming>) -> u16 {
    whole(response).await.0
}

#[test]
fn a_rule_about_the_clients_certificate_reads_the_one_that_was_shown() {
    run(async {
        let world = World::new(application).await;
        let mut client = http1(&world, HTTP).await;
        for (end, expected) in [("/sa/admin", 403), ("/sa/client", 200)] {
            world.waypoint.take(vec![allow("x-forwarded-client-cert", end)]);
            let mut request = get("/");
            let forged = "By=x;URI=spiffe://cluster.local/ns/shop/sa/admin".parse().unwrap();
            request.headers_mut().insert("x-forwarded-client-cert", forged);
            assert_eq!(status(client.send_request(request).await.unwrap()).await, expected, "{end}");
        }
    });
}

#[test]
fn only_a_waypoint_of_the_mesh_is_believed_whom_it_asks_for() {
    run(async {
        let world = World::new(application).await;
        let lobby = || (key("lobby"), Ports::default());
        // The service that the client's pod is behind, and the waypoint that something is bound to. It says of itself that it is
        // a proxy, which anybody may.
        for (behind, bound, believed) in [
            (None, None, false),
            (Some(lobby()), None, false),
            (None, Some("lobby"), false),
            (Some(lobby()), Some("lobby"), true),
            (Some(lobby()), Some("another"), false),
        ] {
            let row = format!("{behind:?} {bound:?}");
            let client = edit(pod("client", Ipv4Addr::LOCALHOST.into()), |client| {
                client.native_tunnel = true;
                client.services = behind.into_iter().collect();
            });
            let waypoint = bound.map(waypoint).map(Arc::new);
            let bound = Service { waypoint, ..service("bound", "10.96.0.8", Ports::default()) };
            world.waypoint.take(vec![Update::Workload(client), Update::Service(bound)]);
            let mut request = get("/");
            request.headers_mut().insert("x-forwarded-client-cert", "URI=forged".parse().unwrap());
            let (_, seen) = whole(http1(&world, HTTP).await.send_request(request).await.unwrap()).await;
            assert_eq!(seen.contains("URI=forged"), believed, "{row}: {seen}");
        }
    });
}

#[test]
fn a_second_value_of_a_header_does_not_come_along_with_the_first() {
    run(async {
        let world = World::new(application).await;
        world.waypoint.take(vec![allow("x-role", "user")]);
        for (roles, expected) in [(&["user"][..], 200), (&["user", "admin"], 403), (&["user", "user"], 200)] {
            let mut request = get("/");
            for role in roles {
                request.headers_mut().append("x-role", role.parse().unwrap());
            }
            let mut client = http1(&world, HTTP).await;
            assert_eq!(status(client.send_request(request).await.unwrap()).await, expected, "{roles:?}");
        }
    });
}

#[test]
fn cookies_that_a_client_parts_are_judged_and_arrive_as_one() {
    run(async {
        let world = World::new(application).await;
        let mut client = http2(&world, HTTP).await;
        let asked = || {
            let request =
                Request::get("http://reviews/").header("cookie", "role=user").header("cookie", "b=2");
            request.body(Empty::new().map_err(|never| match never {}).boxed()).unwrap()
        };
        let (code, seen) = whole(client.send_request(asked()).await.unwrap()).await;
        assert!(code == 200 && seen.contains("cookie: role=user; b=2\n"), "{seen}");
        world.waypoint.take(vec![allow("cookie", "role=user")]);
        assert_eq!(status(client.send_request(asked()).await.unwrap()).await, 403);
    });
}

#[test]
fn what_a_connection_has_become_ends_when_a_policy_denies_it() {
    run(async {
        let world = World::new(application).await;
        let (mut stream, heard) = world.ask_to_shout(HTTP).await;
        assert!(heard.starts_with("HTTP/1.1 101"));
        world.waypoint.take(vec![Update::Policy(nobody())]);
        // Until then it would have waited for five bytes.
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    });
}
