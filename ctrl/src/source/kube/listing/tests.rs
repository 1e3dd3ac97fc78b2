//! Events of a watch, and what each comes to.

use super::*;

const POLICY: Watched =
    Watched { group: "security.istio.io", versions: &["v1"], kind: "AuthorizationPolicy", custom: true };

fn object(name: &str, version: &str) -> DynamicObject {
    let mut object = DynamicObject::new(name, &POLICY.resource("v1")).within("shop");
    object.metadata.resource_version = Some(version.to_owned());
    object
}

/// Names of what is new and of what is gone, and whether all is known.
type Told = (Vec<String>, Vec<String>, bool);

fn told(difference: Option<Difference>) -> Option<Told> {
    let difference = difference?;
    let objects = difference.objects.iter().filter_map(|object| object.metadata.name.clone()).collect();
    let removed = difference.removed.iter().map(ToString::to_string).collect();
    Some((objects, removed, difference.complete))
}

fn new(names: &[&str], gone: &[&str], complete: bool) -> Option<Told> {
    let gone = gone.iter().map(|name| format!("AuthorizationPolicy shop/{name}"));
    Some((names.iter().map(|name| (*name).to_owned()).collect(), gone.collect(), complete))
}

/// A listing of `objects`, which tells nothing before its end.
fn list(listing: &mut Listing, objects: &[(&str, &str)]) -> Option<Told> {
    assert_eq!(told(listing.take(Event::Init)), None);
    for (name, version) in objects {
        assert_eq!(told(listing.take(Event::InitApply(object(name, version)))), None);
    }
    told(listing.take(Event::InitDone))
}

#[test]
fn a_listing_takes_effect_as_a_whole_and_tells_only_what_is_different() {
    let mut listing = Listing::new(POLICY);
    assert_eq!(list(&mut listing, &[("a", "1"), ("b", "2")]), new(&["a", "b"], &[], true));
    assert_eq!(list(&mut listing, &[("a", "1"), ("b", "2")]), new(&[], &[], true), "the same once more");
    assert_eq!(list(&mut listing, &[("b", "3"), ("c", "4")]), new(&["b", "c"], &["a"], true));
}

#[test]
fn one_that_broke_off_changes_nothing() {
    let mut listing = Listing::new(POLICY);
    list(&mut listing, &[("a", "1"), ("b", "2")]);
    listing.take(Event::Init);
    listing.take(Event::InitApply(object("c", "3")));
    // The server went away; the watcher begins again.
    assert_eq!(list(&mut listing, &[("a", "1"), ("b", "2")]), new(&[], &[], true));
}

#[test]
fn events_tell_what_they_change() {
    let mut listing = Listing::new(POLICY);
    list(&mut listing, &[("a", "1")]);
    for (event, wanted) in [
        (Event::Apply(object("a", "1")), None),
        (Event::Apply(object("a", "2")), new(&["a"], &[], false)),
        (Event::Apply(object("b", "3")), new(&["b"], &[], false)),
        (Event::Delete(object("a", "4")), new(&[], &["a"], false)),
        (Event::Delete(object("a", "4")), None),
        // Of the same version as one that is gone: it is new all the same.
        (Event::Apply(object("a", "2")), new(&["a"], &[], false)),
    ] {
        let about = format!("{event:?}");
        assert_eq!(told(listing.take(event)), wanted, "{about}");
    }
}

#[test]
fn without_its_definition_there_is_no_object_of_a_kind() {
    let mut listing = Listing::new(POLICY);
    assert_eq!(told(Some(listing.absent())), new(&[], &[], true));
    list(&mut listing, &[("a", "1")]);
    assert_eq!(told(Some(listing.absent())), new(&[], &["a"], true));
    assert_eq!(list(&mut listing, &[("a", "1")]), new(&["a"], &[], true));
}
