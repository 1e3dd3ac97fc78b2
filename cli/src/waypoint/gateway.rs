//! The Gateway that is a waypoint. Pure.

use manifest::waypoint::{CLASS, FOR_ACCOUNT, PORT, WAYPOINT_FOR, controller_of};
use serde_json::{Value, json};

use super::args::{WaypointDelete, WaypointGateway};
use super::show;

/// The name where nobody chooses one: Istio's.
const NAME: &str = "waypoint";

/// The waypoint's name. One in front of an account is called after it, and not by its very name: it runs as an account
/// of its own.
pub(super) fn name(asked: &WaypointGateway) -> String {
    match (&asked.name, &asked.service_account) {
        (Some(name), _) => name.clone(),
        (None, Some(account)) => format!("{account}-{NAME}"),
        (None, None) => NAME.to_owned(),
    }
}

/// The Gateway that is asked for.
pub(super) fn gateway(namespace: &str, asked: &WaypointGateway) -> Value {
    let mut metadata = json!({"name": name(asked), "namespace": namespace});
    if let Some(traffic) = asked.traffic {
        metadata["labels"] = json!({WAYPOINT_FOR: traffic.word()});
    }
    if let Some(account) = &asked.service_account {
        metadata["annotations"] = json!({FOR_ACCOUNT: account});
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata,
        "spec": {
            "gatewayClassName": CLASS,
            "listeners": [{"name": "mesh", "port": PORT, "protocol": "HBONE"}],
        },
    })
}

/// The command line that asks for it.
pub(super) fn words(namespace: &str, asked: &WaypointGateway) -> String {
    let mut words = vec![format!("-n {namespace}")];
    words.extend(asked.name.as_ref().map(|name| format!("--name {name}")));
    words.extend(asked.service_account.as_ref().map(|account| format!("--service-account {account}")));
    words.extend(asked.traffic.map(|traffic| format!("--for {}", traffic.word())));
    words.join(" ")
}

/// Whether a Gateway is a waypoint.
pub(super) fn is_waypoint(gateway: &Value) -> bool {
    controller_of(show::text(gateway, "/spec/gatewayClassName")).is_some()
}

/// The names of those that are to be removed.
pub(super) fn chosen(there: &[Value], args: &WaypointDelete) -> Vec<String> {
    let stands_for = |one: &&Value| {
        let account = args.service_account.as_deref();
        args.all || (account.is_some() && show::account(one) == account)
    };
    let mut names = args.names.clone();
    for one in there.iter().filter(stands_for) {
        if !names.iter().any(|name| name == show::name(one)) {
            names.push(show::name(one).to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waypoint::args::Traffic;

    #[test]
    fn gateways_are_what_was_asked_for() {
        let asked = |name: Option<&str>, account: Option<&str>, traffic: Option<Traffic>| WaypointGateway {
            name: name.map(str::to_owned),
            service_account: account.map(str::to_owned),
            traffic,
        };
        for (asked, metadata, words) in [
            (asked(None, None, None), json!({"name": "waypoint", "namespace": "shop"}), "-n shop"),
            (
                asked(Some("w"), None, Some(Traffic::All)),
                json!({"name": "w", "namespace": "shop", "labels": {WAYPOINT_FOR: "all"}}),
                "-n shop --name w --for all",
            ),
            (
                asked(None, Some("reviews"), None),
                json!({"name": "reviews-waypoint", "namespace": "shop", "annotations": {FOR_ACCOUNT: "reviews"}}),
                "-n shop --service-account reviews",
            ),
        ] {
            let made = gateway("shop", &asked);
            assert_eq!(made["metadata"], metadata);
            assert!(is_waypoint(&made));
            assert_eq!(self::words("shop", &asked), words);
        }
    }

    #[test]
    fn what_is_removed_was_named() {
        let there = [
            gateway(
                "shop",
                &WaypointGateway { name: None, service_account: Some("a".into()), traffic: None },
            ),
            gateway("shop", &WaypointGateway { name: None, service_account: None, traffic: None }),
        ];
        let names = |names: &[&str], account: Option<&str>, all: bool| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&there, &WaypointDelete { names, service_account: account.map(str::to_owned), all })
        };
        assert_eq!(names(&["x", "waypoint"], None, false), ["x", "waypoint"]);
        assert_eq!(names(&[], Some("a"), false), ["a-waypoint"]);
        assert_eq!(names(&[], Some("b"), false), Vec::<String>::new());
        assert_eq!(names(&["waypoint"], None, true), ["waypoint", "a-waypoint"]);
    }
}
