//! The admission webhook on a real Kubernetes: what is wrong is said by the API server's answer, before it is stored; and
//! nobody who writes objects depends on the controller. Needs what `e2e/cluster/build` builds (`make e2e-kubernetes`).

use e2e::cluster::shop;
use e2e::cluster::{Cluster, Ctrl, chart};

/// The chart's configuration of the webhook, with an address instead of a Service, which nothing routes here.
fn register(cluster: &Cluster) {
    let mut found = chart(&[]).into_iter().filter(|one| one["kind"] == "ValidatingWebhookConfiguration");
    let mut webhook = found.next().expect("the chart has one");
    webhook["webhooks"][0]["clientConfig"] = serde_json::json!({"url": "https://127.0.0.1:15017/validate"});
    cluster.apply(&webhook.to_string());
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    shop::object(kind, name, "{}", spec)
}

fn policy(rules: &str) -> String {
    object("AuthorizationPolicy", "x", &format!("{{action: DENY, rules: [{rules}]}}"))
}

fn routes(rule: &str) -> String {
    let spec = format!("{{hosts: [reviews], http: [{{{rule}}}]}}");
    object("VirtualService", "x", &spec.replace("ROUTE", "route: [{destination: {host: reviews}}]"))
}

fn traffic(policy: &str) -> String {
    object("DestinationRule", "x", &format!("{{host: reviews, trafficPolicy: {{{policy}}}}}"))
}

