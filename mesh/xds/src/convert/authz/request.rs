//! `lateen.security.v1.Authorization` ⇄ [`Policy`]: all of a policy, as waypoints enforce it. As strict as its sibling for
//! node agents, for the same reason.

use bytes::Bytes;
use model::authz::{
    Action, Clause, HeaderMatch, Match, PathMatch, Policy, PolicyScope, RequestMatch, Rule, StringMatch,
    Target, Template,
};
use model::workload::PolicyName;
use prost::Message;
use proto::request_security as wire;
use proto::security::StringMatch as WireString;
use wire::path_match::MatchType;
use wire::target::Kind as TargetKind;

use super::super::strict::{self, Kind, Others, Schema};
use super::{ADDRESS, MATCH, STRING_MATCH, Strings, plain, ranges, ranges_to_wire, texts, texts_to_wire};
use crate::convert::{FieldError, Reason, fields, parse};

const PATH_MATCH: Schema = Schema {
    fields: &[(1, "text", Kind::Message(&STRING_MATCH)), (2, "template", Kind::Bytes)],
    others: Others::Refuse,
    exclusive: true,
};

const HEADER_MATCH: Schema = Schema {
    fields: &[
        (1, "name", Kind::Bytes),
        (2, "values", Kind::Message(&STRING_MATCH)),
        (3, "not_values", Kind::Message(&STRING_MATCH)),
    ],
    others: Others::Refuse,
    exclusive: false,
};

const REQUEST_MATCH: Schema = Schema {
    fields: &[
        (1, "methods", Kind::Message(&STRING_MATCH)),
        (2, "not_methods", Kind::Message(&STRING_MATCH)),
        (3, "paths", Kind::Message(&PATH_MATCH)),
        (4, "not_paths", Kind::Message(&PATH_MATCH)),
        (5, "hosts", Kind::Message(&STRING_MATCH)),
        (6, "not_hosts", Kind::Message(&STRING_MATCH)),
        (7, "headers", Kind::Message(&HEADER_MATCH)),
        (8, "remote_ips", Kind::Message(&ADDRESS)),
        (9, "not_remote_ips", Kind::Message(&ADDRESS)),
        (10, "trust_domains", Kind::Message(&STRING_MATCH)),
        (11, "not_trust_domains", Kind::Message(&STRING_MATCH)),
        (12, "sni", Kind::Message(&STRING_MATCH)),
        (13, "not_sni", Kind::Message(&STRING_MATCH)),
    ],
    others: Others::Refuse,
    exclusive: false,
};

const FULL_MATCH: Schema = Schema {
    fields: &[(1, "connection", Kind::Message(&MATCH)), (2, "request", Kind::Message(&REQUEST_MATCH))],
    others: Others::Refuse,
    exclusive: false,
};

const CLAUSE: Schema = Schema {
    fields: &[(1, "matches", Kind::Message(&FULL_MATCH))],
    others: Others::Refuse,
    exclusive: false,
};

const RULE: Schema =
    Schema { fields: &[(1, "clauses", Kind::Message(&CLAUSE))], others: Others::Refuse, exclusive: false };

const TARGET: Schema = Schema {
    fields: &[(1, "kind", Kind::Number), (2, "namespace", Kind::Bytes), (3, "name", Kind::Bytes)],
    others: Others::Refuse,
    exclusive: false,
};

/// Beside rules and targets, what is not known restricts nothing unless `requires` says so.
const AUTHORIZATION: Schema = Schema {
    fields: &[(4, "targets", Kind::Message(&TARGET)), (6, "rules", Kind::Message(&RULE))],
    others: Others::Ignore,
    exclusive: false,
};

