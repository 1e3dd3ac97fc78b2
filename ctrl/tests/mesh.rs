//! The controller as proxies and operators meet it: manifests in folders, real TLS on loopback, tokens, and the xDS
//! client that node agents use.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

#[path = "mesh/world.rs"]
mod world;

use std::time::Duration;

use model::authz::{Subject, decide};
use model::identity::Identity;
use model::workload::TunnelProtocol;
use serde_json::json;
use world::{TOKEN, TOKEN_2, World, pod, policy, service};

/// What a pod's agent would decide about a connection to it.
fn verdict(mesh: &model::mesh::Mesh, uid: &str, account: Option<&str>) -> Option<String> {
    let workload = mesh.workload(uid)?;
    let policies = mesh.policies_for(workload).ok()?;
    let identity = account.map(|account| Identity::new("cluster.local", "shop", account));
    let subject = Subject {
        source: "10.244.9.9:40000".parse().unwrap(),
        identity: identity.as_ref(),
        destination: (workload.addresses[0], 8080).into(),
    };
    Some(decide(&policies, &subject).cause.to_string())
}

const CART: &str = "Kubernetes//Pod/shop/cart";

#[tokio::test]
async fn manifests_become_a_mesh_and_so_do_their_changes() {
    let world = World::new();
    world.write("service.yaml", &service("cart", "10.96.0.7"));
    world.write("policy.yaml", &policy("only-web", "ALLOW", "web"));
    world.object(&pod("cart", "10.244.1.7", false));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| verdict(mesh, CART, Some("web")).is_some()).await;
    proxy.read(|mesh| {
        let workload = mesh.workload(CART).unwrap();
        assert_eq!(workload.profile.protocol, TunnelProtocol::Tcp);
        assert_eq!(workload.profile.enforced_by.as_deref(), Some(&[][..]));
        let vip = model::address::NetworkAddress::new("".into(), "10.96.0.7".parse().unwrap());
        let service = mesh.service_at(&vip, "shop").unwrap();
        assert_eq!(service.key.hostname(), "cart.shop.svc.cluster.local");
        assert_eq!(workload.ports_of(&service.key).unwrap().get(80).unwrap().target, 8080);
        assert!(mesh.is_pod_address("10.244.200.1".parse().unwrap()));
        assert_eq!(verdict(mesh, CART, Some("web")).unwrap(), "allowed by: shop/only-web (rule 0)");
        let refused = "allow policies exist, but none allowed (considered: shop/only-web)";
        assert_eq!(verdict(mesh, CART, Some("other")).unwrap(), refused);
    });

    // Captured, and a DENY beside it, and then none.
    world.object(&pod("cart", "10.244.1.7", true));
    proxy.until(|mesh| mesh.workload(CART).unwrap().profile.protocol == TunnelProtocol::Hbone).await;
    world.write("deny.yaml", &policy("not-web", "DENY", "web"));
    let denied = "explicitly denied by: shop/not-web (rule 0)";
    proxy.until(|mesh| verdict(mesh, CART, Some("web")).as_deref() == Some(denied)).await;
    std::fs::remove_file(world.path("deny.yaml")).unwrap();
    proxy.until(|mesh| verdict(mesh, CART, Some("web")).unwrap().starts_with("allowed by")).await;

    // Who has no identity is refused once a PeerAuthentication says so; the policy comes with the workload.
    world.write(
        "strict.yaml",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n\
         spec: {mtls: {mode: STRICT}}\n",
    );
    let strict = "explicitly denied by: istio-system/istio_converted_static_strict (rule 0): a PeerAuthentication is STRICT, and \
                  this connection has no mutual TLS";
    proxy.until(|mesh| verdict(mesh, CART, None).as_deref() == Some(strict)).await;
    ctrl.stop().await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_with_its_place() {
    let world = World::new();
    world.write("policy.yaml", &policy("only-web", "ALLOW", "web"));
    world.object(&pod("cart", "10.244.1.7", true));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    let good = "allowed by: shop/only-web (rule 0)";
    proxy.until(|mesh| verdict(mesh, CART, Some("web")).as_deref() == Some(good)).await;
    let misspelt = policy("only-web", "ALLOW", "web").replace("principals", "principles");
    for (broken, code) in [("spec: [", "LAT0001"), (misspelt.as_str(), "IST0106")] {
        world.write("policy.yaml", broken);
        ctrl.until_finding(|finding| finding["code"] == code && finding["level"] == "Error").await;
        proxy.read(|mesh| assert_eq!(verdict(mesh, CART, Some("web")).as_deref(), Some(good)));
        let shown = ctrl.get("/objects/ap?namespace=shop&name=only-web").await;
        let condition = &shown[0]["status"]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("True"), &json!("Accepted")),
            "{shown}"
        );
        assert!(condition["message"].as_str().unwrap().contains("last good version"), "{shown}");
    }
    let findings = ctrl.get("/findings").await;
    let error = findings.as_array().unwrap().iter().find(|one| one["level"] == "Error").unwrap();
    assert!(error["file"].as_str().unwrap().ends_with("policy.yaml"), "{error}");
    assert!(error["line"].as_u64().unwrap() > 1, "{error}");
    ctrl.stop().await;
}

