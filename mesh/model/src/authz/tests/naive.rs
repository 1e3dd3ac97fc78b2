//! The engine, with and without its index, against an evaluator written from the description of the wire alone
//! (`istio.security.Authorization`), slowly and plainly.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof};
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::authz::decide::{MAX_NAMED, RuleName};
use crate::authz::{
    Action, Cause, Clause, Decision, Match, Policy, PolicyScope, Rule, ServiceAccountMatch, StringMatch,
    Subject, decide,
};
use crate::fixtures::{edit, workload};
use crate::identity::Identity;
use crate::mesh::{Mesh, Update};
use crate::workload::PolicyName;

/// What a connection is known by.
#[derive(Debug, Clone)]
struct Client {
    source: SocketAddr,
    identity: Option<[&'static str; 3]>,
    destination: SocketAddr,
}

/// Yes, no, or nobody knows.
type Maybe = Option<bool>;

fn all(of: impl IntoIterator<Item = Maybe>) -> Maybe {
    let of: Vec<Maybe> = of.into_iter().collect();
    if of.contains(&Some(false)) {
        Some(false)
    } else if of.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn either(of: impl IntoIterator<Item = Maybe>) -> Maybe {
    all(of.into_iter().map(|one| one.map(|yes| !yes))).map(|yes| !yes)
}

fn text_matches(wanted: &StringMatch, text: &str) -> bool {
    match wanted {
        StringMatch::Exact(wanted) => text == wanted.to_string(),
        StringMatch::Prefix(wanted) => text.starts_with(&wanted.to_string()),
        StringMatch::Suffix(wanted) => text.ends_with(&wanted.to_string()),
        StringMatch::Presence => !text.is_empty(),
    }
}

fn bits(ip: IpAddr) -> (u32, u128) {
    match ip {
        IpAddr::V4(ip) => (32, u32::from(ip).into()),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => (32, u32::from(ip).into()),
            None => (128, ip.into()),
        },
    }
}

fn in_range(range: &IpNet, ip: IpAddr) -> bool {
    let width = if range.addr().is_ipv4() { 32 } else { 128 };
    let first = match range.addr() {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let (of, value) = bits(ip);
    let rest = width - u32::from(range.prefix_len());
    of == width && (rest == 128 || value >> rest == first >> rest)
}

/// One of the wanted, where any are, and none of the unwanted.
fn field<T>(fields: &mut Vec<Maybe>, wanted: &[T], unwanted: &[T], holds: impl Fn(&T) -> bool) {
    if !wanted.is_empty() {
        fields.push(either(wanted.iter().map(|one| Some(holds(one)))));
    }
    if !unwanted.is_empty() {
        fields.push(all(unwanted.iter().map(|one| Some(!holds(one)))));
    }
}

fn match_holds(one: &Match, client: &Client) -> Maybe {
    let mut fields = Vec::new();
    let id = client.identity;
    let namespace =
        |wanted: &StringMatch| id.is_some_and(|[_, namespace, _]| text_matches(wanted, namespace));
    field(&mut fields, &one.namespaces, &one.not_namespaces, namespace);
    let principal = |wanted: &StringMatch| {
        id.is_some_and(|[td, namespace, account]| {
            text_matches(wanted, &format!("{td}/ns/{namespace}/sa/{account}"))
        })
    };
    field(&mut fields, &one.principals, &one.not_principals, principal);
    let account = |wanted: &ServiceAccountMatch| {
        id.is_some_and(|[_, namespace, account]| {
            *wanted.namespace == *namespace && *wanted.service_account == *account
        })
    };
    field(&mut fields, &one.service_accounts, &one.not_service_accounts, account);
    field(&mut fields, &one.source_ips, &one.not_source_ips, |range| in_range(range, client.source.ip()));
    let to = |range: &IpNet| in_range(range, client.destination.ip());
    field(&mut fields, &one.destination_ips, &one.not_destination_ips, to);
    let port = |port: &u16| *port == client.destination.port();
    field(&mut fields, &one.destination_ports, &one.not_destination_ports, port);
    fields.extend(one.unseen.iter().map(|_| None));
    if fields.is_empty() { Some(false) } else { all(fields) }
}

fn rule_matches(rule: &Rule, client: &Client) -> Maybe {
    all(rule.clauses.iter().map(|clause| {
        if clause.matches.is_empty() {
            return Some(true);
        }
        either(clause.matches.iter().map(|one| match_holds(one, client)))
    }))
}

/// A rule by the name of its policy and its place.
type Place = (PolicyName, usize);

/// What was decided and by whom.
#[derive(Debug, PartialEq)]
enum Said {
    Nothing,
    Allowed(Place),
    Denied(Place, bool),
    NoneAllowed(usize),
    Invalid(PolicyName),
}

fn judge(policies: &[Arc<Policy>], client: &Client) -> (bool, Said, Vec<Place>) {
    let hit = |policy: &Policy| {
        policy.rules.iter().enumerate().find_map(|(place, rule)| {
            let truth = rule_matches(rule, client);
            let takes = truth == Some(true) || (policy.action == Action::Deny && truth.is_none());
            takes.then(|| ((policy.name.clone(), place), truth.is_none()))
        })
    };
    let on_trial = policies.iter().filter(|policy| policy.dry_run);
    let dry_run: Vec<Place> = on_trial.filter_map(|policy| Some(hit(policy)?.0)).collect();
    let enforced = || policies.iter().filter(|policy| !policy.dry_run);
    let denied = enforced().find_map(|policy| {
        if policy.invalid.is_some() {
            return Some(Said::Invalid(policy.name.clone()));
        }
        let (place, unsure) = hit(policy).filter(|_| policy.action == Action::Deny)?;
        Some(Said::Denied(place, unsure))
    });
    if let Some(said) = denied {
        return (false, said, dry_run);
    }
    let allowing = || enforced().filter(|policy| policy.action == Action::Allow);
    match allowing().find_map(|policy| hit(policy)) {
        Some((place, _)) => (true, Said::Allowed(place), dry_run),
        None if allowing().count() == 0 => (true, Said::Nothing, dry_run),
        None => (false, Said::NoneAllowed(allowing().count()), dry_run),
    }
}

fn said(decision: &Decision) -> (bool, Said, Vec<Place>) {
    let said = match &decision.cause {
        Cause::NothingApplies => Said::Nothing,
        Cause::AllowedBy(rule) => Said::Allowed((rule.policy.clone(), rule.rule)),
        Cause::DeniedBy { rule, unseen } => {
            Said::Denied((rule.policy.clone(), rule.rule), !unseen.is_empty())
        }
        Cause::NoneAllowed { considered, others, .. } => {
            assert!(*others == 0 || considered.len() == MAX_NAMED);
            Said::NoneAllowed(considered.len() + others)
        }
        Cause::Invalid { policy, .. } => Said::Invalid(policy.clone()),
        Cause::JudgedBefore(_) => panic!("nobody has judged before"),
    };
    let place = |rule: &RuleName| (rule.policy.clone(), rule.rule);
    (decision.allows(), said, decision.dry_run.iter().map(place).collect())
}

const DOMAINS: [&str; 2] = ["td", "t"];
const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
const ACCOUNTS: [&str; 2] = ["x", "xy"];
const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.1.1", "11.0.0.1", "fd00::1", "fd00::1:1", "::ffff:10.0.0.1"];

fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(|text| text.parse().unwrap())
}

fn range() -> impl Strategy<Value = IpNet> {
    (address(), 0u8..=128).prop_map(|(ip, length)| {
        let ip = ip.to_canonical();
        IpNet::new(ip, if ip.is_ipv4() { length / 4 } else { length }).unwrap()
    })
}

fn client() -> impl Strategy<Value = Client> {
    let identity = (select(&DOMAINS[..]), select(&NAMESPACES[..]), select(&ACCOUNTS[..]));
    let identity = prop::option::weighted(0.8, identity.prop_map(|(td, ns, sa)| [td, ns, sa]));
    (address(), identity, address(), 1u16..4).prop_map(|(source, identity, destination, port)| Client {
        source: SocketAddr::new(source, 9),
        identity,
        destination: SocketAddr::new(destination, port),
    })
}

/// The whole of a text, its beginning or its end, cut anywhere.
fn string(whole: impl Strategy<Value = String>) -> impl Strategy<Value = StringMatch> {
    (whole, 0u8..6, any::<prop::sample::Index>()).prop_map(|(text, kind, cut)| {
        let cut = cut.index(text.len() + 1);
        match kind {
            0..=2 => StringMatch::Exact(text.as_str().into()),
            3 => StringMatch::Prefix(text[..cut].into()),
            4 => StringMatch::Suffix(text[cut..].into()),
            _ => StringMatch::Presence,
        }
    })
}

fn principal() -> impl Strategy<Value = String> {
    (select(&DOMAINS[..]), select(&NAMESPACES[..]), select(&ACCOUNTS[..]))
        .prop_map(|(td, namespace, account)| format!("{td}/ns/{namespace}/sa/{account}"))
}

/// Nearly always nothing, else one or two.
fn rarely<T: std::fmt::Debug + Clone>(what: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    (0u8..6, vec(what, 1..3)).prop_map(|(die, some)| if die == 0 { some } else { Vec::new() })
}

fn one_match() -> impl Strategy<Value = Match> {
    let namespaces = || rarely(string(select(&NAMESPACES[..]).prop_map(str::to_owned)));
    let principals = || rarely(string(principal()));
    let accounts = || {
        let account = (select(&NAMESPACES[..]), select(&ACCOUNTS[..]));
        rarely(account.prop_map(|(namespace, account)| super::account(namespace, account)))
    };
    let unseen = (0u8..8).prop_map(|die| if die == 0 { vec!["hidden".into()] } else { Vec::new() });
    let who = (namespaces(), namespaces(), principals(), principals(), accounts(), accounts());
    let ranges = (rarely(range()), rarely(range()), rarely(range()), rarely(range()));
    (who, ranges, rarely(1u16..4), rarely(1u16..4), unseen).prop_map(
        |(who, ranges, destination_ports, not_destination_ports, unseen)| {
            let (namespaces, not_namespaces, principals, not_principals, with, without) = who;
            let (source_ips, not_source_ips, destination_ips, not_destination_ips) = ranges;
            Match {
                namespaces,
                not_namespaces,
                principals,
                not_principals,
                service_accounts: with,
                not_service_accounts: without,
                source_ips,
                not_source_ips,
                destination_ips,
                not_destination_ips,
                destination_ports,
                not_destination_ports,
                unseen,
                request: None,
            }
        },
    )
}

/// Policies of all kinds; names and places are given afterwards.
fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let clause = vec(one_match(), 0..3).prop_map(|matches| Clause { matches: matches.into() });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses: clauses.into() });
    let scope = select(vec![PolicyScope::Global, PolicyScope::Namespace, PolicyScope::Workload]);
    let policy = (vec(rule, 0..3), any::<bool>(), scope, 0u8..40)
        .prop_map(|(rules, allow, scope, die)| Policy {
            name: super::policy_name("ns/unnamed"),
            scope,
            action: if allow { Action::Allow } else { Action::Deny },
            rules: rules.into(),
            dry_run: die < 4,
            invalid: (die == 3 || die == 4).then(|| "unreadable".into()),
        })
        .boxed();
    // Both below and above the number from which there is an index.
    prop_oneof![vec(policy.clone(), 0..6), vec(policy, 12..40)]
}

