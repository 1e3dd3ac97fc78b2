//! The rules of the protocol, one test each.

use std::collections::BTreeSet;

use prost::Message;

use super::*;

fn filled() -> Store {
    let mut store = Store::new(TYPES);
    put(&mut store, POLICY, "p", "1");
    put(&mut store, ADDRESS, "a", "1");
    put(&mut store, ADDRESS, "b", "1");
    store
}

#[test]
fn a_wildcard_client_gets_everything_then_changes() {
    let mut store = filled();
    let mut link = Link::new([all(POLICY), all(ADDRESS)]);
    assert!(!link.subscriber.is_ready());
    link.settle(&store);
    assert!(link.subscriber.is_ready());
    assert_eq!(link.log(), ["+p", "+a +b"]);

    put(&mut store, ADDRESS, "b", "2");
    remove(&mut store, ADDRESS, "a");
    link.settle(&store);
    assert_eq!(link.log(), ["+b -a"]);
    link.settle(&store);
    assert_eq!(link.log(), Vec::<String>::new());
}

/// What a client would not understand it is sent in another form, by whichever way: at first, when it changes, when the
/// client comes back, by its name.
#[test]
fn a_client_that_lacks_something_is_sent_what_fits() {
    let fit = || {
        Fit::new(|type_url, resource| {
            let text = std::str::from_utf8(resource.value()).unwrap();
            let fitting = text.strip_prefix("new ").filter(|_| type_url == ADDRESS)?;
            Some(Resource::new(resource.name().clone(), Bytes::copy_from_slice(fitting.as_bytes())))
        })
    };
    let mut store = filled();
    put(&mut store, POLICY, "p", "new 1");
    put(&mut store, ADDRESS, "a", "new 1");
    let mut link = Link::new([all(POLICY), all(ADDRESS)]);
    link.fit = Some(fit());
    link.reconnect();
    link.settle(&store);
    assert_eq!(link.held(ADDRESS), [("a", "1"), ("b", "1")]);
    assert_eq!(link.held(POLICY), [("p", "new 1")]);
    link.log();

    put(&mut store, ADDRESS, "b", "new 2");
    link.settle(&store);
    assert_eq!(link.held(ADDRESS), [("a", "1"), ("b", "2")]);
    assert_eq!(link.log(), ["+b"]);
    // It has what it is to have.
    link.reconnect();
    link.settle(&store);
    assert_eq!(link.log(), ["", ""]);
    // After an upgrade it is sent the whole.
    link.fit = None;
    link.reconnect();
    link.settle(&store);
    assert_eq!(link.held(ADDRESS), [("a", "new 1"), ("b", "new 2")]);

    let mut link = Link::new([on_demand(ADDRESS)]);
    link.fit = Some(fit());
    link.reconnect();
    link.demand("a");
    link.settle(&store);
    assert_eq!(link.held(ADDRESS), [("a", "1")]);
}

#[test]
fn readiness_needs_every_required_type_even_if_empty() {
    let store = Store::new(TYPES);
    let mut link = Link::new([all(POLICY), all(ADDRESS), on_demand("type.googleapis.com/test.Unknown")]);
    while link.server_reads(&store) {}
    assert!(link.server_writes(&store));
    assert!(link.client_reads());
    assert!(!link.subscriber.is_ready());
    link.settle(&store);
    assert!(link.subscriber.is_ready());
    assert_eq!(link.events[0], Event::UnknownType { type_url: "type.googleapis.com/test.Unknown".into() });
}

#[test]
fn a_policy_comes_before_the_workload_that_names_it_and_goes_after() {
    let mut store = filled();
    let mut link = Link::new([all(ADDRESS), all(POLICY)]);
    link.settle(&store);
    link.log();

    let mut edit = Edit::new();
    edit.put(ADDRESS, resource("a", "names q")).put(POLICY, resource("q", "1"));
    store.apply(edit);
    link.settle(&store);
    assert_eq!(link.log(), ["+q", "+a"]);

    let mut edit = Edit::new();
    edit.remove(POLICY, "q").put(ADDRESS, resource("a", "names nothing")).put(POLICY, resource("p", "2"));
    store.apply(edit);
    link.settle(&store);
    assert_eq!(link.log(), ["+p", "+a", "-q"]);
}