pub(in crate::convert) fn read(
    strings: &mut Strings,
    name: &str,
    value: Bytes,
) -> Result<Policy, FieldError> {
    strict::check(&value, &AUTHORIZATION)?;
    let wire: wire::Authorization = parse(value)?;
    let policy = fields::policy_name(strings, name).map_err(|reason| FieldError::new("name", reason))?;
    if *policy.namespace != *wire.namespace || *policy.name != *wire.name {
        let other = format!("{}/{}", wire.namespace, wire.name);
        return Err(FieldError::new("name", Reason::OtherName(other)));
    }
    if let Some(unknown) = wire.requires.first() {
        return Err(FieldError::new("requires", Reason::Requires(unknown.clone())));
    }
    let scope = scope(strings, &wire)?;
    let action = match wire::Action::try_from(wire.action) {
        Ok(wire::Action::Allow) => Action::Allow,
        Ok(wire::Action::Deny) => Action::Deny,
        Ok(wire::Action::Audit) => Action::Audit,
        Ok(wire::Action::Unspecified) | Err(_) => {
            return Err(FieldError::new("action", Reason::UnknownValue(wire.action)));
        }
    };
    let read = |(index, wire): (usize, &wire::Rule)| {
        let clauses = wire.clauses.iter().map(|clause| &*clause.matches);
        super::rule(clauses, |one| full_match(strings, one))
            .map_err(|error| error.within(format_args!("rules[{index}]")))
    };
    let rules = wire.rules.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let invalid = (!wire.invalid.is_empty()).then(|| wire.invalid.as_str().into());
    Ok(Policy { name: policy, scope, action, rules, dry_run: wire.dry_run, invalid })
}

fn scope(strings: &mut Strings, wire: &wire::Authorization) -> Result<PolicyScope, FieldError> {
    match wire::Scope::try_from(wire.scope) {
        Ok(wire::Scope::Mesh) => Ok(PolicyScope::Global),
        Ok(wire::Scope::Namespace) => Ok(PolicyScope::Namespace),
        Ok(wire::Scope::Selected) => Ok(PolicyScope::Workload),
        Ok(wire::Scope::Targets) => {
            let read = |(index, one): (usize, &wire::Target)| {
                target(strings, one).map_err(|error| error.within(format_args!("targets[{index}]")))
            };
            Ok(PolicyScope::Targets(wire.targets.iter().enumerate().map(read).collect::<Result<_, _>>()?))
        }
        Ok(wire::Scope::Unspecified) | Err(_) => {
            Err(FieldError::new("scope", Reason::UnknownValue(wire.scope)))
        }
    }
}

fn target(strings: &mut Strings, wire: &wire::Target) -> Result<Target, FieldError> {
    if wire.name.is_empty() {
        return Err(FieldError::new("name", Reason::Missing));
    }
    let (namespace, name) = (strings.get(&wire.namespace), strings.get(&wire.name));
    match TargetKind::try_from(wire.kind) {
        Ok(TargetKind::Gateway) => Ok(Target::Gateway { namespace, name }),
        Ok(TargetKind::GatewayClass) => Ok(Target::GatewayClass(name)),
        Ok(TargetKind::Service) => fields::host(strings, &wire.namespace, &wire.name).map(Target::Service),
        Ok(TargetKind::ServiceEntry) => Ok(Target::ServiceEntry { namespace, name }),
        Ok(TargetKind::Unspecified) | Err(_) => Err(FieldError::new("kind", Reason::UnknownValue(wire.kind))),
    }
}

/// The policy that denies everything a refused one covers. Where its targets cannot be told, that is its namespace.
pub(in crate::convert) fn stand_in(
    strings: &mut Strings,
    name: PolicyName,
    value: &Bytes,
    mesh_wide: bool,
    reason: &str,
) -> Policy {
    let readable = wire::Authorization::decode(value.clone()).ok();
    let said = readable.as_ref().and_then(|wire| scope(strings, wire).ok());
    let widest = if mesh_wide { PolicyScope::Global } else { PolicyScope::Namespace };
    Policy {
        name,
        // A target that is not understood may be any.
        scope: said.filter(|_| strict::check(value, &AUTHORIZATION_TARGETS).is_ok()).unwrap_or(widest),
        action: Action::Deny,
        rules: Box::default(),
        dry_run: readable.is_some_and(|wire| wire.dry_run),
        invalid: Some(reason.into()),
    }
}

