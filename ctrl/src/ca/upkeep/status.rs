//! How the authorities stand, for people and programs (`lateen ca status`).

use std::time::{Duration, SystemTime};

use identity::bundle::rfc3339;
use pages::ca::{Late, List, Status};

use super::alarm::warning;
use super::{Upkeep, awaited};
use crate::ca::authorize::Caller;
use crate::ca::keyring::Keyring;

/// Certificates that are listed as late, at most.
const MOST_LATE: usize = 20;

/// Names a caller as people know him.
pub fn name(caller: &Caller) -> String {
    match caller {
        Caller::Node(node) => node.to_string(),
        Caller::Workload(identity) => identity.to_string(),
    }
}

impl Upkeep {
    /// How the authorities stand now.
    pub fn status(&self, now: SystemTime) -> Status {
        let keyring = &self.keyring;
        let since = keyring.successor_since();
        let told = self.core.settings_revision();
        let awaited: Vec<String> = match (since, told) {
            (Some(since), Some(told)) => {
                awaited(keyring, &self.clients.all(), told, since).iter().map(name).collect()
            }
            _ => Vec::new(),
        };
        let latest = since.map(|since| since + keyring.settings().patience);
        let (phase, explanation) = phase(keyring, &awaited, latest);
        let late = self.late(now);
        Status {
            authority: if keyring.made_here() { "made here" } else { "plugged in" }.to_owned(),
            phase: phase.to_owned(),
            explanation,
            certificates: keyring.describe(),
            awaited,
            since: since.map(rfc3339),
            at_the_latest: latest.map(rfc3339),
            issued: keyring.issued(),
            revoked_identities: keyring.revoked_identities().iter().map(ToString::to_string).collect(),
            revoked_certificates: keyring.revoked_certificates(),
            revocation_lists: keyring
                .lists()
                .into_iter()
                .map(|(entries, next)| List { entries, next_update: next.map(rfc3339) })
                .collect(),
            warnings: warnings(keyring, late.len(), now),
            late,
        }
    }

    fn late(&self, now: SystemTime) -> Vec<Late> {
        let on_node = |holder: &Caller, identity: &_| match holder {
            Caller::Node(node) => self.core.on_node(node, identity),
            Caller::Workload(_) => true,
        };
        let late = self.keyring.late(now).into_iter().filter(|late| on_node(&late.0, &late.1));
        let late = late.map(|(holder, identity, not_after)| Late {
            identity: identity.to_string(),
            holder: name(&holder),
            not_after: rfc3339(not_after),
        });
        late.take(MOST_LATE).collect()
    }
}

fn phase(keyring: &Keyring, awaited: &[String], latest: Option<SystemTime>) -> (&'static str, String) {
    let retired = keyring.retired_ends();
    match (latest, retired.iter().max()) {
        (Some(latest), _) => (
            "distributing",
            format!(
                "the successor is trusted beside the one that signs; it signs once everybody has said so ({}), at {} at \
                 the latest",
                if awaited.is_empty() {
                    "everybody has".to_owned()
                } else {
                    format!("awaited: {}", awaited.join(", "))
                },
                rfc3339(latest)
            ),
        ),
        (None, Some(until)) => (
            "retiring",
            format!(
                "the new authority signs; the one before stays trusted until the last certificate it signed ends, at {}",
                rfc3339(*until)
            ),
        ),
        (None, None) => ("stable", "one authority signs, and is all that is trusted".to_owned()),
    }
}

fn warnings(keyring: &Keyring, late: usize, now: SystemTime) -> Vec<String> {
    let mut warnings: Vec<String> = keyring.problem().into_iter().collect();
    for (what, validity) in keyring.ends().all() {
        let lifetime = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
        if validity.not_after < now + warning(lifetime) {
            let left = validity.not_after.duration_since(now).unwrap_or(Duration::ZERO);
            warnings.push(format!(
                "the {what} ends at {}, in {} days, and with it everything it signed",
                rfc3339(validity.not_after),
                left.as_secs() / (24 * 3600)
            ));
        }
    }
    if late > 0 {
        warnings.push(format!(
            "{late} workloads' certificates are past two thirds of their life and were not renewed; see the logs of their \
             nodes' agents"
        ));
    }
    warnings
}