#[tokio::test]
async fn a_policy_that_was_never_good_denies_what_it_is_for() {
    let world = World::new();
    world.write("policy.yaml", &policy("only-web", "ALLOW", "web").replace("principals", "principles"));
    world.object(&pod("cart", "10.244.1.7", true));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    let denied = "policy shop/only-web is invalid, so that all it covers is denied";
    proxy.until(|mesh| verdict(mesh, CART, Some("web")).is_some_and(|cause| cause.starts_with(denied))).await;
    let shown = ctrl.get("/objects/AuthorizationPolicies").await;
    let condition = &shown[0]["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Invalid")));
    assert!(condition["message"].as_str().unwrap().contains("policy.yaml:"), "{shown}");
    ctrl.stop().await;
}

#[tokio::test]
async fn a_proxy_that_comes_back_is_sent_what_changed_and_nothing_else() {
    let world = World::new();
    world.write("policy.yaml", &policy("only-web", "ALLOW", "web"));
    for number in 1..50 {
        world.object(&pod(&format!("cart-{number}"), &format!("10.244.1.{number}"), true));
    }
    world.object(&pod("cart", "10.244.1.77", true));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| mesh.workloads().count() == 50).await;
    ctrl.until_in_force(1).await;
    let address = ctrl.address;
    ctrl.stop().await;

    let before = proxy.received();
    // While nobody watches, one pod goes.
    std::fs::remove_file(world.object_path("Pod", "cart")).unwrap();
    let ctrl = world.start_at(address).await;
    proxy.until(|mesh| mesh.workload(CART).is_none()).await;
    ctrl.until_in_force(1).await;
    proxy.read(|mesh| assert_eq!(mesh.workloads().count(), 49));
    let again = proxy.received() - before;
    assert!(again <= 1, "{again} updates for one removal");
    ctrl.stop().await;
}

#[tokio::test]
async fn tokens_open_the_door_and_only_their_own() {
    let world = World::new();
    let ctrl = world.start().await;
    let stranger = ctrl.proxy_with_token("node-1", "a token that nobody was given");
    let other = ctrl.proxy_with_token("node-2", TOKEN);
    let good = ctrl.proxy("node-1");
    good.ready().await;
    assert!(!stranger.is_ready() && !other.is_ready());
    let sync = ctrl.until_in_force(1).await;
    assert_eq!(sync["clients"][0]["node"], "node-1");
    assert_eq!(sync["clients"][0]["role"], "node-agent");
    let version = ctrl.get("/version").await;
    assert_eq!(version["ctrl"], env!("CARGO_PKG_VERSION"));
    ctrl.stop().await;
}

#[tokio::test]
async fn operators_find_objects_by_any_of_their_kinds_names() {
    let world = World::new();
    world.write("service.yaml", &service("cart", "10.96.0.7"));
    world.object(&pod("cart", "10.244.1.7", true));
    let ctrl = world.start().await;
    for path in ["/objects/po", "/objects/Pod?namespace=shop", "/objects/PODS?name=cart", "/objects/svc"] {
        let shown = ctrl.get(path).await;
        assert_eq!(shown.as_array().unwrap().len(), 1, "{path}: {shown}");
        assert_eq!(shown[0]["metadata"]["name"], "cart");
    }
    assert_eq!(ctrl.get("/objects/po?namespace=elsewhere").await, json!([]));
    assert_eq!(ctrl.status("/objects/poo").await, 404);
    assert_eq!(ctrl.status("/healthz/ready").await, 200);
    ctrl.stop().await;
}

