//! Who may have which certificate, by table.

use super::*;

fn reviews() -> Identity {
    Identity::new("cluster.local", "default", "reviews")
}

#[test]
fn decides_by_table() {
    let on_node = |node: &str, identity: &Identity| node == "node-1" && *identity == reviews();
    let node = |name: &str| Caller::Node(name.into());
    let waypoint = Identity::new("cluster.local", "default", "waypoint");
    let text = |identity: &Identity| Some(identity.to_string());
    let foreign = Identity::new("evil.example", "default", "reviews");
    let ratings = Identity::new("cluster.local", "default", "ratings");
    for (about, caller, asked, expected) in [
        ("a pod of the node", node("node-1"), text(&reviews()), Ok(reviews())),
        (
            "a pod of another node",
            node("node-2"),
            text(&reviews()),
            Err(Refusal::NotOnNode { node: "node-2".into(), identity: reviews() }),
        ),
        (
            "an account without a pod",
            node("node-1"),
            text(&ratings),
            Err(Refusal::NotOnNode { node: "node-1".into(), identity: ratings.clone() }),
        ),
        ("a node for itself", node("node-1"), None, Err(Refusal::NoIdentity("node-1".into()))),
        (
            "another mesh, even with such a pod",
            node("node-1"),
            text(&foreign),
            Err(Refusal::ForeignTrustDomain(foreign.clone())),
        ),
        ("a waypoint for itself", Caller::Workload(waypoint.clone()), None, Ok(waypoint.clone())),
        ("and by name", Caller::Workload(waypoint.clone()), text(&waypoint), Ok(waypoint.clone())),
        (
            "a waypoint for another",
            Caller::Workload(waypoint.clone()),
            text(&reviews()),
            Err(Refusal::NotItself { caller: waypoint, identity: reviews() }),
        ),
        (
            "a foreign workload",
            Caller::Workload(foreign.clone()),
            None,
            Err(Refusal::ForeignTrustDomain(foreign.clone())),
        ),
    ] {
        let outcome = authorize(&caller, asked.as_deref(), "cluster.local", on_node);
        assert_eq!(outcome, expected, "{about}");
    }
    for asked in
        ["", "reviews", "spiffe://cluster.local/ns/default/sa/reviews/", "spiffe://cluster.local/x\0"]
    {
        let outcome = authorize(&node("node-1"), Some(asked), "cluster.local", |_, _| true);
        assert!(matches!(outcome, Err(Refusal::NotAnIdentity(_))), "{asked:?}: {outcome:?}");
    }
}

#[test]
fn reads_the_bearer() {
    for (value, expected) in [
        ("Bearer abc", Some("abc")),
        ("bearer  abc ", Some("abc")),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("abc", None),
        ("", None),
    ] {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().unwrap());
        assert_eq!(bearer(&metadata), expected, "{value:?}");
    }
    assert_eq!(bearer(&MetadataMap::new()), None);
}

#[test]
fn a_refusal_says_whose_setting_to_look_at() {
    let identity = |account: &str| Identity::new("example.org", "shop", account);
    let own = Caller::Workload(identity("own"));
    let refused = |domain: &str, asked: &str| {
        authorize(&own, Some(&identity(asked).to_string()), domain, |_, _| false).unwrap_err().to_string()
    };
    for (said, expected) in [
        (Refusal::NoToken.to_string(), "TOKEN_FILE"),
        (refused("example.org", "other"), "TOKEN_FILE"),
        (refused("elsewhere.org", "own"), "TRUST_DOMAIN_ALIASES"),
    ] {
        assert!(said.contains(expected), "{said}");
    }
}