/// A mesh with the policies, all of which apply to the workload.
fn applied(policies: &[Policy]) -> (Mesh, crate::workload::Workload) {
    let mut mesh = Mesh::new("".into(), None);
    let mut named = Vec::new();
    for (place, policy) in policies.iter().enumerate() {
        let name = PolicyName { namespace: "ns".into(), name: format!("p{place:02}").into() };
        if policy.scope == PolicyScope::Workload {
            named.push(name.clone());
        }
        mesh.apply(Update::Policy(Policy { name, ..policy.clone() }));
    }
    let workload = edit(workload("w", &[]), |profile| profile.policies = named.into());
    (mesh, workload)
}

/// Compares the two on each client; returns how many are allowed.
fn compare(policies: &[Policy], clients: &[Client]) -> Result<usize, TestCaseError> {
    let (mesh, workload) = applied(policies);
    let apply = mesh.policies_for(&workload).unwrap();
    prop_assert_eq!(apply.len(), policies.len());
    let mut allowed = 0;
    for client in clients {
        let identity = client.identity.map(|[td, namespace, account]| Identity::new(td, namespace, account));
        let Client { source, destination, .. } = *client;
        let subject = Subject { source, identity: identity.as_ref(), destination };
        let expected = judge(&apply, client);
        let plain = decide(&apply, &subject);
        prop_assert_eq!(&said(&plain), &expected, "for {:?}", client);
        prop_assert_eq!(mesh.judge(&workload, &subject), Ok(plain), "by the index, for {:?}", client);
        allowed += usize::from(expected.0);
    }
    Ok(allowed)
}

/// 50,000 pairs of policies and a connection, or a million with `LATEEN_FULL=1`.
#[test]
fn the_engine_agrees_with_a_naive_one() {
    const CLIENTS: usize = 20;
    let pairs: usize = if std::env::var_os("LATEEN_FULL").is_some() { 1_000_000 } else { 50_000 };
    let cases = u32::try_from(pairs / CLIENTS).unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let (counted, allowed) = (Cell::new(0), Cell::new(0));
    let run = runner.run(&(policies(), vec(client(), CLIENTS)), |(policies, clients)| {
        allowed.set(allowed.get() + compare(&policies, &clients)?);
        counted.set(counted.get() + clients.len());
        Ok(())
    });
    run.unwrap();
    let (counted, allowed) = (counted.get(), allowed.get());
    println!("counted: {counted} pairs ({allowed} allowed)");
    // A comparison says little where nearly all agree by default.
    assert!((pairs / 10..pairs - pairs / 10).contains(&allowed), "{allowed} of {counted} allowed");
}
