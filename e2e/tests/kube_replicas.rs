//! Several controllers beside one another on a real Kubernetes: one authority, one memory of what was last good, one that
//! writes; and revisions. Needs what `e2e/cluster/build` builds (`make e2e-kubernetes`).

use std::time::Duration;

use e2e::cluster::shop::object;
use e2e::cluster::{Cluster, Ctrl};
use serde_json::Value;

fn networking(kind: &str, spec: &str) -> String {
    object(kind, "reviews", "{}", spec)
}

/// The numbers of the roots that a controller trusts, with what each is for.
fn roots(ctrl: &Ctrl) -> Vec<(String, String)> {
    let status = ctrl.json("/ca");
    let all = status["certificates"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let roots = all.iter().filter(|one| one["kind"] == "root");
    roots.map(|one| (text(one, "state"), text(one, "serial"))).collect()
}

fn holder(cluster: &Cluster, lease: &str) -> String {
    cluster.field(&["lease", "-n", "istio-system", lease], "{.spec.holderIdentity}")
}

#[test]
fn replicas_have_one_authority_which_outlives_all_of_them() {
    let Some(cluster) = Cluster::start("replicas_have_one_authority_which_outlives_all_of_them") else {
        return;
    };
    // At once: whoever comes first makes it.
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| cluster.replica("ctrl-1", 15_012));
        let second = scope.spawn(|| cluster.replica("ctrl-2", 16_012));
        (first.join().expect("it serves"), second.join().expect("it serves"))
    });
    let root = roots(&first);
    assert_eq!(root.len(), 1);
    assert_eq!(roots(&second), root);

    // A change of roots is one replica's doing and all replicas' matter.
    first.eventually("a leader", || match holder(&cluster, "lateen-leader") {
        holder if holder.is_empty() => Err("none".to_owned()),
        _ => Ok(()),
    });
    let (leader, other) =
        if holder(&cluster, "lateen-leader") == "ctrl-1" { (&first, &second) } else { (&second, &first) };
    let refused = other.post("/ca/rotate-root");
    assert!(!refused.ok(), "{refused}");
    leader.eventually("the leader to take it", || match leader.post("/ca/rotate-root") {
        done if done.ok() => Ok(()),
        refused => Err(refused.to_string()),
    });
    let phase = |ctrl: &Ctrl| ctrl.json("/ca")["phase"].clone();
    for ctrl in [leader, other] {
        ctrl.eventually("the new root beside the old one", || match (roots(ctrl).len(), phase(ctrl)) {
            (2, _) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // Nobody is connected, so it signs as soon as every replica has had the time to say so.
    for ctrl in [leader, other] {
        ctrl.eventually("the new root to sign", || match roots(ctrl).first() {
            Some((state, serial)) if state == "current" && *serial != root[0].1 => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    assert_eq!(roots(leader), roots(other));
    let now = roots(leader);

    // On another node, with nothing of its own: the same.
    drop((first, second));
    let third = cluster.replica("ctrl-3", 15_012);
    assert_eq!(roots(&third), now);
}

#[test]
fn an_authority_in_a_secret_cacerts_is_plugged_in() {
    let Some(cluster) = Cluster::start("an_authority_in_a_secret_cacerts_is_plugged_in") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let script = "openssl ecparam -name prime256v1 -genkey -noout -out root-key.pem
        openssl req -x509 -new -key root-key.pem -days 30 -subj /O=bank/CN=root -out root-cert.pem
        openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out ca-key.pem
        printf 'basicConstraints=critical,CA:true\\nkeyUsage=critical,keyCertSign,cRLSign\\n' >ext
        openssl req -new -key ca-key.pem -subj /O=bank/CN=mesh -out ca.csr
        openssl x509 -req -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 20 -extfile ext -out ca-cert.pem
        cat ca-cert.pem root-cert.pem >cert-chain.pem";
    let made = std::process::Command::new("bash").args(["-ec", script]).current_dir(folder.path()).output();
    assert!(made.expect("bash").status.success());
    let from = |file: &str| format!("--from-file={}", folder.path().join(file).display());
    let files = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"].map(from);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let made = cluster
        .kubectl(&[&["create", "secret", "generic", "-n", "istio-system", "cacerts"], &*files].concat());
    assert!(made.ok(), "{made}");
    let ctrl = cluster.ctrl();
    let status = ctrl.json("/ca");
    assert_eq!(status["authority"], "plugged in", "{status}");
    assert!(status.to_string().contains("CN=root"), "{status}");
    // Its key is nobody's to keep.
    let stored = cluster.field(&["secret", "-n", "istio-system", "lateen-ca"], "{.data.authorities\\.json}");
    assert!(!stored.is_empty());
    let key = std::fs::read(folder.path().join("ca-key.pem")).expect("the key");
    let inside = String::from_utf8_lossy(&key).lines().nth(1).expect("its first line").to_owned();
    let decoded =
        std::process::Command::new("bash").args(["-c", "echo \"$0\" | base64 -d", &stored]).output();
    assert!(!String::from_utf8_lossy(&decoded.expect("base64").stdout).contains(&inside));
}

const RULES: &str = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}";
const SUBSETS: &str = "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}";

/// What the controller says of the host's rules: whether they are held.
fn held(ctrl: &Ctrl) -> Option<String> {
    let objects = ctrl.json("/objects/vs?namespace=shop&name=reviews");
    let conditions = objects.pointer("/0/status/conditions")?.as_array()?;
    let one = conditions.iter().find(|one| one["type"] == "Held")?;
    one["status"].as_str().map(str::to_owned)
}

#[test]
fn what_was_last_good_is_known_to_a_controller_that_comes_new() {
    let Some(cluster) = Cluster::start("what_was_last_good_is_known_to_a_controller_that_comes_new") else {
        return;
    };
    cluster.define();
    cluster.open_shop();
    let first = cluster.replica("ctrl-1", 15_012);
    cluster.apply(&[networking("DestinationRule", SUBSETS), networking("VirtualService", RULES)].concat());
    first.eventually("the rules", || match first.names("vs", "shop").len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    let map = ["cm", "-n", "istio-system", "lateen-last-good-default-0"];
    let is_kept = || {
        first.eventually("the routing to be kept", || match cluster.field(&map, "{.binaryData.routings}") {
            text if text.len() > 40 => Ok(()),
            text => Err(text),
        });
    };
    is_kept();
    // What somebody else does to it is put right.
    let nothing = r#"{"binaryData": {"routings": ""}}"#;
    for (verb, arguments) in [("delete", &[][..]), ("patch", &["--type=merge", "-p", nothing])] {
        let done = cluster.kubectl(&[&[verb], &map[..], arguments].concat());
        assert!(done.ok(), "{done}");
        is_kept();
    }
    assert!(cluster.kubectl(&["delete", "dr", "-n", "shop", "reviews"]).ok());
    first.eventually("the rules to be held", || match held(&first) {
        Some(status) if status == "True" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Beside it, and in its place on another node, with no memory of their own.
    let second = cluster.replica("ctrl-2", 16_012);
    assert_eq!(held(&second).as_deref(), Some("True"));
    drop(first);
    let third = cluster.replica("ctrl-3", 17_012);
    assert_eq!(held(&third).as_deref(), Some("True"));
    cluster.apply(&networking("DestinationRule", SUBSETS));
    for ctrl in [&second, &third] {
        ctrl.eventually("the rules to resolve", || match held(ctrl) {
            Some(status) if status == "True" => Err(status),
            _ => Ok(()),
        });
    }
}

#[test]
fn two_revisions_each_take_account_of_their_own() {
    let Some(cluster) = Cluster::start("two_revisions_each_take_account_of_their_own") else { return };
    cluster.define();
    cluster.permit_revision("canary");
    cluster.open_shop();
    let stable = cluster.replica("ctrl-1", 15_012);
    let canary =
        cluster.replica_with("canary-1", 16_012, &["--revision", "canary", "--revision-tags", "next"]);
    assert_eq!(roots(&stable), roots(&canary), "workloads of both trust one another");
    let policy =
        |name: &str, labels: &str| object("AuthorizationPolicy", name, labels, "{action: DENY, rules: [{}]}");
    let all = [
        policy("of-all", "{}"),
        policy("of-stable", "{istio.io/rev: default}"),
        policy("of-canary", "{istio.io/rev: canary}"),
        policy("of-tag", "{istio.io/rev: next}"),
    ];
    cluster.apply(&all.concat());
    let sees = |ctrl: &Ctrl, wanted: &[&str]| {
        ctrl.eventually("its own", || {
            let mut names = ctrl.names("ap", "shop");
            names.sort();
            if names == wanted { Ok(()) } else { Err(format!("{names:?}")) }
        });
    };
    sees(&stable, &["of-all", "of-stable"]);
    sees(&canary, &["of-all", "of-canary", "of-tag"]);
    // Each has its status, whoever is to write it.
    let said = "{.status.conditions[?(@.type==\"ZtunnelAccepted\")].status}";
    for name in ["of-all", "of-stable", "of-canary", "of-tag"] {
        canary.eventually(name, || match cluster.field(&["ap", "-n", "shop", name], said) {
            status if status == "True" => Ok(()),
            other => Err(other),
        });
    }
    assert_eq!(holder(&cluster, "lateen-leader-canary"), "canary-1");
    assert_eq!(holder(&cluster, "lateen-leader-default"), "ctrl-1");
    // Moved from one to the other.
    let moved =
        cluster.kubectl(&["label", "ap", "-n", "shop", "of-stable", "istio.io/rev=canary", "--overwrite"]);
    assert!(moved.ok(), "{moved}");
    sees(&stable, &["of-all"]);
    sees(&canary, &["of-all", "of-canary", "of-stable", "of-tag"]);
}

/// How long the next leader may take: the Lease lasts 15 s.
const SUCCESSION: Duration = Duration::from_secs(40);

#[test]
fn the_next_replica_leads_when_the_leader_is_killed() {
    let Some(cluster) = Cluster::start("the_next_replica_leads_when_the_leader_is_killed") else { return };
    cluster.define();
    cluster.open_shop();
    let mut replicas = [
        Some(cluster.replica("ctrl-1", 15_012)),
        Some(cluster.replica("ctrl-2", 16_012)),
        Some(cluster.replica("ctrl-3", 17_012)),
    ];
    let leader = |lease: &str| holder(&cluster, lease);
    let one = replicas[0].as_ref().expect("it serves");
    for lease in ["lateen-leader", "lateen-leader-default"] {
        one.eventually(lease, || match leader(lease) {
            name if name.is_empty() => Err("nobody".to_owned()),
            _ => Ok(()),
        });
    }
    let before = leader("lateen-leader-default");
    let place: usize = before.trim_start_matches("ctrl-").parse().expect("a number");
    let root = roots(one);
    drop(replicas[place - 1].take());
    let killed = std::time::Instant::now();
    cluster.apply(&object("AuthorizationPolicy", "late", "{}", "{action: DENY, rules: [{}]}"));
    let alive = replicas.iter().flatten().next().expect("two are left");
    let said = "{.status.conditions[?(@.type==\"ZtunnelAccepted\")].status}";
    alive.eventually("a status by the next leader", || {
        match cluster.field(&["ap", "-n", "shop", "late"], said) {
            status if status == "True" => Ok(()),
            other => Err(other),
        }
    });
    assert!(killed.elapsed() < SUCCESSION, "{:?}", killed.elapsed());
    assert_ne!(leader("lateen-leader-default"), before);
    for ctrl in replicas.iter().flatten() {
        assert_eq!(roots(ctrl), root);
    }
}
