//! Gateways on a real Kubernetes: what they become, and what their statuses say. Needs what `e2e/cluster/build` builds
//! (`make e2e-kubernetes`).

use e2e::cluster::{Cluster, Ctrl};

/// Paths into a Gateway's status.
const PROGRAMMED: &str = "{.status.conditions[?(@.type==\"Programmed\")]";
const ACCEPTED: &str = "{.status.conditions[?(@.type==\"Accepted\")]";
const RESOLVED: &str = "{.status.conditions[?(@.type==\"ResolvedRefs\")]";
const VERSION: &str = "{.metadata.resourceVersion}";

fn gateway(name: &str, class: &str, infrastructure: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  gatewayClassName: {class}\n  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]\n  \
         infrastructure: {{{infrastructure}}}\n"
    )
}

fn parameters(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: p, namespace: shop}}\ndata: {data}\n")
}

/// A cluster in which Gateways are known, and its controller.
fn cluster(test: &str) -> Option<(Cluster, Ctrl)> {
    let cluster = Cluster::start(test)?;
    let ctrl = cluster.ctrl();
    cluster.define();
    cluster.define_gateway_api();
    cluster.open_shop();
    Some((cluster, ctrl))
}

/// An object of `shop`, for `kubectl get`.
fn object<'a>(kind: &'a str, name: &'a str) -> [&'a str; 4] {
    [kind, name, "-n", "shop"]
}

/// Waits until a field says so.
fn says(cluster: &Cluster, ctrl: &Ctrl, (kind, name): (&str, &str), path: &str, wanted: &str) {
    let what = format!("{path} of {kind} {name} to say {wanted:?}");
    ctrl.eventually(&what, || match cluster.field(&object(kind, name), path) {
        text if text.contains(wanted) && text.is_empty() == wanted.is_empty() => Ok(()),
        text => Err(text),
    });
}

#[test]
fn a_gateway_becomes_what_runs_it_and_stays_it() {
    let Some((cluster, ctrl)) = cluster("a_gateway_becomes_what_runs_it_and_stays_it") else { return };
    for class in ["istio-waypoint", "lateen-waypoint"] {
        ctrl.eventually("the class", || {
            match cluster.field(&["gatewayclass", class], "{.status.conditions[0].reason}") {
                text if text == "Accepted" => Ok(()),
                text => Err(text),
            }
        });
    }
    cluster.apply(&gateway("w", "istio-waypoint", "labels: {team: x}"));
    cluster.apply(&gateway("other", "istio", ""));
    for kind in ["sa", "deployment", "service", "pdb"] {
        says(&cluster, &ctrl, (kind, "w"), "{.metadata.labels.team}", "x");
        says(&cluster, &ctrl, (kind, "w"), "{.metadata.ownerReferences[0].kind}", "Gateway");
    }
    let w = ("gateway", "w");
    says(&cluster, &ctrl, w, &format!("{ACCEPTED}.status}}"), "True");
    says(&cluster, &ctrl, w, &format!("{RESOLVED}.status}}"), "True");
    says(&cluster, &ctrl, w, &format!("{PROGRAMMED}.message}}"), "0 of 0 replicas are ready");
    let accepted = cluster.field(&object("gateway", "other"), &format!("{ACCEPTED}.reason}}"));
    assert_eq!(accepted, "Pending", "another controller's Gateway is left alone");
    assert!(!cluster.kubectl(&[&["get"], &object("deployment", "other")[..]].concat()).ok());
    assert!(!cluster.kubectl(&[&["get"], &object("hpa", "w")[..]].concat()).ok(), "nobody asked for one");

    // What somebody else changes or removes is put right; what nobody asked for is theirs.
    assert!(cluster.kubectl(&["scale", "-n", "shop", "deployment/w", "--replicas=4"]).ok());
    assert!(
        cluster.kubectl(&["set", "image", "-n", "shop", "deployment/w", "istio-proxy=none.invalid/x:1"]).ok()
    );
    assert!(cluster.kubectl(&["delete", "service", "-n", "shop", "w"]).ok());
    assert!(cluster.kubectl(&["label", "sa", "-n", "shop", "w", "team-"]).ok());
    says(
        &cluster,
        &ctrl,
        ("deployment", "w"),
        "{.spec.template.spec.containers[0].image}",
        "lateen.dev/waypoint",
    );
    says(&cluster, &ctrl, ("service", "w"), "{.spec.ports[1].appProtocol}", "hbone");
    says(&cluster, &ctrl, ("sa", "w"), "{.metadata.labels.team}", "x");
    assert_eq!(cluster.field(&object("deployment", "w"), "{.spec.replicas}"), "4");

    // The next leader writes nothing that stands there.
    let version =
        || ["deployment", "service", "sa", "pdb"].map(|kind| cluster.field(&object(kind, "w"), VERSION));
    let before = version();
    let second = cluster.replica("ctrl-2", 16_012);
    drop(ctrl);
    cluster.apply(&gateway("later", "lateen-waypoint", ""));
    says(
        &cluster,
        &second,
        ("pdb", "later"),
        "{.metadata.labels.gateway\\.istio\\.io/managed}",
        "lateen.dev-mesh-controller",
    );
    says(&cluster, &second, ("gateway", "later"), &format!("{ACCEPTED}.status}}"), "True");
    assert_eq!(version(), before);
}

