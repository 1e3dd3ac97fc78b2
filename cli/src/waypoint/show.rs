//! Waypoints as they are printed. Pure.

use manifest::waypoint::{FOR_ACCOUNT, WAYPOINT_FOR};
use serde_json::{Value, json};

use crate::table::align;

/// A text of an object; empty where there is none.
pub(super) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn name(gateway: &Value) -> &str {
    text(gateway, "/metadata/name")
}

pub(super) fn namespace(gateway: &Value) -> &str {
    text(gateway, "/metadata/namespace")
}

/// The account that it stands in front of.
pub(super) fn account(gateway: &Value) -> Option<&str> {
    gateway["metadata"]["annotations"][FOR_ACCOUNT].as_str()
}

/// For which traffic it is.
fn traffic(gateway: &Value) -> &str {
    gateway["metadata"]["labels"][WAYPOINT_FOR].as_str().unwrap_or("service")
}

fn revision(gateway: &Value) -> &str {
    gateway["metadata"]["labels"]["istio.io/rev"].as_str().unwrap_or("default")
}

fn condition<'a>(gateway: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = gateway.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|one| one["type"] == kind)
}

/// Whether it runs, as it is written now.
pub(super) fn is_programmed(gateway: &Value) -> bool {
    let current = |one: &&Value| match (&one["observedGeneration"], &gateway["metadata"]["generation"]) {
        (Value::Number(seen), Value::Number(now)) => seen == now,
        // Of a mesh of this machine nobody counts versions.
        _ => true,
    };
    condition(gateway, "Programmed").filter(current).is_some_and(|one| one["status"] == "True")
}

/// What is said of it, in one line.
pub(super) fn told(gateway: &Value) -> String {
    let said = ["Accepted", "Programmed"].map(|kind| {
        let one = condition(gateway, kind).filter(|one| one["status"] != "True")?;
        Some(format!("{kind}: {}", text(one, "/message")))
    });
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() {
        "nobody has said anything of it; does a controller run?".to_owned()
    } else {
        said.join("; ")
    }
}

/// A row of an object, the namespace in front where there are several.
fn row(gateway: &Value, several: bool, cells: &[&str]) -> Vec<String> {
    let namespace = Some(namespace(gateway)).filter(|_| several);
    namespace.into_iter().chain([name(gateway)]).chain(cells.iter().copied()).map(str::to_owned).collect()
}

fn head(several: bool, words: &[&str]) -> Vec<String> {
    let namespace = Some("NAMESPACE").filter(|_| several);
    namespace.into_iter().chain(["NAME"]).chain(words.iter().copied()).map(str::to_owned).collect()
}

/// The table of `list`: Istio's columns, and the account at the end.
pub(super) fn list(all: &[Value], several: bool) -> String {
    let mut rows = vec![head(several, &["REVISION", "TRAFFIC TYPE", "PROGRAMMED", "SERVICE ACCOUNT"])];
    rows.extend(all.iter().map(|one| {
        let programmed = condition(one, "Programmed").map_or("Unknown", |one| text(one, "/status"));
        row(one, several, &[revision(one), traffic(one), programmed, account(one).unwrap_or("-")])
    }));
    align(&rows)
}

/// The table of `status`: a row for each condition.
pub(super) fn status(all: &[Value], several: bool) -> String {
    let mut rows = vec![head(several, &["STATUS", "TYPE", "REASON", "MESSAGE"])];
    for one in all {
        let conditions = one.pointer("/status/conditions").and_then(Value::as_array);
        let conditions = conditions.map_or(&[][..], Vec::as_slice);
        if conditions.is_empty() {
            rows.push(row(one, several, &["Unknown", "Programmed", "Pending", &told(one)]));
        }
        let cells = |condition: &Value| {
            ["/status", "/type", "/reason", "/message"].map(|path| text(condition, path).to_owned())
        };
        rows.extend(conditions.iter().map(|condition| {
            let cells = cells(condition);
            row(one, several, &cells.each_ref().map(String::as_str))
        }));
    }
    align(&rows)
}

/// The same for programs.
pub(super) fn json(all: &[Value]) -> Value {
    let one = |gateway: &Value| {
        json!({
            "namespace": namespace(gateway), "name": name(gateway), "revision": revision(gateway),
            "trafficType": traffic(gateway), "serviceAccount": account(gateway),
            "programmed": is_programmed(gateway),
            "addresses": gateway.pointer("/status/addresses").cloned().unwrap_or_else(|| json!([])),
            "conditions": gateway.pointer("/status/conditions").cloned().unwrap_or_else(|| json!([])),
        })
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waypoint(status: &str, observed: i64) -> Value {
        json!({
            "metadata": {
                "name": "w", "namespace": "shop", "generation": 2, "labels": {"istio.io/waypoint-for": "all"},
                "annotations": {FOR_ACCOUNT: "reviews"},
            },
            "status": {"conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "a waypoint"},
                {"type": "Programmed", "status": status, "reason": "Pending", "message": "0 of 1", "observedGeneration": observed},
            ]},
        })
    }

    #[test]
    fn tables_say_what_there_is() {
        let all = [waypoint("False", 2), json!({"metadata": {"name": "v", "namespace": "shop"}})];
        let listed = list(&all, false);
        let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["NAME", "REVISION", "TRAFFIC", "TYPE", "PROGRAMMED", "SERVICE", "ACCOUNT"]);
        assert_eq!(rows[1], ["w", "default", "all", "False", "reviews"]);
        assert_eq!(rows[2], ["v", "default", "service", "Unknown", "-"]);
        let told = status(&all, true);
        let rows: Vec<&str> = told.lines().collect();
        assert!(rows[0].starts_with("NAMESPACE   NAME   STATUS"), "{told}");
        assert!(rows[2].ends_with("False     Programmed   Pending    0 of 1"), "{told}");
        assert!(rows[3].contains("does a controller run?"), "{told}");
    }

    #[test]
    fn what_was_said_of_an_older_version_does_not_count() {
        for (status, observed, wanted) in [("True", 2, true), ("True", 1, false), ("False", 2, false)] {
            assert_eq!(is_programmed(&waypoint(status, observed)), wanted, "{status} {observed}");
        }
        assert_eq!(told(&waypoint("False", 2)), "Programmed: 0 of 1");
    }
}
