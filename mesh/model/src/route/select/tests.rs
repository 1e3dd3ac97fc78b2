//! Which rule decides, where it sends a request, and what it is called.

use proptest::prelude::*;

use super::{Outcome, select};
use crate::address::Str;
use crate::fixtures::draws;
use crate::route::action::{Action, Destinations, DirectResponse, Forward};
use crate::route::fixtures::{Sent, acting, get, host, no_draw, routing, rule, split};
use crate::route::{HttpMatch, PathMatch, Redirect, Routing, Scope, TextMatch};

fn prefix(text: &str) -> HttpMatch {
    HttpMatch { path: Some(PathMatch::Prefix(text.into())), ..HttpMatch::default() }
}

fn scoped(scope: Scope, path: &str) -> HttpMatch {
    HttpMatch { scope, ..prefix(path) }
}

fn on_port(port: u16) -> Scope {
    Scope { port: Some(port), ..Scope::default() }
}

/// The cause, and the subset or what else became of it.
fn decided(routing: &Routing, sent: &Sent) -> (String, String) {
    let decision = select(routing, &sent.request(), &mut no_draw);
    let outcome = match decision.outcome {
        Outcome::Forward(one) => one.destination.subset.as_deref().unwrap_or("all").to_owned(),
        Outcome::Redirect(_) => "redirect".into(),
        Outcome::Respond(answer) => answer.status.as_u16().to_string(),
        Outcome::NoDestination(missing) => format!("503 {}", missing.join(", ")),
        Outcome::NotFound => "404".into(),
    };
    (decision.cause.to_string(), outcome)
}

#[test]
fn the_first_rule_that_matches_decides() {
    let dark = HttpMatch {
        headers: [crate::route::HeaderMatch {
            key: crate::route::HeaderKey::parse("end-user").unwrap(),
            value: TextMatch::Exact("jason".into()),
        }]
        .into(),
        ..HttpMatch::default()
    };
    let routing = routing([
        rule(0, [dark, prefix("/beta")], "v2"),
        rule(1, [prefix("/reviews")], "v1"),
        rule(2, [prefix("/reviews/old")], "never"),
    ]);
    let table = [
        (get("/reviews/1").header("end-user", "jason"), "VirtualService default/reviews http[0]", "v2"),
        (get("/beta/x"), "VirtualService default/reviews http[0]", "v2"),
        (get("/reviews/old"), "VirtualService default/reviews http[1]", "v1"),
        (get("/ratings"), "no rule for default/reviews matched", "404"),
    ];
    for (sent, cause, outcome) in table {
        assert_eq!(decided(&routing, &sent), (cause.into(), outcome.into()), "{sent:?}");
    }
}

#[test]
fn without_a_rule_for_it_traffic_goes_to_the_service() {
    let by_default = ("default routing of default/reviews".to_owned(), "all".to_owned());
    let of_shop = Scope { source_namespace: Some("shop".into()), ..Scope::default() };
    let rules = |scope: Scope| routing([rule(0, [scoped(scope, "/reviews")], "v1")]);
    let nobody = Scope { source_labels: [("app".into(), "batch".into())].into(), ..Scope::default() };
    let table: [(Routing, Sent, Option<&str>); 8] = [
        (routing([]), get("/"), None),
        // No rule is for that port: the rules do not count there.
        (rules(on_port(9081)), get("/reviews"), None),
        (rules(on_port(9081)), get("/other"), None),
        // One is, and does not match.
        (rules(on_port(9080)), get("/other"), Some("404")),
        (rules(on_port(9080)), get("/reviews"), Some("v1")),
        (rules(nobody), get("/reviews"), None),
        (rules(of_shop.clone()), get("/other"), Some("404")),
        (rules(of_shop), get("/reviews").anonymous(), None),
    ];
    for (routing, sent, expected) in table {
        let found = decided(&routing, &sent);
        match expected {
            None => assert_eq!(found, by_default, "{sent:?}"),
            Some(outcome) => assert_eq!(found.1, outcome, "{sent:?}"),
        }
    }
    // A host that is no service has nowhere to send it by default.
    let bare = Routing { default: None, ..routing([]) };
    assert_eq!(decided(&bare, &get("/")).1, "404");
    // A rule without conditions takes everything, whatever came before.
    let rest = routing([rule(0, [scoped(on_port(1), "/")], "v1"), rule(1, [], "v2")]);
    assert_eq!(decided(&rest, &get("/x")).1, "v2");
}

#[test]
fn a_rule_redirects_or_answers() {
    let redirect =
        Redirect { path: None, authority: None, port: None, scheme: None, code: http::StatusCode::FOUND };
    let answer = DirectResponse { status: http::StatusCode::GONE, body: None };
    let routing = routing([
        acting(0, [prefix("/old")], Action::Redirect(Box::new(redirect))),
        acting(1, [prefix("/gone")], Action::Respond(Box::new(answer))),
    ]);
    assert_eq!(decided(&routing, &get("/old/x")).1, "redirect");
    assert_eq!(decided(&routing, &get("/gone")).1, "410");
}

