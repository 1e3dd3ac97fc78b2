//! A policy in full survives the wire; what is not understood of it refuses it.

use model::address::NamespacedHostname;
use model::authz::ServiceAccountMatch;

use super::*;
use crate::convert::Decoder;
use proto::type_url::{AUTHORIZATION as FOR_AGENTS, REQUEST_AUTHORIZATION};

fn name() -> PolicyName {
    PolicyName { namespace: "test".into(), name: "p".into() }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn path(text: &str) -> PathMatch {
    PathMatch::parse(text).unwrap()
}

fn everything_asked() -> RequestMatch {
    RequestMatch {
        methods: vec![exact("GET"), StringMatch::Presence],
        not_methods: vec![StringMatch::Prefix("PO".into())],
        paths: vec![path("/a*"), path("/{*}/b/{**}"), path("*")],
        not_paths: vec![path("*.html")],
        hosts: vec![exact("a.example")],
        not_hosts: vec![StringMatch::Suffix(".org".into())],
        headers: vec![HeaderMatch::new("x-role", vec![exact("admin")], vec![exact("guest")]).unwrap()],
        remote_ips: vec!["10.0.0.0/8".parse().unwrap()],
        not_remote_ips: vec!["fd00::/8".parse().unwrap()],
        trust_domains: vec![StringMatch::Suffix(".org".into())],
        not_trust_domains: vec![exact("a")],
        sni: vec![exact("b.example")],
        not_sni: vec![exact("c.example")],
    }
}

fn full() -> Policy {
    let one = Match {
        service_accounts: vec![ServiceAccountMatch { namespace: "a".into(), service_account: "b".into() }],
        destination_ports: vec![80],
        unseen: vec!["from.source.requestPrincipals".into()],
        request: Some(everything_asked().into()),
        ..Match::default()
    };
    let only_request = Match { request: Some(everything_asked().into()), ..Match::default() };
    let clauses = [Clause { matches: [one, only_request, Match::default()].into() }].into();
    let targets = [
        Target::Gateway { namespace: "test".into(), name: "g".into() },
        Target::GatewayClass("istio-waypoint".into()),
        Target::Service(NamespacedHostname::new("test", "a.test.svc.cluster.local")),
        Target::ServiceEntry { namespace: "test".into(), name: "e".into() },
    ];
    Policy {
        name: name(),
        scope: PolicyScope::Targets(targets.into()),
        action: Action::Audit,
        rules: [Rule { clauses }, Rule::default()].into(),
        dry_run: true,
        invalid: None,
    }
}

fn read_back(wire: &wire::Authorization) -> Result<Policy, FieldError> {
    read(&mut Strings::default(), "test/p", wire.encode_to_vec().into())
}

#[test]
fn a_policy_survives_the_wire() {
    assert_eq!(read_back(&to_wire(&full())), Ok(full()));
    for scope in [PolicyScope::Global, PolicyScope::Namespace, PolicyScope::Workload] {
        for action in [Action::Allow, Action::Deny, Action::Audit] {
            let policy = Policy { scope: scope.clone(), action, dry_run: false, ..full() };
            assert_eq!(read_back(&to_wire(&policy)), Ok(policy));
        }
    }
    let invalid = Policy { invalid: Some("no such action".into()), ..full() };
    let read = read_back(&to_wire(&invalid)).unwrap();
    assert_eq!((read.action, &*read.rules), (Action::Deny, &[Rule::default()][..]));
    assert_eq!(read.invalid, invalid.invalid);
}

#[test]
fn refuses_what_it_cannot_read_exactly() {
    type Spoil = fn(&mut wire::Authorization);
    fn first(wire: &mut wire::Authorization) -> &mut wire::RequestMatch {
        wire.rules[0].clauses[0].matches[0].request.as_mut().unwrap()
    }
    let within = |field: &str| format!("rules[0].clauses[0].matches[0].request.{field}");
    let cases: [(String, Spoil); 16] = [
        ("scope".into(), |wire| wire.scope = 0),
        ("scope".into(), |wire| wire.scope = 9),
        ("action".into(), |wire| wire.action = 0),
        ("action".into(), |wire| wire.action = 4),
        ("name".into(), |wire| wire.name = "other".into()),
        ("requires".into(), |wire| wire.requires = vec!["lateen.dev/mood".into()]),
        ("targets[1].kind".into(), |wire| wire.targets[1].kind = 7),
        ("targets[0].kind".into(), |wire| wire.targets[0].kind = 0),
        ("targets[2].name".into(), |wire| wire.targets[2].name.clear()),
        (within("remote_ips"), |wire| first(wire).remote_ips[0].length = 33),
        (within("paths[0]"), |wire| first(wire).paths[0].match_type = None),
        (within("paths"), |wire| {
            first(wire).paths[0].match_type = Some(MatchType::Template("/{**}/{*}".into()));
        }),
        (within("hosts"), |wire| first(wire).hosts = texts_to_wire(&[exact("A.example")])),
        (within("headers.name"), |wire| first(wire).headers[0].name = "X-Role".into()),
        (within("headers.values"), |wire| {
            let header = &mut first(wire).headers[0];
            header.values.clear();
            header.not_values.clear();
        }),
        (within("methods[0]"), |wire| first(wire).methods[0].match_type = None),
    ];
    for (field, spoil) in cases {
        let mut wire = to_wire(&full());
        spoil(&mut wire);
        let error = read_back(&wire).map_err(|error| error.field.into_owned());
        let expected = match field.strip_prefix("rules[0].clauses[0].matches[0].request.") {
            // What the look at the raw bytes finds is named by index.
            Some(deep) if deep.ends_with(']') => {
                format!("rules[0].clauses[0].matches[0].request[0].{deep}")
            }
            _ => field,
        };
        assert_eq!(error, Err(expected));
    }
}

#[test]
fn refuses_a_field_that_it_does_not_know_anywhere_in_a_rule_or_target() {
    const UNKNOWN: [u8; 3] = [0xa0, 0x06, 0x01]; // field 100: 1
    let wrap = |number: u8, inner: &[u8]| {
        let mut outer = vec![number << 3 | 2, u8::try_from(inner.len()).unwrap()];
        outer.extend_from_slice(inner);
        outer
    };
    let in_match = |inner: &[u8]| wrap(6, &wrap(1, &wrap(1, inner)));
    let in_request = |inner: &[u8]| in_match(&wrap(2, inner));
    let exact = b"\x0a\x01a".as_slice();
    let cases = [
        ("targets[0]", wrap(4, &UNKNOWN)),
        ("rules[0]", wrap(6, &UNKNOWN)),
        ("rules[0].clauses[0]", wrap(6, &wrap(1, &UNKNOWN))),
        ("rules[0].clauses[0].matches[0]", in_match(&UNKNOWN)),
        ("rules[0].clauses[0].matches[0].connection[0]", in_match(&wrap(1, &UNKNOWN))),
        ("rules[0].clauses[0].matches[0].request[0]", in_request(&UNKNOWN)),
        (
            "rules[0].clauses[0].matches[0].request[0].methods[0]",
            in_request(&wrap(1, &[exact, &UNKNOWN].concat())),
        ),
        ("rules[0].clauses[0].matches[0].request[0].paths[0]", in_request(&wrap(3, &UNKNOWN))),
        ("rules[0].clauses[0].matches[0].request[0].headers[0]", in_request(&wrap(7, &UNKNOWN))),
    ];
    let head = to_wire(&Policy { scope: PolicyScope::Global, rules: Box::default(), ..full() });
    for (field, part) in cases {
        let bytes = [head.encode_to_vec(), part].concat();
        let error = read(&mut Strings::default(), "test/p", bytes.into()).unwrap_err();
        assert_eq!((&*error.field, error.reason), (field, Reason::UnknownField(100)));
    }
    let bytes = [head.encode_to_vec(), UNKNOWN.to_vec()].concat();
    assert!(read(&mut Strings::default(), "test/p", bytes.into()).is_ok());
}

#[test]
fn a_refused_policy_denies_all_that_it_may_be_for() {
    let spoilt = |scope: &PolicyScope| {
        let mut wire = to_wire(&Policy { scope: scope.clone(), ..full() });
        wire.action = 0;
        wire
    };
    let mut unknown_target = to_wire(&full());
    unknown_target.targets[0].kind = 9;
    let mut cases: Vec<(&str, Vec<u8>, PolicyScope, bool)> = vec![
        ("test/p", unknown_target.encode_to_vec(), PolicyScope::Namespace, true),
        // A target of which a part is not known may be a wider one.
        (
            "test/p",
            [to_wire(&full()).encode_to_vec(), vec![0x22, 3, 0xa0, 6, 1]].concat(),
            PolicyScope::Namespace,
            true,
        ),
        ("test/p", b"\xff\xff".to_vec(), PolicyScope::Namespace, false),
        ("istio-system/p", b"\xff\xff".to_vec(), PolicyScope::Global, false),
    ];
    for scope in [full().scope, PolicyScope::Global, PolicyScope::Workload] {
        cases.push(("test/p", spoilt(&scope).encode_to_vec(), scope, true));
    }
    for (name, value, scope, dry_run) in cases {
        let mut decoder = Decoder::default();
        let refused = decoder.decode(REQUEST_AUTHORIZATION, &name.into(), value.into()).unwrap_err();
        let instead = refused.instead.unwrap();
        assert_eq!((&instead.scope, instead.dry_run, instead.action), (&scope, dry_run, Action::Deny));
        assert_eq!(instead.invalid.as_deref(), Some(&*refused.error.to_string()));
        assert!(decoder.removal(REQUEST_AUTHORIZATION, &name.into()).is_some());
    }
}

/// Whatever becomes of a policy on the way to node agents: what it asks of requests is there by name, targets select
/// nobody, and AUDIT decides nothing.
#[test]
fn an_agent_is_told_no_less_than_the_names() {
    let policy = Policy { action: Action::Deny, ..full() };
    let wire = super::super::to_wire(&policy).encode_to_vec();
    let read = super::super::read(&mut Strings::default(), "test/p", wire.into()).unwrap();
    assert_eq!(read.scope, PolicyScope::Workload);
    assert_eq!(read.rules[0].clauses[0].matches[0], *policy.rules[0].clauses[0].matches[0].at_layer_4());
    let names = &read.rules[0].clauses[0].matches[0].unseen;
    for name in ["to.operation.paths", "when[request.headers[x-role]]", "from.source.requestPrincipals"] {
        assert!(names.iter().any(|known| &**known == name), "{name} of {names:?}");
    }
    let audit = super::super::to_wire(&full());
    assert_eq!((audit.rules.len(), audit.action), (0, proto::security::Action::Deny.into()));
    assert_ne!(FOR_AGENTS, REQUEST_AUTHORIZATION);
}
