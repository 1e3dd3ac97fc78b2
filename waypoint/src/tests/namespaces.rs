//! A tenant's service whose rules lead into another namespace, behind the same waypoint: what those there have written counts.

use http::HeaderName;
use model::address::NamespacedHostname;
use model::authz::{
    Action, Clause, HeaderMatch, Match, PathMatch, Policy, PolicyScope, RequestMatch, Rule, StringMatch,
    Target,
};
use model::mesh::Update;
use model::route::action::PathRewrite;
use model::route::template::Template;
use model::route::{Destination, Forward, HeaderChanges, Operations, Routing};
use model::service::{AppProtocol, Service};
use model::workload::{PolicyName, Profile};

use super::fixtures::{edit, identity, key, pod, ports, service, waypoint};
use super::requests::{application, get, http1_at, whole};
use super::routes::{forward, rule, to};
use super::world::{World, run};

const LURE: &str = "10.96.0.7:80";

fn of(namespace: &str) -> NamespacedHostname {
    NamespacedHostname::new(namespace, &format!("lure.{namespace}.svc.cluster.local"))
}

/// A service of a namespace that is bound to the waypoint.
fn lure(namespace: &str) -> Service {
    Service {
        key: of(namespace),
        waypoint: Some(waypoint("waypoint").into()),
        ..service("lure", "10.96.0.7", ports(&[(80, 8080, AppProtocol::Http11)]))
    }
}

