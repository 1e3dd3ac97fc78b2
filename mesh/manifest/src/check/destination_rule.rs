//! The rules of a DestinationRule: what Istio's webhook refuses is refused.

mod health_check;
mod load_balancer;
mod locality;

use std::collections::HashSet;

use super::{Report, hosts, metadata, unsupported, values};
use crate::{
    compatibility,
    cursor::Cursor,
    istio::{ClientTlsMode, DestinationRule, TrafficPolicy},
};

/// The parts of a traffic policy that can stand for all ports and for one.
const SECTIONS: [&str; 4] = ["loadBalancer", "connectionPool", "outlierDetection", "tls"];
/// What can stand for all ports only.
const MORE: [&str; 4] = ["portLevelSettings", "tunnel", "proxyProtocol", "retryBudget"];

/// All rules of the kind.
pub(super) fn check(root: &Cursor<'_>, rule: &DestinationRule, report: &mut Report<'_>) {
    let Some(spec) = root.get("spec") else {
        let fix = Some("add `spec:` with `host:`".to_owned());
        return report.error(root, "`spec` is missing", fix);
    };
    unsupported::check(&spec, &compatibility::DESTINATION_RULE, report);
    health_check::check(root, report);
    match spec.get("host") {
        Some(host) => hosts::rule_host(&host, report),
        None => {
            let fix = Some("add `host:` with the name of a service".to_owned());
            report.error_at_key(&spec, "the rule names no host", fix);
        }
    }
    hosts::export_to(root, &spec, report);
    let checked = rule.health_check.is_some();
    if let (Some(policy), Some(typed)) = (spec.get("trafficPolicy"), &rule.traffic_policy) {
        traffic_policy(&policy, typed, checked, report);
    }
    let mut names: HashSet<&str> = HashSet::new();
    for (subset, typed) in spec.items("subsets").iter().zip(&rule.subsets) {
        let name = subset.get("name");
        match name.as_ref().filter(|name| !name.text().is_empty()) {
            None => report.error(subset, "the subset has no name", Some("add `name:`".to_owned())),
            Some(name) if !names.insert(name.text()) => {
                let fix = Some("give it another name".to_owned());
                report.error(name, format!("a second subset named `{}`", name.text()), fix);
            }
            Some(name) => metadata::dns_label(name, "a subset", report),
        }
        if let Some(labels) = subset.get("labels") {
            metadata::check_labels(&labels, report);
        }
        if let (Some(policy), Some(typed)) = (subset.get("trafficPolicy"), &typed.traffic_policy) {
            traffic_policy(&policy, typed, checked, report);
        }
    }
}

/// The rules of a `trafficPolicy`, of endpoints that are checked or not.
fn traffic_policy(policy: &Cursor<'_>, typed: &TrafficPolicy, checked: bool, report: &mut Report<'_>) {
    let all: Vec<&str> = SECTIONS.iter().chain(&MORE).copied().collect();
    values::says_something(policy, "trafficPolicy", &all, report);
    sections(policy, checked, report);
    tls_mode(policy, typed.tls.as_ref().map(|tls| tls.mode), report);
    if let Some(budget) = policy.get("retryBudget") {
        if let Some(percent) = budget.get("percent")
            && values::number(&percent).is_some_and(|percent| !(0.0..=100.0).contains(&percent))
        {
            report.error(&percent, "not a number from 0 to 100", None);
        }
        values::duration(&budget, "budgetInterval", report);
    }
    let mut ports: HashSet<String> = HashSet::new();
    for (entry, typed) in policy.items("portLevelSettings").iter().zip(&typed.port_level_settings) {
        match entry.get("port").and_then(|port| port.get("number")) {
            None => {
                let fix = Some("add `port: {number: …}` with a port of the service".to_owned());
                report.error(entry, "the entry names no port", fix);
            }
            Some(number) => {
                values::port(&number, report);
                if !ports.insert(number.node.to_json().to_string()) {
                    report.error(
                        &number,
                        "a second entry for this port",
                        Some("put both into one".to_owned()),
                    );
                }
            }
        }
        values::says_something(entry, "portLevelSettings", &SECTIONS, report);
        sections(entry, checked, report);
        tls_mode(entry, typed.tls.as_ref().map(|tls| tls.mode), report);
    }
}