/// What a rewrite or redirect of the path leaves is what stands behind the match.
#[test]
fn a_decision_says_how_much_of_the_path_matched() {
    let exact = HttpMatch { path: Some(PathMatch::Exact("/old/x".into())), ..HttpMatch::default() };
    let rules = routing([rule(0, [exact, prefix("/old")], "v1"), rule(1, [], "v2")]);
    for (path, expected) in [("/old/x", 6), ("/old/y", 4), ("/older", 4), ("/", 1), ("/new", 1)] {
        let sent = get(path);
        let decision = select(&rules, &sent.request(), &mut no_draw);
        assert_eq!(decision.matched_length(path), expected, "{path}");
    }
}

fn forwarding(destinations: Destinations, missing: &[&str]) -> Routing {
    let missing = missing.iter().map(|name| Str::from(*name)).collect();
    let forward = Forward { destinations, missing, ..Forward::default() };
    routing([acting(0, [], Action::Forward(Box::new(forward)))])
}

#[test]
fn a_rule_without_a_destination_says_what_is_missing() {
    let cause = "VirtualService default/reviews http[0]";
    let table: [(Destinations, &[&str], &str); 4] = [
        (split(&[]), &["subset v3 of default/reviews"], "503 subset v3 of default/reviews"),
        (split(&[]), &["a", "b"], "503 a, b"),
        // Nothing is missing, but nothing has a share.
        (split(&[(0, "v1"), (0, "v2")]), &[], "503 "),
        (split(&[(0, "v1")]), &["subset v2"], "503 subset v2"),
    ];
    for (destinations, missing, outcome) in table {
        let routing = forwarding(destinations, missing);
        assert_eq!(decided(&routing, &get("/")), (cause.into(), outcome.into()));
    }
    // What is left of a rule is used.
    let left = forwarding(split(&[(1, "v1")]), &["subset v2"]);
    let decision = select(&left, &get("/").request(), &mut |_| 0);
    assert!(
        matches!(decision.outcome, Outcome::Forward(one) if one.destination.subset.as_deref() == Some("v1"))
    );
}

#[test]
fn weights_are_shares() {
    let routing = forwarding(split(&[(95, "v1"), (0, "none"), (5, "v2")]), &[]);
    let sent = get("/");
    let subset_at = |drawn: u32| {
        let decision = select(&routing, &sent.request(), &mut |bound| {
            assert_eq!(bound, 100);
            drawn
        });
        match decision.outcome {
            Outcome::Forward(one) => one.destination.subset.clone().unwrap().to_string(),
            other => panic!("{other:?}"),
        }
    };
    let all: Vec<String> = (0..100).map(subset_at).collect();
    assert!(all[..95].iter().all(|one| one == "v1"), "{all:?}");
    assert!(all[95..].iter().all(|one| one == "v2"), "{all:?}");
    // And over 10,000 requests about that many, drawn as in service.
    let mut draw = draws(3);
    let canary = (0..10_000)
        .filter(|_| match select(&routing, &sent.request(), &mut draw).outcome {
            Outcome::Forward(one) => one.destination.subset.as_deref() == Some("v2"),
            _ => false,
        })
        .count();
    assert!((420..580).contains(&canary), "{canary} of 10,000");
}

#[test]
fn the_route_has_a_name() {
    let named = |name: Option<&str>| HttpMatch { name: name.map(Into::into), ..prefix("/") };
    let table = [
        (None, None, None),
        (Some("main"), None, Some("main")),
        (Some("main"), Some("beta"), Some("main.beta")),
        (None, Some("beta"), Some(".beta")),
    ];
    for (of_rule, of_match, expected) in table {
        let mut one = rule(0, [named(of_match)], "v1");
        one.name = of_rule.map(Into::into);
        let routing = routing([one]);
        let sent = get("/");
        let decision = select(&routing, &sent.request(), &mut no_draw);
        assert_eq!(decision.route_name().as_deref(), expected);
    }
    let by_default = routing([]);
    assert_eq!(
        select(&by_default, &get("/").request(), &mut no_draw).route_name().as_deref(),
        Some("default")
    );
    let none = routing([rule(0, [prefix("/x")], "v1")]);
    assert_eq!(select(&none, &get("/").request(), &mut no_draw).route_name(), None);
    assert_eq!(by_default.host, host("reviews"));
}

proptest! {
    /// Each destination gets exactly its weight of all draws, whatever the order and the zeros in between.
    #[test]
    fn weights_add_up(weights in proptest::collection::vec(0_u32..50, 1..8)) {
        let names: Vec<String> = (0..weights.len()).map(|place| place.to_string()).collect();
        let pairs: Vec<(u32, &str)> = weights.iter().copied().zip(names.iter().map(String::as_str)).collect();
        let destinations = split(&pairs);
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        for drawn in 0..total {
            let chosen = destinations.choose(&mut |bound| { assert_eq!(bound, total); drawn }).unwrap();
            counts[chosen.subset.as_ref().unwrap().parse::<usize>().unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
        if total == 0 {
            prop_assert!(destinations.choose(&mut no_draw).is_none());
        }
    }
}