#[test]
fn parameters_change_what_a_gateway_becomes() {
    let Some((cluster, ctrl)) = cluster("parameters_change_what_a_gateway_becomes") else { return };
    let reference = "parametersRef: {group: '', kind: ConfigMap, name: p}";
    let w = ("gateway", "w");
    cluster.apply(&gateway("w", "istio-waypoint", reference));
    says(&cluster, &ctrl, w, &format!("{RESOLVED}.message}}"), "no ConfigMap shop/p");
    says(&cluster, &ctrl, w, &format!("{ACCEPTED}.reason}}"), "InvalidParameters");
    assert!(!cluster.kubectl(&[&["get"], &object("deployment", "w")[..]].concat()).ok());

    cluster.apply(&parameters(
        "{deployment: 'spec: {replicas: 2}', horizontalPodAutoscaler: 'spec: {minReplicas: 3}'}",
    ));
    says(&cluster, &ctrl, ("hpa", "w"), "{.spec.minReplicas}", "3");
    says(&cluster, &ctrl, w, &format!("{RESOLVED}.status}}"), "True");
    says(&cluster, &ctrl, w, &format!("{ACCEPTED}.status}}"), "True");
    // What was asked for is asked for no more.
    cluster.apply(&parameters("{deployment: 'spec: {replicas: 2}'}"));
    says(&cluster, &ctrl, ("hpa", "w"), "{.spec.minReplicas}", "");
    says(&cluster, &ctrl, ("deployment", "w"), "{.spec.replicas}", "2");

    // What cannot be used changes nothing, and is told: by us, or by the API server.
    cluster.apply(&parameters("{deploymnt: 'spec: {replicas: 5}'}"));
    says(&cluster, &ctrl, w, &format!("{ACCEPTED}.message}}"), "\"deploymnt\" is none of");
    cluster.apply(&parameters("{deployment: 'spec: {replicas: 2, paused: maybe}'}"));
    says(&cluster, &ctrl, w, &format!("{PROGRAMMED}.message}}"), "the API server refuses its Deployment");
    assert_eq!(cluster.field(&object("deployment", "w"), "{.spec.replicas}"), "2");

    // Nothing gives this cluster's Services addresses of load balancers.
    cluster.apply(&parameters("{service: 'spec: {type: LoadBalancer}'}"));
    says(&cluster, &ctrl, ("service", "w"), "{.spec.type}", "LoadBalancer");
    says(&cluster, &ctrl, w, &format!("{PROGRAMMED}.reason}}"), "AddressNotAssigned");
    says(&cluster, &ctrl, w, &format!("{PROGRAMMED}.message}}"), "type LoadBalancer");
}

