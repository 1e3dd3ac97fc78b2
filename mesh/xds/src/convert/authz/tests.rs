//! What is read of the wire and written to it, field by field, and what is refused.

use super::*;
use crate::convert::Decoder;
use model::mesh::Update;
use proptest::prelude::*;
use proto::type_url;
use wire::{Authorization, StringMatch as WireString};

fn name() -> PolicyName {
    PolicyName { namespace: "test".into(), name: "deny-policy".into() }
}

fn full() -> Policy {
    let one = Match {
        namespaces: vec![StringMatch::Exact("default".into())],
        not_namespaces: vec![StringMatch::Prefix("kube-".into())],
        principals: vec![StringMatch::Suffix("/sa/admin".into())],
        not_principals: vec![StringMatch::Presence],
        service_accounts: vec![ServiceAccountMatch { namespace: "a".into(), service_account: "b".into() }],
        not_service_accounts: vec![ServiceAccountMatch {
            namespace: "c".into(),
            service_account: "d".into(),
        }],
        source_ips: vec!["10.0.0.0/8".parse().unwrap()],
        not_source_ips: vec!["fd00::/8".parse().unwrap()],
        destination_ips: vec!["10.1.2.3/32".parse().unwrap()],
        not_destination_ips: vec!["0.0.0.0/0".parse().unwrap()],
        destination_ports: vec![80, 65_535],
        not_destination_ports: vec![0],
        unseen: vec!["to.operation.methods".into()],
        request: None,
    };
    let clause = Clause { matches: [one.clone(), Match::default()].into() };
    Policy {
        name: name(),
        scope: PolicyScope::Workload,
        action: Action::Deny,
        rules: [Rule { clauses: [clause, Clause::default()].into() }, Rule::default()].into(),
        dry_run: true,
        invalid: None,
    }
}

fn encoded(wire: &Authorization) -> Bytes {
    wire.encode_to_vec().into()
}

fn read_back(wire: &Authorization) -> Result<Policy, FieldError> {
    read(&mut Strings::default(), "test/deny-policy", encoded(wire))
}

#[test]
fn reads_what_it_writes() {
    assert_eq!(read_back(&to_wire(&full())), Ok(full()));
    let rules = [Rule::default()].into();
    let invalid = Policy { invalid: Some("it names no action".into()), rules, ..full() };
    assert_eq!(read_back(&to_wire(&invalid)), Ok(invalid));
}

#[test]
fn principals_lose_their_scheme() {
    let exact = |text: &str| WireString { match_type: Some(MatchType::Exact(text.into())) };
    let mut wire = to_wire(&full());
    wire.rules[0].clauses[0].matches[0].principals =
        vec![exact("spiffe://td/ns/a/sa/b"), exact("td/ns/a/sa/b")];
    let read = read_back(&wire).unwrap();
    let expected = StringMatch::Exact("td/ns/a/sa/b".into());
    assert_eq!(read.rules[0].clauses[0].matches[0].principals, [expected.clone(), expected]);
}

#[test]
fn refuses_what_it_cannot_read_exactly() {
    type Spoil = fn(&mut Authorization);
    fn first(wire: &mut Authorization) -> &mut wire::Match {
        &mut wire.rules[0].clauses[0].matches[0]
    }
    let path = |field: &str| format!("rules[0].clauses[0].matches[0].{field}");
    let cases: [(String, Spoil); 12] = [
        ("scope".into(), |wire| wire.scope = 3),
        ("action".into(), |wire| wire.action = 2),
        ("name".into(), |wire| wire.name = "other".into()),
        (path("source_ips"), |wire| first(wire).source_ips[0].address = vec![10].into()),
        (path("source_ips"), |wire| first(wire).source_ips[0].length = 33),
        (path("not_destination_ips"), |wire| first(wire).not_destination_ips[0].address = Bytes::new()),
        (path("destination_ports"), |wire| first(wire).destination_ports.push(65_536)),
        (path("not_destination_ports"), |wire| first(wire).not_destination_ports.push(u32::MAX)),
        (path("principals[0]"), |wire| first(wire).principals[0].match_type = None),
        (path("not_namespaces[1]"), |wire| first(wire).not_namespaces.push(WireString::default())),
        (path("service_accounts"), |wire| first(wire).service_accounts[0].service_account.clear()),
        (path("extensions[lateen.dev/unseen]"), |wire| first(wire).extensions[0].config = None),
    ];
    for (field, spoil) in cases {
        let mut wire = to_wire(&full());
        spoil(&mut wire);
        assert_eq!(read_back(&wire).map_err(|error| error.field.into_owned()), Err(field));
    }
}

