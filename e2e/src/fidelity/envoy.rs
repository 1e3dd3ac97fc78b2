//! The frame around a configuration for Envoy: what Istio's documentation says of every waypoint.

use std::fmt::Write as _;

use super::configurations::Configuration;

/// Istio's defaults: paths are normalised as by `BASE`, nothing is merged, no time limit, and two retries of what surely was not worked on.
const MANAGER: &str = r#"      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: requests
          normalize_path: true
          path_with_escaped_slashes_action: KEEP_UNCHANGED
          use_remote_address: false
          stream_idle_timeout: 0s
          http_filters:
"#;

const FILTERS: &str = r#"          - name: envoy.filters.http.fault
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}
          - name: envoy.filters.http.cors
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: any
              domains: ["*"]
              retry_policy: {num_retries: 2, retry_on: "connect-failure,refused-stream,unavailable,cancelled"}
              routes:
"#;

/// Where the n-th configuration's listener is.
pub fn port(number: usize) -> u16 {
    20_001 + u16::try_from(number).unwrap_or_default()
}

/// The bootstrap file of an Envoy with a listener for each configuration; the versions `v1` and `v2` are at these addresses.
pub fn bootstrap(configurations: &[Configuration], versions: [&str; 2]) -> String {
    let mut file = String::from("node: {id: fidelity, cluster: fidelity}\nstatic_resources:\n  clusters:\n");
    for (name, address) in ["v1", "v2"].into_iter().zip(versions) {
        let _ = write!(
            file,
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 10s\n    \
             circuit_breakers: {{thresholds: [{{max_retries: 1000000}}]}}\n    \
             load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
             {{address: {address}, port_value: 8080}}}}}}}}]}}]}}\n"
        );
    }
    file.push_str("  listeners:\n");
    for (number, configuration) in configurations.iter().enumerate() {
        let port = port(number);
        let _ = write!(
            file,
            "  - name: {}\n    address: {{socket_address: {{address: 0.0.0.0, port_value: {port}}}}}\n    \
             filter_chains:\n    - filters:\n{MANAGER}",
            configuration.name
        );
        let (filters, routes) = configuration.envoy.split_once("routes:\n").unwrap_or_default();
        indent(&mut file, filters.strip_prefix("http_filters:\n").unwrap_or_default(), 10);
        file.push_str(FILTERS);
        indent(&mut file, routes, 14);
    }
    file
}

fn indent(file: &mut String, text: &str, by: usize) {
    for line in text.lines() {
        let _ = writeln!(file, "{:by$}{line}", "");
    }
}