#[test]
fn a_client_that_comes_back_gets_what_changed() {
    let mut store = filled();
    let mut link = Link::new([all(POLICY), all(ADDRESS)]);
    link.settle(&store);
    link.log();
    put(&mut store, ADDRESS, "a", "2");
    put(&mut store, ADDRESS, "c", "1");
    remove(&mut store, ADDRESS, "b");
    link.reconnect();
    link.settle(&store);
    assert_eq!(link.log(), ["", "+a +c -b"]);

    // Another replica, whose history is none of this one's.
    let mut other = Store::new(TYPES);
    for _ in 0..3 {
        put(&mut other, ADDRESS, "a", "1");
        put(&mut other, ADDRESS, "a", "2");
    }
    put(&mut other, ADDRESS, "c", "1");
    put(&mut other, POLICY, "p", "1");
    link.reconnect();
    link.settle(&other);
    assert_eq!(link.log(), ["", ""]);
}

#[test]
fn versions_kept_over_a_restart_count() {
    let store = filled();
    let mut first = Link::new([all(ADDRESS)]);
    first.settle(&store);
    let mut second = Link::new([all(ADDRESS)]);
    second.memory.held = first.memory.held;
    for received in first.memory.deliveries.iter().flat_map(|delivery| &delivery.resources) {
        second.subscriber.restore(ADDRESS, &received.name, &received.version);
    }
    // One that was there for a while and went again before the restart.
    second.subscriber.restore(ADDRESS, &"c".into(), "1");
    second.subscriber.restore_removal(ADDRESS, "c");
    assert!(!second.subscriber.is_ready(), "what was kept may be old until a controller has answered");
    second.reconnect();
    second.settle(&store);
    assert!(second.subscriber.is_ready());
    assert_eq!(second.log(), [""]);
}

#[test]
fn what_is_refused_is_named_recorded_and_not_sent_again_until_it_changes() {
    let mut store = filled();
    let mut link = Link::new([all(ADDRESS)]);
    link.settle(&store);
    let mut edit = Edit::new();
    edit.put(ADDRESS, resource("a", "bad"))
        .put(ADDRESS, resource("c", "bad"))
        .put(ADDRESS, resource("d", "1"));
    store.apply(edit);
    link.log();
    link.settle(&store);
    assert_eq!(link.log(), ["+a +c +d"]);
    // The good one of the response counts, and so does the last good version of the bad one.
    assert_eq!(link.held(ADDRESS), [("a", "1"), ("b", "1"), ("d", "1")]);
    let names: Vec<Str> = vec!["a".into(), "c".into(), "d".into()];
    let error = "a: it is bad; c: it is bad".to_owned();
    assert_eq!(link.events.pop(), Some(Event::Nacked { type_url: ADDRESS.into(), names, error }));
    link.settle(&store);
    assert_eq!(link.log(), Vec::<String>::new());

    put(&mut store, ADDRESS, "a", "3");
    link.settle(&store);
    assert_eq!(link.log(), ["+a"]);
    assert_eq!(link.events.pop(), Some(Event::Acked { type_url: ADDRESS.into(), names: vec!["a".into()] }));
}

#[test]
fn what_stands_in_for_a_refused_one_goes_with_it() {
    let mut store = filled();
    let mut link = Link::new([all(POLICY)]);
    put(&mut store, POLICY, "q", "bad");
    link.settle(&store);
    assert_eq!(link.memory.standing_in.len(), 1);
    // The removal happens while the client is away.
    remove(&mut store, POLICY, "q");
    link.reconnect();
    link.settle(&store);
    assert_eq!(link.memory.standing_in.len(), 0);
}

#[test]
fn in_force_is_what_the_client_has_acknowledged() {
    let mut store = filled();
    let mut link = Link::new([all(POLICY), all(ADDRESS)]);
    assert_eq!(link.session.in_force(&store, ADDRESS), None);
    link.settle(&store);
    assert_eq!(link.session.in_force(&store, ADDRESS), Some(3));

    put(&mut store, ADDRESS, "a", "2");
    link.server_writes(&store);
    assert_eq!(link.session.in_force(&store, ADDRESS), Some(3));
    // Nothing of this type changed: it is in force at once.
    assert_eq!(link.session.in_force(&store, POLICY), Some(4));
    link.client_reads();
    assert_eq!(link.session.in_force(&store, ADDRESS), Some(3));
    link.settle(&store);
    assert_eq!(link.session.in_force(&store, ADDRESS), Some(4));
}

