//! Who calls: everything that the certificate and the address tell.

use manifest::istio::Source;
use model::address::Str;
use model::authz::{Layer, Match, RequestMatch, ServiceAccountMatch, StringMatch};

use super::rule::{boxed, names, ranges, text, texts};
use super::{Here, aliases};

pub(super) fn source(asked: &Source, here: Here<'_>) -> Result<Match, String> {
    // Nobody checks tokens, yet.
    let tokens = [
        ("requestPrincipals", &asked.request_principals),
        ("notRequestPrincipals", &asked.not_request_principals),
    ];
    let addresses =
        [("remoteIpBlocks", &asked.remote_ip_blocks), ("notRemoteIpBlocks", &asked.not_remote_ip_blocks)];
    let mut one = Match {
        principals: aliases::principals(&asked.principals, here.mesh),
        not_principals: aliases::principals(&asked.not_principals, here.mesh),
        namespaces: texts(&asked.namespaces),
        not_namespaces: texts(&asked.not_namespaces),
        service_accounts: accounts(&asked.service_accounts, here.namespace),
        not_service_accounts: accounts(&asked.not_service_accounts, here.namespace),
        source_ips: ranges(&asked.ip_blocks)?,
        not_source_ips: ranges(&asked.not_ip_blocks)?,
        unseen: names("from.source", &tokens),
        ..Match::default()
    };
    if here.layer == Layer::Seven {
        one.request = boxed(RequestMatch {
            remote_ips: ranges(&asked.remote_ip_blocks)?,
            not_remote_ips: ranges(&asked.not_remote_ip_blocks)?,
            trust_domains: texts(&asked.trust_domains),
            not_trust_domains: texts(&asked.not_trust_domains),
            ..RequestMatch::default()
        });
        return Ok(one);
    }
    one.unseen.extend(names("from.source", &addresses));
    trust_domains(&mut one, &asked.trust_domains, &asked.not_trust_domains, "from.source.trustDomains");
    Ok(one)
}

/// `NAMESPACE/NAME`, or `NAME` in the policy's own namespace.
pub(super) fn accounts(values: &[String], namespace: &Str) -> Vec<ServiceAccountMatch> {
    let account = |value: &String| match value.split_once('/') {
        Some((namespace, name)) => {
            ServiceAccountMatch { namespace: namespace.into(), service_account: name.into() }
        }
        None => ServiceAccountMatch { namespace: namespace.clone(), service_account: value.as_str().into() },
    };
    values.iter().map(account).collect()
}

/// The wire to agents knows no trust domains, but an identity begins with its own. What cannot be said so is not seen.
pub(super) fn trust_domains(one: &mut Match, wanted: &[String], unwanted: &[String], attribute: &str) {
    let mut unseen = false;
    for value in unwanted {
        match beginning(value) {
            Some(beginning) => one.not_principals.push(beginning),
            None => unseen = true,
        }
    }
    if !wanted.is_empty() {
        let beginnings: Option<Vec<StringMatch>> = wanted.iter().map(|value| beginning(value)).collect();
        let both = beginnings.and_then(|beginnings| both(&one.principals, beginnings));
        match both {
            Some(both) => one.principals = both,
            None => unseen = true,
        }
    }
    if unseen {
        one.unseen.push(attribute.into());
    }
}

/// The identities of trust domains like this, if they are known by how they begin.
fn beginning(trust_domain: &str) -> Option<StringMatch> {
    match text(trust_domain) {
        StringMatch::Presence => Some(StringMatch::Presence),
        StringMatch::Exact(name) => Some(StringMatch::Prefix(format!("{name}/ns/").into())),
        // Beyond a slash it would be compared with what is no trust domain.
        StringMatch::Prefix(start) if !start.contains('/') => Some(StringMatch::Prefix(start)),
        StringMatch::Prefix(_) | StringMatch::Suffix(_) => None,
    }
}

/// What both lists match, as one list; nothing if that cannot be said.
fn both(principals: &[StringMatch], beginnings: Vec<StringMatch>) -> Option<Vec<StringMatch>> {
    if principals.is_empty() {
        return Some(beginnings);
    }
    let mut both = Vec::new();
    for principal in principals {
        for beginning in &beginnings {
            both.extend(intersection(principal, beginning)?);
        }
    }
    if both.is_empty() {
        // No identity is empty: this matches nobody, as it should.
        both.push(StringMatch::Exact("".into()));
    }
    Some(both)
}

/// What both match: `Some(None)` for nothing, `None` if it cannot be said.
fn intersection(principal: &StringMatch, beginning: &StringMatch) -> Option<Option<StringMatch>> {
    use StringMatch::{Exact, Prefix, Presence, Suffix};
    let start = match beginning {
        Presence => return Some(Some(principal.clone())),
        Prefix(start) => start,
        Exact(_) | Suffix(_) => return None,
    };
    Some(match principal {
        Presence => Some(beginning.clone()),
        Exact(whole) => whole.starts_with(&**start).then(|| principal.clone()),
        Prefix(longer) if longer.starts_with(&**start) => Some(principal.clone()),
        Prefix(shorter) => start.starts_with(&**shorter).then(|| beginning.clone()),
        Suffix(_) => return None,
    })
}
