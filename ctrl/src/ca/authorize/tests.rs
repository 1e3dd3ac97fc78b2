//! Who may have which certificate, by table; and a folder whose tokens come and go.

use super::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

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

/// Polls until the condition holds; fails after ten seconds.
fn eventually(about: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{about}: not within ten seconds");
        std::thread::yield_now();
    }
}

#[test]
fn tokens_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let tokens = TokenFolder::new(&path, "cluster.local");
    assert_eq!(tokens.caller(TOKEN), None, "no folder, no callers");

    fs::create_dir(&path).unwrap();
    fs::write(path.join("node-1"), format!("{TOKEN}\n")).unwrap();
    eventually("a new token", || tokens.caller(TOKEN) == Some(Caller::Node("node-1".into())));
    assert_eq!(tokens.caller(&TOKEN[1..]), None);
    assert_eq!(tokens.caller(""), None);

    let other = TOKEN.replace('0', "x");
    fs::write(path.join("shop_waypoint"), &other).unwrap();
    let waypoint = Caller::Workload(Identity::new("cluster.local", "shop", "waypoint"));
    eventually("a workload's token", || tokens.caller(&other) == Some(waypoint.clone()));

    fs::write(path.join("node-1"), TOKEN.replace('0', "y")).unwrap();
    eventually("a replaced token", || tokens.caller(TOKEN).is_none());
    fs::remove_file(path.join("shop_waypoint")).unwrap();
    eventually("a withdrawn token", || tokens.caller(&other).is_none());
    assert_eq!(tokens.caller(&TOKEN.replace('0', "y")), Some(Caller::Node("node-1".into())));
}

#[test]
fn some_files_are_no_tokens() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("node-short", "secret".to_owned()),
        ("node-empty", String::new()),
        (".hidden", TOKEN.to_owned()),
        ("node-huge", "x".repeat(20_000)),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    fs::create_dir(folder.path().join("node-folder")).unwrap();
    assert!(read_folder(folder.path(), "cluster.local").unwrap().is_empty());
}

#[test]
fn unknown_tokens_do_not_make_us_read_without_pause() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = TokenFolder::new(folder.path(), "cluster.local");
    tokens.caller(TOKEN);
    let began = Instant::now();
    let first = tokens.known.lock().unwrap().read.unwrap();
    tokens.caller("another unknown token of some length");
    let second = tokens.known.lock().unwrap().read.unwrap();
    // Unless this thread was suspended for longer than the pause, nothing was read.
    assert!(first == second || began.elapsed() >= LEAST_PAUSE);
}
