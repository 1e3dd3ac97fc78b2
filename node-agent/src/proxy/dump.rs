//! `/config_dump`: what the proxy knows and does, in the shape that `istioctl ztunnel-config` reads.

use std::collections::{BTreeMap, HashMap};

use model::authz::{Action, Match, Policy, PolicyScope, StringMatch};
use model::mesh::Mesh;
use model::service::{IpFamilies, LoadBalancingMode, Scope, Service, Visibility};
use model::workload::{GatewayAddress, Health, TunnelProtocol, Workload};
use serde_json::{Map, Value, json};

use super::connections::Listed;
use super::pod::{Phase, Pod};

/// The dump, of everything that is known.
pub(crate) fn dump(
    mesh: &Mesh,
    certificates: &Value,
    pods: &[std::sync::Arc<Pod>],
    connections: &[Listed],
    config: &Value,
) -> Value {
    let mut workloads: Vec<&Workload> = mesh.workloads().map(|workload| &**workload).collect();
    workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
    let mut services: Vec<&Service> = mesh.services().map(|service| &**service).collect();
    services.sort_by(|a, b| a.key.cmp(&b.key));
    let mut policies: Vec<&Policy> = mesh.policies().map(|policy| &**policy).collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    json!({
        "workloads": workloads.into_iter().map(workload).collect::<Vec<_>>(),
        "services": services.into_iter().map(|known| service(mesh, known)).collect::<Vec<_>>(),
        "policies": policies.into_iter().map(policy).collect::<Vec<_>>(),
        "stagedServices": {},
        "staticConfig": {},
        "config": config,
        "version": version(),
        "certificates": certificates,
        "workloadState": workload_state(pods, connections),
    })
}

/// What this program is.
pub(crate) fn version() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "gitRevision": option_env!("LATEEN_GIT_REVISION").unwrap_or("unknown"),
        "rustVersion": env!("CARGO_PKG_RUST_VERSION"),
        "buildProfile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "buildStatus": "unknown",
        "istioVersion": "unknown",
        "cryptoProvider": "aws-lc",
    })
}

/// Fields that are at their default are left out, as ztunnel leaves them out.
fn put(object: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    };
    if !empty {
        object.insert(key.to_owned(), value);
    }
}

fn gateway(gateway: Option<&GatewayAddress>) -> Value {
    gateway.map_or(Value::Null, |gateway| {
        json!({ "destination": gateway.destination.to_string(), "hboneMtlsPort": gateway.hbone_port })
    })
}

fn workload(workload: &Workload) -> Value {
    let profile = &workload.profile;
    let mut object = Map::new();
    let mut text = |key: &str, value: &str| put(&mut object, key, json!(value));
    text("uid", &workload.uid);
    text("name", &workload.name);
    text("namespace", workload.namespace());
    text("trustDomain", profile.identity.trust_domain());
    text("serviceAccount", profile.identity.service_account());
    text("network", &profile.network);
    text("workloadName", &profile.workload_name);
    text("canonicalName", &profile.canonical_name);
    text("canonicalRevision", &profile.canonical_revision);
    text("hostname", &profile.hostname);
    text("node", &workload.node);
    text("clusterId", &profile.cluster);
    text("networkMode", if profile.host_network { "HostNetwork" } else { "Standard" });
    text("protocol", if profile.protocol == TunnelProtocol::Hbone { "HBONE" } else { "TCP" });
    text("status", if workload.status == Health::Healthy { "Healthy" } else { "Unhealthy" });
    text("workloadType", profile.kind.as_str());
    let ips: Vec<String> = workload.addresses.iter().map(ToString::to_string).collect();
    let services: Vec<String> = profile.services.iter().map(|(key, _)| key.to_string()).collect();
    let policies: Vec<String> = profile.policies.iter().map(ToString::to_string).collect();
    object.insert("workloadIps".to_owned(), json!(ips));
    put(&mut object, "waypoint", gateway(profile.waypoint.as_ref()));
    put(&mut object, "networkGateway", gateway(profile.network_gateway.as_ref()));
    put(&mut object, "services", json!(services));
    put(&mut object, "authorizationPolicies", json!(policies));
    // Only ours has it: the peers that have judged already.
    if let Some(waypoints) = &profile.enforced_by {
        let waypoints: Vec<String> = waypoints.iter().map(ToString::to_string).collect();
        put(&mut object, "enforcedBy", json!(waypoints));
    }
    put(&mut object, "nativeTunnel", if profile.native_tunnel { json!(true) } else { Value::Null });
    if let Some(tunnel) = profile.application_tunnel {
        let protocol = if tunnel.proxy_protocol { "PROXY" } else { "NONE" };
        put(&mut object, "applicationTunnel", json!({ "protocol": protocol, "port": tunnel.port }));
    }
    let locality = &profile.locality;
    let mut place = Map::new();
    for (key, value) in
        [("region", &locality.region), ("zone", &locality.zone), ("subzone", &locality.subzone)]
    {
        put(&mut place, key, json!(**value));
    }
    put(&mut object, "locality", Value::Object(place));
    put(&mut object, "capacity", json!(profile.capacity));
    Value::Object(object)
}

