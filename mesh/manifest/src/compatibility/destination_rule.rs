//! The fields of a DestinationRule.

use super::{Message, Test, planned, refused, yes};

const TRAFFIC: &str = "ctrl/src/translate/routing/tests/traffic.rs";

const CARRIED: &str = "waypoint/src/tests/traffic.rs";
const OUTLIER_TESTS: &str = "mesh/model/src/traffic/outlier/tests.rs";
const TABLE_TESTS: &str = "mesh/model/src/traffic/balance/table/tests.rs";
const LOCALITY_TESTS: &str = "mesh/model/src/traffic/balance/locality/tests.rs";

const WHOSE: &[Test] = &[(TRAFFIC, "whose_rule_counts")];
const MERGED: &[Test] = &[(TRAFFIC, "several_rules_for_one_host_are_merged")];
const BALANCERS: &[Test] = &[(TRAFFIC, "load_balancers")];
const HASHES: &[Test] = &[(TRAFFIC, "load_balancers"), (CARRIED, "the_same_key_leads_to_the_same_endpoint")];
const COOKIES: &[Test] =
    &[(TRAFFIC, "load_balancers"), (CARRIED, "who_has_no_cookie_is_given_one_that_leads_there_again")];
const RINGS: &[Test] =
    &[(TRAFFIC, "load_balancers"), (TABLE_TESTS, "rings_are_as_large_as_their_lightest_needs")];
const TABLES: &[Test] = &[(TRAFFIC, "load_balancers"), (TABLE_TESTS, "a_maglev_table_is_envoys")];
const WARM: &[Test] = &[
    (TRAFFIC, "warm_up_and_places"),
    ("mesh/model/src/traffic/balance/turns/tests.rs", "a_new_endpoint_is_given_more_and_more"),
];
const DISTRIBUTED: &[Test] =
    &[(TRAFFIC, "warm_up_and_places"), (LOCALITY_TESTS, "traffic_is_spread_over_places_as_written")];
const FAILING_OVER: &[Test] = &[
    (TRAFFIC, "warm_up_and_places"),
    (LOCALITY_TESTS, "who_is_near_comes_first_if_somebody_may_be_found_unhealthy"),
];
const BY_LABEL: &[Test] = &[
    (TRAFFIC, "warm_up_and_places"),
    (LOCALITY_TESTS, "who_shares_more_labels_from_the_first_comes_sooner"),
];
const PLACES: &[Test] = &[(TRAFFIC, "warm_up_and_places")];
const POOLS: &[Test] = &[(TRAFFIC, "connection_pools")];
const FULL: &[Test] = &[(TRAFFIC, "connection_pools"), (CARRIED, "a_pool_that_is_full_overflows")];
const CARRYING: &[Test] =
    &[(TRAFFIC, "connection_pools"), (CARRIED, "connections_carry_as_many_requests_as_they_may")];
const STREAMS: &[Test] =
    &[(TRAFFIC, "connection_pools"), (CARRIED, "streams_are_as_many_on_a_connection_as_they_may")];
const RETRYING: &[Test] = &[
    (TRAFFIC, "connection_pools"),
    ("mesh/model/src/traffic/pool/tests.rs", "limits_are_those_of_the_policy"),
    (
        "mesh/model/src/traffic/pool/tests.rs",
        "a_breaker_opens_at_its_limit_and_closes_when_something_is_over",
    ),
];
const IDLE: &[Test] = &[
    (TRAFFIC, "connection_pools"),
    ("mesh/model/src/traffic/tests.rs", "idle_connections_are_closed_after_what_is_said_or_an_hour"),
];
const VERSIONS: &[Test] = &[
    (TRAFFIC, "connection_pools"),
    ("waypoint/src/protocol.rs", "rules_may_ask_for_another_version_than_the_port_is_declared_to_have"),
];
const PROBES: &[Test] =
    &[(TRAFFIC, "connection_pools"), (CARRIED, "probes_are_on_the_sockets_of_who_asks_for_them")];
const LASTING: &[Test] =
    &[(TRAFFIC, "connection_pools"), (CARRIED, "connections_of_plain_tcp_end_when_idle_or_old")];
const OUTLIERS: &[Test] =
    &[(TRAFFIC, "outliers_and_retry_budgets"), (CARRIED, "a_circuit_breaker_opens_and_closes_again")];
const ROWS: &[Test] =
    &[(TRAFFIC, "outliers_and_retry_budgets"), (OUTLIER_TESTS, "errors_in_a_row_reach_a_threshold")];
const PANIC: &[Test] = &[
    (TRAFFIC, "outliers_and_retry_budgets"),
    (CARRIED, "all_ejected_is_no_healthy_upstream_unless_too_few_are_left"),
];
const MOST: &[Test] = &[(TRAFFIC, "outliers_and_retry_budgets"), (OUTLIER_TESTS, "so_many_may_be_ejected")];
const BUDGETS: &[Test] =
    &[(TRAFFIC, "outliers_and_retry_budgets"), (CARRIED, "retries_go_elsewhere_and_no_more_than_may")];