#[test]
fn a_slow_client_gets_the_newest_state_not_a_queue() {
    let mut store = filled();
    let mut link = Link::new([all(ADDRESS)]);
    link.settle(&store);
    link.log();
    for round in 0..100 {
        put(&mut store, ADDRESS, "a", &format!("round {round}"));
        // Written as far as the server is willing to, never read.
        link.server_writes(&store);
    }
    assert!(link.downstream.len() <= 4, "{} responses wait", link.downstream.len());
    link.settle(&store);
    assert_eq!(link.held(ADDRESS)[0], ("a", "round 99"));
    assert!(link.log().len() <= 5);
}

#[test]
fn what_changes_back_before_it_is_sent_is_not_sent() {
    let mut store = filled();
    let mut link = Link::new([all(ADDRESS)]);
    link.settle(&store);
    link.log();
    put(&mut store, ADDRESS, "a", "2");
    put(&mut store, ADDRESS, "c", "2");
    put(&mut store, ADDRESS, "a", "1");
    remove(&mut store, ADDRESS, "c");
    link.settle(&store);
    assert_eq!(link.log(), Vec::<String>::new());
}

#[test]
fn much_comes_in_several_responses() {
    let mut store = Store::new(TYPES);
    let large = "x".repeat(300_000);
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    let mut edit = Edit::new();
    edit.replace(ADDRESS, names.iter().map(|name| resource(name, &large)));
    store.apply(edit);
    let mut link = Link::new([all(ADDRESS)]);
    link.server_reads(&store);
    link.server_writes(&store);
    // Changes and removals on both sides of what has been sent.
    put(&mut store, ADDRESS, "00", "small");
    remove(&mut store, ADDRESS, "01");
    put(&mut store, ADDRESS, "18", "small");
    remove(&mut store, ADDRESS, "19");
    put(&mut store, ADDRESS, "00a", "new");
    link.settle(&store);
    assert!(link.memory.deliveries.len() >= 5, "{}", link.memory.deliveries.len());
    let held: Vec<&str> = link.held(ADDRESS).iter().map(|(name, _)| *name).collect();
    let expected: Vec<&str> = store.resources(ADDRESS).map(|resource| &**resource.name()).collect();
    assert_eq!(held, expected);
    assert_eq!(link.memory.repeated, Vec::<String>::new());
}

#[test]
fn on_demand_only_what_was_asked_for_comes_with_what_belongs_to_it() {
    let mut store = Store::new(TYPES);
    let pod =
        |name: &str, ip: &str| resource(name, "1").with_aliases([ip.into()]).with_part_of(["ns/svc".into()]);
    let mut edit = Edit::new();
    edit.put(ADDRESS, resource("ns/svc", "1").with_aliases(["/10.96.0.1".into()]))
        .put(ADDRESS, pod("pod-1", "/10.0.0.1"))
        .put(ADDRESS, pod("pod-2", "/10.0.0.2"))
        .put(ADDRESS, resource("stranger", "1").with_aliases(["/10.0.0.3".into()]));
    store.apply(edit);
    let mut link = Link::new([on_demand(ADDRESS)]);
    link.settle(&store);
    assert_eq!(link.log(), Vec::<String>::new());

    link.demand("/10.96.0.1");
    link.settle(&store);
    assert_eq!(link.log(), ["+ns/svc", "+pod-1 +pod-2"]);

    // One more endpoint, a change of what is not wanted, and one gone.
    put(&mut store, ADDRESS, "stranger", "2");
    let mut edit = Edit::new();
    edit.put(ADDRESS, pod("pod-3", "/10.0.0.4")).remove(ADDRESS, "pod-1");
    store.apply(edit);
    link.settle(&store);
    assert_eq!(link.log(), ["+pod-3 -pod-1"]);

    // What is not there is said to be missing, and comes when it is there.
    link.demand("/10.0.0.9");
    link.settle(&store);
    assert_eq!(link.log(), ["-/10.0.0.9"]);
    let mut edit = Edit::new();
    edit.put(ADDRESS, resource("late", "1").with_aliases(["/10.0.0.9".into()]));
    store.apply(edit);
    link.settle(&store);
    assert_eq!(link.log(), ["+late"]);

    // After a reconnect only what was asked for by name is told again, and what came meanwhile.
    let mut edit = Edit::new();
    edit.put(ADDRESS, pod("pod-4", "/10.0.0.5"));
    store.apply(edit);
    link.reconnect();
    link.settle(&store);
    assert_eq!(link.log(), ["+late +ns/svc +pod-4"]);
    remove(&mut store, ADDRESS, "pod-2");
    link.settle(&store);
    assert_eq!(link.log(), ["-pod-2"]);

    let request = link.subscriber.wish(ADDRESS, release("/10.96.0.1"));
    link.upstream.extend(request);
    link.settle(&store);
    assert_eq!(link.log(), ["-ns/svc -pod-3 -pod-4"]);
    assert_eq!(link.held(ADDRESS), [("late", "1")]);
}

