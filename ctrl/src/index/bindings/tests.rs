//! Every way to ask for a waypoint, which of two wins, and what becomes of a binding when things come and go.

#![allow(clippy::needless_pass_by_value, reason = "JSON as it is written in a table")]

use std::path::Path;

use manifest::{Batch, Object, from_json};
use serde_json::{Value, json};

use super::*;

fn object(value: &Value) -> Arc<Object> {
    let origin: Arc<Path> = Arc::from(Path::new("test"));
    let mut parsed = from_json(value, &origin);
    Arc::new(parsed.objects.pop().unwrap_or_else(|| panic!("{:?}", parsed.findings)))
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn account(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop", "labels": labels}})
}

fn pod(name: &str, account: &str, labels: Value) -> Value {
    let mut all = json!({"app": "web"});
    for (key, value) in labels.as_object().unwrap() {
        all[key] = value.clone();
    }
    let ip = format!("10.0.0.{}", 1 + name.bytes().map(usize::from).sum::<usize>() % 250);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": all},
        "spec": {"nodeName": "n", "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn service(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop", "labels": labels},
           "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]}})
}

/// A waypoint and what is made for it: its Service and, if it is ready, a replica.
fn waypoint(name: &str, metadata: Value, routes: Value, ready: bool) -> Vec<Value> {
    let (namespace, name) = name.split_once('/').unwrap();
    let mut meta = json!({"name": name, "namespace": namespace});
    for (key, value) in metadata.as_object().unwrap() {
        meta[key] = value.clone();
    }
    let made = json!({GATEWAY_NAME: name});
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta,
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [
            {"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": routes}]}});
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": made},
        "spec": {"clusterIP": "10.96.0.9", "selector": made, "ports": [{"port": 15008}]}});
    let mut replica = pod(&format!("{name}-1"), name, made);
    replica["metadata"]["namespace"] = json!(namespace);
    replica["status"]["podIPs"] = json!([{"ip": "10.0.1.1"}]);
    replica["metadata"]["labels"]["app"] = json!("waypoint");
    if ready { vec![gateway, service, replica] } else { vec![gateway, service] }
}

fn own(name: &str) -> Vec<Value> {
    waypoint(name, json!({}), json!({}), true)
}

fn labelled(name: &str, key: &str, value: &str) -> Vec<Value> {
    waypoint(name, json!({"labels": {key: value}}), json!({}), true)
}

fn for_account(name: &str, account: &str) -> Vec<Value> {
    waypoint(name, json!({"annotations": {"istio.io/for-service-account": account}}), json!({}), true)
}

fn index() -> Index {
    Index::new("istio-system".into())
}

fn apply(index: &mut Index, upserted: &[Value]) -> Changes {
    index.apply(&Batch { upserted: upserted.iter().map(object).collect(), ..Batch::default() })
}

fn remove(index: &mut Index, gone: &[Value]) -> Changes {
    let removed = gone.iter().map(|value| object(value).key()).collect();
    index.apply(&Batch { removed, ..Batch::default() })
}

fn told(bound: &Bound) -> String {
    match bound {
        Bound::Unasked => "-".into(),
        Bound::To(binding) => format!("{} by {:?}", binding.waypoint, binding.by),
        Bound::Not(binding, why) => format!("not {}: {why:?}", binding.waypoint),
    }
}

/// How the service `shop/web` and the pod `shop/p` are bound.
fn bound(index: &Index) -> (String, String) {
    let service = index.service(&Name::new("shop", "web")).unwrap();
    let pod = index.pod(&Name::new("shop", "p")).unwrap();
    (told(&index.service_bound(service)), told(&index.pod_bound(pod)))
}

fn with(name: &str) -> Value {
    json!({"istio.io/use-waypoint": name})
}