/// From the file's last byte to the policy in a proxy's hands. The bound is generous: machines of tests are busy.
#[tokio::test]
async fn a_written_file_is_in_force_soon() {
    let world = World::new();
    world.object(&pod("cart", "10.244.1.7", true));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| mesh.workload(CART).is_some()).await;
    let mut times = Vec::new();
    for round in 0..20 {
        let account = format!("web-{round}");
        let begun = tokio::time::Instant::now();
        world.write("policy.yaml", &policy("only-web", "ALLOW", &account));
        proxy.until(|mesh| verdict(mesh, CART, Some(&account)).unwrap().starts_with("allowed")).await;
        times.push(begun.elapsed());
    }
    times.sort();
    println!("file written to in force at a proxy: median {:?}, slowest {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(500), "{times:?}");
    ctrl.stop().await;
}

#[tokio::test]
async fn metrics_say_how_soon_and_the_socket_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.object(&pod("cart", "10.244.1.7", true));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| mesh.workload(CART).is_some()).await;
    ctrl.until_in_force(1).await;
    world.write("policy.yaml", &policy("only-web", "ALLOW", "web"));
    ctrl.until_metric("pilot_proxy_convergence_time_count", |count| count >= 1.0).await;
    ctrl.until_metric("pilot_xds", |clients| clients == 1.0).await;
    ctrl.until_metric("citadel_server_csr_count_total", |requests| requests == 0.0).await;
    let mode = std::fs::metadata(ctrl.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    ctrl.stop().await;
}

/// Names that Kubernetes would not take must not take the place of others, nor go missing.
#[tokio::test]
async fn a_policy_with_an_odd_name_denies_what_it_is_for_and_nothing_else() {
    let world = World::new();
    world.object(&pod("cart", "10.244.1.7", true));
    world.object(&pod("web", "10.244.1.8", true));
    for (file, name) in [("a.yaml", "istio_converted_static_strict"), ("b.yaml", "'a/b'")] {
        world.write(file, &policy(name, "ALLOW", "web").replace("app: cart", "app: web"));
    }
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| verdict(mesh, CART, None).is_some()).await;
    ctrl.until_in_force(1).await;
    proxy.read(|mesh| {
        let denied = verdict(mesh, "Kubernetes//Pod/shop/web", Some("web")).unwrap();
        assert!(denied.contains("is invalid"), "{denied}");
        assert_eq!(verdict(mesh, CART, None).unwrap(), "no policy applies");
        // The agent took all of it: nothing is refused there.
        assert_eq!(mesh.policies().count(), 3);
    });
    let sync = ctrl.get("/sync").await;
    assert_eq!(sync["clients"][0]["refused"], serde_json::json!([]), "{sync}");
    ctrl.stop().await;
}

#[tokio::test]
async fn a_restart_does_not_weaken_a_policy_that_broke_meanwhile() {
    let world = World::new();
    world.write("policy.yaml", &policy("not-web", "DENY", "web"));
    world.object(&pod("cart", "10.244.1.7", true));
    let denied = "explicitly denied by: shop/not-web (rule 0)";
    for broken in [
        "spec: [",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: not-web, namespace: shop}\nspec: {action: DNEY}\n",
    ] {
        let ctrl = world.start().await;
        let proxy = ctrl.proxy("node-1");
        proxy.until(|mesh| verdict(mesh, CART, Some("web")).as_deref() == Some(denied)).await;
        ctrl.stop().await;
        world.write("policy.yaml", broken);
    }
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| verdict(mesh, CART, Some("web")).as_deref() == Some(denied)).await;
    let shown = ctrl.get("/objects/ap").await;
    let message = shown[0]["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("last good version") && message.contains("policy.yaml:"), "{message}");
    // Gone from the files, it is gone.
    std::fs::remove_file(world.path("policy.yaml")).unwrap();
    proxy.until(|mesh| verdict(mesh, CART, Some("web")).as_deref() == Some("no policy applies")).await;
    ctrl.stop().await;
}

/// How many roots a proxy was told of.
fn roots(mesh: &model::mesh::Mesh) -> usize {
    mesh.settings().trust.roots.len()
}