#[test]
fn what_goes_with_a_resource_may_come_in_the_same_response_and_go() {
    let mut store = Store::new(TYPES);
    let mut link = Link::new([on_demand(ADDRESS)]);
    link.demand("pod");
    link.settle(&store);
    link.demand("svc");
    let mut edit = Edit::new();
    edit.put(ADDRESS, resource("svc", "1")).put(ADDRESS, resource("pod", "1").with_part_of(["svc".into()]));
    store.apply(edit);
    link.server_reads(&store);
    link.server_writes(&store);
    remove(&mut store, ADDRESS, "pod");
    link.settle(&store);
    assert_eq!(link.log(), ["-pod", "+pod +svc", "-pod"]);
}

#[test]
fn a_client_may_turn_from_names_to_all_and_back() {
    let mut store = filled();
    let mut link = Link::new([on_demand(ADDRESS)]);
    link.demand("a");
    link.settle(&store);
    assert_eq!(link.log(), ["+a"]);
    let subscribe = |names: &[&str], unsubscribe: &[&str]| DeltaDiscoveryRequest {
        type_url: ADDRESS.into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    link.upstream.push(subscribe(&["*"], &[]));
    link.server_reads(&store);
    remove(&mut store, ADDRESS, "a");
    put(&mut store, ADDRESS, "c", "1");
    link.settle(&store);
    assert_eq!(link.held(ADDRESS), [("b", "1"), ("c", "1")]);

    link.upstream.push(subscribe(&["b"], &["*"]));
    link.settle(&store);
    put(&mut store, ADDRESS, "b", "2");
    put(&mut store, ADDRESS, "c", "2");
    link.settle(&store);
    assert_eq!(link.held(ADDRESS), [("b", "2"), ("c", "1")]);
}

#[test]
fn stale_and_foreign_nonces_are_not_answers() {
    let store = filled();
    let mut link = Link::new([all(ADDRESS)]);
    link.settle(&store);
    link.events.clear();
    for nonce in ["", "1", "lateen/1", "lateen/999", "x"] {
        let error_detail = Some(proto::discovery::Status { code: 3, message: "late".into() });
        link.upstream.push(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            response_nonce: nonce.into(),
            error_detail,
            ..Default::default()
        });
    }
    link.settle(&store);
    assert_eq!(link.events, []);
}

#[test]
fn a_type_that_was_not_asked_for_is_acknowledged_and_left() {
    let mut link = Link::new([all(ADDRESS)]);
    let response = DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/test.New".into(),
        nonce: "7".into(),
        ..Default::default()
    };
    let answer = link.subscriber.receive(response, &mut link.memory).unwrap();
    assert_eq!((answer.response_nonce.as_str(), answer.error_detail), ("7", None));
    assert!(link.memory.deliveries.is_empty());
    assert!(!link.subscriber.is_ready());
}

#[test]
fn a_resource_without_content_or_of_another_type_is_refused() {
    let mut link = Link::new([all(ADDRESS)]);
    let envelope = |name: &str, resource| proto::discovery::Resource {
        name: name.into(),
        resource,
        ..Default::default()
    };
    let any = |type_url: &str| Some(proto::Any { type_url: type_url.into(), value: Bytes::new() });
    let response = DeltaDiscoveryResponse {
        type_url: ADDRESS.into(),
        resources: vec![envelope("a", None), envelope("b", any(POLICY)), envelope("c", any(ADDRESS))],
        ..Default::default()
    };
    let answer = link.subscriber.receive(response, &mut link.memory).unwrap();
    let text = answer.error_detail.unwrap().message;
    assert!(text.contains("a: ") && text.contains("b: ") && !text.contains("c: "), "{text}");
    assert_eq!(link.held(ADDRESS), [("c", "")]);
}

#[test]
fn too_many_names_end_the_stream() {
    let store = filled();
    let mut session = Session::new();
    let request = DeltaDiscoveryRequest {
        type_url: ADDRESS.into(),
        resource_names_subscribe: (0..=1 << 17).map(|number| number.to_string()).collect(),
        ..Default::default()
    };
    assert_eq!(session.request(&store, request), Err(crate::delta::session::SessionError::TooManyNames));
}

