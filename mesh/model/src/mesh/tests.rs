//! What is known of the mesh, update by update.

mod order;

use std::net::IpAddr;
use std::sync::Arc;

use super::{Effect, Mesh, MissingPolicies, Settings, Update};
use crate::authz::{Action, Cause, Match, Policy, PolicyScope, Rule, StringMatch, Subject};
use crate::fixtures::{at, edit, key, policy_name, service, socket, tunnelled, waypoint, workload};
use crate::identity::Identity;
use crate::service::Service;
use crate::workload::Workload;

fn policy(name: &str, scope: PolicyScope) -> Policy {
    Policy {
        name: policy_name(name),
        scope,
        action: Action::Allow,
        rules: Box::default(),
        dry_run: false,
        invalid: None,
    }
}

fn naming(policies: &[&str]) -> Workload {
    edit(workload("w", &["10.0.0.1"]), |profile| {
        profile.policies = policies.iter().map(|name| policy_name(name)).collect();
    })
}

#[test]
fn what_an_update_means_for_live_connections() {
    let on_node = |workload: Workload| Workload { node: "here".into(), ..workload };
    let here = |ip: &str| on_node(workload("a", &[ip]));
    let mut mesh = Mesh::new("".into(), Some("here".into()));
    let mut rejudge = |update: Update| mesh.apply(update);
    let judged = Effect { rejudge: true, replaced: None };
    // One that comes may have been here before, under other policies.
    assert_eq!(rejudge(Update::Workload(here("10.0.0.1"))), judged);
    assert_eq!(rejudge(Update::Workload(here("10.0.0.1"))), Effect::default());
    let changes: [fn(&mut crate::workload::Profile); 3] = [
        |profile| profile.enforced_by = Some(Box::default()),
        |profile| profile.policies = [policy_name("ns/p")].into(),
        |profile| profile.capacity = 7,
    ];
    for (change, expected) in changes.into_iter().zip([true, true, true]) {
        let effect = rejudge(Update::Workload(edit(here("10.0.0.1"), change)));
        assert_eq!((effect.rejudge, effect.replaced), (expected, None));
    }
    assert_eq!(rejudge(Update::Workload(edit(here("10.0.0.1"), |p| p.capacity = 8))), Effect::default());

    // Tunnels to what moved, became another's or went away are not to be used again.
    let effect = rejudge(Update::Workload(here("10.0.0.2")));
    let was = |effect: Effect| effect.replaced.map(|old| old.addresses.to_vec());
    assert_eq!(was(effect), Some(vec![IpAddr::from([10, 0, 0, 1])]));
    let other = edit(here("10.0.0.2"), |p| p.identity = Identity::new("td", "ns", "other"));
    let effect = rejudge(Update::Workload(other));
    assert!(effect.rejudge && effect.replaced.is_some());
    let moved = edit(here("10.0.0.2"), |p| p.network = "n2".into());
    assert!(rejudge(Update::Workload(moved)).replaced.is_some());
    let gone = rejudge(Update::RemoveAddress("a".into()));
    assert!(!gone.rejudge && gone.replaced.is_some());
    assert_eq!(rejudge(Update::RemoveAddress("a".into())), Effect::default());

    // A workload of another node is judged there.
    assert_eq!(rejudge(Update::Workload(workload("far", &["10.0.0.9"]))), Effect::default());
    let changed = edit(workload("far", &["10.0.0.9"]), |p| p.policies = [policy_name("ns/p")].into());
    assert_eq!(rejudge(Update::Workload(changed)), Effect::default());

    // Services change where new connections go, policies and settings whether live ones may go on.
    assert_eq!(rejudge(Update::Service(service("ns/web", &[]))), Effect::default());
    assert_eq!(rejudge(Update::RemoveAddress("ns/web".into())), Effect::default());
    assert_eq!(rejudge(Update::Policy(policy("ns/p", PolicyScope::Workload))), judged);
    assert_eq!(rejudge(Update::RemovePolicy(policy_name("ns/p"))), judged);
    assert_eq!(rejudge(Update::Settings(Settings::default())), judged);
    // Not seen from a node, every workload may be one that is judged here.
    let mut anywhere = Mesh::new("".into(), None);
    assert!(anywhere.apply(Update::Workload(workload("a", &[]))).rejudge);
}