/// What it is about; labels of the namespace, the service and the pod; the waypoints; how service and pod are bound.
type Row = (&'static str, Value, Value, Value, Vec<Value>, &'static str, &'static str);

#[test]
fn who_asks_and_what_comes_of_it_by_table() {
    let none = || json!({});
    let cross = json!({"istio.io/use-waypoint": "w", "istio.io/use-waypoint-namespace": "infra"});
    let from = |how: Value| waypoint("infra/w", json!({}), json!({"namespaces": how}), true);
    let selector = |selector: Value| from(json!({"from": "Selector", "selector": selector}));
    let class = |value: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
               "metadata": {"name": "istio-waypoint", "labels": {"istio.io/waypoint-for": value}}, "spec": {}})
    };
    let wrong_class = {
        let mut all = own("shop/w");
        all[0]["spec"]["gatewayClassName"] = json!("istio");
        all
    };
    let table: Vec<Row> = vec![
        ("nobody asks", none(), none(), none(), own("shop/w"), "-", "-"),
        ("the service", none(), with("w"), none(), own("shop/w"), "shop/w by Label", "-"),
        (
            "the namespace",
            with("w"),
            none(),
            none(),
            own("shop/w"),
            "shop/w by Namespace",
            "not shop/w: OtherTraffic",
        ),
        (
            "the namespace, for all",
            with("w"),
            none(),
            none(),
            labelled("shop/w", "istio.io/waypoint-for", "all"),
            "shop/w by Namespace",
            "shop/w by Namespace",
        ),
        (
            "the namespace, for workloads",
            with("w"),
            none(),
            none(),
            labelled("shop/w", "istio.io/waypoint-for", "workload"),
            "not shop/w: OtherTraffic",
            "shop/w by Namespace",
        ),
        (
            "for nothing",
            with("w"),
            with("w"),
            with("w"),
            labelled("shop/w", "istio.io/waypoint-for", "none"),
            "not shop/w: OtherTraffic",
            "not shop/w: OtherTraffic",
        ),
        (
            "the pod",
            none(),
            none(),
            with("w"),
            labelled("shop/w", "istio.io/waypoint-for", "all"),
            "-",
            "shop/w by Label",
        ),
        (
            "the pod, of one for services",
            none(),
            none(),
            with("w"),
            own("shop/w"),
            "-",
            "not shop/w: OtherTraffic",
        ),
        (
            "the class says it is for all",
            with("w"),
            none(),
            none(),
            [own("shop/w"), vec![class("all")]].concat(),
            "shop/w by Namespace",
            "shop/w by Namespace",
        ),
        (
            "the Gateway before the class",
            with("w"),
            none(),
            none(),
            [labelled("shop/w", "istio.io/waypoint-for", "service"), vec![class("all")]].concat(),
            "shop/w by Namespace",
            "not shop/w: OtherTraffic",
        ),
        (
            "none before the namespace",
            with("w"),
            with("none"),
            with("none"),
            labelled("shop/w", "istio.io/waypoint-for", "all"),
            "-",
            "-",
        ),
        (
            "the account",
            none(),
            none(),
            none(),
            for_account("shop/w", "a"),
            "shop/w by Account(\"a\")",
            "shop/w by Account(\"a\")",
        ),
        ("another account", none(), none(), none(), for_account("shop/w", "b"), "-", "-"),
        ("an account of another namespace", none(), none(), none(), for_account("infra/w", "a"), "-", "-"),
        ("none before the account", none(), with("none"), with("none"), for_account("shop/w", "a"), "-", "-"),
        (
            "labels before the account",
            none(),
            with("v"),
            with("v"),
            [for_account("shop/w", "a"), labelled("shop/v", "istio.io/waypoint-for", "all")].concat(),
            "shop/v by Label",
            "shop/v by Label",
        ),
        (
            "the account before the namespace",
            with("v"),
            none(),
            none(),
            [for_account("shop/w", "a"), labelled("shop/v", "istio.io/waypoint-for", "all")].concat(),
            "shop/w by Account(\"a\")",
            "shop/w by Account(\"a\")",
        ),
        (
            "a waypoint for an account, asked for by a label",
            with("w"),
            none(),
            none(),
            for_account("shop/w", "b"),
            "shop/w by Namespace",
            "shop/w by Namespace",
        ),
        ("one that is not there", none(), with("w"), none(), vec![], "not shop/w: Missing", "-"),
        ("one of another class", none(), with("w"), none(), wrong_class, "not shop/w: Missing", "-"),
        (
            "one that was never ready",
            none(),
            with("w"),
            none(),
            waypoint("shop/w", none(), none(), false),
            "not shop/w: NotReady",
            "-",
        ),
        ("of another namespace", none(), cross.clone(), none(), own("infra/w"), "not infra/w: Denied", "-"),
        (
            "of another, for all",
            none(),
            cross.clone(),
            none(),
            from(json!({"from": "All"})),
            "infra/w by Label",
            "-",
        ),
        (
            "of another, for none",
            none(),
            cross.clone(),
            none(),
            from(json!({"from": "None"})),
            "not infra/w: Denied",
            "-",
        ),
        (
            "of another, for such",
            json!({"team": "x"}),
            cross.clone(),
            none(),
            selector(json!({"matchLabels": {"team": "x"}})),
            "infra/w by Label",
            "-",
        ),
        (
            "of another, for others",
            json!({"team": "y"}),
            cross.clone(),
            none(),
            selector(json!({"matchLabels": {"team": "x"}})),
            "not infra/w: Denied",
            "-",
        ),
        (
            "of another, by its name",
            none(),
            cross.clone(),
            none(),
            selector(json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}})),
            "infra/w by Label",
            "-",
        ),
        (
            "of another, by an expression",
            json!({"team": "x"}),
            cross.clone(),
            none(),
            selector(json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["y"]}]})),
            "infra/w by Label",
            "-",
        ),
        (
            "of another, by the namespace's label",
            cross,
            none(),
            none(),
            from(json!({"from": "All"})),
            "infra/w by Namespace",
            "not infra/w: OtherTraffic",
        ),
    ];
    for (about, of_namespace, of_service, of_pod, waypoints, expected_service, expected_pod) in table {
        let mut all = waypoints;
        all.extend([namespace("shop", of_namespace), service("web", of_service), pod("p", "a", of_pod)]);
        let expected = (expected_service.to_owned(), expected_pod.to_owned());
        // All at once, and one after another in both orders.
        let mut at_once = index();
        apply(&mut at_once, &all);
        assert_eq!(bound(&at_once), expected, "{about}");
        let (mut forward, mut backward) = (index(), index());
        for place in 0..all.len() {
            apply(&mut forward, std::slice::from_ref(&all[place]));
            apply(&mut backward, std::slice::from_ref(&all[all.len() - 1 - place]));
        }
        assert_eq!((bound(&forward), bound(&backward)), (expected.clone(), expected), "{about}, in steps");
    }
}

