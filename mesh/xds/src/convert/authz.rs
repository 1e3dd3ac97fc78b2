//! `istio.security.Authorization` ⇄ [`Policy`]. What cannot be read exactly refuses the whole policy: left out, it
//! would let more pass than its author meant.

pub mod request;

use bytes::Bytes;
use ipnet::IpNet;
use model::address::Str;
use model::authz::{Action, Clause, Match, Policy, PolicyScope, Rule, ServiceAccountMatch, StringMatch};
use model::workload::PolicyName;
use prost::Message;
use proto::workload::Extension;
use proto::{extension, mesh, security as wire};
use wire::string_match::MatchType;

use super::intern::Strings;
use super::strict::{self, Kind, Others, Schema};
use super::{FieldError, Reason, fields, parse};

const STRING_MATCH: Schema = Schema {
    fields: &[
        (1, "exact", Kind::Bytes),
        (2, "prefix", Kind::Bytes),
        (3, "suffix", Kind::Bytes),
        (4, "presence", Kind::Bytes),
    ],
    others: Others::Refuse,
    exclusive: true,
};

const ADDRESS: Schema = Schema {
    fields: &[(1, "address", Kind::Bytes), (2, "length", Kind::Number)],
    others: Others::Refuse,
    exclusive: false,
};

const ACCOUNT: Schema = Schema {
    fields: &[(1, "namespace", Kind::Bytes), (2, "service_account", Kind::Bytes)],
    others: Others::Refuse,
    exclusive: false,
};

/// Content goes by name: what is not known counts as an attribute that cannot be seen.
const EXTENSION: Schema = Schema {
    fields: &[(1, "name", Kind::Bytes), (2, "config", Kind::Bytes)],
    others: Others::Refuse,
    exclusive: false,
};

const MATCH: Schema = Schema {
    fields: &[
        (1, "namespaces", Kind::Message(&STRING_MATCH)),
        (2, "not_namespaces", Kind::Message(&STRING_MATCH)),
        (3, "principals", Kind::Message(&STRING_MATCH)),
        (4, "not_principals", Kind::Message(&STRING_MATCH)),
        (5, "source_ips", Kind::Message(&ADDRESS)),
        (6, "not_source_ips", Kind::Message(&ADDRESS)),
        (7, "destination_ips", Kind::Message(&ADDRESS)),
        (8, "not_destination_ips", Kind::Message(&ADDRESS)),
        (9, "destination_ports", Kind::Number),
        (10, "not_destination_ports", Kind::Number),
        (11, "service_accounts", Kind::Message(&ACCOUNT)),
        (12, "not_service_accounts", Kind::Message(&ACCOUNT)),
        (13, "extensions", Kind::Message(&EXTENSION)),
    ],
    others: Others::Refuse,
    exclusive: false,
};

const CLAUSE: Schema =
    Schema { fields: &[(2, "matches", Kind::Message(&MATCH))], others: Others::Refuse, exclusive: false };

const RULE: Schema =
    Schema { fields: &[(1, "clauses", Kind::Message(&CLAUSE))], others: Others::Refuse, exclusive: false };

/// Beside the rules, what is not known restricts nothing.
const AUTHORIZATION: Schema =
    Schema { fields: &[(5, "rules", Kind::Message(&RULE))], others: Others::Ignore, exclusive: false };

pub(super) fn read(strings: &mut Strings, name: &str, value: Bytes) -> Result<Policy, FieldError> {
    strict::check(&value, &AUTHORIZATION)?;
    let wire: wire::Authorization = parse(value)?;
    // Read as its removal will be: a name that is empty, or has a slash too many, could never be taken away again.
    let policy = fields::policy_name(strings, name).map_err(|reason| FieldError::new("name", reason))?;
    if *policy.namespace != *wire.namespace || *policy.name != *wire.name {
        let other = format!("{}/{}", wire.namespace, wire.name);
        return Err(FieldError::new("name", Reason::OtherName(other)));
    }
    let scope = scope(wire.scope)?;
    let action = match wire::Action::try_from(wire.action) {
        Ok(wire::Action::Allow) => Action::Allow,
        Ok(wire::Action::Deny) => Action::Deny,
        Err(_) => return Err(FieldError::new("action", Reason::UnknownValue(wire.action))),
    };
    let read = |(index, wire): (usize, &wire::Rule)| {
        let clauses = wire.clauses.iter().map(|clause| &*clause.matches);
        rule(clauses, |one| condition(strings, one))
            .map_err(|error| error.within(format_args!("rules[{index}]")))
    };
    let rules = wire.rules.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Policy {
        name: policy,
        scope,
        action,
        rules,
        dry_run: wire.dry_run,
        invalid: invalid(&wire.extensions),
    })
}

