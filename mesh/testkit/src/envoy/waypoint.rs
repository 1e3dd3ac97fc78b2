//! Envoy as a waypoint: HBONE in, HTTP routed, HBONE out. Built as Envoy's documentation of internal listeners has it: a
//! listener ends CONNECT and hands the bytes to an internal listener of HTTP, whose clusters send through a second internal
//! listener that asks for a CONNECT of its own.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Credentials, common_tls, connect_manager, deliver, downstream_tls, fixed_cluster};
use super::{http_listener, http2, http2_upstream, tls, unlimited};

/// The internal listener of HTTP.
const REQUESTS: &str = "requests";
/// The internal listener that opens tunnels.
const TUNNELS: &str = "tunnels";

/// What this waypoint stands in front of.
#[derive(Debug, Clone)]
pub struct Waypoint {
    /// Where tunnels arrive.
    pub listen: SocketAddr,
    /// The HBONE server at which the endpoint is.
    pub peer: SocketAddr,
    /// The endpoint: what that server is asked for.
    pub endpoint: SocketAddr,
    /// Hosts, each with the prefixes of its routes; all else of a host goes to the endpoint too.
    pub hosts: Vec<(String, Vec<String>)>,
    /// Whether each request has a line in the access log, on standard output.
    pub access_log: bool,
}

/// The bootstrap file.
pub fn waypoint(of: &Waypoint, server: &Credentials, client: &Credentials) -> String {
    let http2 = http2(None);
    let manager = connect_manager("HTTP2", &http2, &[deliver(REQUESTS)]);
    let mut entry = http_listener(of.listen, &manager, Some(downstream_tls(server, true)));
    entry["name"] = json!("hbone");
    // Few tunnels that the kernel happens to give to one thread would leave the others idle.
    entry["connection_balance_config"] = json!({ "exact_balance": {} });
    let mut out = fixed_cluster(of.peer, "out");
    out["name"] = json!("out");
    let context = json!({ "common_tls_context": common_tls(client, true) });
    out["transport_socket"] = tls("UpstreamTlsContext", context);
    out["typed_extension_protocol_options"] = http2_upstream(&http2);
    json!({
        "node": { "id": "peer", "cluster": "peer" },
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener" },
        }],
        "static_resources": {
            "listeners": [entry, requests(of), tunnels(of.endpoint)],
            "clusters": [internal(REQUESTS, REQUESTS), app(), out],
        },
    })
    .to_string()
}

/// The internal listener of HTTP, whose routes all go to the endpoint.
fn requests(of: &Waypoint) -> Value {
    let to_app = || {
        json!({
            "cluster": "app", "timeout": "0s",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                "num_retries": 2,
            },
        })
    };
    let hosts = of.hosts.iter().map(|(host, prefixes)| {
        let routes =
            prefixes.iter().map(|prefix| json!({ "match": { "prefix": prefix }, "route": to_app() }));
        let rest = json!({ "match": { "prefix": "/" }, "route": to_app() });
        let routes: Vec<_> = routes.chain([rest]).collect();
        json!({ "name": host, "domains": [host], "routes": routes })
    });
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "requests",
        "codec_type": "AUTO",
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
        "route_config": { "name": "routes", "virtual_hosts": hosts.collect::<Vec<_>>() },
    });
    if of.access_log {
        manager["access_log"] = json!([{
            "name": "envoy.access_loggers.stdout",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" },
        }]);
    }
    json!({
        "name": REQUESTS,
        "internal_listener": {},
        "filter_chains": [{
            "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
        }],
    })
}

/// The internal listener that opens a stream of a tunnel for each connection.
fn tunnels(endpoint: SocketAddr) -> Value {
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tunnels",
        "cluster": "out",
        "tunneling_config": { "hostname": endpoint.to_string() },
    });
    json!({
        "name": TUNNELS,
        "internal_listener": {},
        "filter_chains": [{
            "filters": [{ "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy }],
        }],
    })
}

/// The endpoint, through the internal listener of tunnels, in the version of HTTP that the client speaks.
fn app() -> Value {
    let mut cluster = internal("app", TUNNELS);
    cluster["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config": { "http_protocol_options": {}, "http2_protocol_options": {} },
    } });
    cluster
}

/// A cluster that is an internal listener.
fn internal(name: &str, listener: &str) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": unlimited(),
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
            "envoy_internal_address": { "server_listener_name": listener, "endpoint_id": name },
        } } }] }] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_from_the_tunnel_through_both_internal_listeners() {
        let at = |text: &str| text.parse().unwrap();
        let hosts = vec![("a".to_owned(), vec!["/b".to_owned()])];
        let (listen, peer, endpoint) = (at("10.0.0.1:15008"), at("10.0.0.2:15008"), at("10.0.0.2:8080"));
        let of = Waypoint { listen, peer, endpoint, hosts, access_log: true };
        let own = Credentials { chain: "C".into(), key: "K".into(), roots: "R".into(), peers: Vec::new() };
        let file: Value = serde_json::from_str(&waypoint(&of, &own, &own)).unwrap();
        let listeners = &file["static_resources"]["listeners"];
        let manager = |index: usize| &listeners[index]["filter_chains"][0]["filters"][0]["typed_config"];
        let host = &manager(0)["route_config"]["virtual_hosts"][0];
        assert_eq!(host["routes"][0]["route"]["cluster"], REQUESTS);
        assert_eq!(listeners[1]["name"], REQUESTS);
        let routes = &manager(1)["route_config"]["virtual_hosts"][0]["routes"];
        assert_eq!(
            (&routes[0]["match"]["prefix"], &routes[1]["match"]["prefix"]),
            (&json!("/b"), &json!("/"))
        );
        assert_eq!(manager(2)["tunneling_config"]["hostname"], "10.0.0.2:8080");
        let clusters = &file["static_resources"]["clusters"];
        assert_eq!(
            clusters[2]["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"][0],
            "h2"
        );
    }
}