#[test]
fn accounts_that_do_not_agree_bind_no_service() {
    let web = service("web", json!({}));
    let ambiguous = |index: &Index| index.is_ambiguous(index.service(&Name::new("shop", "web")).unwrap());
    let mut index = index();
    apply(
        &mut index,
        &[for_account("shop/w", "a"), vec![web, pod("p", "a", json!({})), pod("q", "a", json!({}))]].concat(),
    );
    assert_eq!((bound(&index).0.as_str(), ambiguous(&index)), ("shop/w by Account(\"a\")", false));
    // Another account without a waypoint, then with another one, then with the same.
    let changes = apply(&mut index, &[pod("q", "b", json!({}))]);
    assert_eq!((bound(&index).0.as_str(), ambiguous(&index)), ("-", true));
    assert!(changes.pods.contains(&Name::new("shop", "p")), "others judge for it: {changes:?}");
    apply(&mut index, &for_account("shop/v", "b"));
    assert_eq!((bound(&index).0.as_str(), ambiguous(&index)), ("-", true));
    apply(&mut index, &[namespace("shop", with("w"))]);
    assert_eq!((bound(&index).0.as_str(), ambiguous(&index)), ("shop/w by Namespace", true));
    remove(&mut index, &[pod("q", "b", json!({}))]);
    assert_eq!((bound(&index).0.as_str(), ambiguous(&index)), ("shop/w by Account(\"a\")", false));
}

#[test]
fn what_was_in_force_stays_in_force() {
    let (all, web, p) = (own("shop/w"), service("web", with("w")), pod("p", "a", json!({})));
    let name = Name::new("shop", "w");
    let mut index = index();
    apply(&mut index, &[all[0].clone(), all[1].clone(), web.clone(), p.clone()]);
    assert_eq!(bound(&index).0, "not shop/w: NotReady");
    assert!(index.enforcing(index.pod(&Name::new("shop", "p")).unwrap()).is_empty());
    // Its first replica is ready.
    let changes = apply(&mut index, &all[2..]);
    assert_eq!(changes.kept, [Kept::Ready(name.clone())]);
    assert!(
        changes.services.contains(&Name::new("shop", "web"))
            && changes.pods.contains(&Name::new("shop", "p"))
    );
    assert_eq!(bound(&index).0, "shop/w by Label");
    assert_eq!(index.enforcing(index.pod(&Name::new("shop", "p")).unwrap()), [name.clone()].into());
    // It goes, and then the whole waypoint: nothing goes around.
    remove(&mut index, &all[2..]);
    assert_eq!(index.ready_replicas(&name), (0, 0));
    assert_eq!(bound(&index).0, "shop/w by Label");
    let changes = remove(&mut index, &all[..2]);
    assert_eq!((bound(&index).0.as_str(), changes.kept), ("shop/w by Label", vec![]));
    // After a restart, too.
    let mut restarted = Index::new("istio-system".into());
    restarted.remember(&[(*object(&all[0])).clone()]);
    apply(&mut restarted, &[web.clone(), p.clone()]);
    assert_eq!(bound(&restarted).0, "shop/w by Label");
    // Once nobody asks for it any more, it is forgotten.
    let changes = apply(&mut index, &[service("web", json!({}))]);
    assert_eq!((bound(&index).0.as_str(), changes.kept), ("-", vec![Kept::Gone(name)]));
    apply(&mut index, &[web]);
    assert_eq!(bound(&index).0, "not shop/w: Missing");
}