/// Why the controller could not read the policy; whatever else it says then, it denies all of its scope.
fn invalid(extensions: &[Extension]) -> Option<Str> {
    let one = extensions.iter().find(|one| one.name == extension::INVALID)?;
    let content = one.config.as_ref().and_then(|config| config.unpack::<mesh::InvalidPolicy>()?.ok());
    Some(content.map_or_else(|| "the controller does not say why".into(), |content| content.reason.into()))
}

fn scope(number: i32) -> Result<PolicyScope, FieldError> {
    match wire::Scope::try_from(number) {
        Ok(wire::Scope::Global) => Ok(PolicyScope::Global),
        Ok(wire::Scope::Namespace) => Ok(PolicyScope::Namespace),
        Ok(wire::Scope::WorkloadSelector) => Ok(PolicyScope::Workload),
        Err(_) => Err(FieldError::new("scope", Reason::UnknownValue(number))),
    }
}

/// The policy that denies everything a refused one covers.
pub(super) fn stand_in(name: PolicyName, value: &Bytes, mesh_wide: bool, reason: &str) -> Policy {
    let readable = wire::Authorization::decode(value.clone()).ok();
    let said = readable.as_ref().and_then(|wire| scope(wire.scope).ok());
    let widest = if mesh_wide { PolicyScope::Global } else { PolicyScope::Namespace };
    Policy {
        name,
        scope: said.unwrap_or(widest),
        action: Action::Deny,
        rules: Box::default(),
        dry_run: readable.is_some_and(|wire| wire.dry_run),
        invalid: Some(reason.into()),
    }
}

/// Reads a rule by the matches of its clauses.
fn rule<'a, M: 'a>(
    wire: impl ExactSizeIterator<Item = &'a [M]>,
    mut read: impl FnMut(&M) -> Result<Match, FieldError>,
) -> Result<Rule, FieldError> {
    let mut clauses = Vec::with_capacity(wire.len());
    for (index, clause) in wire.enumerate() {
        let mut matches = Vec::with_capacity(clause.len());
        for (place, one) in clause.iter().enumerate() {
            let read =
                read(one).map_err(|error| error.within(format_args!("clauses[{index}].matches[{place}]")))?;
            matches.push(read);
        }
        clauses.push(Clause { matches: matches.into() });
    }
    Ok(Rule { clauses: clauses.into() })
}

fn condition(strings: &mut Strings, wire: &wire::Match) -> Result<Match, FieldError> {
    Ok(Match {
        namespaces: texts(strings, "namespaces", &wire.namespaces, plain)?,
        not_namespaces: texts(strings, "not_namespaces", &wire.not_namespaces, plain)?,
        principals: texts(strings, "principals", &wire.principals, principal)?,
        not_principals: texts(strings, "not_principals", &wire.not_principals, principal)?,
        service_accounts: accounts(strings, "service_accounts", &wire.service_accounts)?,
        not_service_accounts: accounts(strings, "not_service_accounts", &wire.not_service_accounts)?,
        source_ips: ranges("source_ips", &wire.source_ips)?,
        not_source_ips: ranges("not_source_ips", &wire.not_source_ips)?,
        destination_ips: ranges("destination_ips", &wire.destination_ips)?,
        not_destination_ips: ranges("not_destination_ips", &wire.not_destination_ips)?,
        destination_ports: ports("destination_ports", &wire.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &wire.not_destination_ports)?,
        unseen: unseen(strings, &wire.extensions)?,
        request: None,
    })
}

fn plain(text: &str) -> &str {
    text
}

/// Identities are compared without their scheme, and so is what they are compared with.
fn principal(text: &str) -> &str {
    text.strip_prefix("spiffe://").unwrap_or(text)
}