/// Manifest, and parts of what is said: the field first.
fn refused() -> Vec<(String, [&'static str; 2])> {
    vec![
        (
            policy("{from: [{source: {ipBlocks: [somewhere]}}]}"),
            ["spec.rules[0].from[0].source.ipBlocks[0]", "somewhere"],
        ),
        (policy("{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}"), ["ipBlocks[0]", "a length from 0 to 32"]),
        (policy("{from: [{source: {notIpBlocks: [10.0.0]}}]}"), ["notIpBlocks[0]", "10.0.0"]),
        (policy("{from: [{source: {remoteIpBlocks: [x]}}]}"), ["remoteIpBlocks[0]", "CIDR"]),
        (policy("{from: [{source: {principals: ['']}}]}"), ["principals[0]", "empty"]),
        (policy("{when: [{key: request.nope, values: [a]}]}"), ["spec.rules[0].when[0].key", "request.nope"]),
        (policy("{when: [{key: source.ip, values: [a]}]}"), ["spec.rules[0].when[0].values[0]", "CIDR"]),
        (policy("{to: [{operation: {ports: [http]}}]}"), ["operation.ports[0]", "http"]),
        (policy("{to: [{operation: {ports: ['99999']}}]}"), ["operation.ports[0]", "99999"]),
        (policy("{to: [{operation: {paths: ['/{**}/{*}']}}]}"), ["operation.paths[0]", "{**}"]),
        (object("AuthorizationPolicy", "x", "{action: CUSTOM, rules: [{}]}"), ["spec.action", "provider"]),
        (
            object("AuthorizationPolicy", "x", "{action: DENY, provider: {name: a}, rules: [{}]}"),
            ["spec.provider", "DENY"],
        ),
        (
            object("AuthorizationPolicy", "x", "{targetRefs: [{kind: Pod, name: a}]}"),
            ["spec.targetRefs[0].kind", "Pod"],
        ),
        (routes("match: [{uri: {regex: '('}}], ROUTE"), ["spec.http[0].match[0].uri.regex", "RE2"]),
        (
            routes("ROUTE, retries: {attempts: 2, retryOn: sometimes}"),
            ["spec.http[0].retries.retryOn", "sometimes"],
        ),
        (
            routes("redirect: {uri: /a, redirectCode: 200}"),
            ["spec.http[0].redirect.redirectCode", "300 to 399"],
        ),
        (routes("redirect: {uri: /a}, ROUTE"), ["spec.http[0].route", "redirect"]),
        (routes("ROUTE, headers: {request: {set: {'a b': c}}}"), ["spec.http[0].headers.request.set", "a b"]),
        (
            routes("ROUTE, fault: {delay: {percentage: {value: 150}, fixedDelay: 1s}}"),
            ["percentage.value", "0 to 100"],
        ),
        (
            routes("ROUTE, mirror: {host: reviews}, mirrorPercentage: {value: 200}"),
            ["mirrorPercentage.value", "0 to 100"],
        ),
        (routes(""), ["spec.http[0]", "does not say what is done"]),
        (object("VirtualService", "x", "{hosts: [reviews]}"), ["spec", "no rule"]),
        (
            routes("rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}, ROUTE"),
            ["uriRegexRewrite", "cannot stand beside"],
        ),
        (
            object(
                "DestinationRule",
                "x",
                "{host: reviews, subsets: [{name: v, labels: {a: b}}, {name: v, labels: {a: c}}]}",
            ),
            ["spec.subsets[1].name", "a second subset"],
        ),
        (traffic("tls: {mode: MUTUAL}"), ["spec.trafficPolicy.tls.mode", "not supported"]),
        (
            traffic("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50}}]}}"),
            ["distribute[0].to", "50 percent together"],
        ),
        (
            object("DestinationRule", "x", "{host: reviews, exportTo: ['x y']}"),
            ["spec.exportTo[0]", "not a namespace"],
        ),
        (
            object("DestinationRule", "x", "{host: reviews, workloadSelector: {matchLabels: {a: b}}}"),
            ["spec.workloadSelector", "not supported"],
        ),
    ]
}

fn warned() -> Vec<(String, [&'static str; 2])> {
    let selector = "{selector: {matchLabels: {app: nobody}}";
    vec![
        (
            object("AuthorizationPolicy", "x", &format!("{selector}, rules: [{{}}]}}")),
            ["spec.selector.matchLabels", "app=nobody"],
        ),
        (
            object("PeerAuthentication", "x", &format!("{selector}, mtls: {{mode: STRICT}}}}")),
            ["spec.selector.matchLabels", "app=nobody"],
        ),
        (
            object("AuthorizationPolicy", "x", "{targetRefs: [{kind: Service, name: nobody}]}"),
            ["spec.targetRefs[0].name", "no Service `nobody`"],
        ),
        (
            policy("{from: [{source: {principals: [cluster.local/ns/nowhere/sa/x]}}]}"),
            ["principals[0]", "nowhere"],
        ),
        (routes("route: [{destination: {host: reviews, subset: v9}}]"), ["destination.subset", "v9"]),
        (routes("route: [{destination: {host: nobody}}]"), ["destination.host", "no Service `nobody`"]),
        (routes("ROUTE}, {match: [{uri: {prefix: /a}}], ROUTE"), ["spec.http[1]", "never used"]),
        (
            object("DestinationRule", "x", "{host: reviews, subsets: [{name: v, labels: {version: v9}}]}"),
            ["spec.subsets[0]", "no pod"],
        ),
        (object("DestinationRule", "x", "{host: nobody}"), ["spec.host", "no Service `nobody`"]),
    ]
}

/// Waits until the API server asks the webhook and believes it.
fn asked(cluster: &Cluster, ctrl: &Ctrl) {
    let bad = &refused()[0].0;
    ctrl.eventually("the webhook to be asked", || match cluster.try_apply_with(bad, &["--dry-run=server"]) {
        taken if taken.ok() => Err(taken.to_string()),
        _ => Ok(()),
    });
}

#[test]
fn what_is_wrong_is_said_before_it_is_stored_and_nobody_depends_on_it() {
    let Some(cluster) = Cluster::start("what_is_wrong_is_said_before_it_is_stored_and_nobody_depends_on_it")
    else {
        return;
    };
    cluster.define();
    cluster.open_shop();
    register(&cluster);
    let ctrl = cluster.ctrl();
    asked(&cluster, &ctrl);
    for (manifest, parts) in refused() {
        let refused = cluster.try_apply_with(&manifest, &["--dry-run=server"]);
        assert!(!refused.ok() && refused.stderr.contains("validator.lateen.dev"), "{refused}\n{manifest}");
        assert!(parts.iter().all(|part| refused.stderr.contains(part)), "{parts:?}: {refused}\n{manifest}");
    }
    for (manifest, parts) in warned() {
        let warned = cluster.try_apply_with(&manifest, &["--dry-run=server"]);
        assert!(warned.ok() && warned.stderr.contains("Warning: "), "{warned}\n{manifest}");
        assert!(parts.iter().all(|part| warned.stderr.contains(part)), "{parts:?}: {warned}\n{manifest}");
    }
    let good = cluster.try_apply(&policy("{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}"));
    assert!(good.ok() && !good.stderr.contains("Warning"), "{good}");

    // With nobody there to ask, all of it is taken; its status says what is wrong with it, once somebody is.
    drop(ctrl);
    let bad = object(
        "AuthorizationPolicy",
        "bad",
        "{action: DENY, rules: [{from: [{source: {ipBlocks: [somewhere]}}]}]}",
    );
    cluster.apply(&bad);
    let ctrl = cluster.ctrl();
    asked(&cluster, &ctrl);
    let said = ["get", "ap", "-n", "shop", "bad", "-ojsonpath={.status.conditions[0].message}"];
    ctrl.eventually("the status of what was taken", || match cluster.kubectl(&said).stdout {
        text if text.contains("somewhere") => Ok(()),
        text => Err(text),
    });
    // What is wrong already can be labelled, and deleted.
    let labelled = cluster.kubectl(&["label", "ap", "-n", "shop", "bad", "a=b"]);
    assert!(labelled.ok() && labelled.stderr.contains("somewhere"), "{labelled}");
    assert!(cluster.kubectl(&["delete", "ap", "-n", "shop", "bad"]).ok());
}