/// Puts a field that nobody knows at each depth of a policy, by wrapping an encoded message around it.
#[test]
fn refuses_a_field_that_it_does_not_know_anywhere_in_a_rule() {
    const UNKNOWN: [u8; 3] = [0xa0, 0x06, 0x01]; // field 100: 1
    let wrap = |number: u8, inner: &[u8]| {
        let mut outer = vec![number << 3 | 2, u8::try_from(inner.len()).unwrap()];
        outer.extend_from_slice(inner);
        outer
    };
    let in_match = |inner: &[u8]| wrap(5, &wrap(1, &wrap(2, inner)));
    let exact = b"\x0a\x01a".as_slice();
    let cases = [
        ("rules[0]", wrap(5, &UNKNOWN)),
        ("rules[0].clauses[0]", wrap(5, &wrap(1, &UNKNOWN))),
        ("rules[0].clauses[0].matches[0]", in_match(&UNKNOWN)),
        ("rules[0].clauses[0].matches[0].principals[0]", in_match(&wrap(3, &[exact, &UNKNOWN].concat()))),
        ("rules[0].clauses[0].matches[0].source_ips[0]", in_match(&wrap(5, &UNKNOWN))),
        ("rules[0].clauses[0].matches[0].service_accounts[0]", in_match(&wrap(11, &UNKNOWN))),
        ("rules[0].clauses[0].matches[0].extensions[0]", in_match(&wrap(13, &UNKNOWN))),
    ];
    let head = Authorization { name: "deny-policy".into(), namespace: "test".into(), ..Default::default() };
    for (field, rule) in cases {
        let bytes = [head.encode_to_vec(), rule].concat();
        let error = read(&mut Strings::default(), "test/deny-policy", bytes.into()).unwrap_err();
        assert_eq!((&*error.field, error.reason), (field, Reason::UnknownField(100)));
    }
    // Beside the rules it restricts nothing.
    let bytes = [head.encode_to_vec(), UNKNOWN.to_vec()].concat();
    assert!(read(&mut Strings::default(), "test/deny-policy", bytes.into()).is_ok());
}

#[test]
fn an_extension_that_is_not_known_restricts_something_unseen() {
    let extension = |name: &str| Extension { name: name.into(), config: None };
    let mut wire = to_wire(&full());
    wire.rules[0].clauses[0].matches[0].extensions =
        vec![extension("example.org/mood"), extension(extension::ORIGIN)];
    let read = read_back(&wire).unwrap();
    assert_eq!(read.rules[0].clauses[0].matches[0].unseen, [Str::from("example.org/mood")]);
}

#[test]
fn a_refused_policy_denies_all_of_its_scope_instead() {
    let mut unreadable_scope = to_wire(&full());
    unreadable_scope.scope = 9;
    let mut bad_range = to_wire(&full());
    bad_range.rules[0].clauses[0].matches[0].source_ips[0].length = 99;
    bad_range.dry_run = false;
    let garbage = Bytes::from_static(b"\xff\xff\xff");
    let cases = [
        ("test/deny-policy", encoded(&bad_range), PolicyScope::Workload, false),
        ("test/deny-policy", encoded(&unreadable_scope), PolicyScope::Namespace, true),
        ("test/deny-policy", garbage.clone(), PolicyScope::Namespace, false),
        ("istio-system/deny-policy", garbage, PolicyScope::Global, false),
    ];
    for (name, value, scope, dry_run) in cases {
        let refused = Decoder::default().decode(type_url::AUTHORIZATION, &name.into(), value).unwrap_err();
        let instead = refused.instead.unwrap();
        assert_eq!(
            (instead.name.to_string().as_str(), instead.scope, instead.dry_run),
            (name, scope, dry_run)
        );
        assert_eq!((instead.action, instead.rules.len()), (Action::Deny, 0));
        assert_eq!(instead.invalid.as_deref(), Some(&*refused.error.to_string()));
        assert!(refused.error.to_string().starts_with(name), "{}", refused.error);
    }
}

