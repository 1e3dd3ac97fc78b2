//! The status of an object as it is to stand at the API server: what is to be written, if anything is different. Pure.

use manifest::istio::Listener;
use manifest::{Object, Typed};
use serde_json::{Value, json};

use super::Condition;

/// Every type of condition that this controller writes: one of them that does not hold any more is taken back.
const OURS: [&str; 8] = [
    super::ZTUNNEL_ACCEPTED,
    super::ACCEPTED,
    super::authorization::WAYPOINT_ACCEPTED,
    super::routing::HELD,
    super::routing::RESOLVED,
    super::waypoint::PROGRAMMED,
    super::waypoint::WAYPOINT_BOUND,
    super::waypoint::WAYPOINT_AMBIGUOUS,
];
/// The longest message that API servers take, in bytes.
const LONGEST_MESSAGE: usize = 32_768;

/// What to write as an object's status by server-side apply; `None` where it stands there already. `now` is the moment of
/// whatever has become true, in RFC 3339.
pub fn status(
    object: &Object,
    conditions: &[Condition],
    addresses: Option<Value>,
    now: &str,
) -> Option<Value> {
    let there = object.raw.pointer("/status/conditions").and_then(Value::as_array);
    let there: Vec<&Value> = there.into_iter().flatten().collect();
    let ours = there.iter().filter(|one| OURS.iter().any(|kind| one["type"] == *kind)).count();
    let wanted: Vec<Value> = conditions
        .iter()
        .map(|one| with_time(object, one, there.iter().find(|there| there["type"] == one.kind), now))
        .collect();
    let same = ours == wanted.len() && wanted.iter().all(|one| there.contains(&one));
    let addresses_there = object.raw.pointer("/status/addresses").filter(|_| addresses.is_some());
    let listeners = listeners(object, conditions, now);
    let listeners_there = object.raw.pointer("/status/listeners").filter(|_| listeners.is_some());
    if same && addresses_there == addresses.as_ref() && listeners_there == listeners.as_ref() {
        return None;
    }
    let mut status = json!({"conditions": wanted});
    if let Some(addresses) = addresses {
        status["addresses"] = addresses;
    }
    if let Some(listeners) = listeners {
        status["listeners"] = listeners;
    }
    Some(status)
}

/// What is said of each listener of a Gateway: of that for HBONE what is said of the Gateway, of others that they are not
/// carried.
fn listeners(object: &Object, conditions: &[Condition], now: &str) -> Option<Value> {
    let Typed::Gateway(gateway) = &object.spec else { return None };
    let there = object.raw.pointer("/status/listeners").and_then(Value::as_array);
    let one = |listener: &Listener| {
        let there = there.into_iter().flatten().find(|one| one["name"] == *listener.name);
        let there = there.and_then(|one| one["conditions"].as_array()).map_or(&[][..], Vec::as_slice);
        let carried = listener.protocol == "HBONE";
        let not_carried = |kind: &'static str, reason| {
            let message = format!("{} is not carried by a waypoint, only HBONE", listener.protocol);
            Condition::new(kind, false, reason, message)
        };
        let programmed = conditions.iter().find(|one| one.kind == super::waypoint::PROGRAMMED).cloned();
        let wanted = match carried {
            true => [Some(Condition::new(super::ACCEPTED, true, "Accepted", "takes tunnels")), programmed],
            false => [
                Some(not_carried(super::ACCEPTED, "UnsupportedProtocol")),
                Some(not_carried(super::waypoint::PROGRAMMED, "Invalid")),
            ],
        };
        let resolved = Condition::new(super::routing::RESOLVED, true, "ResolvedRefs", "it refers to nothing");
        let wanted = wanted.into_iter().flatten().chain([resolved]);
        let conditions: Vec<Value> = wanted
            .map(|one| {
                with_time(object, &one, there.iter().find(|there| there["type"] == one.kind).as_ref(), now)
            })
            .collect();
        json!({"name": listener.name, "attachedRoutes": 0, "supportedKinds": [], "conditions": conditions})
    };
    Some(gateway.listeners.iter().map(one).collect())
}

/// The moment of the last change stays while the condition says the same.
fn with_time(object: &Object, condition: &Condition, there: Option<&&Value>, now: &str) -> Value {
    let since = there.filter(|there| there["status"] == condition.status);
    let since = since.and_then(|there| there["lastTransitionTime"].as_str()).unwrap_or(now);
    let mut value = json!({
        "type": condition.kind,
        "status": condition.status,
        "reason": condition.reason,
        "message": shortened(&condition.message),
        "lastTransitionTime": since,
    });
    if let Some(generation) = object.metadata.generation {
        value["observedGeneration"] = generation.into();
    }
    value
}

