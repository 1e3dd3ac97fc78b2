//! Random histories of a store and its clients, after which both must agree.

use proptest::prelude::*;

use super::*;

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Happening {
    Put(usize, u8, &'static str),
    Remove(usize, u8),
    Replace(usize, Vec<u8>),
    ServerReads,
    ServerWrites,
    ClientReads,
    Settle,
    Reconnect,
    /// Another replica takes over: same contents, another history.
    Failover,
    Demand(u8),
    Release(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    let content = prop_oneof![Just("1"), Just("2"), Just("3"), Just("bad 1"), Just("bad 2")];
    prop_oneof![
        6 => (0..2_usize, 0..6_u8, content).prop_map(|(of, name, content)| Happening::Put(of, name, content)),
        3 => (0..2_usize, 0..6_u8).prop_map(|(of, name)| Happening::Remove(of, name)),
        1 => (0..2_usize, proptest::collection::vec(0..6_u8, 0..6)).prop_map(|(of, names)| Happening::Replace(of, names)),
        4 => Just(Happening::ServerReads),
        4 => Just(Happening::ServerWrites),
        4 => Just(Happening::ClientReads),
        1 => Just(Happening::Settle),
        1 => Just(Happening::Reconnect),
        1 => Just(Happening::Failover),
        2 => (0..6_u8).prop_map(Happening::Demand),
        1 => (0..6_u8).prop_map(Happening::Release),
    ]
}

/// A resource that may be asked for by another name, and goes with the first of its type.
fn named(name: u8, content: &str) -> Resource {
    let mut resource = resource(&format!("r{name}"), content).with_aliases([format!("/{name}").into()]);
    if name > 3 {
        resource = resource.with_part_of(["r0".into()]);
    }
    resource
}

fn happen(store: &mut Store, link: &mut Link, happening: Happening) {
    match happening {
        Happening::Put(of, name, content) => {
            let mut edit = Edit::new();
            edit.put(TYPES[of], named(name, content));
            store.apply(edit);
        }
        Happening::Remove(of, name) => remove(store, TYPES[of], &format!("r{name}")),
        Happening::Replace(of, names) => {
            let mut edit = Edit::new();
            edit.replace(TYPES[of], names.into_iter().map(|name| named(name, "4")));
            store.apply(edit);
        }
        Happening::ServerReads => drop(link.server_reads(store)),
        Happening::ServerWrites => drop(link.server_writes(store)),
        Happening::ClientReads => drop(link.client_reads()),
        Happening::Settle => link.settle(store),
        Happening::Reconnect => link.reconnect(),
        Happening::Failover => {
            let mut other = Store::new(TYPES);
            for type_url in TYPES {
                for resource in store.resources(type_url) {
                    put(&mut other, type_url, resource.name(), "of another time");
                    let mut edit = Edit::new();
                    edit.put(type_url, (**resource).clone());
                    other.apply(edit);
                }
            }
            *store = other;
            link.reconnect();
        }
        Happening::Demand(name) => {
            link.upstream.extend(link.subscriber.wish(ADDRESS, ask(&format!("/{name}"))));
        }
        Happening::Release(name) => {
            link.upstream.extend(link.subscriber.wish(ADDRESS, release(&format!("/{name}"))));
        }
    }
}

/// Whatever was refused apart, the client holds what the store holds, and no stand-in outlives what it stands for.
fn agree(store: &Store, link: &Link, type_url: &str, wanted: impl Fn(&str) -> bool) {
    let contents: BTreeMap<String, Bytes> = store
        .resources(type_url)
        .filter(|resource| wanted(resource.name()))
        .map(|resource| (resource.name().to_string(), resource.value().clone()))
        .collect();
    for (name, content) in &contents {
        let key = (type_url.to_owned(), name.clone());
        let held = link.memory.held.get(&key);
        if content.starts_with(b"bad") {
            assert!(held.is_some() || link.memory.standing_in.contains_key(&key), "{name} is unguarded");
        } else {
            assert_eq!(held, Some(content), "{name}");
            assert!(!link.memory.standing_in.contains_key(&key), "{name} is still denied");
        }
    }
    let of_type = |((of, name), _): (&(String, String), &Bytes)| (of == type_url).then(|| name.clone());
    let held = link.memory.held.iter().chain(&link.memory.standing_in).filter_map(of_type);
    for name in held.filter(|name| wanted(name)) {
        assert!(contents.contains_key(&name), "{name} is gone and still held");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn all_of_everything_arrives_once(
        history in proptest::collection::vec(happening(), 0..60),
        response_bytes in prop_oneof![Just(1), Just(12), Just(1 << 20)],
        digests_above in prop_oneof![Just(0), Just(2), Just(1000)],
    ) {
        let mut store = Store::new(TYPES);
        let mut link = Link::with_response_bytes(response_bytes, TYPES.map(all));
        link.subscriber = link.subscriber.digests_above(digests_above);
        for happening in history {
            if !matches!(happening, Happening::Demand(_) | Happening::Release(_)) {
                happen(&mut store, &mut link, happening);
            }
        }
        link.settle(&store);
        for type_url in TYPES {
            agree(&store, &link, type_url, |_| true);
            prop_assert_eq!(link.session.in_force(&store, type_url), Some(store.revision()));
        }
        // A refused version in between hides from the server that the client kept the one before.
        let refused = link.events.iter().any(|event| matches!(event, Event::Nacked { .. }));
        prop_assert!(refused || link.memory.repeated.is_empty(), "sent again: {:?}", link.memory.repeated);

        // Coming back at once, nothing is sent but what was refused.
        link.memory.deliveries.clear();
        link.reconnect();
        link.settle(&store);
        for delivery in &link.memory.deliveries {
            prop_assert!(delivery.resources.iter().all(|resource| resource.value.starts_with(b"bad")));
            prop_assert!(delivery.removed.is_empty());
        }
    }

    #[test]
    fn what_is_demanded_arrives(
        history in proptest::collection::vec(happening(), 0..60),
        response_bytes in prop_oneof![Just(1), Just(12), Just(1 << 20)],
    ) {
        let mut store = Store::new(TYPES);
        let mut link = Link::with_response_bytes(response_bytes, [all(POLICY), on_demand(ADDRESS)]);
        let mut demanded = std::collections::BTreeSet::new();
        for happening in history {
            match happening {
                Happening::Demand(name) => drop(demanded.insert(name)),
                Happening::Release(name) => drop(demanded.remove(&name)),
                _ => {}
            }
            happen(&mut store, &mut link, happening);
        }
        link.settle(&store);
        agree(&store, &link, POLICY, |_| true);
        let wanted = |name: &str| {
            let number: u8 = name[1..].parse().unwrap();
            demanded.contains(&number) || (number > 3 && demanded.contains(&0) && store.get(ADDRESS, "r0").is_some())
        };
        agree(&store, &link, ADDRESS, wanted);
    }
}
