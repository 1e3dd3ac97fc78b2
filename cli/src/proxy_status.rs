//! `lateen proxy-status`: which proxies ctrl has connections of, and whether each has in force what ctrl has published.
//! The table is that of `istioctl proxy-status`.

use std::process::ExitCode;

use pages::sync::{Client, Refused, Sync};
use serde::Serialize;

use crate::args::{ProxyStatusArgs, VersionFormat};
use crate::ctrl::ask_all;
use crate::place::Place;
use crate::table::align;
use crate::{Outcome, complain, say};

/// What each type is called in the columns, in their order: Istio's names where it has one.
const TYPES: [(&str, &str); 4] =
    [("Address", "WDS"), ("Authorization", "WADS"), ("Routing", "ROUTING"), ("MeshSettings", "SETTINGS")];

/// A proxy, and which controller it is connected to.
#[derive(Debug, Clone, Serialize)]
struct Proxy {
    ctrl: String,
    #[serde(flatten)]
    client: Client,
}

impl Proxy {
    /// As `lateen logs` calls node agents, and Istio the others.
    fn name(&self) -> String {
        let client = &self.client;
        match &client.node {
            Some(node) if client.role == "node-agent" => format!("node-agent/{node}"),
            _ => format!("{}.{}", client.pod, client.namespace),
        }
    }

    fn types(&self) -> Vec<&'static str> {
        TYPES
            .iter()
            .filter(|(wire, _)| self.client.acked.contains_key(*wire))
            .map(|(_, shown)| *shown)
            .collect()
    }

    fn state(&self, wire: &str) -> &'static str {
        match self.client.acked.get(wire) {
            _ if self.client.refused.iter().any(|refusal| refusal.r#type == wire) => "ERROR",
            None => "IGNORED",
            Some(acked) if *acked >= self.client.revision => "SYNCED",
            Some(_) => "STALE",
        }
    }
}

/// Runs `proxy-status`. The exit code says whether all that were asked for have everything in force.
pub(crate) fn run(place: &Place, args: &ProxyStatusArgs) -> Outcome {
    let mut proxies = Vec::new();
    for answer in ask_all(place, "GET", "/sync")? {
        let sync: Sync = answer.read()?;
        proxies.extend(sync.clients.into_iter().map(|client| Proxy { ctrl: answer.ctrl.clone(), client }));
    }
    proxies.sort_by_key(Proxy::name);
    if let Some(wanted) = &args.proxy {
        proxies.retain(|proxy| proxy.name() == *wanted || proxy.client.pod == *wanted);
        if proxies.is_empty() {
            complain(&format!("no proxy {wanted} is connected to ctrl; those that are: lateen proxy-status"));
            return Ok(ExitCode::FAILURE);
        }
    }
    let settled = proxies.iter().all(|proxy| proxy.client.in_force && proxy.client.refused.is_empty());
    match args.output {
        Some(VersionFormat::Json) => say(&format!("{:#}", serde_json::json!({ "proxies": proxies }))),
        None if proxies.is_empty() => complain("no proxy is connected to ctrl; see: lateen logs ctrl"),
        None => say(table(&proxies, args.verbosity > 0).trim_end()),
    }
    if args.output.is_none() {
        let refusals =
            proxies.iter().flat_map(|proxy| proxy.client.refused.iter().map(move |refusal| (proxy, refusal)));
        for (proxy, Refused { r#type, name, reason }) in refusals {
            complain(&format!("{} refuses {type} {name}: {reason}", proxy.name()));
        }
    }
    Ok(if settled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(proxies: &[Proxy], by_type: bool) -> String {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![if by_type {
        let types = TYPES.map(|(_, shown)| shown);
        words(&[&["NAME", "CLUSTER"], &types[..], &["ISTIOD", "VERSION"]].concat())
    } else {
        words(&["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"])
    }];
    for proxy in proxies {
        let mut row = vec![proxy.name(), shown(&proxy.client.cluster)];
        if by_type {
            row.extend(TYPES.map(|(wire, _)| proxy.state(wire).to_owned()));
        }
        row.extend([proxy.ctrl.clone(), shown(&proxy.client.version)]);
        if !by_type {
            let types = proxy.types();
            row.push(format!("{} ({})", types.len(), types.join(",")));
        }
        rows.push(row);
    }
    align(&rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Proxy, table};

    fn proxy(role: &str, acked: &serde_json::Value, refused: &serde_json::Value) -> Proxy {
        let page = json!({
            "role": role, "node": "node-1", "pod": "p", "namespace": "ns", "version": "0.1.0", "revision": 7,
            "acked": acked, "inForce": true, "refused": refused,
        });
        Proxy { ctrl: "ctrl".into(), client: serde_json::from_value(page).expect("a proxy") }
    }

    #[test]
    fn each_type_is_synced_stale_refused_or_not_asked_for() {
        let agent = proxy("node-agent", &json!({"Address": 7, "Authorization": 6}), &json!([]));
        let refusal = json!([{"type": "Routing", "name": "ns/reviews", "reason": "no such subset"}]);
        let waypoint = proxy("waypoint", &json!({"Address": 7, "Authorization": 7, "Routing": 7}), &refusal);
        let all = [agent, waypoint];
        assert_eq!(
            table(&all, false),
            "NAME                CLUSTER   ISTIOD   VERSION   SUBSCRIBED TYPES\n\
             node-agent/node-1   -         ctrl     0.1.0     2 (WDS,WADS)\n\
             p.ns                -         ctrl     0.1.0     3 (WDS,WADS,ROUTING)\n"
        );
        assert_eq!(
            table(&all, true),
            "NAME                CLUSTER   WDS      WADS     ROUTING   SETTINGS   ISTIOD   VERSION\n\
             node-agent/node-1   -         SYNCED   STALE    IGNORED   IGNORED    ctrl     0.1.0\n\
             p.ns                -         SYNCED   SYNCED   ERROR     IGNORED    ctrl     0.1.0\n"
        );
    }
}