#[test]
fn the_policies_of_a_workload_are_those_of_the_mesh_its_namespace_and_its_own() {
    let mut mesh = Mesh::new("".into(), None);
    use PolicyScope::{Global, Namespace, Workload};
    let all = [
        ("root/b", Global),
        ("root/a", Global),
        ("ns/d", Namespace),
        ("ns/c", Namespace),
        ("other/x", Namespace),
        ("ns/own", Workload),
        ("ns/unnamed", Workload),
        ("root/own", Workload),
    ];
    for (name, scope) in all {
        mesh.apply(Update::Policy(policy(name, scope)));
    }
    let of = |mesh: &Mesh, policies: &[&str]| -> Result<Vec<String>, MissingPolicies> {
        let found = mesh.policies_for(&naming(policies))?;
        Ok(found.iter().map(|policy| policy.name.to_string()).collect())
    };
    let wide = ["root/a", "root/b", "ns/c", "ns/d"];
    assert_eq!(of(&mesh, &[]).unwrap(), wide);
    let named = of(&mesh, &["root/own", "ns/own"]).unwrap();
    assert_eq!(named, [&wide[..], &["root/own", "ns/own"]].concat());
    // Naming what covers it anyway changes nothing; naming another namespace's policy makes it apply.
    assert_eq!(of(&mesh, &["ns/c", "root/a", "other/x"]).unwrap(), [&wide[..], &["other/x"]].concat());

    let missing = MissingPolicies(vec![policy_name("ns/late"), policy_name("ns/later")]);
    assert_eq!(missing.to_string(), "policies that apply have not arrived: ns/late ns/later");
    assert_eq!(of(&mesh, &["ns/late", "ns/own", "ns/later"]), Err(missing));

    // A policy that changes its scope, and ones that go.
    mesh.apply(Update::Policy(policy("root/a", Workload)));
    mesh.apply(Update::Policy(policy("ns/own", Namespace)));
    mesh.apply(Update::RemovePolicy(policy_name("ns/c")));
    mesh.apply(Update::RemovePolicy(policy_name("root/b")));
    mesh.apply(Update::RemovePolicy(policy_name("ns/never")));
    assert_eq!(of(&mesh, &[]).unwrap(), ["ns/d", "ns/own"]);
    assert_eq!(mesh.policies().count(), 6);
    assert!(mesh.policy(&policy_name("ns/c")).is_none());
    assert!(mesh.policy(&policy_name("ns/d")).is_some());
}

fn deny(name: &str, scope: PolicyScope, namespace: &str) -> Policy {
    let from = Match { namespaces: vec![StringMatch::Exact(namespace.into())], ..Match::default() };
    let clauses = [crate::authz::Clause { matches: [from].into() }].into();
    Policy { action: Action::Deny, rules: [Rule { clauses }].into(), ..policy(name, scope) }
}

#[test]
fn a_connection_is_judged_by_all_that_applies() {
    let mut mesh = Mesh::new("".into(), None);
    let client = Identity::new("cluster.local", "a", "x");
    let (source, destination) = (socket("10.0.0.1:1"), socket("10.0.0.2:2"));
    let subject = Subject { source, identity: Some(&client), destination };
    let judged = |mesh: &Mesh, workload: &Workload| mesh.judge(workload, &subject).unwrap().cause.to_string();
    assert_eq!(judged(&mesh, &naming(&[])), "no policy applies");
    // Each scope is asked, the widest first; so many that they are indexed.
    for number in 0..20 {
        mesh.apply(Update::Policy(deny(&format!("ns/p{number:02}"), PolicyScope::Namespace, "b")));
    }
    assert_eq!(judged(&mesh, &naming(&[])), "no policy applies");
    mesh.apply(Update::Policy(deny("ns/own", PolicyScope::Workload, "a")));
    assert_eq!(judged(&mesh, &naming(&["ns/own"])), "explicitly denied by: ns/own (rule 0)");
    mesh.apply(Update::Policy(deny("ns/p10", PolicyScope::Namespace, "a")));
    assert_eq!(judged(&mesh, &naming(&["ns/own"])), "explicitly denied by: ns/p10 (rule 0)");
    mesh.apply(Update::Policy(deny("root/all", PolicyScope::Global, "a")));
    assert_eq!(judged(&mesh, &naming(&["ns/own"])), "explicitly denied by: root/all (rule 0)");
    for gone in ["root/all", "ns/p10"] {
        mesh.apply(Update::RemovePolicy(policy_name(gone)));
    }
    assert_eq!(judged(&mesh, &naming(&[])), "no policy applies");
    // An ALLOW policy that is not looked at is considered all the same.
    mesh.apply(Update::Policy(policy("ns/nothing", PolicyScope::Namespace)));
    let none = "allow policies exist, but none allowed (considered: ns/nothing)";
    assert_eq!(judged(&mesh, &naming(&[])), none);
    assert!(mesh.judge(&naming(&["ns/late"]), &subject).is_err());
}

