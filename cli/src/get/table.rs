//! Objects as a table, as kubectl prints them. Pure but for the age of things.

use std::time::{SystemTime, UNIX_EPOCH};

use manifest::enrolment::MODE;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::table::align;

/// Text at a JSON pointer, or nothing.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// A table of objects of one kind.
pub(super) fn render(
    kind: &str,
    objects: &[Value],
    all_namespaces: bool,
    wide: bool,
    with_kind: bool,
) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(0);
    let mut rows = vec![header(kind, wide)];
    rows.extend(objects.iter().map(|object| row(kind, object, wide, now)));
    let with_namespace = all_namespaces && objects.iter().any(|o| !text(o, "/metadata/namespace").is_empty());
    if with_kind {
        for (row, object) in rows.iter_mut().skip(1).zip(objects) {
            row[0] = format!("{}/{}", text(object, "/kind").to_ascii_lowercase(), row[0]);
        }
    }
    if with_namespace {
        rows[0].insert(0, "NAMESPACE".to_owned());
        for (row, object) in rows.iter_mut().skip(1).zip(objects) {
            row.insert(0, text(object, "/metadata/namespace").to_owned());
        }
    }
    align(&rows)
}

fn header(kind: &str, wide: bool) -> Vec<String> {
    let (narrow, more): (&[&str], &[&str]) = match kind {
        "Pod" => (&["NAME", "READY", "STATUS", "RESTARTS", "AGE"], &["IP", "NODE", "CAPTURED", "WHY"]),
        "Service" => (&["NAME", "TYPE", "CLUSTER-IP", "PORT(S)", "AGE"], &["SELECTOR"]),
        "Node" => (&["NAME", "STATUS", "AGE", "VERSION"], &["INTERNAL-IP", "PODS"]),
        "Namespace" => (&["NAME", "STATUS", "AGE", "DATAPLANE"], &[]),
        "Gateway" => (&["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"], &["STATUS", "MESSAGE"]),
        "EndpointSlice" => (&["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"], &[]),
        _ => (&["NAME", "STATUS", "AGE"], &["MESSAGE"]),
    };
    let more = if wide { more } else { &[] };
    narrow.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn row(kind: &str, object: &Value, wide: bool, now: i64) -> Vec<String> {
    let name = text(object, "/metadata/name").to_owned();
    let age = age(text(object, "/metadata/creationTimestamp"), now);
    let (mut narrow, more) = match kind {
        "Pod" => pod(object, name, age),
        "Service" => service(object, name, age),
        "Node" => node(object, name, age),
        "Namespace" => {
            let mode = object.pointer("/metadata/labels").and_then(|labels| labels.get(MODE));
            let mode = mode.and_then(Value::as_str).unwrap_or("-").to_owned();
            (vec![name, "Active".to_owned(), age, mode], vec![])
        }
        "Gateway" => gateway(object, name, age),
        "EndpointSlice" => endpoint_slice(object, name, age),
        _ => {
            let (status, message) = conditions(object);
            (vec![name, status, age], vec![message])
        }
    };
    if wide {
        narrow.extend(more);
    }
    narrow
}

type Row = (Vec<String>, Vec<String>);

fn pod(object: &Value, name: String, age: String) -> Row {
    let statuses: Vec<&Value> = list(object, "/status/containerStatuses").collect();
    let is_ready = |status: &&&Value| status.get("ready") == Some(&Value::Bool(true));
    let ready = statuses.iter().filter(is_ready).count();
    let total = list(object, "/spec/containers").count();
    let restarts: i64 = statuses.iter().filter_map(|status| status.get("restartCount")?.as_i64()).sum();
    let init = list(object, "/status/initContainerStatuses");
    let all: Vec<&Value> = init.chain(statuses.iter().copied()).collect();
    let reason = |pointer: &str| {
        let reasons = all.iter().map(|status| text(status, pointer)).filter(|reason| !reason.is_empty());
        reasons.map(str::to_owned).next()
    };
    let phase = text(object, "/status/phase");
    let status = match phase {
        _ if object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) => {
            "Terminating".to_owned()
        }
        "Succeeded" => "Completed".to_owned(),
        "Failed" => "Error".to_owned(),
        _ => reason("/state/waiting/reason")
            .or_else(|| reason("/state/terminated/reason").filter(|_| ready < total))
            .unwrap_or_else(|| phase.to_owned()),
    };
    let captured =
        object.pointer("/metadata/annotations").and_then(|a| a.get("ambient.istio.io/redirection"));
    let captured =
        captured.and_then(Value::as_str).map_or("no", |state| if state == "enabled" { "yes" } else { state });
    let more = vec![
        text(object, "/status/podIP").to_owned(),
        text(object, "/spec/nodeName").to_owned(),
        captured.to_owned(),
        reason("/state/waiting/message").unwrap_or_default(),
    ];
    (vec![name, format!("{ready}/{total}"), status, restarts.to_string(), age], more)
}

fn service(object: &Value, name: String, age: String) -> Row {
    let ports = list(object, "/spec/ports").map(|port| {
        let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        format!("{number}/{protocol}")
    });
    let ports = or_dash(&ports.collect::<Vec<_>>().join(","));
    let ips = list(object, "/spec/clusterIPs").filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let kind = text(object, "/spec/type");
    let kind = if kind.is_empty() { "ClusterIP" } else { kind };
    let selector = object.pointer("/spec/selector").and_then(Value::as_object);
    let selector =
        selector.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
    let selector = or_dash(&selector.collect::<Vec<_>>().join(","));
    (vec![name, kind.to_owned(), or_dash(&ips), ports, age], vec![selector])
}

