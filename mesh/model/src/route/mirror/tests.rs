//! Who gets a copy, and under which name.

use super::{Mirror, mirrors, shadow_authority};
use crate::route::Fraction;
use crate::route::fixtures::{no_draw, reviews};

#[test]
fn each_mirror_is_drawn_for_itself() {
    let mirror = |subset: &str, share| Mirror { destination: reviews(subset), share };
    let all = [
        mirror("all", Fraction::ALL),
        mirror("tenth", Fraction::percent(10.0).unwrap()),
        mirror("none", Fraction::NONE),
        mirror("half", Fraction::percent(50.0).unwrap()),
    ];
    for (drawn, expected) in [
        ([0, 0], &["all", "tenth", "half"][..]),
        ([100_000, 0], &["all", "half"]),
        ([99_999, 500_000], &["all", "tenth"]),
        ([100_000, 500_000], &["all"]),
    ] {
        let mut drawn = drawn.into_iter();
        let chosen = mirrors(&all, &mut |_| drawn.next().unwrap());
        let subsets: Vec<&str> = chosen.iter().filter_map(|one| one.subset.as_deref()).collect();
        assert_eq!(subsets, expected);
    }
    assert!(mirrors(&[], &mut no_draw).is_empty());
}

#[test]
fn a_copy_is_marked() {
    for (authority, expected) in [
        ("reviews", "reviews-shadow"),
        ("reviews:9080", "reviews-shadow:9080"),
        ("[fd00::1]", "[fd00::1]-shadow"),
        ("[fd00::1]:80", "[fd00::1]-shadow:80"),
    ] {
        assert_eq!(shadow_authority(authority), expected);
    }
}
