//! The controller on a real Kubernetes: what is written with kubectl takes effect, and what is in force outlives the API
//! server. Needs what `e2e/cluster/build` builds (`make e2e-kubernetes`).

use std::io::Write;
use std::process::Stdio;

use e2e::cluster::shop::object;
use e2e::cluster::{Cluster, Ctrl};
use serde_json::{Value, json};

fn policy(name: &str, spec: &str) -> String {
    object("AuthorizationPolicy", name, "{}", spec)
}

/// A namespace with one running pod and its service.
fn shop(cluster: &Cluster) {
    cluster.open_shop();
    cluster.run_pod("reviews-1", "10.244.1.2");
}

/// What a condition of an object says: status, reason and message.
fn condition(objects: &Value, kind: &str) -> Option<(String, String, String)> {
    let conditions = objects.pointer("/0/status/conditions")?.as_array()?;
    let one = conditions.iter().find(|one| one["type"] == kind)?;
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Waits until node agents enforce a policy for so many pods.
fn enforced(ctrl: &Ctrl, name: &str, pods: &str) {
    ctrl.eventually(name, || {
        let objects = ctrl.json(&format!("/objects/ap?namespace=shop&name={name}"));
        match condition(&objects, "ZtunnelAccepted") {
            Some((status, _, message)) if status == "True" && message.contains(pods) => Ok(()),
            _ => Err(objects.to_string()),
        }
    });
}

/// Lines of the log that are no mere information; that this machine lets few files be open is none of a test's.
fn complaints(ctrl: &Ctrl) -> Vec<String> {
    let log = ctrl.log();
    let lines = log.lines().filter(|line| line.contains("\twarn\t") || line.contains("\terror\t"));
    lines.filter(|line| !line.contains("few files")).map(str::to_owned).collect()
}

#[test]
fn what_is_written_with_kubectl_takes_effect() {
    let Some(cluster) = Cluster::start("what_is_written_with_kubectl_takes_effect") else { return };
    // Before any definition is there, which is nothing to complain about.
    let ctrl = cluster.ctrl();
    assert_eq!(complaints(&ctrl), Vec::<String>::new());
    shop(&cluster);
    ctrl.eventually("the pod", || match &*ctrl.names("pods", "shop") {
        [one] if one == "reviews-1" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let before = ctrl.json("/sync")["revision"].as_u64();

    cluster.define();
    cluster.apply(&policy("deny", "{action: DENY, selector: {matchLabels: {app: reviews}}, rules: [{}]}"));
    enforced(&ctrl, "deny", "1 pod");
    assert!(ctrl.json("/sync")["revision"].as_u64() > before, "{}", ctrl.json("/sync"));

    // An older version of the same object is the same object.
    let older = policy("deny", "{action: DENY, selector: {matchLabels: {app: nobody}}, rules: [{}]}");
    cluster.apply(&older.replace("security.istio.io/v1", "security.istio.io/v1beta1"));
    enforced(&ctrl, "deny", "0 pods");
    assert!(cluster.kubectl(&["delete", "ap", "-n", "shop", "deny"]).ok());
    ctrl.eventually("the policy's end", || match ctrl.names("ap", "shop") {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    // With its definition all objects of a kind go, and come back with it.
    cluster.apply(&policy("deny", "{action: DENY, rules: [{}]}"));
    enforced(&ctrl, "deny", "1 pod");
    assert!(cluster.kubectl(&["delete", "crd", "authorizationpolicies.security.istio.io"]).ok());
    ctrl.eventually("the kind's end", || match ctrl.names("ap", "shop") {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    cluster.define();
    cluster.apply(&policy("deny", "{action: DENY, rules: [{}]}"));
    enforced(&ctrl, "deny", "1 pod");
    assert_eq!(complaints(&ctrl), Vec::<String>::new());
}

#[test]
fn what_is_in_force_outlives_the_api_server() {
    let Some(cluster) = Cluster::start("what_is_in_force_outlives_the_api_server") else { return };
    cluster.define();
    shop(&cluster);
    cluster.apply(&policy("first", "{action: DENY, rules: [{}]}"));
    let ctrl = cluster.ctrl();
    enforced(&ctrl, "first", "1 pod");
    let revision = ctrl.json("/sync")["revision"].clone();

    cluster.stop("kube-apiserver");
    ctrl.eventually("the outage to be told", || match &*complaints(&ctrl) {
        [] => Err("no warning".to_owned()),
        _ => Ok(()),
    });
    enforced(&ctrl, "first", "1 pod");
    cluster.up();
    // Told once, though every kind has a watch of its own; and nothing was taken for gone, or for new.
    cluster.apply(&policy("second", "{action: DENY, rules: [{}]}"));
    assert_eq!(ctrl.json("/sync")["revision"], revision, "nothing is different yet");
    enforced(&ctrl, "second", "1 pod");
    enforced(&ctrl, "first", "1 pod");
    let said = complaints(&ctrl);
    assert!(said.len() == 1 && said[0].contains("stays in force"), "{said:?}");

    // What goes while nobody can be told is gone afterwards.
    drop(ctrl);
    assert!(cluster.kubectl(&["delete", "ap", "-n", "shop", "first"]).ok());
    let ctrl = cluster.ctrl();
    assert_eq!(ctrl.names("ap", "shop"), ["second"], "all of it is known once it serves");
}

#[test]
fn definitions_refuse_what_istio_refuses() {
    let Some(cluster) = Cluster::start("definitions_refuse_what_istio_refuses") else { return };
    cluster.define();
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    let networking = |kind: &str, spec: &str| object(kind, "x", "{}", spec);
    let rule = |spec: &str| networking("DestinationRule", spec);
    let service = |spec: &str| networking("VirtualService", spec);
    let peer = |spec: &str| object("PeerAuthentication", "x", "{}", spec);
    let bad = [
        (policy("x", "{action: DNEY}"), "Unsupported value: \"DNEY\""),
        (policy("x", "{rules: [{form: []}]}"), "unknown field \"spec.rules[0].form\""),
        (policy("x", "{rules: [{when: [{values: [a]}]}]}"), "key: Required value"),
        (policy("x", "{selector: {matchLabels: {app: 'a*'}}}"), "no wildcards"),
        (policy("x", "{selector: {}, targetRefs: [{kind: Service, name: a}]}"), "not both"),
        (policy("x", "{targetRefs: [{kind: Service}]}"), "name: Required value"),
        (policy("x", "{targetRefs: [{kind: Service, name: a, namespace: b}]}"), "own namespace"),
        (
            policy("x", "{rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]}"),
            "cannot stand beside",
        ),
        (peer("{mtls: {mode: LOOSE}}"), "Unsupported value: \"LOOSE\""),
        (peer("{portLevelMtls: {'80': {mode: STRICT}}}"), "needs a selector"),
        (peer("{selector: {matchLabels: {a: b}}, portLevelMtls: {'0': {mode: STRICT}}}"), "from 1 to 65535"),
        (rule("{subsets: []}"), "host: Required value"),
        (rule("{host: a, subsets: [{labels: {v: '1'}}]}"), "name: Required value"),
        (rule("{host: a, trafficPolicy: {tls: {mode: SOME}}}"), "Unsupported value: \"SOME\""),
        (
            rule("{host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 10}}}}"),
            "must be of type string",
        ),
        (rule("{host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0s}}}}"), "at least 1ms"),
        (
            rule(
                "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}",
            ),
            "oneOf",
        ),
        (
            rule("{host: a, trafficPolicy: {outlierDetection: {outlierDetectionHttpErrorCodes: [99]}}}"),
            "greater than or equal to 100",
        ),
        (service("{http: [{route: [{weight: 1}]}]}"), "destination: Required value"),
        (service("{http: [{route: [{destination: {subset: a}}]}]}"), "host: Required value"),
        (service("{http: [{match: [{uri: {exact: a, prefix: b}}]}]}"), "oneOf"),
        (service("{http: [{timeout: soon}]}"), "spec.http[0].timeout"),
        (service("{http: [{fault: {abort: {httpStatus: 500, grpcStatus: ABORTED}}}]}"), "oneOf"),
        (service("{tls: [{match: [{port: 443}]}]}"), "sniHosts: Required value"),
        (service("{http: [{directResponse: {body: {string: a}}}]}"), "status: Required value"),
        (service("{hosts: a}"), "must be of type array"),
    ];
    for (manifest, part) in bad {
        let refused = cluster.try_apply(&manifest);
        assert!(!refused.ok() && refused.stderr.contains(part), "{part}: {refused}\n{manifest}");
    }
    let good = [
        policy(
            "x",
            "{action: ALLOW, rules: [{from: [{source: {principals: ['cluster.local/ns/a/sa/b']}}], to: [{operation: {methods: [GET]}}]}]}",
        ),
        policy(
            "at-target",
            "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]}",
        ),
        peer(
            "{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}, portLevelMtls: {'9090': {mode: PERMISSIVE}}}",
        ),
        rule(
            "{host: a, subsets: [{name: v1, labels: {version: v1}}], trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: null}}}}",
        ),
        service(
            "{hosts: [a], http: [{match: [{uri: {prefix: /a}, headers: {x: {exact: b}}}], route: [{destination: {host: a, subset: v1, port: {number: 80}}, weight: 10}], timeout: 1.5s, retries: {attempts: 2, perTryTimeout: 500ms}}]}",
        ),
    ];
    for manifest in good {
        cluster.apply(&manifest);
    }
    let shown = cluster.kubectl(&["get", "ap,pa,vs,dr", "-n", "shop"]);
    assert!(shown.ok(), "{shown}");
    for part in ["ACTION", "ENFORCED", "REASON", "MODE", "HOSTS", "HOST", "AGE", "[\"a\"]", "STRICT"] {
        assert!(shown.stdout.contains(part), "{part}: {shown}");
    }
}

#[test]
fn statuses_are_written_by_the_leader_and_only_when_they_change() {
    let Some(cluster) = Cluster::start("statuses_are_written_by_the_leader_and_only_when_they_change") else {
        return;
    };
    cluster.define();
    shop(&cluster);
    cluster.apply(&policy("deny", "{action: DENY, selector: {matchLabels: {app: reviews}}, rules: [{}]}"));
    let first = cluster.replica("ctrl-1", 15_012);
    let deny = ["ap", "-n", "shop", "deny"];
    let said = "{.status.conditions[?(@.type==\"ZtunnelAccepted\")].message}";
    first.eventually("the status", || match cluster.field(&deny, said) {
        text if text.contains("1 pod") => Ok(()),
        text => Err(text),
    });
    let row = cluster.kubectl(&["get", "ap", "-n", "shop", "deny", "--no-headers"]).stdout;
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[..4], ["deny", "DENY", "True", "Accepted"]);
    let wide = cluster.kubectl(&["get", "ap", "-n", "shop", "deny", "-o", "wide"]).stdout;
    assert!(wide.contains("MESSAGE") && wide.contains("enforced by node agents for 1 pod"), "{wide}");
    let manager = "{.metadata.managedFields[?(@.subresource==\"status\")].manager}";
    let managed = cluster.kubectl(&[
        "get",
        "ap",
        "-n",
        "shop",
        "deny",
        "--show-managed-fields",
        &format!("-ojsonpath={manager}"),
    ]);
    assert_eq!(managed.stdout, "lateen-ctrl");

    // What is of no consequence to it is not written: its version stays.
    let second = cluster.replica("ctrl-2", 16_012);
    let version = cluster.field(&deny, "{.metadata.resourceVersion}");
    cluster.apply(&policy("other", "{action: DENY, selector: {matchLabels: {app: nobody}}, rules: [{}]}"));
    let other = ["ap", "-n", "shop", "other"];
    first.eventually("the other status", || match cluster.field(&other, said) {
        text if text.contains("0 pods") => Ok(()),
        text => Err(text),
    });
    assert_eq!(cluster.field(&deny, "{.metadata.resourceVersion}"), version);
    let holder = ["lease", "-n", "istio-system", "lateen-leader"];
    assert_eq!(cluster.field(&holder, "{.spec.holderIdentity}"), "ctrl-1");

    // The next one leads when the first is gone, and writes nothing that stands there.
    drop(first);
    let broken = policy("late", "{action: ALLOW, rules: [{from: [{source: {ipBlocks: [somewhere]}}]}]}");
    cluster.apply(&broken);
    let late = ["ap", "-n", "shop", "late"];
    second.eventually("the status by the next leader", || match cluster.field(&late, said) {
        text if text.contains("everything it is for is refused") => Ok(()),
        text => Err(text),
    });
    assert_eq!(cluster.field(&holder, "{.spec.holderIdentity}"), "ctrl-2");
    assert_eq!(cluster.field(&deny, "{.metadata.resourceVersion}"), version);
}

#[test]
fn every_namespace_has_the_root_certificates() {
    let Some(cluster) = Cluster::start("every_namespace_has_the_root_certificates") else { return };
    let ctrl = cluster.ctrl();
    shop(&cluster);
    let map = ["cm", "-n", "shop", "istio-ca-root-cert"];
    let roots = || cluster.field(&map, "{.data.root-cert\\.pem}");
    let there = || match roots() {
        text if text.starts_with("-----BEGIN CERTIFICATE-----") => Ok(()),
        text => Err(text),
    };
    ctrl.eventually("the roots", there);
    let before = roots();
    // Made up, and taken away.
    let spoilt = cluster.kubectl(&[
        "patch",
        "cm",
        "-n",
        "shop",
        "istio-ca-root-cert",
        "-p",
        r#"{"data": {"root-cert.pem": "x"}}"#,
    ]);
    assert!(spoilt.ok(), "{spoilt}");
    ctrl.eventually("the roots again", there);
    assert!(cluster.kubectl(&["delete", "cm", "-n", "shop", "istio-ca-root-cert"]).ok());
    ctrl.eventually("the roots once more", there);
    assert_eq!(roots(), before);
}

const AGENT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: ztunnel, namespace: istio-system}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-1, namespace: istio-system}
spec:
  nodeName: NODE
  serviceAccountName: ztunnel
  automountServiceAccountToken: false
  containers: [{name: agent, image: none.invalid/agent:1}]
";

/// A token of an account, for an audience, bound to a pod if one is named.
fn token(cluster: &Cluster, namespace: &str, account: &str, audience: &str, pod: Option<&str>) -> String {
    let mut arguments = vec!["create", "token", account, "-n", namespace, "--audience", audience];
    if let Some(pod) = pod {
        arguments.extend(["--bound-object-kind", "Pod", "--bound-object-name", pod]);
    }
    let made = cluster.kubectl(&arguments);
    assert!(made.ok(), "{made}");
    made.stdout.trim().to_owned()
}

/// Asks the controller for a certificate as a proxy does, trusting what the ConfigMap says; what it is refused with.
fn certificate(cluster: &Cluster, identity: &str, token: &str, impersonate: bool) -> Result<(), String> {
    let roots = cluster.field(&["cm", "-n", "shop", "istio-ca-root-cert"], "{.data.root-cert\\.pem}");
    let given = json!({"address": "https://127.0.0.1:15012", "roots": roots, "token": token, "impersonate": impersonate});
    let mut child = cluster
        .inside(e2e::example("certificate"))
        .arg(identity)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    child.stdin.take().expect("a pipe").write_all(given.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn agents_and_workloads_prove_who_they_are_by_their_tokens() {
    let Some(cluster) = Cluster::start("agents_and_workloads_prove_who_they_are_by_their_tokens") else {
        return;
    };
    shop(&cluster);
    cluster.apply(&AGENT.replace("NODE", "node-1"));
    cluster.apply(&AGENT.replace("NODE", "node-2").replace("agent-1", "agent-2"));
    let ctrl = cluster.ctrl();
    ctrl.eventually("the roots", || {
        match cluster.field(&["cm", "-n", "shop", "istio-ca-root-cert"], "{.metadata.name}") {
            name if name.is_empty() => Err("not there".to_owned()),
            _ => Ok(()),
        }
    });
    let reviews = "spiffe://cluster.local/ns/shop/sa/reviews";
    let audience = "istio-ca";
    let agent = token(&cluster, "istio-system", "ztunnel", audience, Some("agent-1"));
    let elsewhere = token(&cluster, "istio-system", "ztunnel", audience, Some("agent-2"));
    let nowhere = token(&cluster, "istio-system", "ztunnel", audience, None);
    let other_audience = token(&cluster, "istio-system", "ztunnel", "vault", Some("agent-1"));
    let own = token(&cluster, "shop", "reviews", audience, None);
    certificate(&cluster, reviews, &agent, true).expect("an agent speaks for the pods of its node");
    certificate(&cluster, reviews, &own, false).expect("a workload speaks for itself");
    for (about, identity, token, impersonate, cause) in [
        ("the agent of another node", reviews, &elsewhere, true, "no pod on node"),
        ("an agent's account outside a pod", reviews, &nowhere, true, "bound to no node"),
        ("a token for somebody else", reviews, &other_audience, true, "does not vouch"),
        (
            "a workload for another",
            "spiffe://cluster.local/ns/shop/sa/ratings",
            &own,
            true,
            "asks for a certificate of",
        ),
        ("a stranger", reviews, &"made up".to_owned(), true, "does not vouch"),
    ] {
        let refused = certificate(&cluster, identity, token, impersonate);
        assert!(refused.is_err(), "{about}");
        ctrl.eventually(about, || match ctrl.log().contains(cause) {
            true => Ok(()),
            false => Err(format!("{refused:?}")),
        });
    }
}