/// What a rule of its leads `reviews` and does on the way.
fn leading(namespace: &str, forwarded: Forward, set: &[(&'static str, &str)]) -> Routing {
    let set =
        set.iter().map(|(name, value)| (HeaderName::from_static(name), Template::parse(value).unwrap()));
    let operations = Operations { set: set.collect(), ..Operations::default() };
    let mut rule = rule(0, Vec::new(), forward(forwarded));
    rule.headers = HeaderChanges { request: Some(Box::new(operations)), response: None };
    Routing {
        host: of(namespace),
        http: [rule].into(),
        tls: Box::default(),
        tcp: Box::default(),
        default: Some(Box::new(Forward::to_service(of(namespace)))),
        destinations: Default::default(),
    }
}

fn to_reviews() -> Forward {
    to(Destination::of(key("reviews")))
}

fn to_admin() -> Forward {
    Forward { rewrite_path: Some(PathRewrite::Replace("/admin/".into())), ..to_reviews() }
}

fn policy(scope: PolicyScope, action: Action, asked: Option<RequestMatch>) -> Policy {
    let clauses: Vec<Clause> = asked
        .map(|asked| Match { request: Some(Box::new(asked)), ..Match::default() })
        .map(|one| Clause { matches: [one].into() })
        .into_iter()
        .collect();
    Policy {
        name: PolicyName { namespace: "shop".into(), name: "p".into() },
        scope,
        action,
        rules: [Rule { clauses: clauses.into() }].into(),
        dry_run: false,
        invalid: None,
    }
}

fn header(name: &str, value: StringMatch) -> Option<RequestMatch> {
    let header = HeaderMatch::new(name, vec![value], Vec::new()).unwrap();
    Some(RequestMatch { headers: vec![header], ..RequestMatch::default() })
}

/// What a client of the lure in a namespace is answered.
async fn ask(world: &World, namespace: &str, routing: Routing, policy: Policy) -> (u16, String) {
    world.waypoint.routings.set(routing);
    world.waypoint.take(vec![Update::Service(lure(namespace)), Update::Policy(policy)]);
    let mut client = http1_at(world, LURE).await;
    let answered = whole(client.send_request(get("/")).await.unwrap()).await;
    world.waypoint.take(vec![Update::RemoveAddress(of(namespace).to_string().into())]);
    answered
}

#[test]
fn rules_that_lead_elsewhere_are_held_to_what_is_attached_there() {
    run(async {
        let world = World::new(application).await;
        let attached = || PolicyScope::Targets([Target::Service(key("reviews"))].into());
        let admin =
            || Some(RequestMatch { paths: vec![PathMatch::parse("/admin/").unwrap()], ..Default::default() });
        let role = || header("x-role", StringMatch::Exact("admin".into()));
        let (whole, deny) = (PolicyScope::Namespace, Action::Deny);
        let setting = [("x-role", "admin")];
        for (namespace, forwarded, set, policy, expected) in [
            // Attached to where it leads, whoever's rule it is.
            ("other", to_reviews(), &[][..], policy(attached(), deny, None), 403),
            ("shop", to_reviews(), &[], policy(attached(), deny, None), 403),
            ("other", to_reviews(), &[], policy(attached(), deny, admin()), 200),
            // Another namespace's rule is judged by what it makes of a request; one's own is trusted.
            ("other", to_reviews(), &[], policy(whole.clone(), deny, admin()), 200),
            ("other", to_admin(), &[], policy(whole.clone(), deny, admin()), 403),
            ("other", to_admin(), &[], policy(attached(), deny, admin()), 403),
            ("shop", to_admin(), &[], policy(whole.clone(), deny, admin()), 200),
            ("other", to_reviews(), &setting, policy(whole.clone(), deny, role()), 403),
            ("other", to_reviews(), &setting, policy(whole.clone(), Action::Allow, role()), 403),
            ("shop", to_reviews(), &setting, policy(whole, deny, role()), 200),
        ] {
            let routing = leading(namespace, forwarded, set);
            let row = format!("{namespace} {routing:?} {policy:?}");
            assert_eq!(ask(&world, namespace, routing, policy).await.0, expected, "{row}");
        }
    });
}

/// The pod of `reviews`, which a service of another namespace names as well.
fn named_by_another(world: &World, also: impl FnOnce(&mut Profile)) {
    let server = edit(pod("server", world.pod_ip()), |pod| {
        let ports = ports(&[(80, 8080, AppProtocol::Http11)]);
        pod.services = [(key("reviews"), ports.clone()), (of("other"), ports)].into();
        also(pod);
    });
    world.waypoint.take(vec![Update::Workload(server)]);
}

/// Whoever may write an EndpointSlice may put anybody's pod behind a service of its own, and write a rule for that one.
#[test]
fn rules_of_a_service_that_names_anothers_pod_are_held_to_the_pods_policies() {
    run(async {
        let world = World::new(application).await;
        named_by_another(&world, |pod| pod.waypoint = Some(waypoint("waypoint")));
        let role = || header("x-role", StringMatch::Exact("admin".into()));
        for (set, expected) in [(&[][..], 200), (&[("x-role", "admin")], 403)] {
            let routing = leading("other", Forward::to_service(of("other")), set);
            let policy = policy(PolicyScope::Namespace, Action::Deny, role());
            assert_eq!(ask(&world, "other", routing, policy).await.0, expected, "{set:?}");
        }
    });
}

#[test]
fn no_rule_says_whose_certificate_was_shown() {
    run(async {
        let world = World::new(application).await;
        let forged = [("x-forwarded-client-cert", "URI=forged"), ("x_forwarded-client_cert", "URI=forged")];
        for namespace in ["other", "shop"] {
            let routing = leading(namespace, to_reviews(), &forged);
            let policy =
                policy(PolicyScope::Namespace, Action::Deny, header("x-none", StringMatch::Presence));
            let (status, seen) = ask(&world, namespace, routing, policy).await;
            assert_eq!(status, 200, "{namespace}");
            assert!(seen.contains("URI=spiffe://cluster.local/ns/shop/sa/client\n"), "{namespace}: {seen}");
            assert!(!seen.contains("forged"), "{namespace}: {seen}");
        }
    });
}

#[test]
fn a_service_that_names_anothers_pod_leads_nowhere() {
    run(async {
        let world = World::new(application).await;
        named_by_another(&world, |pod| pod.enforced_by = Some([identity("waypoint")].into()));
        let none = policy(PolicyScope::Namespace, Action::Deny, header("x-none", StringMatch::Presence));
        let routing = leading("other", Forward::to_service(of("other")), &[]);
        let (status, text) = ask(&world, "other", routing, none.clone()).await;
        assert_eq!(status, 503);
        assert!(text.contains("leads to shop/server"), "{text}");
        assert!(world.connects.borrow().is_empty());
        let routing = leading("other", to_reviews(), &[]);
        assert_eq!(ask(&world, "other", routing, none).await.0, 200, "by its own service");
    });
}