#[test]
fn only_its_own_waypoints_have_judged_before() {
    let mut mesh = Mesh::new("".into(), None);
    mesh.apply(Update::Policy(policy("ns/nothing", PolicyScope::Namespace)));
    let [gate, other] = ["gate", "other"].map(|account| Identity::new("cluster.local", "ns", account));
    let by = |enforced_by: Option<&Identity>| {
        edit(naming(&["ns/late"]), |profile| {
            profile.enforced_by = enforced_by.map(|identity| [identity.clone()].into());
        })
    };
    let (source, destination) = (socket("10.0.0.1:1"), socket("10.0.0.2:2"));
    let judge = |workload: &Workload, identity| {
        mesh.judge(workload, &Subject { source, identity, destination }).map(|decision| decision.cause)
    };
    assert_eq!(judge(&by(Some(&gate)), Some(&gate)), Ok(Cause::JudgedBefore(gate.clone())));
    assert_eq!(
        Cause::JudgedBefore(gate.clone()).to_string(),
        "judged before by the waypoint spiffe://cluster.local/ns/ns/sa/gate"
    );
    for (workload, identity) in
        [(by(Some(&gate)), Some(&other)), (by(Some(&gate)), None), (by(None), Some(&gate))]
    {
        assert!(judge(&workload, identity).is_err(), "the policy that is missing was not asked for");
    }
}

#[test]
fn a_name_is_a_workloads_before_it_is_a_services() {
    let mut mesh = Mesh::new("".into(), None);
    mesh.apply(Update::Service(service("ns/web", &["10.96.0.1"])));
    mesh.apply(Update::Workload(tunnelled("ns/web", &["10.0.0.1"], &["ns/web"])));
    mesh.apply(Update::RemoveAddress("ns/web".into()));
    assert!(mesh.workload("ns/web").is_none() && mesh.service(&key("ns/web")).is_some());
    // No service is named so.
    mesh.apply(Update::RemoveAddress("ns/web/x".into()));
    mesh.apply(Update::RemoveAddress("web".into()));
    assert_eq!(mesh.services().count(), 1);
    mesh.apply(Update::RemoveAddress("ns/web".into()));
    assert_eq!((mesh.services().count(), mesh.workloads().count()), (0, 0));
}

#[test]
fn a_workload_that_changes_its_services_leaves_the_old() {
    let mut mesh = Mesh::new("".into(), None);
    let count = |mesh: &Mesh, name| mesh.endpoints(&key(name)).map_or(0, |endpoints| endpoints.all().len());
    mesh.apply(Update::Workload(tunnelled("a", &["10.0.0.1"], &["ns/x", "ns/y"])));
    mesh.apply(Update::Workload(tunnelled("b", &["10.0.0.2"], &["ns/y"])));
    assert_eq!(["ns/x", "ns/y", "ns/z"].map(|name| count(&mesh, name)), [1, 2, 0]);
    mesh.apply(Update::Workload(tunnelled("a", &["10.0.0.1"], &["ns/y", "ns/z"])));
    assert_eq!(["ns/x", "ns/y", "ns/z"].map(|name| count(&mesh, name)), [0, 2, 1]);
    mesh.apply(Update::RemoveAddress("a".into()));
    assert_eq!(["ns/x", "ns/y", "ns/z"].map(|name| count(&mesh, name)), [0, 1, 0]);
}