const AUTHORIZATION_TARGETS: Schema =
    Schema { fields: &[(4, "targets", Kind::Message(&TARGET))], others: Others::Ignore, exclusive: false };

fn full_match(strings: &mut Strings, wire: &wire::Match) -> Result<Match, FieldError> {
    let connection = match &wire.connection {
        Some(connection) => {
            super::condition(strings, connection).map_err(|error| error.within("connection"))?
        }
        None => Match::default(),
    };
    let request = match &wire.request {
        Some(request) => {
            Some(request_match(strings, request).map_err(|error| error.within("request"))?.into())
        }
        None => None,
    };
    Ok(Match { request, ..connection })
}

fn request_match(strings: &mut Strings, wire: &wire::RequestMatch) -> Result<RequestMatch, FieldError> {
    Ok(RequestMatch {
        methods: texts(strings, "methods", &wire.methods, plain)?,
        not_methods: texts(strings, "not_methods", &wire.not_methods, plain)?,
        paths: paths(strings, "paths", &wire.paths)?,
        not_paths: paths(strings, "not_paths", &wire.not_paths)?,
        hosts: hosts(strings, "hosts", &wire.hosts)?,
        not_hosts: hosts(strings, "not_hosts", &wire.not_hosts)?,
        headers: wire.headers.iter().map(|one| header(strings, one)).collect::<Result<_, _>>()?,
        remote_ips: ranges("remote_ips", &wire.remote_ips)?,
        not_remote_ips: ranges("not_remote_ips", &wire.not_remote_ips)?,
        trust_domains: texts(strings, "trust_domains", &wire.trust_domains, plain)?,
        not_trust_domains: texts(strings, "not_trust_domains", &wire.not_trust_domains, plain)?,
        sni: texts(strings, "sni", &wire.sni, plain)?,
        not_sni: texts(strings, "not_sni", &wire.not_sni, plain)?,
    })
}

fn paths(
    strings: &mut Strings,
    field: &'static str,
    wire: &[wire::PathMatch],
) -> Result<Vec<PathMatch>, FieldError> {
    let read = |one: &wire::PathMatch| match &one.match_type {
        Some(MatchType::Text(text)) => {
            let mut text = texts(strings, field, std::slice::from_ref(text), plain)?;
            text.pop().map(PathMatch::Text).ok_or_else(|| FieldError::new(field, Reason::Missing))
        }
        Some(MatchType::Template(text)) => Template::parse(text)
            .map(PathMatch::Template)
            .map_err(|error| FieldError::new(field, Reason::Malformed(error.to_string()))),
        None => Err(FieldError::new(field, Reason::Missing)),
    };
    wire.iter().map(read).collect()
}

/// One that is not in lower case would never match.
fn hosts(
    strings: &mut Strings,
    field: &'static str,
    wire: &[WireString],
) -> Result<Vec<StringMatch>, FieldError> {
    let read = texts(strings, field, wire, plain)?;
    let upper = read.iter().find_map(|host| match host {
        StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text) => {
            text.bytes().any(|byte| byte.is_ascii_uppercase()).then_some(text)
        }
        StringMatch::Presence => None,
    });
    match upper {
        Some(text) => {
            Err(FieldError::new(field, Reason::Form { text: text.to_string(), form: "host in lower case" }))
        }
        None => Ok(read),
    }
}

fn header(strings: &mut Strings, wire: &wire::HeaderMatch) -> Result<HeaderMatch, FieldError> {
    if wire.values.is_empty() && wire.not_values.is_empty() {
        return Err(FieldError::new("headers.values", Reason::Missing));
    }
    let values = texts(strings, "headers.values", &wire.values, plain)?;
    let not_values = texts(strings, "headers.not_values", &wire.not_values, plain)?;
    HeaderMatch::new(&wire.name, values, not_values).ok_or_else(|| {
        let form = Reason::Form { text: wire.name.clone(), form: "header-name" };
        FieldError::new("headers.name", form)
    })
}

