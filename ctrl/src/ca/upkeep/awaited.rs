//! Who has to trust a successor before it signs, and has not said so.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use xds::server::ClientStatus;

use crate::ca::authorize::Caller;
use crate::ca::keyring::Keyring;
use crate::core::Revisions;

/// Those who hold certificates, or are connected, and may not have heard of all that is trusted: neither have they in
/// force what was published at `settings`, nor was everything that they still use issued since `since` (with it come the
/// roots). A proxy that is away while its node lives is among them.
pub fn awaited(
    keyring: &Keyring,
    clients: &[ClientStatus<Caller>],
    settings: Revisions,
    since: SystemTime,
) -> Vec<Caller> {
    awaited_of(&keyring.holders(), &said(clients, settings), since)
}

/// By caller, whether each of his proxies that can say so has said that it has everything.
fn said(clients: &[ClientStatus<Caller>], settings: Revisions) -> HashMap<Caller, bool> {
    let mut said = HashMap::new();
    for client in clients.iter().filter(|client| client.node.heeds_extensions()) {
        let type_url = proto::type_url::MESH_SETTINGS;
        let published = if client.node.is_waypoint() { settings.layer7 } else { settings.ours };
        let has = client.in_force.get(type_url).is_some_and(|has| *has >= published)
            && !client.refused.keys().any(|(refused, _)| **refused == *type_url);
        let all = said.entry(client.caller.clone()).or_insert(true);
        *all = *all && has;
    }
    said
}

/// The pure decision; `holders` has when the oldest certificate of each was issued.
fn awaited_of(
    holders: &HashMap<Caller, SystemTime>,
    said: &HashMap<Caller, bool>,
    since: SystemTime,
) -> Vec<Caller> {
    let everybody: BTreeSet<&Caller> = holders.keys().chain(said.keys()).collect();
    let lacks = |caller: &&Caller| match (said.get(*caller), holders.get(*caller)) {
        (Some(said), _) => !said,
        (None, Some(oldest)) => *oldest < since,
        (None, None) => false,
    };
    everybody.into_iter().filter(lacks).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn decides_by_table() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let node = |name: &str| Caller::Node(name.into());
        // Of node-1: when its oldest certificate was issued, and what its proxy said.
        for (about, oldest, said, expected) in [
            ("has said so", Some(1), Some(true), false),
            ("connected, has not", Some(1), Some(false), true),
            ("connected, has not, holds only what is new", Some(20), Some(false), true),
            ("connected, holds nothing", None, Some(false), true),
            ("away, holds what is old", Some(9), None, true),
            ("away, or a foreign one, holds only what is new", Some(10), None, false),
            ("nobody", None, None, false),
        ] {
            let holders = oldest.map(|oldest| (node("node-1"), at(oldest))).into_iter().collect();
            let said = said.map(|said| (node("node-1"), said)).into_iter().collect();
            assert_eq!(
                awaited_of(&holders, &said, at(10)),
                vec![node("node-1"); usize::from(expected)],
                "{about}"
            );
        }
    }
}