fn service(mesh: &Mesh, service: &Service) -> Value {
    let mut object = Map::new();
    put(&mut object, "name", json!(service.name()));
    put(&mut object, "namespace", json!(service.key.namespace()));
    put(&mut object, "hostname", json!(service.key.hostname()));
    object.insert("vips".to_owned(), json!(service.vips.iter().map(ToString::to_string).collect::<Vec<_>>()));
    let ranges: Vec<Value> = service
        .rare
        .cidr_vips
        .iter()
        .map(|(network, range)| json!({ "network": **network, "cidr": range.to_string() }))
        .collect();
    put(&mut object, "cidrVips", json!(ranges));
    let ports: BTreeMap<String, u16> =
        service.ports.0.iter().map(|port| (port.service.to_string(), port.target)).collect();
    object.insert("ports".to_owned(), json!(ports));
    object.insert("endpoints".to_owned(), endpoints(mesh, service));
    let names: Vec<&str> = service.rare.subject_alt_names.iter().map(|name| &**name).collect();
    put(&mut object, "subjectAltNames", json!(names));
    put(&mut object, "waypoint", gateway(service.waypoint.as_deref()));
    put(&mut object, "loadBalancer", load_balancer(service));
    let families = match service.ip_families {
        IpFamilies::Automatic => Value::Null,
        IpFamilies::V4Only => json!("IPv4"),
        IpFamilies::V6Only => json!("IPv6"),
        IpFamilies::Dual => json!("Dual"),
    };
    put(&mut object, "ipFamilies", families);
    put(&mut object, "canonical", if service.canonical { json!(true) } else { Value::Null });
    let visibility = match service.visibility {
        Visibility::Public => "Public",
        Visibility::Namespace => "Namespace",
    };
    put(&mut object, "visibility", json!(visibility));
    Value::Object(object)
}

fn endpoints(mesh: &Mesh, service: &Service) -> Value {
    let all = mesh.endpoints(&service.key).map_or(&[][..], |endpoints| endpoints.all());
    let listed = all.iter().map(|workload| {
        let ports: BTreeMap<String, u16> = workload
            .ports_of(&service.key)
            .map(|ports| ports.0.iter().map(|port| (port.service.to_string(), port.target)).collect())
            .unwrap_or_default();
        let status = if workload.status == Health::Healthy { "Healthy" } else { "Unhealthy" };
        let entry = json!({ "workloadUid": *workload.uid, "port": ports, "status": status });
        (workload.uid.to_string(), entry)
    });
    Value::Object(listed.collect())
}

fn load_balancer(service: &Service) -> Value {
    let balancing = &service.rare.load_balancing;
    let mode = match balancing.mode {
        LoadBalancingMode::Unspecified if balancing.preference.is_empty() => return Value::Null,
        LoadBalancingMode::Unspecified => "Standard",
        LoadBalancingMode::Strict => "Strict",
        LoadBalancingMode::Failover => "Failover",
        LoadBalancingMode::Passthrough => "Passthrough",
    };
    let scopes: Vec<&str> = balancing
        .preference
        .iter()
        .map(|scope| match scope {
            Scope::Region => "Region",
            Scope::Zone => "Zone",
            Scope::Subzone => "Subzone",
            Scope::Node => "Node",
            Scope::Cluster => "Cluster",
            Scope::Network => "Network",
        })
        .collect();
    let health = if balancing.allow_unhealthy { "AllowAll" } else { "OnlyHealthy" };
    json!({ "routingPreferences": scopes, "mode": mode, "healthPolicy": health })
}

