//! What is known of hosts that nothing was told of.

use super::*;

fn host(name: &str) -> NamespacedHostname {
    NamespacedHostname::new("ns", name)
}

#[test]
fn a_host_without_rules_is_routed_by_default_and_is_as_new_as_the_last_loss_of_rules() {
    let routings = Routings::default();
    let edition = |name: &str| {
        let found = routings.of(&host(name));
        let routing = found.routing.expect("every host has one");
        assert_eq!(routing.host, host(name));
        (routing.is_by_default(), found.edition)
    };
    assert_eq!(edition("a"), (true, 0));
    let mut rules = Routing::by_default(host("b"));
    rules.default = None;
    routings.set(rules);
    assert_eq!((edition("a"), edition("b")), ((true, 0), (false, 1)));
    routings.apply(vec![RoutingUpdate::Remove(host("b"))]);
    // Newer than the rules that it had: who goes by those looks again.
    assert_eq!((edition("a"), edition("b")), ((true, 2), (true, 2)));
    assert_eq!(routings.hosts(), []);
}

#[test]
fn only_so_many_hosts_without_rules_are_remembered() {
    let routings = Routings::default();
    for number in 0..2 * MOST_DEFAULTS {
        routings.of(&host(&number.to_string()));
        assert!(routings.known.read().unwrap().by_default.len() <= MOST_DEFAULTS);
    }
    assert!(routings.of(&host("0")).routing.is_some());
}
