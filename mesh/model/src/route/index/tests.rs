//! The index decides as asking every rule does.

use proptest::prelude::*;

use super::super::fixtures::{get, no_draw, routing, rule};
use super::super::regex::Regex;
use super::super::text::TextMatch;
use super::*;

/// What a condition may ask: paths that are each other's beginnings, in either case, for any client or a port's.
fn condition() -> impl Strategy<Value = HttpMatch> {
    let text = prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/A/b", "/a/bc", "/c", "/ä", ""]);
    let path = (text, 0..4).prop_map(|(text, kind)| match kind {
        0 => Some(PathMatch::Exact(text.into())),
        1 => Some(PathMatch::Prefix(text.into())),
        2 => Regex::new(&format!("{text}.")).ok().map(PathMatch::Regex),
        _ => None,
    });
    (path, any::<bool>(), 0..4, 0u16..3).prop_map(|(path, ignore_path_case, method, port)| HttpMatch {
        path,
        ignore_path_case,
        method: (method == 0).then(|| TextMatch::Exact("POST".into())),
        scope: Scope { port: (port < 2).then_some(9080 + port), ..Scope::default() },
        ..HttpMatch::default()
    })
}

fn rules() -> impl Strategy<Value = Vec<HttpRule>> {
    // One in twenty or so takes everything.
    let matches = prop::collection::vec(condition(), 0..6);
    prop::collection::vec(matches, 0..24)
        .prop_map(|all| all.into_iter().zip(0..).map(|(matches, index)| rule(index, matches, "v1")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_index_decides_as_asking_every_rule_does(
        rules in rules(),
        path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/A/B", "/a/b/c", "/a/bcd", "/cc", "/ä", "/z"]),
        post in any::<bool>(),
        port in 9080u16..9083,
    ) {
        let linear = routing(rules);
        let index = Some(Index::of(&linear.http));
        let indexed = Indexed { routing: linear.clone(), index };
        let sent = get(path).port(port).method(if post { "POST" } else { "GET" });
        let request = sent.request();
        let (found, expected) =
            (indexed.select(&request, &mut no_draw), select(&linear, &request, &mut no_draw));
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn few_conditions_are_asked_one_by_one() {
    let prefix: fn(Str) -> PathMatch = PathMatch::Prefix;
    let of = |count: u32, path: fn(Str) -> PathMatch| {
        let path = |n: u32| HttpMatch { path: Some(path(format!("/{n}/").into())), ..HttpMatch::default() };
        Indexed::new(routing((0..count).map(|n| rule(n, [path(n)], "v1")).collect::<Vec<_>>()))
    };
    assert!(of(16, prefix).index.is_none());
    let exact = of(3000, PathMatch::Exact).index.unwrap();
    assert_eq!((exact.exact.len(), exact.others.len()), (3000, 0));
    let many = of(3000, prefix);
    let index = many.index.as_ref().unwrap();
    assert_eq!((index.lengths.as_slice(), index.others.len()), (&[6, 5, 4, 3][..], 0));
    assert!(index.unscoped, "some are for any client: nobody looks for one that is for this one");
    let sent = get("/2999/x");
    let decision = many.select(&sent.request(), &mut no_draw);
    assert_eq!(decision.rule.map(|rule| rule.source.index), Some(2999));
}