#[test]
fn what_others_made_is_not_touched() {
    let Some((cluster, ctrl)) = cluster("what_others_made_is_not_touched") else { return };
    let theirs =
        "{apiVersion: v1, kind: Service, metadata: {name: w, namespace: shop}, spec: {ports: [{port: 80}]}}";
    cluster.apply(theirs);
    cluster.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: w, namespace: shop}}");
    let version = || ["service", "sa"].map(|kind| cluster.field(&object(kind, "w"), VERSION));
    let before = version();
    cluster.apply(&gateway("w", "istio-waypoint", ""));
    let w = ("gateway", "w");
    says(
        &cluster,
        &ctrl,
        w,
        &format!("{PROGRAMMED}.message}}"),
        "a Service shop/w that was not made for this Gateway",
    );
    assert_eq!(version(), before);
    assert!(cluster.kubectl(&["delete", "service", "-n", "shop", "w"]).ok());
    says(&cluster, &ctrl, ("service", "w"), "{.spec.ports[1].appProtocol}", "hbone");
    says(&cluster, &ctrl, w, &format!("{PROGRAMMED}.message}}"), "0 of 0 replicas are ready");
    assert_eq!(version()[1], before[1], "an account that is there is as good");

    // Its class is another controller's from now on: what was made for it goes, and nothing of it is written any more.
    cluster.apply(&gateway("w", "istio", ""));
    says(&cluster, &ctrl, ("deployment", "w"), "{.metadata.name}", "");
    says(&cluster, &ctrl, ("service", "w"), "{.metadata.name}", "");
    let status = cluster.field(&object("gateway", "w"), VERSION);
    cluster.apply(&gateway("v", "istio-waypoint", ""));
    says(&cluster, &ctrl, ("gateway", "v"), &format!("{ACCEPTED}.status}}"), "True");
    assert_eq!(cluster.field(&object("gateway", "w"), VERSION), status);
}

#[test]
fn a_namespace_takes_its_waypoints_to_another_revision_and_back() {
    let Some((cluster, stable)) = cluster("a_namespace_takes_its_waypoints_to_another_revision_and_back")
    else {
        return;
    };
    cluster.permit_revision("canary");
    let settings = [
        ["--revision", "canary"],
        ["--revision-tags", "next"],
        ["--waypoint-controller", "https://lateen-ctrl-canary.istio-system.svc:15012"],
    ];
    let canary = cluster.replica_with("canary-1", 16_012, &settings.concat());
    cluster.apply(&gateway("w", "istio-waypoint", ""));
    let asked = "{.spec.template.spec.containers[0].env[?(@.name==\"XDS_ADDRESS\")].value}";
    let address = |name: &str| format!("https://{name}.istio-system.svc:15012");
    says(&cluster, &stable, ("deployment", "w"), asked, &address("lateen-ctrl"));
    for (round, (label, ctrl, name)) in [
        ("istio.io/rev=canary", &canary, "lateen-ctrl-canary"),
        ("istio.io/rev=default", &stable, "lateen-ctrl"),
        ("istio.io/rev=next", &canary, "lateen-ctrl-canary"),
        ("istio.io/rev-", &stable, "lateen-ctrl"),
    ]
    .into_iter()
    .enumerate()
    {
        // Nothing but the label changes.
        let labelled = cluster.kubectl(&["label", "namespace", "shop", "--overwrite", label]);
        assert!(labelled.ok(), "{labelled}");
        says(&cluster, ctrl, ("deployment", "w"), asked, &address(name));
        // Its status follows as well.
        let listener = format!("mesh-{round}");
        cluster.apply(
            &gateway("w", "istio-waypoint", "").replace("{name: mesh,", &format!("{{name: {listener},")),
        );
        says(&cluster, ctrl, ("gateway", "w"), "{.status.listeners[0].name}", &listener);
    }
}