#[test]
fn a_stand_in_denies_everything_on_the_wire_too() {
    let stand_in = Policy { action: Action::Allow, invalid: Some("unreadable".into()), ..full() };
    let read = read_back(&to_wire(&stand_in)).unwrap();
    assert_eq!((read.action, read.rules), (Action::Deny, [Rule::default()].into()));
}

#[test]
fn what_is_too_large_is_refused() {
    let value = Bytes::from(vec![0; crate::convert::MAX_RESOURCE_BYTES + 1]);
    let refused = Decoder::default().decode(type_url::AUTHORIZATION, &"a/b".into(), value).unwrap_err();
    assert!(matches!(refused.error.reason, Reason::TooLarge(_)));
}

#[test]
fn for_foreign_peers_unseen_attributes_never_let_more_through() {
    let seen = Match { destination_ports: vec![80], ..Match::default() };
    let unseen = Match { unseen: vec!["methods".into()], ..Match::default() };
    let both = Match { unseen: vec!["methods".into()], ..seen.clone() };
    let rule = |matches: &[&Match]| Rule {
        clauses: [Clause { matches: matches.iter().map(|one| (*one).clone()).collect() }].into(),
    };
    let always = Rule { clauses: [Clause::default()].into() };
    let cases = [
        (Action::Allow, rule(&[&seen]), Some(rule(&[&seen]))),
        (Action::Allow, rule(&[&both]), None),
        (Action::Allow, rule(&[&both, &seen]), Some(rule(&[&seen]))),
        (Action::Allow, always.clone(), Some(always.clone())),
        (Action::Deny, rule(&[&both]), Some(rule(&[&seen]))),
        (Action::Deny, rule(&[&unseen]), Some(always.clone())),
        (Action::Deny, rule(&[&seen, &unseen]), Some(always)),
        (Action::Deny, rule(&[&Match::default()]), Some(rule(&[&Match::default()]))),
    ];
    for (action, before, after) in cases {
        let policy = Policy { action, rules: [before].into(), ..full() };
        let expected = Policy { action, rules: after.into_iter().collect(), ..full() };
        assert_eq!(to_wire_without_extensions(&policy), to_wire(&expected));
    }
}

#[test]
fn a_policy_that_no_removal_could_name_is_refused() {
    for (namespace, name) in [("", ""), ("test", ""), ("a/b", "c")] {
        let wire = Authorization { namespace: namespace.into(), name: name.into(), ..to_wire(&full()) };
        let asked = format!("{namespace}/{name}");
        let error = read(&mut Strings::default(), &asked, encoded(&wire)).unwrap_err();
        assert_eq!(error.field, "name", "{asked}");
    }
}

#[test]
fn removal_is_by_name() {
    let removal = Decoder::default().removal(type_url::AUTHORIZATION, &"test/deny-policy".into());
    assert_eq!(removal, Some(Update::RemovePolicy(name())));
}

proptest! {
    /// Whatever comes, nothing panics, and what is read is written back to what was read.
    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0_usize..200) {
        let mut valid = to_wire(&full()).encode_to_vec();
        let at = at.min(valid.len());
        if bytes.len() % 2 == 0 {
            valid.splice(at..(at + bytes.len()).min(valid.len()), bytes);
            bytes = valid;
        }
        for url in [type_url::AUTHORIZATION, type_url::ADDRESS, type_url::MESH_SETTINGS] {
            let read = Decoder::default().decode(url, &"test/deny-policy".into(), bytes.clone().into());
            if let Ok(Update::Policy(policy)) = read {
                prop_assert_eq!(read_back(&to_wire(&policy)), Ok(policy));
            }
        }
    }
}