/// The policy as waypoints are sent it, under `namespace/name`. One that stands in for what could not be read denies
/// everything.
pub fn to_wire(policy: &Policy) -> wire::Authorization {
    if let Some(reason) = &policy.invalid {
        let everything = [Rule::default()].into();
        let denies = Policy { action: Action::Deny, rules: everything, invalid: None, ..policy.clone() };
        return wire::Authorization { invalid: reason.to_string(), ..to_wire(&denies) };
    }
    let clause =
        |clause: &Clause| wire::Clause { matches: clause.matches.iter().map(match_to_wire).collect() };
    let rule = |rule: &Rule| wire::Rule { clauses: rule.clauses.iter().map(clause).collect() };
    let (scope, targets) = match &policy.scope {
        PolicyScope::Global => (wire::Scope::Mesh, Vec::new()),
        PolicyScope::Namespace => (wire::Scope::Namespace, Vec::new()),
        PolicyScope::Workload => (wire::Scope::Selected, Vec::new()),
        PolicyScope::Targets(targets) => (wire::Scope::Targets, targets.iter().map(target_to_wire).collect()),
    };
    let action = match policy.action {
        Action::Allow => wire::Action::Allow,
        Action::Deny => wire::Action::Deny,
        Action::Audit => wire::Action::Audit,
    };
    wire::Authorization {
        name: policy.name.name.to_string(),
        namespace: policy.name.namespace.to_string(),
        scope: scope.into(),
        targets,
        action: action.into(),
        rules: policy.rules.iter().map(rule).collect(),
        dry_run: policy.dry_run,
        invalid: String::new(),
        requires: Vec::new(),
    }
}

fn target_to_wire(target: &Target) -> wire::Target {
    let (kind, namespace, name) = match target {
        Target::Gateway { namespace, name } => (TargetKind::Gateway, &**namespace, &**name),
        Target::GatewayClass(name) => (TargetKind::GatewayClass, "", &**name),
        Target::Service(service) => (TargetKind::Service, service.namespace(), service.hostname()),
        Target::ServiceEntry { namespace, name } => (TargetKind::ServiceEntry, &**namespace, &**name),
    };
    wire::Target { kind: kind.into(), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn match_to_wire(one: &Match) -> wire::Match {
    let connection = Match { request: None, ..one.clone() };
    wire::Match {
        connection: (!connection.is_empty()).then(|| super::match_to_wire(&connection)),
        request: one.request.as_deref().map(request_to_wire),
    }
}

fn request_to_wire(one: &RequestMatch) -> wire::RequestMatch {
    let paths = |paths: &[PathMatch]| paths.iter().map(path_to_wire).collect();
    let header = |header: &HeaderMatch| wire::HeaderMatch {
        name: header.name.as_str().to_owned(),
        values: texts_to_wire(&header.values),
        not_values: texts_to_wire(&header.not_values),
    };
    wire::RequestMatch {
        methods: texts_to_wire(&one.methods),
        not_methods: texts_to_wire(&one.not_methods),
        paths: paths(&one.paths),
        not_paths: paths(&one.not_paths),
        hosts: texts_to_wire(&one.hosts),
        not_hosts: texts_to_wire(&one.not_hosts),
        headers: one.headers.iter().map(header).collect(),
        remote_ips: ranges_to_wire(&one.remote_ips),
        not_remote_ips: ranges_to_wire(&one.not_remote_ips),
        trust_domains: texts_to_wire(&one.trust_domains),
        not_trust_domains: texts_to_wire(&one.not_trust_domains),
        sni: texts_to_wire(&one.sni),
        not_sni: texts_to_wire(&one.not_sni),
    }
}

fn path_to_wire(one: &PathMatch) -> wire::PathMatch {
    let match_type = match one {
        PathMatch::Text(text) => texts_to_wire(std::slice::from_ref(text)).pop().map(MatchType::Text),
        PathMatch::Template(template) => Some(MatchType::Template(template.as_str().to_owned())),
    };
    wire::PathMatch { match_type }
}

#[cfg(test)]
mod tests;
