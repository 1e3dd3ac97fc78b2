//! Envoy as a peer: bootstrap files for either end of a tunnel, and where its binary is.
//!
//! Two kinds. HBONE: mutual TLS, HTTP/2 CONNECT with the destination in `:authority`, as Istio's waypoints
//! speak it; many connections share a tunnel. TLS: one mutual TLS connection for each TCP connection, the
//! classic tunnel, as a reference for speed. The files are JSON, which Envoy takes wherever it takes YAML.

mod waypoint;

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use identity::bundle::{CertificateBundle, certificate_pem};
use serde_json::{Value, json};

pub use self::waypoint::{Waypoint, waypoint};

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

impl Credentials {
    /// Those of a certificate that was issued, accepting every peer its roots signed.
    pub fn of(bundle: &CertificateBundle) -> Self {
        Self {
            chain: bundle.chain().iter().map(certificate_pem).collect(),
            key: pem::encode(&pem::Pem::new("PRIVATE KEY", bundle.key().pkcs8())),
            roots: bundle.roots().to_pem(),
            peers: Vec::new(),
        }
    }
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
    /// Takes HTTP CONNECT in plain on `listen` and passes it on to `peer` as it is: who asks names the authority
    /// himself and sees the status of the answer.
    ConnectProxy {
        /// Where applications send CONNECT.
        listen: SocketAddr,
        /// The HBONE server.
        peer: SocketAddr,
    },
    /// Accepts HBONE on `listen` and connects to whatever address `:authority` names.
    HboneServer {
        /// Where tunnels arrive.
        listen: SocketAddr,
        /// Authorities that are answered with 403 instead.
        refuse: Vec<String>,
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

/// The Envoy binary: the variable `ENVOY`, else what `scripts/peers` put beside the tests, else `envoy` on the PATH.
pub fn binary() -> Option<PathBuf> {
    if let Some(path) = env::var_os("ENVOY") {
        return Some(PathBuf::from(path));
    }
    let test = env::current_exe().ok()?;
    let fetched = test.parent()?.parent()?.join("peers");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(fetched).chain(env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join("envoy")).filter(|candidate| candidate.is_file()))
}

/// The bootstrap file of `end`. With `admin`, Envoy's admin interface listens there.
///
/// Start it with `envoy --config-path FILE --concurrency N --use-dynamic-base-id` (several share a machine).
pub fn bootstrap(end: &End, credentials: &Credentials, admin: Option<SocketAddr>) -> String {
    let mut file = file(std::slice::from_ref(end), credentials, None);
    if let Some(admin) = admin {
        file["admin"] = json!({ "address": address(admin) });
    }
    file.to_string()
}

/// The bootstrap file of several ends in one Envoy, each with tunnels of its own, on which it sends a PING as often
/// as `ping` says.
pub fn bootstrap_many(ends: &[End], credentials: &Credentials, ping: Duration) -> String {
    file(ends, credentials, Some(ping)).to_string()
}

fn file(ends: &[End], credentials: &Credentials, ping: Option<Duration>) -> Value {
    let parts = ends.iter().enumerate().map(|(number, end)| {
        let (mut listener, mut cluster) = parts(end, credentials, &http2(ping), &format!("next-{number}"));
        listener["name"] = json!(format!("in-{number}"));
        cluster["name"] = json!(format!("next-{number}"));
        (listener, cluster)
    });
    let (listeners, clusters): (Vec<_>, Vec<_>) = parts.unzip();
    json!({
        "node": { "id": "peer", "cluster": "peer" },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

/// The listener of an end, and the cluster called `next` that it hands its bytes to.
fn parts(end: &End, credentials: &Credentials, http2: &Value, next: &str) -> (Value, Value) {
    let tunnels = |peer: SocketAddr| {
        let mut cluster = fixed_cluster(peer, next);
        let context = json!({ "common_tls_context": common_tls(credentials, true) });
        cluster["transport_socket"] = tls("UpstreamTlsContext", context);
        cluster["typed_extension_protocol_options"] = http2_upstream(http2);
        cluster
    };
    match end {
        End::HboneClient { listen, peer, authority } => {
            let tunnelling = json!({ "hostname": authority });
            (tcp_listener(*listen, next, Some(tunnelling), None), tunnels(*peer))
        }
        End::ConnectProxy { listen, peer } => {
            let manager = connect_manager("AUTO", http2, &[pass_on(next)]);
            (http_listener(*listen, &manager, None), tunnels(*peer))
        }
        End::HboneServer { listen, refuse } => {
            let mut hosts = vec![deliver(next)];
            if !refuse.is_empty() {
                hosts.push(refusal(refuse));
            }
            let manager = connect_manager("HTTP2", http2, &hosts);
            (http_listener(*listen, &manager, Some(downstream_tls(credentials, true))), authority_cluster())
        }
        End::TlsClient { listen, peer } => {
            let mut cluster = fixed_cluster(*peer, next);
            cluster["transport_socket"] =
                tls("UpstreamTlsContext", json!({ "common_tls_context": common_tls(credentials, false) }));
            (tcp_listener(*listen, next, None, None), cluster)
        }
        End::TlsServer { listen, app } => {
            let transport = Some(downstream_tls(credentials, false));
            (tcp_listener(*listen, next, None, transport), fixed_cluster(*app, next))
        }
    }
}

fn address(at: SocketAddr) -> Value {
    let mut address = json!({ "address": at.ip().to_string(), "port_value": at.port() });
    if at.is_ipv6() && at.ip().is_unspecified() {
        address["ipv4_compat"] = json!(true);
    }
    json!({ "socket_address": address })
}

/// A listener that hands its bytes to the cluster, through CONNECT when `tunnelling` is given.
fn tcp_listener(
    listen: SocketAddr,
    next: &str,
    tunnelling: Option<Value>,
    transport: Option<Value>,
) -> Value {
    let mut proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": next,
    });
    if let Some(tunnelling) = tunnelling {
        proxy["tunneling_config"] = tunnelling;
    }
    let mut chain =
        json!({ "filters": [{ "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy }] });
    if let Some(transport) = transport {
        chain["transport_socket"] = transport;
    }
    json!({ "address": address(listen), "filter_chains": [chain] })
}

/// A listener of HTTP.
fn http_listener(listen: SocketAddr, manager: &Value, transport: Option<Value>) -> Value {
    let mut chain = json!({
        "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
    });
    if let Some(transport) = transport {
        chain["transport_socket"] = transport;
    }
    json!({ "address": address(listen), "filter_chains": [chain] })
}

/// HTTP that takes CONNECT, and does with it what `hosts` say.
fn connect_manager(codec: &str, http2: &Value, hosts: &[Value]) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hbone",
        "codec_type": codec,
        "stream_idle_timeout": "0s",
        "http2_protocol_options": http2,
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
        "route_config": { "name": "any", "virtual_hosts": hosts },
    })
}

/// Ends CONNECT streams and hands their bytes to a cluster.
fn deliver(next: &str) -> Value {
    let mut host = pass_on(next);
    host["routes"][0]["route"]["upgrade_configs"] =
        json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
    host
}

/// Passes CONNECT requests on to a cluster.
fn pass_on(next: &str) -> Value {
    // The default timeout of 15 s would end every tunnelled connection.
    json!({ "name": "any", "domains": ["*"], "routes": [
        { "match": { "connect_matcher": {} }, "route": { "cluster": next, "timeout": "0s" } },
    ] })
}

/// Refuses CONNECT requests to some authorities.
fn refusal(authorities: &[String]) -> Value {
    json!({ "name": "refused", "domains": authorities, "routes": [
        { "match": { "connect_matcher": {} }, "direct_response": { "status": 403 } },
    ] })
}

/// A cluster of one known address.
fn fixed_cluster(at: SocketAddr, name: &str) -> Value {
    json!({
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": unlimited(),
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(at) } },
        ] }] },
    })
}

/// A cluster that connects to the address the request's `:authority` names.
fn authority_cluster() -> Value {
    json!({
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

fn http2(ping: Option<Duration>) -> Value {
    let mut options = json!({ "allow_connect": true });
    if let Some(ping) = ping {
        let seconds = format!("{}s", ping.as_secs_f64());
        options["connection_keepalive"] = json!({ "interval": seconds, "timeout": "20s" });
    }
    options
}

fn http2_upstream(http2: &Value) -> Value {
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": http2 },
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
mod tests;