fn texts(
    strings: &mut Strings,
    field: &'static str,
    wire: &[wire::StringMatch],
    normal: fn(&str) -> &str,
) -> Result<Vec<StringMatch>, FieldError> {
    let read = |one: &wire::StringMatch| match &one.match_type {
        Some(MatchType::Exact(text)) => Ok(StringMatch::Exact(strings.get(normal(text)))),
        Some(MatchType::Prefix(text)) => Ok(StringMatch::Prefix(strings.get(normal(text)))),
        Some(MatchType::Suffix(text)) => Ok(StringMatch::Suffix(strings.get(text))),
        Some(MatchType::Presence(())) => Ok(StringMatch::Presence),
        None => Err(FieldError::new(field, Reason::Missing)),
    };
    wire.iter().map(read).collect()
}

fn accounts(
    strings: &mut Strings,
    field: &'static str,
    wire: &[wire::ServiceAccountMatch],
) -> Result<Vec<ServiceAccountMatch>, FieldError> {
    let read = |one: &wire::ServiceAccountMatch| {
        if one.namespace.is_empty() || one.service_account.is_empty() {
            return Err(FieldError::new(field, Reason::Missing));
        }
        Ok(ServiceAccountMatch {
            namespace: strings.get(&one.namespace),
            service_account: strings.get(&one.service_account),
        })
    };
    wire.iter().map(read).collect()
}

fn ranges(field: &'static str, wire: &[wire::Address]) -> Result<Vec<IpNet>, FieldError> {
    wire.iter()
        .map(|one| fields::range(&one.address, one.length))
        .collect::<Result<_, _>>()
        .map_err(|reason| FieldError::new(field, reason))
}

fn ports(field: &'static str, wire: &[u32]) -> Result<Vec<u16>, FieldError> {
    wire.iter()
        .map(|number| fields::port(*number))
        .collect::<Result<_, _>>()
        .map_err(|reason| FieldError::new(field, reason))
}

/// What the match restricts beyond layer 4. An extension that is not known restricts something we cannot see, too.
fn unseen(strings: &mut Strings, extensions: &[Extension]) -> Result<Vec<Str>, FieldError> {
    let mut unseen = Vec::new();
    for one in extensions {
        match one.name.as_str() {
            extension::ORIGIN => {}
            extension::UNSEEN => {
                let attributes = unseen_attributes(one)?;
                unseen.extend(attributes.iter().map(|attribute| strings.get(attribute)));
                if attributes.is_empty() {
                    unseen.push(strings.get(extension::UNSEEN));
                }
            }
            other => unseen.push(strings.get(other)),
        }
    }
    Ok(unseen)
}

fn unseen_attributes(one: &Extension) -> Result<Vec<String>, FieldError> {
    let wrong = |reason| FieldError::new("extensions[lateen.dev/unseen]", reason);
    let config = one.config.as_ref().ok_or_else(|| wrong(Reason::Missing))?;
    let content: mesh::UnseenAttributes = config
        .unpack()
        .ok_or_else(|| wrong(Reason::UnknownType(config.type_url.clone())))?
        .map_err(|error| wrong(Reason::Malformed(error.to_string())))?;
    Ok(content.attributes)
}

