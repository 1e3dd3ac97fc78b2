//! What those are told who claim addresses that are not theirs.

use super::*;

/// What there is to say, as `CODE OBJECT: MESSAGE`.
fn told(compiler: &Compiler) -> Vec<String> {
    let one = |finding: Finding| {
        format!("{} {}: {}", finding.code, finding.object.unwrap_or_default(), finding.message)
    };
    compiler.findings().into_iter().map(one).collect()
}

fn addresses(store: &Store) -> Vec<String> {
    store.resources(ADDRESS).map(|resource| resource.name().to_string()).collect()
}

/// A tenant's EndpointSlice that names the address of somebody else's service is no workload there, whichever came first,
/// and its author is told whose it is.
#[test]
fn an_endpoint_at_a_services_address_is_left_out_whatever_the_order() {
    let web = service("a", "web", &json!({"app": "x"}), "10.96.0.7");
    let trap =
        [service("b", "trap", &json!({}), "10.96.0.8"), slice("b", "trap-1", "trap", "10.96.0.7", None)];
    let expected = "LAT0007 EndpointSlice b/trap-1: 10.96.0.7 is the address of service a/web; for clients it is no \
                    endpoint of this slice";
    let all = |values: &[Value]| batch(values.iter().map(object).collect(), Vec::new());
    for (about, order) in
        [("before", [&[web.clone()][..], &trap[..]]), ("after", [&trap[..], &[web.clone()][..]])]
    {
        let (mut compiler, mut stores) = (compiler(), stores());
        for part in order {
            apply(&mut compiler, &mut stores, &all(part));
        }
        assert_eq!(told(&compiler), [expected], "{about}");
        assert!(addresses(&stores[0]).iter().all(|name| !name.contains("EndpointSlice")), "{about}");
        // The address is nobody's again: so may an address outside be the endpoint's.
        let edits = compiler.apply(&batch(Vec::new(), vec![object(&web).key()]));
        assert!(edits.claims, "{about}");
        stores[0].apply(edits.ours);
        assert_eq!(told(&compiler), Vec::<String>::new(), "{about}");
        assert!(addresses(&stores[0]).iter().any(|name| name.contains("EndpointSlice")), "{about}");
    }
}

#[test]
fn a_slice_is_told_once_of_all_that_is_not_its_own() {
    let mut many = slice("b", "many", "plain", "10.0.0.2", None);
    many["endpoints"] =
        json!([{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}, {"addresses": ["192.0.2.1"]}]);
    let (mut compiler, mut stores) = (with_ranges(), stores());
    let objects = [service("b", "plain", &json!({}), "10.96.0.8"), many];
    apply(&mut compiler, &mut stores, &batch(objects.iter().map(object).collect(), Vec::new()));
    let expected = "LAT0007 EndpointSlice b/many: 10.0.0.2 is the address of a service that is not there (SERVICE_CIDRS); \
                    for clients it is no endpoint of this slice; 1 more are the mesh's own as well";
    assert_eq!(told(&compiler), [expected]);
    assert_eq!(addresses(&stores[0]).iter().filter(|name| name.contains("EndpointSlice")).count(), 1);
}

/// A node that is taken over says that a pod of its own has the address of somebody's service.
#[test]
fn a_pod_at_a_services_address_is_not_there_whatever_the_order() {
    let web = service("a", "web", &json!({"app": "x"}), "10.96.0.7");
    let thief = pod("b", "thief", "thief", "10.96.0.7", true, "n1");
    let expected = ["LAT0007 Pod b/thief: 10.96.0.7 is the address of service a/web; the pod is not at it"];
    let all = |values: &[&Value]| batch(values.iter().map(|value| object(value)).collect(), Vec::new());
    for (about, order) in [("before", [&web, &thief]), ("after", [&thief, &web])] {
        let (mut compiler, mut stores) = (compiler(), stores());
        for one in order {
            apply(&mut compiler, &mut stores, &all(&[one]));
        }
        assert_eq!(told(&compiler), expected, "{about}");
        assert_eq!(addresses(&stores[0]), ["a/web.a.svc.cluster.local"], "{about}");
        let held = compiler.index().claims_lost(compiler.index().service(&Name::new("a", "web")).unwrap());
        assert!(held.is_empty(), "{about}: {held:?}");
        // What no service has is the pod's.
        stores[0].apply(compiler.apply(&batch(Vec::new(), vec![object(&web).key()])).ours);
        assert_eq!(addresses(&stores[0]), ["Kubernetes//Pod/b/thief"], "{about}");
    }
}