const PORTS: &[Test] = &[(TRAFFIC, "single_ports_and_tls")];
const OUTSIDE: &str = "TLS towards hosts outside the mesh is not there yet";

/// `spec` of a DestinationRule.
pub(crate) const DESTINATION_RULE: Message = Message {
    name: "DestinationRule",
    fields: &[
        yes("host", WHOSE),
        yes("trafficPolicy", MERGED).of(&TRAFFIC_POLICY),
        yes("subsets", MERGED).of(&SUBSET),
        yes("exportTo", WHOSE),
        refused("workloadSelector", "it selects clients, and a waypoint stands in front of servers")
            .of(&SELECTOR),
    ],
};

const SELECTOR: Message = Message {
    name: "WorkloadSelector",
    fields: &[refused("matchLabels", "it selects clients, and a waypoint stands in front of servers")],
};

const SUBSET: Message = Message {
    name: "Subset",
    fields: &[
        yes("name", MERGED),
        yes("labels", MERGED),
        yes("trafficPolicy", MERGED)
            .of(&TRAFFIC_POLICY)
            .note("section by section in the place of the host's"),
    ],
};

const TRAFFIC_POLICY: Message = Message {
    name: "TrafficPolicy",
    fields: &[
        yes("loadBalancer", BALANCERS).of(&LOAD_BALANCER),
        yes("connectionPool", FULL).of(&CONNECTION_POOL),
        yes("outlierDetection", OUTLIERS).of(&OUTLIER_DETECTION),
        yes("tls", PORTS).of(&TLS),
        yes("portLevelSettings", PORTS).of(&PORT_POLICY).note("in the place of all of the above"),
        planned("tunnel", "no waypoint speaks CONNECT to what is outside the mesh").of(&TUNNEL),
        planned("proxyProtocol", "workloads of the mesh see the client's own address already")
            .of(&PROXY_PROTOCOL),
        yes("retryBudget", BUDGETS).of(&RETRY_BUDGET),
    ],
};

const PORT_POLICY: Message = Message {
    name: "TrafficPolicy.PortTrafficPolicy",
    fields: &[
        yes("port", PORTS).of(&PORT),
        yes("loadBalancer", PORTS).of(&LOAD_BALANCER),
        yes("connectionPool", PORTS).of(&CONNECTION_POOL),
        yes("outlierDetection", PORTS).of(&OUTLIER_DETECTION),
        yes("tls", PORTS).of(&TLS),
    ],
};

const PORT: Message = Message { name: "PortSelector", fields: &[yes("number", PORTS)] };

const TUNNEL: Message = Message {
    name: "TrafficPolicy.TunnelSettings",
    fields: &[
        planned("protocol", "as `tunnel`"),
        planned("targetHost", "as `tunnel`"),
        planned("targetPort", "as `tunnel`"),
    ],
};

const PROXY_PROTOCOL: Message =
    Message { name: "TrafficPolicy.ProxyProtocol", fields: &[planned("version", "as `proxyProtocol`")] };

const RETRY_BUDGET: Message = Message {
    name: "TrafficPolicy.RetryBudget",
    fields: &[yes("percent", BUDGETS), yes("minRetryConcurrency", BUDGETS), yes("budgetInterval", BUDGETS)],
};

const LOAD_BALANCER: Message = Message {
    name: "LoadBalancerSettings",
    fields: &[
        yes("simple", BALANCERS),
        yes("consistentHash", BALANCERS).of(&CONSISTENT_HASH),
        yes("localityLbSetting", PLACES).of(&LOCALITY),
        refused("zoneAwareLbSetting", "Istio does not have it for waypoints; use `localityLbSetting`")
            .of(&ZONE_AWARE),
        yes("warmupDurationSecs", PLACES).note("the older form of `warmup.duration`"),
        yes("warmup", WARM).of(&WARMUP),
    ],
};

const CONSISTENT_HASH: Message = Message {
    name: "LoadBalancerSettings.ConsistentHashLB",
    fields: &[
        yes("httpHeaderName", HASHES),
        yes("httpCookie", COOKIES).of(&COOKIE),
        yes("useSourceIp", HASHES),
        yes("httpQueryParameterName", HASHES),
        yes("ringHash", HASHES).of(&RING),
        yes("maglev", HASHES).of(&MAGLEV),
        yes("minimumRingSize", BALANCERS).note("the older form of `ringHash.minimumRingSize`"),
    ],
};

const COOKIE: Message = Message {
    name: "ConsistentHashLB.HTTPCookie",
    fields: &[
        yes("name", COOKIES),
        yes("path", COOKIES),
        yes("ttl", COOKIES).note("without it the cookie is only read"),
        yes("attributes", COOKIES).of(&ATTRIBUTE),
    ],
};

