//! The hold (design decision D4): what does not resolve changes nothing that is in force.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Objects that come and go, by name.
#[derive(Debug, Clone, Default)]
struct World {
    services: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
    last_good: LastGood,
}

/// One object, as it comes; without a text it goes.
type Change = (&'static str, Option<String>);

impl World {
    fn apply(&mut self, (name, text): &Change) -> Outcome {
        let place = if name.starts_with("Service ") { &mut self.services } else { &mut self.texts };
        match text {
            Some(text) => drop(place.insert((*name).to_owned(), text.clone())),
            None => drop(place.remove(*name)),
        }
        self.look()
    }

    fn look(&mut self) -> Outcome {
        let outcome = compile(&self.objects(), &self.last_good);
        self.last_good = outcome.last_good.clone();
        outcome
    }

    fn objects(&self) -> Objects {
        let services: Vec<&str> = self.services.values().map(String::as_str).collect();
        objects(&services, &self.texts.values().cloned().collect::<String>())
    }
}

fn service(name: &'static str) -> Change {
    let text = name.trim_start_matches("Service ");
    (name, Some(format!("{text} 80")))
}

fn subsets(names: &[&str]) -> Change {
    let all: Vec<String> =
        names.iter().map(|name| format!("{{name: {name}, labels: {{v: {name}}}}}")).collect();
    let spec = format!("{{host: cart, subsets: [{}]}}", all.join(", "));
    ("DestinationRule shop/cart", Some(destination_rule("shop/cart", &spec)))
}

fn route(subset: &str) -> Change {
    let spec =
        format!("{{hosts: [cart], http: [{{route: [{{destination: {{host: cart, subset: {subset}}}}}]}}]}}");
    ("VirtualService shop/cart", Some(virtual_service("shop/cart", &spec)))
}

/// The rules in force for `cart`, and for want of what they are not the newest.
fn state(outcome: &Outcome) -> (Vec<String>, Vec<String>) {
    let short = |rule: &String| rule.rsplit("-> ").next().unwrap_or_default().to_owned();
    let held = outcome.held.get(&key("shop/cart")).into_iter().flatten();
    (rules(outcome, "shop/cart").iter().map(short).collect(), held.map(ToString::to_string).collect())
}

fn good(subset: &str) -> (Vec<String>, Vec<String>) {
    (vec![format!("cart.shop:80 {subset}")], Vec::new())
}

#[test]
fn a_host_keeps_its_last_good_routing_until_all_is_there() {
    let held = "VirtualService shop/cart http[0]: DestinationRule subset shop/cart ";
    let mut world = World::default();
    world.apply(&service("Service shop/cart"));
    // Its service alone was good: the default routing.
    assert_eq!(state(&world.apply(&route("v1"))), (vec![], vec![format!("{held}v1")]));
    assert_eq!(state(&world.apply(&subsets(&["v1"]))), good("v1"));
    assert_eq!(state(&world.apply(&route("v2"))), (good("v1").0, vec![format!("{held}v2")]));
    // Restarted: what was kept is all there is of the past.
    assert_eq!(state(&world.clone().look()), (good("v1").0, vec![format!("{held}v2")]));
    assert_eq!(state(&world.apply(&subsets(&["v1", "v2"]))), good("v2"));
    // A subset goes while it is in use, and stays gone: its labels are kept with the rule.
    let outcome = world.apply(&subsets(&["v1"]));
    assert_eq!(state(&outcome), (good("v2").0, vec![format!("{held}v2")]));
    let kept = &outcome.routings[&key("shop/cart")].destinations[&key("shop/cart")];
    assert!(kept.subset("v2").is_some());
    let outcome = world.apply(&("DestinationRule shop/cart", None));
    assert_eq!(state(&outcome), (good("v2").0, vec![format!("{held}v2")]));
    // Without the rule nothing is missing any more.
    let outcome = world.apply(&("VirtualService shop/cart", None));
    assert_eq!(state(&outcome), (vec![], vec![]));
    // A host that is gone leaves nothing to go back to.
    world.apply(&("Service shop/cart", None));
    assert!(world.last_good.is_empty());
}

#[test]
fn without_a_last_good_the_unresolved_is_left_out_and_named() {
    let mut world = World::default();
    world.apply(&route("v1"));
    let outcome = world.apply(&service("Service shop/cart"));
    assert_eq!(
        rules(&outcome, "shop/cart"),
        ["shop/cart http[0] 0 ->  without DestinationRule subset shop/cart v1"]
    );
    assert!(outcome.held.is_empty() && outcome.last_good.is_empty());
    assert_eq!(state(&world.apply(&subsets(&["v1"]))), good("v1"));
}

fn any_change() -> impl Strategy<Value = Change> {
    let subset = prop::sample::select(vec!["v1", "v2", "v3"]);
    let some = prop::sample::subsequence(vec!["v1", "v2", "v3"], 0..=3);
    let second = |subset: &str| {
        let spec = format!(
            "{{hosts: ['*.shop.svc.cluster.local'], http: [{{match: [{{uri: {{prefix: /b}}}}], route: [\
             {{destination: {{host: cart, subset: {subset}}}, weight: 1}}, {{destination: {{host: other}}, weight: 2}}]}}]}}"
        );
        ("VirtualService shop/wild", Some(virtual_service("shop/wild", &spec)))
    };
    prop_oneof![
        subset.clone().prop_map(route),
        subset.prop_map(second),
        some.prop_map(|some| subsets(&some)),
        Just(service("Service shop/cart")),
        Just(service("Service shop/other")),
        prop::sample::select(vec![
            "VirtualService shop/cart",
            "VirtualService shop/wild",
            "DestinationRule shop/cart",
            "Service shop/cart",
            "Service shop/other",
        ])
        .prop_map(|name| (name, None)),
    ]
}

/// No rule leads to a subset that is not defined beside it, and one without a destination says what is missing.
fn is_whole(routing: &Routing) -> Result<(), TestCaseError> {
    for rule in &routing.http {
        let Action::Forward(forward) = &rule.action else { continue };
        prop_assert!(forward.destinations.all().next().is_some() || !forward.missing.is_empty(), "{rule:?}");
        for destination in forward.destinations.all() {
            let Some(subset) = &destination.subset else { continue };
            let known = routing.destinations.get(&destination.service).and_then(|known| known.subset(subset));
            prop_assert!(known.is_some(), "{rule:?} leads to a subset that is not there");
        }
    }
    Ok(())
}

/// The routings of a text, kept up to date.
fn steps(text: &str) -> Routings {
    let all = objects(SERVICES, text);
    let mut steps = Routings::new("cluster.local".into(), "istio-system".into());
    for (name, host) in &all.services {
        steps.set_service(name, Some(host.clone()));
    }
    for object in &all.virtual_services {
        let namespace = object.metadata.namespace.as_deref().expect("a namespace");
        steps.set_virtual_service(&Name::new(namespace, &object.metadata.name), Some(object));
    }
    steps.compile();
    steps
}

/// What another process has in force counts where one's own rules do not resolve, and only there.
#[test]
fn what_another_process_has_is_adopted_where_rules_do_not_resolve() {
    let host = key("shop/cart");
    let theirs = steps(&virtual_service("shop/v", &to("cart", "reviews"))).outcome().routings[&host].clone();
    let mut lacking = steps(&virtual_service("shop/v", &to("cart", "nobody")));
    let changed = lacking.adopt([theirs.clone()]);
    assert!(changed.missing && changed.routings.contains(&host));
    assert_eq!(lacking.outcome().routings[&host], theirs);
    assert!(lacking.outcome().held.contains_key(&host));
    let mut whole = steps(&virtual_service("shop/v", &to("cart", "cart")));
    assert!(whole.adopt([theirs.clone()]).routings.is_empty());
    assert_ne!(whole.outcome().routings[&host], theirs);
    // What is lacking is lacking no more once the host is gone, and whoever tells of it is told.
    lacking.set_service(&Name::new("shop", "cart"), None);
    assert!(lacking.compile().missing);
}

/// Statuses name what is lacking: whoever writes them is told when that is something else, and only then.
#[test]
fn who_tells_what_is_lacking_is_told_when_it_changes() {
    let (cart, other) = (Name::new("shop", "cart"), Name::new("shop", "other"));
    let host = || Some(Host { ports: [80].into(), seen_from: "shop".into() });
    let object = |to_host: &str| {
        let all = objects(SERVICES, &virtual_service("shop/v", &to("cart", to_host)));
        all.virtual_services[0].clone()
    };
    let mut steps = Routings::new("cluster.local".into(), "istio-system".into());
    let rules = Name::new("shop", "v");
    steps.set_virtual_service(&rules, Some(&object("other")));
    let mut told = |step: &str, change: &dyn Fn(&mut Routings)| {
        change(&mut steps);
        let missing = steps.compile().missing;
        let outcome = steps.outcome();
        (step.to_owned(), missing, outcome.held.len(), outcome.unresolved.len())
    };
    let found = [
        told("never good", &|steps| steps.set_service(&cart, host())),
        told("for want of another", &|steps| steps.set_virtual_service(&rules, Some(&object("nobody")))),
        told("the same", &|steps| steps.set_virtual_service(&rules, Some(&object("nobody")))),
        told("gone", &|steps| steps.set_service(&cart, None)),
        told("back", &|steps| steps.set_service(&cart, host())),
        told("good", &|steps| steps.set_virtual_service(&rules, Some(&object("cart")))),
        told("good again", &|steps| steps.set_service(&other, host())),
        told("held", &|steps| steps.set_virtual_service(&rules, Some(&object("nobody")))),
        told("resolved", &|steps| steps.set_virtual_service(&rules, Some(&object("other")))),
    ];
    let expected = [
        ("never good", true, 0, 1),
        ("for want of another", true, 0, 1),
        ("the same", false, 0, 1),
        ("gone", true, 0, 0),
        ("back", true, 0, 1),
        ("good", true, 0, 0),
        ("good again", false, 0, 0),
        ("held", true, 1, 0),
        ("resolved", true, 0, 0),
    ];
    assert_eq!(found, expected.map(|(step, missing, held, left)| (step.to_owned(), missing, held, left)));
}

#[test]
fn who_goes_takes_no_other_rules_for_the_same_hosts_along() {
    for hosts in ["cart", "*.shop.svc.cluster.local"] {
        let text =
            virtual_service("shop/a", &to(hosts, "cart")) + &virtual_service("shop/b", &to(hosts, "cart"));
        let mut all = steps(&text);
        assert_eq!(rules(all.outcome(), "shop/cart").len(), 2);
        all.set_virtual_service(&Name::new("shop", "a"), None);
        all.compile();
        assert_eq!(rules(all.outcome(), "shop/cart"), ["shop/b http[0] 0 -> cart.shop:80"], "{hosts}");
        // They are still there for what comes later.
        all.set_service(&Name::new("shop", "cart"), None);
        all.compile();
        all.set_service(
            &Name::new("shop", "cart"),
            Some(Host { ports: [80].into(), seen_from: "shop".into() }),
        );
        all.compile();
        assert_eq!(rules(all.outcome(), "shop/cart"), ["shop/b http[0] 0 -> cart.shop:80"], "{hosts}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever comes and goes in whichever order, and whenever it is restarted.
    #[test]
    fn every_state_on_the_way_is_whole(changes in prop::collection::vec((any_change(), any::<bool>()), 1..25)) {
        let mut world = World::default();
        for (change, restart) in &changes {
            let before = world.last_good.clone();
            let outcome = world.apply(change);
            let now = fresh(&world.objects());
            for (host, routing) in &outcome.routings {
                is_whole(routing)?;
                match (outcome.held.get(host), outcome.unresolved.get(host)) {
                    // What resolves is in force at once, whatever was there before.
                    (None, None) => prop_assert_eq!(routing, &now.routings[host]),
                    (Some(_), None) => prop_assert_eq!(Some(routing), before.get(host)),
                    (None, Some(_)) => {
                        prop_assert!(!before.contains_key(host));
                        prop_assert_eq!(routing, &now.routings[host]);
                    }
                    (Some(_), Some(_)) => prop_assert!(false, "held and left out"),
                }
            }
            if *restart {
                let again = compile(&world.objects(), &world.last_good);
                prop_assert_eq!(&again, &outcome);
            }
        }
    }

    /// Kept up to date object by object it comes to what it comes to when all is compiled at once.
    #[test]
    fn step_by_step_is_as_all_at_once(changes in prop::collection::vec(any_change(), 1..25)) {
        let mut world = World::default();
        let mut steps = Routings::new("cluster.local".into(), "istio-system".into());
        for change in &changes {
            let outcome = world.apply(change);
            let objects = world.objects();
            let (kind, name) = change.0.split_once(' ').expect("a kind and a name");
            let (namespace, own) = name.split_once('/').expect("a namespace and a name");
            let name = Name::new(namespace, own);
            let named = |all: &[Arc<Object>]| {
                all.iter().find(|object| object.metadata.name == own).cloned()
            };
            match kind {
                "Service" => steps.set_service(&name, objects.services.get(&name).cloned()),
                "VirtualService" => {
                    steps.set_virtual_service(&name, named(&objects.virtual_services).as_deref());
                }
                _ => steps.set_destination_rule(&name, named(&objects.destination_rules).as_deref()),
            }
            let before = steps.outcome().routings.clone();
            let changed = steps.compile();
            let now = steps.outcome();
            prop_assert_eq!(&now.routings, &outcome.routings);
            prop_assert_eq!(&now.last_good, &outcome.last_good);
            prop_assert_eq!((&now.held, &now.unresolved), (&outcome.held, &outcome.unresolved));
            for host in before.keys().chain(now.routings.keys()) {
                let same = before.get(host) == now.routings.get(host);
                prop_assert_eq!(changed.routings.contains(host), !same, "{}", host);
            }
            for (name, standing) in &outcome.virtual_services {
                prop_assert_eq!(steps.virtual_service(name), Some(standing.clone()));
            }
            for (name, standing) in &outcome.destination_rules {
                prop_assert_eq!(steps.destination_rule(name), Some(standing.clone()));
            }
        }
    }

    /// The same objects in another order end in the same, if all of it resolves.
    #[test]
    fn the_order_of_what_resolves_does_not_matter(
        seed in prop::collection::vec(any::<prop::sample::Index>(), 5),
        subset in prop::sample::select(vec!["v1", "v2"]),
        noise in prop::collection::vec(any_change(), 0..6),
    ) {
        let wild = virtual_service("shop/wild", "{hosts: ['*.shop.svc.cluster.local'], http: [{match: [{uri: {prefix: /b}}], \
            route: [{destination: {host: cart, subset: v1}, weight: 1}, {destination: {host: other}, weight: 2}]}]}");
        let all: Vec<Change> = vec![
            service("Service shop/cart"),
            service("Service shop/other"),
            subsets(&["v1", "v2"]),
            route(subset),
            ("VirtualService shop/wild", Some(wild)),
        ];
        let mut shuffled = all.clone();
        for (place, index) in seed.iter().enumerate() {
            let other = index.index(shuffled.len());
            shuffled.swap(place, other);
        }
        let (mut one, mut two) = (World::default(), World::default());
        let mut last = (Outcome::default(), Outcome::default());
        for change in &all {
            last.0 = one.apply(change);
        }
        for change in noise.iter().chain(&shuffled) {
            last.1 = two.apply(change);
        }
        prop_assert!(last.0.held.is_empty() && last.0.unresolved.is_empty());
        prop_assert_eq!(&last.0, &last.1);
    }
}