#[tokio::test]
async fn a_new_root_signs_once_every_agent_has_said_that_he_trusts_it_also_over_a_restart() {
    let world = World::new();
    world.object(&pod("cart", "10.244.1.7", true));
    let mut away = pod("till", "10.244.2.7", true);
    away["spec"]["nodeName"] = json!("node-2");
    world.object(&away);
    let ctrl = world.start().await;
    let address = ctrl.address;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| roots(mesh) == 1).await;
    let old = proxy.read(|mesh| mesh.settings().trust.issuer.clone());
    assert!(old.is_some());
    // The agent of node-2 holds a certificate, and is away.
    ctrl.until_in_force(1).await;
    let held = ctrl.certificate("till", TOKEN_2).await.unwrap();

    let (status, text) = ctrl.post("/ca/rotate-root").await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(ctrl.post("/ca/rotate-root").await.0, 409, "one at a time");
    proxy.until(|mesh| roots(mesh) == 2).await;
    ctrl.until_ca("only node-2 is waited for", |ca| ca["awaited"] == json!(["node-2"])).await;
    assert_eq!(proxy.read(|mesh| mesh.settings().trust.issuer.clone()), old, "the old one signs");
    ctrl.stop().await;

    let ctrl = world.start_at(address).await;
    let ca = ctrl.get("/ca").await;
    assert_eq!(ca["phase"], "distributing", "{ca}");
    ctrl.until_in_force(1).await;
    ctrl.until_ca("only node-2 is waited for", |ca| ca["awaited"] == json!(["node-2"])).await;
    let other = ctrl.proxy_with_token("node-2", TOKEN_2);
    proxy.until(|mesh| mesh.settings().trust.issuer != old).await;
    other.until(|mesh| mesh.settings().trust.issuer != old && roots(mesh) == 2).await;
    ctrl.until_ca("the old one retires", |ca| ca["phase"] == "retiring").await;
    let new = ctrl.certificate("cart", TOKEN).await.unwrap();
    assert_eq!(new.roots().certificates().len(), 2);
    let trusted = proxy.read(|mesh| mesh.settings().trust.clone());
    let both: Vec<_> = trusted.roots.iter().map(|root| root.to_vec().into()).collect();
    for (about, bundle) in [("by the old root", &held), ("by the new root", &new)] {
        assert!(identity::verify::leads_to(bundle.chain(), &both), "{about}");
    }
    ctrl.stop().await;
}

#[tokio::test]
async fn who_is_revoked_is_on_a_list_that_every_proxy_gets_at_once_and_gets_no_certificate() {
    let world = World::new();
    world.object(&pod("cart", "10.244.1.7", true));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    proxy.until(|mesh| roots(mesh) == 1).await;
    ctrl.certificate("cart", TOKEN).await.unwrap();
    let (status, text) = ctrl.post("/ca/revoke?what=shop%2Fcart").await;
    assert_eq!(status, 200, "{text}");
    proxy.until(|mesh| mesh.settings().trust.crls.len() == 1).await;
    let refused = ctrl.certificate("cart", TOKEN).await.unwrap_err();
    assert!(refused.contains("spiffe://cluster.local/ns/shop/sa/cart is revoked"), "{refused}");
    ctrl.until_metric("lateen_ca_revoked_certificates", |value| value == 1.0).await;
    ctrl.until_metric("citadel_server_root_cert_expiry_timestamp", |value| value > 2e9).await;
    let (status, text) = ctrl.post("/ca/revoke?what=nobody").await;
    assert_eq!(status, 409, "{text}");
    assert_eq!(ctrl.post("/ca/restore?what=shop%2Fcart").await.0, 200);
    ctrl.certificate("cart", TOKEN).await.unwrap();
    ctrl.stop().await;
}

#[tokio::test]
async fn an_address_is_one_services_and_the_other_is_told_whose() {
    let world = World::new();
    world.write("cart.yaml", &service("cart", "10.96.0.7"));
    let ctrl = world.start().await;
    let proxy = ctrl.proxy("node-1");
    let vip = model::address::NetworkAddress::new("".into(), "10.96.0.7".parse().unwrap());
    let at =
        |mesh: &model::mesh::Mesh| mesh.service_at(&vip, "shop").map(|service| service.name().to_owned());
    proxy.until(|mesh| at(mesh).as_deref() == Some("cart")).await;
    // The first by name, until the mesh itself has given it to the other.
    world.write("auth.yaml", &service("auth", "10.96.0.7"));
    ctrl.until_finding(|finding| finding["code"] == "LAT0007" && finding["object"] == "Service shop/cart")
        .await;
    proxy.until(|mesh| at(mesh).as_deref() == Some("auth")).await;
    let shown = ctrl.get("/objects/services?namespace=shop&name=cart").await;
    let condition = &shown[0]["status"]["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("False"), &json!("Conflicted")),
        "{shown}"
    );
    assert!(condition["message"].as_str().unwrap().contains("address of service shop/auth"), "{shown}");
    world.object(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80, "name": "http"}]},
    }));
    proxy.until(|mesh| at(mesh).as_deref() == Some("cart")).await;
    // A pod's address is the pod's.
    world.object(&pod("web", "10.96.0.7", false));
    proxy.until(|mesh| at(mesh).is_none()).await;
    ctrl.stop().await;
}
