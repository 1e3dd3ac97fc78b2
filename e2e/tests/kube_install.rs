//! Installing, upgrading and uninstalling on a real cluster of two nodes, by `lateen` and by helm.

use std::time::Instant;

use e2e::cluster::Cluster;
use e2e::report::told;
use e2e::{Outcome, run};

/// What this cluster needs of the values: its range of pods.
const RANGE: &str = "mesh.podCidrs={10.244.0.0/16}";

fn passed(what: &str, outcome: &Outcome) {
    assert!(outcome.ok(), "{what}: {outcome}");
}

/// A stage of a test, with its time.
fn stage<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let out = work();
    told(what, begun);
    out
}

#[test]
fn lateen_installs_upgrades_and_uninstalls() {
    let Some(cluster) = Cluster::with_nodes("lateen_installs_upgrades_and_uninstalls", 2) else { return };
    let nothing = cluster.lateen(&["upgrade"]);
    assert_eq!(nothing.code, 1, "{nothing}");
    assert!(nothing.stderr.contains("use: lateen install"), "{nothing}");
    let unknown = cluster.lateen(&["install", "--set", "ctrl.replica=2"]);
    assert_eq!(unknown.code, 1, "{unknown}");
    assert!(unknown.stderr.contains("there is no setting ctrl.replica"), "{unknown}");

    let checked = stage("precheck", || cluster.lateen(&["x", "precheck"]));
    passed("precheck", &checked);
    assert!(checked.stdout.contains("is not installed; waypoints need it"), "{checked}");
    let tried = cluster.lateen(&["install", "--dry-run", "--set", RANGE]);
    passed("install --dry-run", &tried);
    assert!(tried.stdout.contains("new        Deployment istio-system/lateen-ctrl"), "{tried}");
    assert!(cluster.field(&["ns", "istio-system"], "{.metadata.name}").is_empty(), "nothing was changed");

    let installed =
        stage("install, until ready", || cluster.lateen(&["install", "--set", RANGE, "--timeout", "120"]));
    passed("install", &installed);
    assert!(installed.stdout.contains("DaemonSet istio-system/lateen-node-agent"), "{installed}");
    connected(&cluster);
    let again = cluster.lateen(&["install", "--dry-run", "--set", RANGE]);
    passed("install --dry-run", &again);
    assert!(again.stdout.contains("unchanged  Deployment istio-system/lateen-ctrl"), "{again}");

    // The value from before is kept, and what the new values have no more goes.
    let scaled = ["upgrade", "--set", "ctrl.autoscaling.enabled=true", "--set", "ctrl.autoscaling.min=1"];
    passed("upgrade", &stage("upgrade", || cluster.lateen(&scaled)));
    let scaler = ["hpa", "-n", "istio-system", "lateen-ctrl"];
    assert_eq!(cluster.field(&scaler, "{.spec.minReplicas}"), "1");
    let ranges = "{.spec.template.spec.containers[0].env[?(@.name=='POD_CIDRS')].value}";
    let ctrl = ["deployment", "-n", "istio-system", "lateen-ctrl"];
    assert_eq!(cluster.field(&ctrl, ranges), "10.244.0.0/16");
    passed("upgrade", &cluster.lateen(&["upgrade", "--set", "ctrl.autoscaling.enabled=false"]));
    assert_eq!(cluster.field(&scaler, "{.spec.minReplicas}"), "");

    let gone = stage("uninstall", || cluster.lateen(&["uninstall", "--purge"]));
    passed("uninstall", &gone);
    let left = cluster.kubectl(&["get", "clusterroles,clusterrolebindings,crds", "-o", "name"]);
    assert!(left.ok() && !left.stdout.contains("lateen") && !left.stdout.contains("istio.io"), "{left}");
    let left = cluster.kubectl(&["get", "all,cm,secrets,sa,pdb,leases", "-n", "istio-system", "-o", "name"]);
    assert!(left.ok() && !left.stdout.contains("lateen"), "{left}");
    let again = cluster.lateen(&["uninstall"]);
    passed("uninstall", &again);
    assert!(again.stdout.contains("nothing is installed"), "{again}");
}

/// The controller says that an agent of every node is connected to it and has everything.
fn connected(cluster: &Cluster) {
    let all = e2e::until(e2e::PATIENCE, || {
        let status = cluster.lateen(&["proxy-status"]);
        let names = |name: &&str| status.stdout.contains(name);
        let all = status.ok() && ["node-agent/node-1", "node-agent/node-2"].iter().all(names);
        if all { Ok(()) } else { Err(status.to_string()) }
    });
    let last = all.err();
    let log = || cluster.kubectl(&["logs", "-n", "istio-system", "-l", "app=lateen-node-agent", "--prefix"]);
    assert!(last.is_none(), "{}\n{}", last.unwrap_or_default(), log());
    let version = cluster.lateen(&["version"]);
    passed("version", &version);
    for name in ["ctrl/lateen-ctrl-", "node-agent/node-1", "node-agent/node-2"] {
        assert!(version.stdout.contains(name), "{version}");
    }
}

#[test]
fn who_may_not_install_is_told_what_is_missing() {
    let Some(cluster) = Cluster::start("who_may_not_install_is_told_what_is_missing") else { return };
    cluster.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: reader, namespace: default}}");
    let token = cluster.kubectl(&["create", "token", "reader"]);
    passed("token", &token);
    let kubeconfig = cluster.kubeconfig(token.stdout.trim());
    let by = |arguments: &[&str]| {
        run(cluster.inside(e2e::lateen()).arg("--kubeconfig").arg(&kubeconfig).args(arguments))
    };
    let refused = by(&["install"]);
    assert_eq!(refused.code, 77, "{refused}");
    for part in ["system:serviceaccount:default:reader", "create clusterroles.rbac.authorization.k8s.io"] {
        assert!(refused.stderr.contains(part), "{refused}");
    }
    let unread = by(&["--context", "nobody", "install"]);
    assert_eq!(unread.code, 77, "{unread}");
    let elsewhere = run(cluster.inside(e2e::lateen()).args(["--kubeconfig", "/nonexistent", "install"]));
    assert_eq!(elsewhere.code, 77, "{elsewhere}");
    assert!(elsewhere.stderr.contains("name a kubeconfig with --kubeconfig"), "{elsewhere}");
    cluster.stop("kube-apiserver");
    let silent = cluster.lateen(&["install"]);
    assert_eq!(silent.code, 77, "{silent}");
    assert!(silent.stderr.contains("does not answer"), "{silent}");
}