const REPLICA: &str = "
apiVersion: v1
kind: Pod
metadata: {name: w-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: w}}
spec: {serviceAccountName: w, automountServiceAccountToken: false, containers: [{name: c, image: none.invalid/w:1}]}
";
#[test]
fn who_asks_for_a_waypoint_gets_it() {
    let Some((cluster, ctrl)) = cluster("who_asks_for_a_waypoint_gets_it") else { return };
    cluster.run_pod("reviews-1", "10.244.1.2");
    cluster.apply(
        &gateway("w", "istio-waypoint", "")
            .replace("{name: w,", "{name: w, labels: {istio.io/waypoint-for: all},"),
    );
    says(&cluster, &ctrl, ("sa", "w"), "{.metadata.name}", "w");
    cluster.apply(REPLICA);
    cluster.run_pod("w-1", "10.244.1.3");
    says(&cluster, &ctrl, ("gateway", "w"), &format!("{PROGRAMMED}.status}}"), "True");
    let address = "{.status.addresses[?(@.type==\"Hostname\")].value}";
    says(&cluster, &ctrl, ("gateway", "w"), address, "w.shop.svc.cluster.local");
    says(&cluster, &ctrl, ("gateway", "w"), "{.status.listeners[0].conditions[0].status}", "True");

    // What is said of an object, asked of the controller: only a Service's status is ours to write.
    let bound = |kind: &str, name: &str| {
        let objects = ctrl.json(&format!("/objects/{kind}?namespace=shop&name={name}"));
        let conditions = objects.pointer("/0/status/conditions").and_then(|all| all.as_array()).cloned();
        let bound = conditions.into_iter().flatten().find(|one| one["type"] == "istio.io/WaypointBound");
        bound.map(|one| one["message"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    let label = |object: &str, label: &str| {
        let labelled = cluster.kubectl(&["label", "--overwrite", "-n", "shop", object, label]);
        assert!(labelled.ok(), "{labelled}");
    };
    let asks = |object: &str, asked: &str, kind: &str, name: &str, wanted: &str| {
        label(object, asked);
        ctrl.eventually(&format!("{object} {asked}"), || match bound(kind, name) {
            text if text.contains(wanted) && text.is_empty() == wanted.is_empty() => Ok(()),
            text => Err(text),
        });
    };
    let used = "istio.io/use-waypoint=w";
    asks("service/reviews", used, "service", "reviews", "goes by waypoint shop/w, asked for by its label");
    says(&cluster, &ctrl, ("service", "reviews"), "{.status.conditions[0].reason}", "WaypointAccepted");
    asks("service/reviews", "istio.io/use-waypoint-namespace=far", "service", "reviews", "no Gateway far/w");
    label("service/reviews", "istio.io/use-waypoint-namespace-");
    asks("service/reviews", "istio.io/use-waypoint-", "service", "reviews", "");
    asks("pod/reviews-1", used, "pod", "reviews-1", "goes by waypoint shop/w, asked for by its label");
    asks("pod/reviews-1", "istio.io/use-waypoint-", "pod", "reviews-1", "");
    asks(
        "namespace/shop",
        used,
        "service",
        "reviews",
        "goes by waypoint shop/w, asked for by the namespace's label",
    );
    asks("service/reviews", "istio.io/use-waypoint=none", "service", "reviews", "");
    label("service/reviews", "istio.io/use-waypoint-");
    asks("namespace/shop", "istio.io/use-waypoint-", "service", "reviews", "");
    // The Gateway itself says for whose pods it is.
    let annotated = ["annotate", "-n", "shop", "gateway/w", "istio.io/for-service-account=reviews"];
    assert!(cluster.kubectl(&annotated).ok());
    for (kind, name) in [("service", "reviews"), ("pod", "reviews-1"), ("serviceaccount", "reviews")] {
        ctrl.eventually("the account's waypoint", || match bound(kind, name) {
            text if text.contains("which is for service account reviews") => Ok(()),
            text => Err(format!("{kind}: {text}")),
        });
    }
}
