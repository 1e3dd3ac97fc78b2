//! Random policies in few words, so that they often concern the same things, and connections that they concern.

use std::net::SocketAddr;

use model::identity::Identity;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

/// A connection to the pod `shop/cart`.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) source: SocketAddr,
    pub(crate) identity: Option<Identity>,
    pub(crate) destination: SocketAddr,
}

pub(crate) fn connection() -> impl Strategy<Value = Connection> {
    let identity =
        (select(vec!["cluster.local", "other.org"]), select(vec!["shop", "web"]), select(vec!["a", "b"]));
    let source = select(vec!["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1"]);
    let port = select(vec![8080_u16, 9090]);
    (option::weighted(0.75, identity), source, port).prop_map(|(identity, source, port)| Connection {
        source: (source.parse::<std::net::IpAddr>().unwrap(), 40000).into(),
        identity: identity.map(|(domain, namespace, account)| Identity::new(domain, namespace, account)),
        destination: ([10, 244, 1, 7], port).into(),
    })
}

/// The pod and some policies, of its namespace, of all, and of others.
pub(crate) fn world() -> impl Strategy<Value = Vec<Value>> {
    let policies = prop::collection::vec(policy(), 0..4);
    let peers = prop::collection::vec(peer(), 0..3);
    (policies, peers).prop_map(|(policies, peers)| {
        let mut world = vec![json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "cart", "namespace": "shop", "labels": {"app": "cart", "tier": "back"}},
            "spec": {"nodeName": "n", "serviceAccountName": "cart", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.7"}]},
        })];
        let named = |(place, mut object): (usize, Value)| {
            object["metadata"]["name"] = json!(format!("p{place}"));
            object
        };
        world.extend(policies.into_iter().chain(peers).enumerate().map(named));
        world
    })
}

fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![5 => Just("shop"), 3 => Just("istio-system"), 1 => Just("web")]
}

fn selector() -> impl Strategy<Value = Option<Value>> {
    let labels = prop_oneof![
        4 => Just(json!({"app": "cart"})),
        1 => Just(json!({"app": "cart", "tier": "back"})),
        1 => Just(json!({"app": "cart", "tier": "front"})),
        1 => Just(json!({"app": "other"})),
        1 => Just(json!({})),
    ];
    option::of(labels.prop_map(|labels| json!({"matchLabels": labels})))
}

fn policy() -> impl Strategy<Value = Value> {
    let action = prop_oneof![5 => Just("ALLOW"), 4 => Just("DENY"), 1 => Just("AUDIT"), 1 => Just("CUSTOM")];
    let rules = prop::collection::vec(rule(), 0..3);
    let target = option::weighted(0.05, Just(json!([{"kind": "Service", "group": "", "name": "cart"}])));
    let common = (namespace(), selector(), action, rules, target, prop::bool::weighted(0.1));
    common.prop_map(|(namespace, selector, action, rules, targets, dry_run)| {
        let mut spec = json!({"action": action, "rules": rules});
        if action == "CUSTOM" {
            spec["provider"] = json!({"name": "somebody"});
        }
        match (targets, selector) {
            (Some(targets), _) => spec["targetRefs"] = targets,
            (None, Some(selector)) => spec["selector"] = selector,
            (None, None) => {}
        }
        let annotations = if dry_run { json!({"istio.io/dry-run": "true"}) } else { json!({}) };
        json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
               "metadata": {"namespace": namespace, "annotations": annotations}, "spec": spec})
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let from = prop::collection::vec(source(), 1..3);
    let to = prop::collection::vec(operation(), 1..3);
    let when = prop::collection::vec(condition(), 1..3);
    (option::weighted(0.7, from), option::weighted(0.4, to), option::weighted(0.4, when)).prop_map(
        |(from, to, when)| {
            let mut rule = Map::new();
            if let Some(from) = from {
                let from = from.into_iter().map(|source| json!({"source": source})).collect();
                rule.insert("from".to_owned(), Value::Array(from));
            }
            if let Some(to) = to {
                let to = to.into_iter().map(|operation| json!({"operation": operation})).collect();
                rule.insert("to".to_owned(), Value::Array(to));
            }
            if let Some(when) = when {
                rule.insert("when".to_owned(), Value::Array(when));
            }
            Value::Object(rule)
        },
    )
}

const PRINCIPALS: [&str; 9] = [
    "cluster.local/ns/shop/sa/a",
    "cluster.local/ns/web/sa/b",
    "other.org/ns/shop/sa/a",
    "*",
    "cluster.local/*",
    "cluster.local/ns/shop/*",
    "other.org/ns/*",
    "*/sa/b",
    "*/ns/web/sa/a",
];
const NAMESPACES: [&str; 5] = ["shop", "web", "*", "sh*", "*eb"];
const ACCOUNTS: [&str; 4] = ["a", "shop/b", "web/a", "web/b"];
const DOMAINS: [&str; 6] = ["cluster.local", "other.org", "*", "cluster*", "*.org", "o*"];
const RANGES: [&str; 7] = [
    "10.0.0.1",
    "10.0.0.0/24",
    "10.1.0.0/16",
    "0.0.0.0/0",
    "fd00::/8",
    "::ffff:10.0.0.0/120",
    "192.168.0.0/16",
];
const PORTS: [&str; 3] = ["8080", "9090", "7070"];

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(of.to_vec(), 1..=2)
}