#[test]
fn a_waypoint_does_not_go_by_itself() {
    let mut index = index();
    let all =
        [labelled("shop/w", "istio.io/waypoint-for", "all"), vec![namespace("shop", with("w"))]].concat();
    apply(&mut index, &all);
    let service = index.service(&Name::new("shop", "w")).unwrap();
    let replica = index.pod(&Name::new("shop", "w-1")).unwrap();
    assert_eq!((index.service_bound(service), index.pod_bound(replica)), (Bound::Unasked, Bound::Unasked));
}

#[test]
fn who_takes_only_what_comes_by_a_waypoint_by_table() {
    let yes = json!({"lateen.dev/require-waypoint": "true"});
    for (about, extra, expected) in [
        ("nobody asks", vec![], false),
        ("the namespace", vec![namespace("shop", yes.clone())], true),
        ("the account", vec![account("a", yes.clone())], true),
        ("another account", vec![account("b", yes.clone())], false),
        ("a service of it", vec![service("web", yes.clone())], true),
        (
            "something else than true",
            vec![namespace("shop", json!({"lateen.dev/require-waypoint": "false"}))],
            false,
        ),
    ] {
        let mut index = index();
        let first = apply(&mut index, &[pod("p", "a", json!({}))]);
        assert!(first.pods.contains(&Name::new("shop", "p")));
        let changes = apply(&mut index, &extra);
        assert_eq!(index.requires_waypoint(index.pod(&Name::new("shop", "p")).unwrap()), expected, "{about}");
        assert!(
            !expected || changes.pods.contains(&Name::new("shop", "p")),
            "{about}: it is translated again"
        );
    }
}

#[test]
fn a_service_of_another_namespace_says_nothing_of_who_judges() {
    let labels = json!({"istio.io/use-waypoint": "w", "lateen.dev/require-waypoint": "true"});
    let grab = |namespace: &str| {
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"name": "grab", "namespace": namespace, "labels": labels},
               "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}})
    };
    let p = pod("p", "a", json!({}));
    let address = p["status"]["podIPs"][0]["ip"].clone();
    let named =
        json!({"addresses": [address], "targetRef": {"kind": "Pod", "namespace": "shop", "name": "p"}});
    let slice = |namespace: &str, endpoint: &Value| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": "s", "namespace": namespace, "labels": {"kubernetes.io/service-name": "grab"}},
               "endpoints": [endpoint], "ports": [{"name": "", "port": 80}]})
    };
    for endpoint in [named, json!({"addresses": [address]})] {
        for (namespace, judges) in [("other", false), ("shop", true)] {
            let mut index = index();
            let made = [grab(namespace), slice(namespace, &endpoint), p.clone()];
            apply(&mut index, &[&own(&format!("{namespace}/w"))[..], &made].concat());
            let pod = index.pod(&Name::new("shop", "p")).unwrap();
            assert_eq!(index.services_of(pod).len(), 1, "its endpoint it is");
            let found = (!index.enforcing(pod).is_empty(), index.requires_waypoint(pod));
            assert_eq!(found, (judges, judges), "{namespace} {endpoint}");
        }
    }
}

#[test]
fn of_two_waypoints_for_one_account_the_older_counts() {
    let made = |name: &str, year: &str| {
        let mut all = for_account(name, "a");
        all[0]["metadata"]["creationTimestamp"] = json!(format!("{year}-01-01T00:00:00Z"));
        all
    };
    for (first, second, expected) in
        [("2025", "2026", "shop/v"), ("2026", "2025", "shop/w"), ("2026", "2026", "shop/v")]
    {
        let mut index = index();
        apply(
            &mut index,
            &[
                made("shop/v", first),
                made("shop/w", second),
                vec![pod("p", "a", json!({})), service("web", json!({}))],
            ]
            .concat(),
        );
        assert_eq!(bound(&index).1, format!("{expected} by Account(\"a\")"));
    }
}