/// The policy as it is sent, under `namespace/name`. One that stands in for what could not be read denies everything
/// on the wire, too: whoever reads it (a successor that goes on from what was saved) denies no less.
pub fn to_wire(policy: &Policy) -> wire::Authorization {
    if let Some(reason) = &policy.invalid {
        let everything = [Rule::default()].into();
        let denies = Policy { action: Action::Deny, rules: everything, invalid: None, ..policy.clone() };
        let why = super::workload::extension(
            extension::INVALID,
            &mesh::InvalidPolicy { reason: reason.to_string() },
        );
        return wire::Authorization { extensions: vec![why], ..to_wire(&denies) };
    }
    let clause =
        |clause: &Clause| wire::Clause { matches: clause.matches.iter().map(match_to_wire).collect() };
    let rule = |rule: &Rule| wire::Rule { clauses: rule.clauses.iter().map(clause).collect() };
    wire::Authorization {
        name: policy.name.name.to_string(),
        namespace: policy.name.namespace.to_string(),
        scope: match policy.scope {
            PolicyScope::Global => wire::Scope::Global,
            PolicyScope::Namespace => wire::Scope::Namespace,
            // No workload names one for targets, which is a waypoint's to judge by.
            PolicyScope::Workload | PolicyScope::Targets(_) => wire::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.action {
            Action::Allow => wire::Action::Allow,
            Action::Deny | Action::Audit => wire::Action::Deny,
        }
        .into(),
        // Node agents note nothing: what never matches decides nothing.
        rules: match policy.action {
            Action::Audit => Vec::new(),
            Action::Allow | Action::Deny => policy.rules.iter().map(rule).collect(),
        },
        dry_run: policy.dry_run,
        extensions: Vec::new(),
    }
}

/// The policy for a peer that does not know our extensions and would overlook what they restrict: of an ALLOW
/// policy, matches with an unseen attribute are left out and let nothing through; in a DENY policy only the
/// attribute is, so that they refuse more.
pub fn to_wire_without_extensions(policy: &Policy) -> wire::Authorization {
    let rules = policy.rules.iter().filter_map(|rule| without_unseen(rule, policy.action)).collect();
    to_wire(&Policy { rules, ..policy.clone() })
}

/// The rule without unseen attributes; nothing if it can no longer match.
fn without_unseen(rule: &Rule, action: Action) -> Option<Rule> {
    let mut clauses = Vec::with_capacity(rule.clauses.len());
    for clause in &rule.clauses {
        let mut matches: Vec<Match> =
            clause.matches.iter().map(|one| one.at_layer_4().into_owned()).collect();
        match action {
            Action::Allow => matches.retain(|one| one.unseen.is_empty()),
            Action::Deny | Action::Audit => matches.iter_mut().for_each(|one| one.unseen.clear()),
        }
        let emptied = |(before, after): (&Match, &Match)| !before.is_empty() && after.is_empty();
        if matches.is_empty() && !clause.matches.is_empty() {
            return None;
        }
        // A match that restricts nothing never holds on the wire, a clause without matches always does.
        if action == Action::Deny && clause.matches.iter().zip(&matches).any(emptied) {
            matches.clear();
        }
        clauses.push(Clause { matches: matches.into() });
    }
    Some(Rule { clauses: clauses.into() })
}

fn match_to_wire(one: &Match) -> wire::Match {
    let one = one.at_layer_4();
    let numbers = |ports: &[u16]| ports.iter().map(|port| u32::from(*port)).collect();
    let attributes: Vec<String> = one.unseen.iter().map(ToString::to_string).collect();
    let unseen = (!attributes.is_empty())
        .then(|| super::workload::extension(extension::UNSEEN, &mesh::UnseenAttributes { attributes }));
    wire::Match {
        namespaces: texts_to_wire(&one.namespaces),
        not_namespaces: texts_to_wire(&one.not_namespaces),
        service_accounts: accounts_to_wire(&one.service_accounts),
        not_service_accounts: accounts_to_wire(&one.not_service_accounts),
        principals: texts_to_wire(&one.principals),
        not_principals: texts_to_wire(&one.not_principals),
        source_ips: ranges_to_wire(&one.source_ips),
        not_source_ips: ranges_to_wire(&one.not_source_ips),
        destination_ips: ranges_to_wire(&one.destination_ips),
        not_destination_ips: ranges_to_wire(&one.not_destination_ips),
        destination_ports: numbers(&one.destination_ports),
        not_destination_ports: numbers(&one.not_destination_ports),
        extensions: unseen.into_iter().collect(),
    }
}

fn texts_to_wire(texts: &[StringMatch]) -> Vec<wire::StringMatch> {
    let write = |text: &StringMatch| match text {
        StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
        StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
        StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
        StringMatch::Presence => MatchType::Presence(()),
    };
    texts.iter().map(|text| wire::StringMatch { match_type: Some(write(text)) }).collect()
}

fn accounts_to_wire(accounts: &[ServiceAccountMatch]) -> Vec<wire::ServiceAccountMatch> {
    let write = |account: &ServiceAccountMatch| wire::ServiceAccountMatch {
        namespace: account.namespace.to_string(),
        service_account: account.service_account.to_string(),
    };
    accounts.iter().map(write).collect()
}

fn ranges_to_wire(ranges: &[IpNet]) -> Vec<wire::Address> {
    let write = |range: &IpNet| wire::Address {
        address: fields::ip_bytes(range.addr()),
        length: range.prefix_len().into(),
    };
    ranges.iter().map(write).collect()
}

#[cfg(test)]
mod tests;