/// A field of a source, by a name of its own for those that exclude others.
fn source() -> impl Strategy<Value = Value> {
    let identity = prop_oneof![
        (some(&PRINCIPALS), any::<bool>()).prop_map(|(v, not)| vec![(not, "rincipals", "p", v)]),
        (some(&NAMESPACES), any::<bool>()).prop_map(|(v, not)| vec![(not, "amespaces", "n", v)]),
        (some(&ACCOUNTS), any::<bool>()).prop_map(|(v, not)| vec![(not, "erviceAccounts", "s", v)]),
        (some(&PRINCIPALS), some(&PRINCIPALS))
            .prop_map(|(v, w)| vec![(false, "rincipals", "p", v), (true, "rincipals", "p", w)]),
        (some(&PRINCIPALS), some(&NAMESPACES), any::<bool>())
            .prop_map(|(v, w, not)| vec![(false, "rincipals", "p", v), (not, "amespaces", "n", w)]),
        Just(vec![]),
    ];
    let domain = option::weighted(0.25, (some(&DOMAINS), any::<bool>()));
    let range = option::weighted(0.3, (some(&RANGES), any::<bool>()));
    let unseen = option::weighted(0.1, select(vec!["requestPrincipals", "notRemoteIpBlocks"]));
    (identity, domain, range, unseen).prop_map(|(identity, domain, range, unseen)| {
        let mut source = Map::new();
        let mut put = |not: bool, rest: &str, first: &str, values: Vec<&str>| {
            let name = match not {
                true => format!("not{}{rest}", first.to_uppercase()),
                false => format!("{first}{rest}"),
            };
            source.insert(name, json!(values));
        };
        identity.into_iter().for_each(|(not, rest, first, values)| put(not, rest, first, values));
        if let Some((values, not)) = domain {
            put(not, "rustDomains", "t", values);
        }
        if let Some((values, not)) = range {
            put(not, "pBlocks", "i", values);
        }
        match unseen {
            Some("notRemoteIpBlocks") => {
                drop(source.insert("notRemoteIpBlocks".to_owned(), json!(["1.2.3.4"])))
            }
            Some(name) => drop(source.insert(name.to_owned(), json!(["*"]))),
            None => {}
        }
        if source.is_empty() {
            source.insert("ipBlocks".to_owned(), json!(["10.0.0.0/8"]));
        }
        Value::Object(source)
    })
}

fn operation() -> impl Strategy<Value = Value> {
    let ports = (some(&PORTS), any::<bool>());
    let unseen = select(vec!["methods", "notPaths", "hosts"]);
    (option::weighted(0.8, ports), option::weighted(0.4, unseen)).prop_map(|(ports, unseen)| {
        let mut operation = Map::new();
        if let Some((ports, not)) = ports {
            operation.insert(if not { "notPorts" } else { "ports" }.to_owned(), json!(ports));
        }
        if let Some(name) = unseen {
            operation.insert(name.to_owned(), json!(["GET"]));
        }
        if operation.is_empty() {
            operation.insert("ports".to_owned(), json!(["8080"]));
        }
        Value::Object(operation)
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        some(&RANGES).prop_map(|values| ("source.ip", values)),
        some(&NAMESPACES).prop_map(|values| ("source.namespace", values)),
        some(&PRINCIPALS).prop_map(|values| ("source.principal", values)),
        some(&ACCOUNTS).prop_map(|values| ("source.serviceAccount", values)),
        some(&DOMAINS).prop_map(|values| ("source.trustDomain", values)),
        select(vec!["10.244.0.0/16", "10.244.1.8", "10.244.1.7"])
            .prop_map(|value| ("destination.ip", vec![value])),
        some(&PORTS).prop_map(|values| ("destination.port", values)),
        Just(("request.headers[x-token]", vec!["v"])),
        Just(("connection.sni", vec!["*.example"])),
    ];
    (key, any::<bool>()).prop_map(|((key, values), not)| {
        let field = if not { "notValues" } else { "values" };
        json!({"key": key, field: values})
    })
}

fn peer() -> impl Strategy<Value = Value> {
    let mode = || select(vec!["STRICT", "PERMISSIVE", "DISABLE", "UNSET"]);
    let ports = option::of((select(vec!["8080", "9090"]), mode()));
    let created = option::of(select(vec!["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]));
    (namespace(), selector(), mode(), ports, created).prop_map(|(namespace, selector, mode, ports, created)| {
        let mut spec = json!({"mtls": {"mode": mode}});
        let selects = selector.as_ref().is_some_and(|s| s["matchLabels"].as_object().is_some_and(|l| !l.is_empty()));
        if let Some(selector) = selector {
            spec["selector"] = selector;
        }
        if let (Some((port, mode)), true) = (ports, selects) {
            spec["portLevelMtls"] = json!({port: {"mode": mode}});
        }
        let mut metadata = json!({"namespace": namespace});
        if let Some(created) = created {
            metadata["creationTimestamp"] = json!(created);
        }
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": metadata, "spec": spec})
    })
}