fn policy(policy: &Policy) -> Value {
    let scope = match policy.scope {
        PolicyScope::Global => "Global",
        PolicyScope::Namespace => "Namespace",
        PolicyScope::Workload => "WorkloadSelector",
        // Waypoints only: an agent's wire has none.
        PolicyScope::Targets(_) => "Targets",
    };
    let action = match policy.action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Audit => "Audit",
    };
    let rules: Vec<Vec<Vec<Value>>> = policy
        .rules
        .iter()
        .map(|rule| rule.clauses.iter().map(|clause| clause.matches.iter().map(matches).collect()).collect())
        .collect();
    let mut object = Map::new();
    put(&mut object, "name", json!(*policy.name.name));
    put(&mut object, "namespace", json!(*policy.name.namespace));
    put(&mut object, "scope", json!(scope));
    put(&mut object, "action", json!(action));
    object.insert("rules".to_owned(), json!(rules));
    put(&mut object, "dryRun", if policy.dry_run { json!(true) } else { Value::Null });
    put(&mut object, "invalid", policy.invalid.as_deref().map_or(Value::Null, |reason| json!(reason)));
    Value::Object(object)
}

fn matches(one: &Match) -> Value {
    let strings = |all: &[StringMatch]| -> Value {
        all.iter()
            .map(|wanted| match wanted {
                StringMatch::Exact(text) => json!({ "Exact": **text }),
                StringMatch::Prefix(text) => json!({ "Prefix": **text }),
                StringMatch::Suffix(text) => json!({ "Suffix": **text }),
                StringMatch::Presence => json!("Presence"),
            })
            .collect()
    };
    let ranges =
        |all: &[ipnet::IpNet]| -> Value { all.iter().map(|range| json!(range.to_string())).collect() };
    let accounts = |all: &[model::authz::ServiceAccountMatch]| -> Value {
        all.iter()
            .map(|account| json!(format!("{}/{}", account.namespace, account.service_account)))
            .collect()
    };
    let mut object = Map::new();
    put(&mut object, "namespaces", strings(&one.namespaces));
    put(&mut object, "notNamespaces", strings(&one.not_namespaces));
    put(&mut object, "principals", strings(&one.principals));
    put(&mut object, "notPrincipals", strings(&one.not_principals));
    put(&mut object, "serviceAccounts", accounts(&one.service_accounts));
    put(&mut object, "notServiceAccounts", accounts(&one.not_service_accounts));
    put(&mut object, "sourceIps", ranges(&one.source_ips));
    put(&mut object, "notSourceIps", ranges(&one.not_source_ips));
    put(&mut object, "destinationIps", ranges(&one.destination_ips));
    put(&mut object, "notDestinationIps", ranges(&one.not_destination_ips));
    put(&mut object, "destinationPorts", json!(one.destination_ports));
    put(&mut object, "notDestinationPorts", json!(one.not_destination_ports));
    put(&mut object, "unseen", one.unseen.iter().map(|name| json!(**name)).collect());
    Value::Object(object)
}

fn workload_state(pods: &[std::sync::Arc<Pod>], connections: &[Listed]) -> Value {
    let mut by_pod: HashMap<(&str, bool), Vec<&Listed>> = HashMap::new();
    for listed in connections {
        by_pod.entry((&listed.pod, listed.inbound)).or_default().push(listed);
    }
    let one = |pod: &std::sync::Arc<Pod>| {
        let of_pod = |inbound| by_pod.get(&(&*pod.uid, inbound)).map_or(&[][..], Vec::as_slice);
        let state = if pod.phase() == Phase::Serving { "Up" } else { "Draining" };
        let entry = json!({
            "state": state,
            "connections": { "inbound": of_pod(true), "outbound": of_pod(false) },
            "info": { "name": pod.name, "namespace": pod.namespace, "serviceAccount": pod.service_account },
        });
        (pod.uid.to_string(), entry)
    };
    Value::Object(pods.iter().map(one).collect())
}