fn node(object: &Value, name: String, age: String) -> Row {
    let ready = list(object, "/status/conditions")
        .any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
    let internal = list(object, "/status/addresses").find(|address| text(address, "/type") == "InternalIP");
    let ip = internal.map(|address| text(address, "/address")).unwrap_or_default();
    let status = if ready { "Ready" } else { "NotReady" };
    let version = text(object, "/status/nodeInfo/kubeletVersion").to_owned();
    (
        vec![name, status.to_owned(), age, version],
        vec![ip.to_owned(), text(object, "/spec/podCIDR").to_owned()],
    )
}

fn gateway(object: &Value, name: String, age: String) -> Row {
    let address = list(object, "/status/addresses").next().map(|address| text(address, "/value"));
    let programmed = list(object, "/status/conditions").find(|one| text(one, "/type") == "Programmed");
    let programmed = programmed.map_or("False", |one| text(one, "/status"));
    let class = text(object, "/spec/gatewayClassName").to_owned();
    let (status, message) = conditions(object);
    let narrow = vec![name, class, or_dash(address.unwrap_or_default()), programmed.to_owned(), age];
    (narrow, vec![status, message])
}

fn endpoint_slice(object: &Value, name: String, age: String) -> Row {
    let ports =
        list(object, "/ports").filter_map(|port| port.get("port")?.as_i64()).map(|port| port.to_string());
    let ports = or_dash(&ports.collect::<Vec<_>>().join(","));
    let endpoints = list(object, "/endpoints").map(|endpoint| {
        let ready = endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
        let addresses = list(endpoint, "/addresses").filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        if ready { addresses } else { format!("{addresses}(not ready)") }
    });
    let endpoints = or_dash(&endpoints.collect::<Vec<_>>().join(","));
    (vec![name, text(object, "/addressType").to_owned(), ports, endpoints, age], vec![])
}

/// The status of any other object in one word, and its message: a condition that does not hold before those that do.
fn conditions(object: &Value) -> (String, String) {
    let own = list(object, "/status/conditions");
    let per_parent = list(object, "/status/parents").chain(list(object, "/status/ancestors"));
    let all: Vec<&Value> = own.chain(per_parent.flat_map(|parent| list(parent, "/conditions"))).collect();
    let negative = |c: &&&Value| text(c, "/status") == "False";
    let Some(shown) = all.iter().find(negative).or_else(|| all.last()) else {
        return ("-".to_owned(), String::new());
    };
    let (kind, holds) = (text(shown, "/type"), text(shown, "/status") == "True");
    let reason = text(shown, "/reason");
    let word = match holds {
        true => kind.to_owned(),
        false if reason.is_empty() => format!("Not{kind}"),
        false => format!("Not{kind}:{reason}"),
    };
    (word, text(shown, "/message").replace('\n', " "))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

/// `5s`, `3m`, `2h`, `4d` since a time.
fn age(created: &str, now: i64) -> String {
    let Ok(created) = OffsetDateTime::parse(created, &Rfc3339) else { return "<unknown>".to_owned() };
    match now.saturating_sub(created.unix_timestamp()).max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{age, conditions, render};

    #[test]
    fn pods_look_as_kubectl_shows_them() {
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "annotations": {"ambient.istio.io/redirection": "enabled"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Running", "podIP": "10.244.1.2", "containerStatuses": [
                {"ready": true, "restartCount": 1, "state": {"running": {}}},
                {"ready": false, "restartCount": 2, "state": {"waiting": {"reason": "RunContainerError", "message": "no"}}},
            ]},
        });
        let text = render("Pod", &[pod], true, true, false);
        let words: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(
            words,
            ["n", "p", "1/2", "RunContainerError", "3", "<unknown>", "10.244.1.2", "node-1", "yes", "no"]
        );
    }

    #[test]
    fn a_condition_that_does_not_hold_comes_first() {
        let object = |list: serde_json::Value| json!({"status": {"conditions": list}});
        let held = json!([{"type": "Accepted", "status": "True"}, {"type": "Programmed", "status": "False",
            "reason": "Held", "message": "waits for\nDestinationRule x"}]);
        assert_eq!(
            conditions(&object(held)),
            ("NotProgrammed:Held".into(), "waits for DestinationRule x".into())
        );
        assert_eq!(conditions(&object(json!([{"type": "Accepted", "status": "True"}]))).0, "Accepted");
        assert_eq!(conditions(&json!({})).0, "-");
    }

    #[test]
    fn gateways_look_as_kubectl_shows_them() {
        let gateway = json!({
            "kind": "Gateway", "metadata": {"name": "w", "namespace": "n"}, "spec": {"gatewayClassName": "istio-waypoint"},
            "status": {"addresses": [{"value": "w.n.svc.cluster.local"}, {"value": "10.0.0.1"}],
                       "conditions": [{"type": "Accepted", "status": "True"}, {"type": "Programmed", "status": "True"}]},
        });
        let text = render("Gateway", &[gateway], false, false, false);
        let words: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(words, ["w", "istio-waypoint", "w.n.svc.cluster.local", "True", "<unknown>"]);
    }

    #[test]
    fn ages_are_short() {
        let start = "1970-01-01T00:00:00Z";
        for (now, expected) in [(5, "5s"), (119, "119s"), (180, "3m"), (7200, "2h"), (400_000, "4d")] {
            assert_eq!(age(start, now), expected);
        }
    }
}