fn shortened(message: &str) -> &str {
    let end = (0..=LONGEST_MESSAGE.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    &message[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use manifest::from_json;

    use super::*;

    fn object(status: &Value) -> Object {
        let value = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop", "generation": 3},
            "spec": {}, "status": status,
        });
        from_json(&value, &Arc::from(Path::new("kubernetes"))).objects.remove(0)
    }

    fn condition(holds: bool, message: &str) -> Condition {
        Condition::new("ZtunnelAccepted", holds, if holds { "Accepted" } else { "Invalid" }, message)
    }

    fn written(status: &str, message: &str, since: &str, generation: i64) -> Value {
        json!({
            "type": "ZtunnelAccepted", "status": status, "message": message, "lastTransitionTime": since,
            "reason": if status == "True" { "Accepted" } else { "Invalid" }, "observedGeneration": generation,
        })
    }

    #[test]
    fn a_status_is_written_when_it_is_another_one() {
        let foreign = json!({"type": "Theirs", "status": "True"});
        for (about, there, wanted) in [
            ("none yet", json!({}), Some("now")),
            ("the same", json!({"conditions": [written("True", "m", "then", 3)]}), None),
            ("beside another's", json!({"conditions": [foreign, written("True", "m", "then", 3)]}), None),
            ("other words", json!({"conditions": [written("True", "n", "then", 3)]}), Some("then")),
            (
                "of what was written before",
                json!({"conditions": [written("True", "m", "then", 2)]}),
                Some("then"),
            ),
            ("it did not hold", json!({"conditions": [written("False", "m", "then", 3)]}), Some("now")),
            (
                "one of ours too many",
                json!({"conditions": [written("True", "m", "then", 3), {"type": "Held", "status": "True"}]}),
                Some("then"),
            ),
        ] {
            let status = status(&object(&there), &[condition(true, "m")], None, "now");
            let wanted = wanted.map(|since| json!({"conditions": [written("True", "m", since, 3)]}));
            assert_eq!(status, wanted, "{about}");
        }
    }

    #[test]
    fn listeners_have_conditions_of_their_own() {
        let gateway = |status: &Value| {
            let value = json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": "w", "namespace": "shop", "generation": 3},
                "spec": {"gatewayClassName": "istio-waypoint", "listeners": [
                    {"name": "mesh", "port": 15008, "protocol": "HBONE"}, {"name": "web", "port": 80, "protocol": "HTTP"},
                ]},
                "status": status,
            });
            from_json(&value, &Arc::from(Path::new("kubernetes"))).objects.remove(0)
        };
        let all = |programmed| {
            [
                Condition::new("Accepted", true, "Accepted", ""),
                Condition::new("Programmed", programmed, "Pending", "m"),
            ]
        };
        let first = status(&gateway(&json!({})), &all(false), None, "then").expect("something to write");
        let said = |status: &Value, listener: usize| -> Vec<String> {
            let conditions = status["listeners"][listener]["conditions"].as_array().expect("conditions");
            let text = |one: &Value| {
                ["type", "status", "lastTransitionTime"]
                    .map(|field| one[field].as_str().unwrap_or_default().to_owned())
            };
            conditions.iter().map(|one| text(one).join(" ")).collect()
        };
        assert_eq!(
            said(&first, 0),
            ["Accepted True then", "Programmed False then", "ResolvedRefs True then"]
        );
        assert_eq!(
            said(&first, 1),
            ["Accepted False then", "Programmed False then", "ResolvedRefs True then"]
        );
        assert_eq!(status(&gateway(&first), &all(false), None, "now"), None);
        let next = status(&gateway(&first), &all(true), None, "now").expect("something to write");
        assert_eq!(said(&next, 0), ["Accepted True then", "Programmed True now", "ResolvedRefs True then"]);
    }

    #[test]
    fn what_does_not_hold_any_more_is_taken_back() {
        let there = json!({"conditions": [written("True", "m", "then", 3)]});
        assert_eq!(status(&object(&there), &[], None, "now"), Some(json!({"conditions": []})));
        assert_eq!(status(&object(&json!({})), &[], None, "now"), None);
    }

    #[test]
    fn addresses_are_written_beside_and_messages_end_in_time() {
        let addresses = json!([{"type": "IPAddress", "value": "10.96.0.9"}]);
        let message = "ä".repeat(LONGEST_MESSAGE);
        let first = status(&object(&json!({})), &[condition(true, &message)], Some(addresses.clone()), "now");
        let first = first.expect("something to write");
        assert_eq!(first["addresses"], addresses);
        assert_eq!(first["conditions"][0]["message"].as_str().map(str::len), Some(LONGEST_MESSAGE));
        assert_eq!(status(&object(&first), &[condition(true, &message)], Some(addresses), "later"), None);
    }
}