const ATTRIBUTE: Message =
    Message { name: "HTTPCookie.Attribute", fields: &[yes("name", BALANCERS), yes("value", BALANCERS)] };

const RING: Message = Message { name: "ConsistentHashLB.RingHash", fields: &[yes("minimumRingSize", RINGS)] };

const MAGLEV: Message = Message { name: "ConsistentHashLB.MagLev", fields: &[yes("tableSize", TABLES)] };

const LOCALITY: Message = Message {
    name: "LocalityLoadBalancerSetting",
    fields: &[
        yes("distribute", DISTRIBUTED).of(&DISTRIBUTE),
        yes("failover", FAILING_OVER).of(&FAILOVER),
        yes("failoverPriority", BY_LABEL),
        yes("enabled", FAILING_OVER),
    ],
};

const DISTRIBUTE: Message = Message {
    name: "LocalityLoadBalancerSetting.Distribute",
    fields: &[yes("from", DISTRIBUTED), yes("to", DISTRIBUTED)],
};

const FAILOVER: Message = Message {
    name: "LocalityLoadBalancerSetting.Failover",
    fields: &[yes("from", FAILING_OVER), yes("to", FAILING_OVER)],
};

const ZONE_AWARE: Message = Message {
    name: "ZoneAwareLoadBalancerSetting",
    fields: &[
        refused("enabled", "as `zoneAwareLbSetting`"),
        refused("failover", "as `zoneAwareLbSetting`").of(&ZONE_FAILOVER),
        refused("failoverPriority", "as `zoneAwareLbSetting`"),
        refused("minClusterSize", "as `zoneAwareLbSetting`"),
    ],
};

const ZONE_FAILOVER: Message = Message {
    name: "ZoneAwareLoadBalancerSetting.Failover",
    fields: &[refused("from", "as `zoneAwareLbSetting`"), refused("to", "as `zoneAwareLbSetting`")],
};

const WARMUP: Message = Message {
    name: "WarmupConfiguration",
    fields: &[yes("duration", WARM), yes("minimumPercent", WARM), yes("aggression", WARM)],
};

const CONNECTION_POOL: Message = Message {
    name: "ConnectionPoolSettings",
    fields: &[yes("tcp", FULL).of(&TCP), yes("http", FULL).of(&HTTP)],
};

const TCP: Message = Message {
    name: "ConnectionPoolSettings.TCPSettings",
    fields: &[
        yes("maxConnections", FULL),
        yes("connectTimeout", POOLS),
        yes("tcpKeepalive", PROBES).of(&KEEPALIVE),
        yes("maxConnectionDuration", LASTING),
        yes("idleTimeout", LASTING),
    ],
};

const KEEPALIVE: Message = Message {
    name: "TCPSettings.TcpKeepalive",
    fields: &[yes("probes", PROBES), yes("time", PROBES), yes("interval", PROBES)],
};

const HTTP: Message = Message {
    name: "ConnectionPoolSettings.HTTPSettings",
    fields: &[
        yes("http1MaxPendingRequests", FULL),
        yes("http2MaxRequests", FULL),
        yes("maxRequestsPerConnection", CARRYING),
        yes("maxRetries", RETRYING),
        yes("idleTimeout", IDLE),
        yes("h2UpgradePolicy", VERSIONS),
        yes("useClientProtocol", VERSIONS),
        yes("maxConcurrentStreams", STREAMS),
        yes("http2KeepAlive", POOLS).of(&PING),
    ],
};

const PING: Message = Message {
    name: "HTTPSettings.ConnectionKeepalive",
    fields: &[yes("interval", POOLS), yes("timeout", POOLS)],
};

const OUTLIER_DETECTION: Message = Message {
    name: "OutlierDetection",
    fields: &[
        refused(
            "consecutiveErrors",
            "Istio ignores it since long; use `consecutive5xxErrors` or `consecutiveGatewayErrors`",
        ),
        yes("splitExternalLocalOriginErrors", ROWS),
        yes("consecutiveLocalOriginFailures", ROWS),
        yes("consecutiveGatewayErrors", ROWS),
        yes("consecutive5xxErrors", OUTLIERS),
        yes("interval", OUTLIERS),
        yes("baseEjectionTime", OUTLIERS),
        yes("maxEjectionPercent", MOST),
        yes("minHealthPercent", PANIC),
        yes("outlierDetectionHttpErrorCodes", ROWS),
    ],
};

const TLS: Message = Message {
    name: "ClientTLSSettings",
    fields: &[
        yes("mode", PORTS).note("`ISTIO_MUTUAL`, which is so without it; the others are refused"),
        planned("clientCertificate", OUTSIDE),
        planned("privateKey", OUTSIDE),
        planned("caCertificates", OUTSIDE),
        planned("credentialName", OUTSIDE),
        planned("subjectAltNames", OUTSIDE),
        planned("sni", OUTSIDE),
        planned("insecureSkipVerify", OUTSIDE),
        planned("caCrl", OUTSIDE),
    ],
};