/// A client that comes back and asks for as many names as it may says so in a request that the server reads.
#[test]
fn all_names_there_may_be_fit_into_a_request() {
    let mut subscriber = Subscriber::new(Node::default(), [on_demand(ADDRESS)]);
    let name = |number: usize| Str::from(format!("Kubernetes//Pod/{}/{number:050}", "n".repeat(24)));
    let version = "0123456789abcdef";
    let ask = (0..1 << 17).map(name).inspect(|name| subscriber.restore(ADDRESS, name, version)).collect();
    subscriber.wish(ADDRESS, Wish { ask, ..Wish::default() });
    let request = subscriber.connect().remove(0);
    assert_eq!(request.initial_resource_versions.len(), 1 << 17);
    assert!(request.encoded_len() < crate::server::MAX_REQUEST, "{}", request.encoded_len());
}

#[test]
fn what_a_client_says_of_a_refusal_is_cut() {
    let store = filled();
    let mut session = Session::new();
    let ask = DeltaDiscoveryRequest { type_url: ADDRESS.into(), ..Default::default() };
    session.request(&store, ask.clone()).unwrap();
    let sent = session.next(&store).unwrap().unwrap();
    let detail = proto::discovery::Status { code: 3, message: "ä".repeat(1 << 20) };
    let nack = DeltaDiscoveryRequest { response_nonce: sent.nonce, error_detail: Some(detail), ..ask };
    match session.request(&store, nack).unwrap() {
        Some(Event::Nacked { error, .. }) => assert_eq!(error.len(), 16 << 10),
        other => panic!("{other:?}"),
    }
}

#[test]
fn with_digests_nothing_is_listed_that_is_the_same() {
    let mut store = Store::new(TYPES);
    let mut edit = Edit::new();
    edit.replace(ADDRESS, (0..2000).map(|number| resource(&format!("pod-{number}"), "1")));
    store.apply(edit);
    let mut link = Link::new([all(POLICY), all(ADDRESS)]);
    let listed =
        |link: &Link| link.upstream.iter().map(|request| request.initial_resource_versions.len()).max();
    assert_eq!(listed(&link), Some(0));
    link.settle(&store);
    link.log();
    link.reconnect();
    assert_eq!(listed(&link), Some(32));
    link.settle(&store);
    assert_eq!(link.log(), ["", ""]);

    put(&mut store, ADDRESS, "pod-7", "2");
    put(&mut store, ADDRESS, "new", "1");
    remove(&mut store, ADDRESS, "pod-8");
    link.reconnect();
    while link.server_reads(&store) {}
    while link.server_writes(&store) {}
    // It has asked and says nothing else, whatever changes meanwhile, in the buckets in question or beside them.
    assert_eq!(link.downstream.len(), 1);
    assert!((1..=3).contains(&link.downstream[0].removed_resources.len()));
    put(&mut store, ADDRESS, "pod-7", "1");
    put(&mut store, ADDRESS, "pod-9", "2");
    while link.client_reads() {}
    let names = link.upstream[0].initial_resource_versions.len();
    assert!((1..250).contains(&names), "{names} names listed");
    link.settle(&store);
    assert_eq!(link.log(), ["", "+new +pod-9 -pod-8"]);
    assert_eq!(link.memory.repeated, Vec::<String>::new());
}

#[test]
fn a_server_that_does_not_know_digests_is_told_everything() {
    let store = filled();
    let mut link = Link::new([all(ADDRESS)]);
    link.subscriber = Subscriber::new(Node::default(), [all(ADDRESS)]).digests_above(0);
    link.reconnect();
    link.settle(&store);
    link.reconnect();
    assert_eq!(link.upstream[0].initial_resource_versions.len(), 1);
    let foreign = DeltaDiscoveryResponse {
        type_url: ADDRESS.into(),
        nonce: "7".into(),
        removed_resources: link.upstream[0].initial_resource_versions.keys().cloned().collect(),
        ..Default::default()
    };
    link.log();
    assert!(link.subscriber.receive(foreign, &mut link.memory).is_err());
    assert_eq!(link.log(), Vec::<String>::new());
    link.reconnect();
    assert_eq!(link.upstream[0].initial_resource_versions.len(), 2);
}