#[test]
fn who_connects_is_the_workload_of_the_address_if_that_was_proved() {
    let mut mesh = Mesh::new("".into(), None);
    mesh.apply(Update::Workload(workload("w", &["10.0.0.1"])));
    let own = mesh.workload("w").unwrap().identity().clone();
    let another = Identity::new("cluster.local", "ns", "another");
    for (address, identity, known) in
        [("10.0.0.1", &own, true), ("10.0.0.1", &another, false), ("10.0.0.2", &own, false)]
    {
        let found = mesh.proven_workload(&at(address), identity).map(|found| &*found.uid);
        assert_eq!(found, known.then_some("w"), "{identity} at {address}");
    }
}

#[test]
fn a_node_knows_its_own_pods() {
    let on = |uid: &str, node: &str| Workload { node: node.into(), ..workload(uid, &[]) };
    let all = [on("a", "here"), on("b", "there"), on("c", "here"), on("d", "")];
    for (node, own) in [(Some("here"), &["a", "c"][..]), (Some("nowhere"), &[]), (None, &[])] {
        let mut mesh = Mesh::new("".into(), node.map(Into::into));
        for one in &all {
            mesh.apply(Update::Workload(one.clone()));
        }
        let mut uids: Vec<&str> = mesh.workloads().map(|one| &*one.uid).collect();
        uids.sort_unstable();
        assert_eq!(uids, ["a", "b", "c", "d"]);
        for one in &all {
            let local = own.contains(&&*one.uid);
            assert_eq!(mesh.is_local(one), local, "{} seen from {node:?}", one.uid);
            let found = mesh.local_workload("ns", &one.name, "account").map(|found| &found.uid);
            assert_eq!(found, local.then_some(&one.uid), "{} seen from {node:?}", one.uid);
        }
    }
}

#[test]
fn own_ranges_hold_ipv4_however_it_is_written() {
    let mut mesh = Mesh::new("net".into(), None);
    assert_eq!(&**mesh.network(), "net");
    assert!(!mesh.is_pod_address(at("10.244.0.1").ip));
    let pod_ranges = vec!["10.244.0.0/16".parse().unwrap(), "fd00::/32".parse().unwrap()];
    let service_ranges = vec!["10.96.0.0/16".parse().unwrap()];
    mesh.apply(Update::Settings(Settings { pod_ranges, service_ranges, ..Settings::default() }));
    for (address, inside) in [
        ("10.244.0.1", true),
        ("::ffff:10.244.0.1", true),
        ("fd00::1", true),
        ("10.96.7.7", false),
        ("10.245.0.1", false),
    ] {
        assert_eq!(mesh.is_pod_address(address.parse().unwrap()), inside, "{address}");
    }
    assert_eq!(mesh.settings().pod_ranges.len(), 2);
    for (address, lacks) in [("10.96.7.7", true), ("::ffff:10.96.7.7", true), ("10.244.0.1", false)] {
        assert_eq!(mesh.lacks_service_at(&at(address)), lacks, "{address}");
    }
}

#[test]
fn a_waypoints_replica_stands_behind_the_service_that_something_is_bound_to() {
    let mut mesh = Mesh::new("".into(), None);
    let replica = tunnelled("replica", &["10.0.0.1"], &["ns/way"]);
    let stranger = tunnelled("stranger", &["10.0.0.2"], &["other/way"]);
    let bound = || Some(waypoint("other/way"));
    let way = || Some(waypoint("ns/way"));
    let service = |waypoint: Option<_>| {
        Update::Service(Service { waypoint: waypoint.map(Arc::new), ..service("ns/web", &[]) })
    };
    let pod = |waypoint| Update::Workload(edit(workload("p", &["10.0.0.3"]), |pod| pod.waypoint = waypoint));
    for (update, expected) in [
        (service(None), false),
        (service(way()), true),
        (service(way()), true),
        (pod(way()), true),
        (service(bound()), true),
        (pod(bound()), false),
        (pod(way()), true),
        (Update::RemoveAddress("p".into()), false),
        (service(way()), true),
        (Update::RemoveAddress("ns/web".into()), false),
    ] {
        let row = format!("{update:?}");
        mesh.apply(update);
        assert_eq!(mesh.is_of_waypoint(&replica), expected, "{row}");
        // Somebody else's EndpointSlice names it.
        assert!(!mesh.is_of_waypoint(&stranger), "{row}");
    }
}