fn sections(of: &Cursor<'_>, checked: bool, report: &mut Report<'_>) {
    if let Some(pool) = of.get("connectionPool") {
        connection_pool(&pool, report);
    }
    if let Some(outlier) = of.get("outlierDetection") {
        outlier_detection(&outlier, report);
    }
    if let Some(balancer) = of.get("loadBalancer") {
        load_balancer::check(&balancer, checked || of.get("outlierDetection").is_some(), report);
    }
}

/// Inside the mesh there is the mesh's own TLS and no other; towards what is outside there is none yet.
fn tls_mode(of: &Cursor<'_>, mode: Option<ClientTlsMode>, report: &mut Report<'_>) {
    let (Some(tls), Some(mode)) = (of.get("tls"), mode) else { return };
    let at = tls.get("mode").unwrap_or(tls);
    let message = match mode {
        ClientTlsMode::IstioMutual => return,
        ClientTlsMode::Disable => {
            "`DISABLE` is not supported: between workloads of the mesh mutual TLS is not turned off"
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            "TLS towards hosts outside the mesh is not supported yet"
        }
    };
    let fix = Some("leave `tls` out: workloads of the mesh are spoken to with mutual TLS".to_owned());
    report.error(&at, message, fix);
}

fn connection_pool(pool: &Cursor<'_>, report: &mut Report<'_>) {
    values::says_something(pool, "connectionPool", &["tcp", "http"], report);
    if let Some(tcp) = pool.get("tcp") {
        values::not_negative(&tcp, &["maxConnections"], report);
        values::duration(&tcp, "connectTimeout", report);
        values::duration(&tcp, "maxConnectionDuration", report);
        if let Some(keepalive) = tcp.get("tcpKeepalive") {
            values::duration(&keepalive, "time", report);
            values::duration(&keepalive, "interval", report);
        }
        // 0 is for ever.
        if tcp.get("idleTimeout").is_some_and(|idle| !matches!(idle.text(), "0" | "0s" | "0ms")) {
            values::duration(&tcp, "idleTimeout", report);
        }
    }
    let Some(http) = pool.get("http") else { return };
    let counts = [
        "http1MaxPendingRequests",
        "http2MaxRequests",
        "maxRequestsPerConnection",
        "maxRetries",
        "maxConcurrentStreams",
    ];
    values::not_negative(&http, &counts, report);
    values::duration(&http, "idleTimeout", report);
    if let Some(client) = http.get("useClientProtocol")
        && client.node.to_json() == true
        && http.get("h2UpgradePolicy").is_some_and(|policy| policy.text() == "UPGRADE")
    {
        report.error_at_key(
            &client,
            "`useClientProtocol` cannot stand beside `h2UpgradePolicy: UPGRADE`",
            None,
        );
    }
    if let Some(keepalive) = http.get("http2KeepAlive") {
        for key in ["interval", "timeout"] {
            match keepalive.get(key) {
                Some(_) => values::duration(&keepalive, key, report),
                None => {
                    report.error(&keepalive, format!("`{key}` is missing"), Some(format!("add `{key}:`")))
                }
            }
        }
    }
}

fn outlier_detection(outlier: &Cursor<'_>, report: &mut Report<'_>) {
    values::duration(outlier, "interval", report);
    values::duration(outlier, "baseEjectionTime", report);
    values::whole_percent(outlier, "maxEjectionPercent", report);
    values::whole_percent(outlier, "minHealthPercent", report);
    let split =
        outlier.get("splitExternalLocalOriginErrors").is_some_and(|split| split.node.to_json() == true);
    if let Some(count) = outlier.get("consecutiveLocalOriginFailures")
        && !split
        && values::number(&count).is_some_and(|count| count > 0.0)
    {
        let fix = Some("add `splitExternalLocalOriginErrors: true`".to_owned());
        report.error_at_key(&count, "failures to connect are not counted apart", fix);
    }
    for code in outlier.items("outlierDetectionHttpErrorCodes") {
        if values::number(&code).is_some_and(|code| !(100.0..600.0).contains(&code)) {
            report.error(&code, "not a status from 100 to 599", None);
        }
    }
}