/// What is sent in several responses is not there with the first one: whoever acted on it would take the rest for
/// things that do not exist.
#[test]
fn a_client_is_ready_with_the_last_response_of_the_first_sending() {
    let mut store = Store::new(TYPES);
    for name in ["a", "b", "c"] {
        put(&mut store, ADDRESS, name, "1");
    }
    let mut link = Link::with_response_bytes(1, [all(ADDRESS)]);
    while link.server_reads(&store) {}
    let mut held = Vec::new();
    while link.server_writes(&store) && link.client_reads() {
        held.push((link.held(ADDRESS).len(), link.subscriber.is_ready()));
        while link.server_reads(&store) {}
    }
    let complete = held.iter().position(|(count, _)| *count == 3).expect("all of it came");
    assert!(complete > 0, "it came in parts: {held:?}");
    assert!(held[..complete].iter().all(|(_, ready)| !ready), "{held:?}");
    assert_eq!(held.last(), Some(&(3, true)));
}

#[test]
fn a_node_is_sent_its_own_pods_without_asking() {
    let mut store = Store::new(TYPES);
    let pod = |name: &str, content: &str, node: &str| {
        resource(name, content).with_part_of([format!("@node/{node}").into()])
    };
    let mut edit = Edit::new();
    edit.put(ADDRESS, pod("here", "1", "n")).put(ADDRESS, pod("there", "1", "m"));
    store.apply(edit);
    let mut link = Link::new([on_demand(ADDRESS)]);
    link.session = Session::new().sent_unasked(Some("@node/n".into()));
    link.settle(&store);
    assert_eq!(link.log(), ["+here"]);

    // They come and go by themselves, also after others were asked for and let go.
    link.demand("there");
    let mut edit = Edit::new();
    edit.put(ADDRESS, pod("new", "1", "n")).put(ADDRESS, pod("here", "2", "n"));
    store.apply(edit);
    link.settle(&store);
    link.upstream.extend(link.subscriber.wish(ADDRESS, release("there")));
    link.settle(&store);
    remove(&mut store, ADDRESS, "new");
    link.settle(&store);
    assert_eq!(link.log(), ["+here +new +there", "-there", "-new"]);
    assert_eq!(link.held(ADDRESS), [("here", "2")]);
}

#[test]
fn what_a_client_has_dropped_is_no_longer_told() {
    let mut store = Store::new(TYPES);
    let pod = |name: &str| resource(name, "1").with_part_of(["svc".into()]);
    let mut edit = Edit::new();
    edit.put(ADDRESS, resource("svc", "1")).put(ADDRESS, pod("a")).put(ADDRESS, resource("lone", "1"));
    store.apply(edit);
    let mut link = Link::new([on_demand(ADDRESS)]);
    link.demand("svc");
    link.demand("lone");
    link.settle(&store);
    link.log();
    // After a restart it asks for less than it has.
    let dropped: BTreeSet<Str> = ["a", "svc"].map(Str::from).into();
    link.subscriber.wish(ADDRESS, release("svc"));
    link.reconnect();
    link.settle(&store);
    link.log();
    link.upstream.extend(link.subscriber.wish(ADDRESS, Wish { dropped, ..Wish::default() }));
    link.settle(&store);
    let mut edit = Edit::new();
    edit.put(ADDRESS, pod("b")).put(ADDRESS, pod("a").with_aliases(["x".into()]));
    store.apply(edit);
    put(&mut store, ADDRESS, "lone", "2");
    link.settle(&store);
    assert_eq!(link.log(), ["-a -svc", "+lone"]);
}

#[test]
fn a_client_that_asks_is_told_when_it_has_been_told_all() {
    let mut store = Store::new(TYPES);
    let pod = |name: &str| resource(name, "1").with_part_of(["svc".into()]);
    let mut edit = Edit::new();
    edit.put(ADDRESS, resource("svc", "1")).put(ADDRESS, pod("a")).put(ADDRESS, pod("b"));
    store.apply(edit);
    // However small the responses, and whatever of it is there already.
    for (response_bytes, before) in [(1, None), (1, Some("a")), (1 << 20, None), (1 << 20, Some("b"))] {
        let mut link = Link::with_response_bytes(response_bytes, [on_demand(ADDRESS)]);
        if let Some(before) = before {
            link.demand("b");
            link.demand(before);
            link.settle(&store);
        }
        link.demand("svc");
        link.demand("nothing");
        link.settle(&store);
        assert_eq!(link.held(ADDRESS), [("a", "1"), ("b", "1"), ("svc", "1")]);
        let more: Vec<bool> = link.memory.deliveries.iter().map(|delivery| delivery.more).collect();
        assert_eq!(more.last(), Some(&false), "{response_bytes} {before:?} {more:?}");
    }
}
