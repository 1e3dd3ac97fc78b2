//! What people write, as in Istio's documentation, is read without a word.

use super::{read, shown};
use crate::{
    BrokenScope, Key, Step, Typed,
    istio::{Action, MutualTlsMode},
};

const BOOKINFO: &str = include_str!("bookinfo.yaml");

#[test]
fn bookinfo_is_read_without_a_word() {
    let parsed = read(BOOKINFO);
    assert_eq!(shown(&parsed.findings), Vec::<String>::new());
    let keys: Vec<String> = parsed.objects.iter().map(|object| object.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Namespace bookinfo",
            "ServiceAccount bookinfo/bookinfo-productpage",
            "Service bookinfo/productpage",
            "Deployment bookinfo/productpage-v1",
            "Gateway bookinfo/waypoint",
            "AuthorizationPolicy bookinfo/productpage-viewer",
            "PeerAuthentication bookinfo/default",
            "Job bookinfo/once",
        ]
    );
}

#[test]
fn types_hold_what_was_written() {
    let parsed = read(BOOKINFO);
    let Typed::AuthorizationPolicy(policy) = &parsed.objects[5].spec else { panic!("a policy") };
    assert_eq!(policy.action, Action::Allow);
    assert_eq!(policy.rules[0].from[0].source.principals, ["cluster.local/ns/default/sa/curl"]);
    assert_eq!(policy.rules[0].when[1].not_values, ["10.0.0.0/8"]);
    let Typed::PeerAuthentication(peer) = &parsed.objects[6].spec else { panic!("a PeerAuthentication") };
    assert_eq!(peer.mtls.map(|mtls| mtls.mode), Some(MutualTlsMode::Strict));
    assert_eq!(peer.port_level_mtls.keys().map(|port| port.0).collect::<Vec<_>>(), [9080]);
    let Typed::Deployment(deployment) = &parsed.objects[3].spec else { panic!("a Deployment") };
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).expect("a pod's spec");
    assert_eq!(pod.service_account_name.as_deref(), Some("bookinfo-productpage"));
    let mode = pod.volumes.as_ref().and_then(|volumes| volumes[1].config_map.as_ref()?.default_mode);
    assert_eq!(mode, Some(0o644), "octal, as Kubernetes reads it");
}

#[test]
fn places_can_be_asked_for() {
    let parsed = read(BOOKINFO);
    let policy = &parsed.objects[5];
    let line = |needle: &str| {
        let from = BOOKINFO.find("kind: AuthorizationPolicy").expect("it is there");
        let at = from + BOOKINFO[from..].find(needle).expect("it is there");
        BOOKINFO[..at].lines().count()
    };
    assert_eq!(policy.position.line as usize + 1, line("kind: AuthorizationPolicy") + 1);
    assert_eq!(policy.locate_rule(0).to_string(), format!("f.yaml:{}:5", line("from:")));
    let action = policy.locate(&[Step::Key("spec"), Step::Key("action")]);
    assert_eq!(action.to_string(), format!("f.yaml:{}:3", line("action:")));
    assert_eq!(policy.locate_rule(7).line as usize, line("rules:"), "the deepest part that exists");
}

#[test]
fn an_object_without_namespace_belongs_to_default() {
    let parsed = read("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n");
    assert_eq!(parsed.objects[0].metadata.namespace.as_deref(), Some("default"));
    assert_eq!(parsed.objects[0].raw["metadata"]["namespace"], "default");
    let Typed::Pod(pod) = &parsed.objects[0].spec else { panic!("a pod") };
    assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
    let parsed = read("apiVersion: v1\nkind: Namespace\nmetadata: {name: n, namespace: x}\n");
    assert_eq!(parsed.objects[0].key().to_string(), "Namespace n", "its kind lives in no namespace");
}

#[test]
fn lists_are_opened() {
    let parsed = read(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: a}\n\
         - apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: b}\n",
    );
    assert_eq!(shown(&parsed.findings), Vec::<String>::new());
    assert_eq!(parsed.objects.iter().map(|o| o.metadata.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(parsed.objects[1].position.to_string(), "f.yaml:7:3");
}

#[test]
fn json_is_read_with_places() {
    let parsed = read(
        "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Secret\",\n  \"metadata\": {\"name\": \"s\"},\n  \
         \"data\": {\"k\": \"dg==\"},\n  \"dta\": {}\n}\n",
    );
    assert_eq!(shown(&parsed.findings), ["6:3 error dta: unknown field `dta` => did you mean `data`?"]);
}

#[test]
fn mesh_kinds_not_built_yet_are_refused_by_name() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text =
            format!("apiVersion: networking.istio.io/{version}\nkind: ServiceEntry\nmetadata: {{name: v}}\n");
        let parsed = read(&text);
        assert!(matches!(parsed.objects[0].spec, Typed::Unsupported));
        let expected = "2:7 error kind: ServiceEntry of networking.istio.io is not supported yet: it is refused and \
                        has no effect";
        assert_eq!(shown(&parsed.findings), [expected]);
    }
}

#[test]
fn other_peoples_kinds_are_left_out_aloud() {
    let parsed = read(
        "apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: m}\nspec: {x: 1}\n",
    );
    assert!(matches!(parsed.objects[0].spec, Typed::Other));
    let expected =
        "2:7 info kind: ServiceMonitor of monitoring.coreos.com/v1 has no effect on the mesh and is left out";
    assert_eq!(shown(&parsed.findings), [expected]);
}

#[test]
fn a_broken_policy_still_says_whom_it_was_for() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
        )
    };
    let app = [("app".to_owned(), "x".to_owned())].into();
    for (spec, scope) in [
        ("{selector: {matchLabels: {app: x}}, rule: []}", BrokenScope::Selector(app)),
        ("{selector: {matchLabel: {app: x}}}", BrokenScope::Namespace),
        ("{selector: {matchLabels: {app: 1}}}", BrokenScope::Namespace),
        ("{rule: []}", BrokenScope::Namespace),
        ("{targetRefs: [{kind: Service, nam: x}]}", BrokenScope::Targets),
    ] {
        let parsed = read(&policy(spec));
        assert!(matches!(parsed.objects[0].spec, Typed::Broken), "{spec}");
        assert_eq!(parsed.objects[0].broken_scope(), scope, "{spec}");
    }
    let key = Key {
        group: "security.istio.io".to_owned(),
        kind: "AuthorizationPolicy".to_owned(),
        namespace: Some("default".to_owned()),
        name: "p".to_owned(),
    };
    assert_eq!(read(&policy("{}")).objects[0].key(), key);
}

#[test]
fn what_kubectl_prints_is_read_again() {
    let parsed = read(include_str!("printed.yaml"));
    assert_eq!(shown(&parsed.findings), Vec::<String>::new());
    let pod = &parsed.objects[0];
    assert_eq!(pod.metadata.uid.as_deref(), Some("5b1d"));
    assert_eq!(pod.metadata.creation_timestamp.as_deref(), Some("2026-01-02T03:04:05Z"));
    let Typed::Pod(typed) = &pod.spec else { panic!("a pod") };
    let ready =
        typed.status.as_ref().and_then(|status| status.conditions.as_ref()).map(|all| all[0].status.as_str());
    assert_eq!(ready, Some("True"));
}
