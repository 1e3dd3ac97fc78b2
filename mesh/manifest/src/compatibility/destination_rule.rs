//! The fields of a DestinationRule.

use super::{Message, Test, planned, refused, yes};

const TRAFFIC: &str = "ctrl/src/translate/routing/tests/traffic.rs";

const CARRIED: &str = "waypoint/src/tests/traffic.rs";

const WHOSE: &[Test] = &[(TRAFFIC, "whose_rule_counts")];
const MERGED: &[Test] = &[(TRAFFIC, "several_rules_for_one_host_are_merged")];
const BALANCERS: &[Test] = &[(TRAFFIC, "load_balancers")];
const HASHES: &[Test] = &[(TRAFFIC, "load_balancers"), (CARRIED, "the_same_key_leads_to_the_same_endpoint")];
const COOKIES: &[Test] =
    &[(TRAFFIC, "load_balancers"), (CARRIED, "who_has_no_cookie_is_given_one_that_leads_there_again")];
const PLACES: &[Test] = &[(TRAFFIC, "warm_up_and_places")];
const POOLS: &[Test] = &[(TRAFFIC, "connection_pools"), (CARRIED, "a_pool_that_is_full_overflows")];
const PROBES: &[Test] =
    &[(TRAFFIC, "connection_pools"), (CARRIED, "probes_are_on_the_sockets_of_who_asks_for_them")];
const LASTING: &[Test] =
    &[(TRAFFIC, "connection_pools"), (CARRIED, "connections_of_plain_tcp_end_when_idle_or_old")];
const OUTLIERS: &[Test] =
    &[(TRAFFIC, "outliers_and_retry_budgets"), (CARRIED, "a_circuit_breaker_opens_and_closes_again")];
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
        yes("connectionPool", POOLS).of(&CONNECTION_POOL),
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
        yes("warmup", PLACES).of(&WARMUP),
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

const RING: Message =
    Message { name: "ConsistentHashLB.RingHash", fields: &[yes("minimumRingSize", BALANCERS)] };

const MAGLEV: Message = Message { name: "ConsistentHashLB.MagLev", fields: &[yes("tableSize", BALANCERS)] };

const LOCALITY: Message = Message {
    name: "LocalityLoadBalancerSetting",
    fields: &[
        yes("distribute", PLACES).of(&DISTRIBUTE),
        yes("failover", PLACES).of(&FAILOVER),
        yes("failoverPriority", PLACES),
        yes("enabled", PLACES),
    ],
};

const DISTRIBUTE: Message = Message {
    name: "LocalityLoadBalancerSetting.Distribute",
    fields: &[yes("from", PLACES), yes("to", PLACES)],
};

const FAILOVER: Message = Message {
    name: "LocalityLoadBalancerSetting.Failover",
    fields: &[yes("from", PLACES), yes("to", PLACES)],
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
    fields: &[yes("duration", PLACES), yes("minimumPercent", PLACES), yes("aggression", PLACES)],
};

const CONNECTION_POOL: Message = Message {
    name: "ConnectionPoolSettings",
    fields: &[yes("tcp", POOLS).of(&TCP), yes("http", POOLS).of(&HTTP)],
};

const TCP: Message = Message {
    name: "ConnectionPoolSettings.TCPSettings",
    fields: &[
        yes("maxConnections", POOLS),
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
        yes("http1MaxPendingRequests", POOLS),
        yes("http2MaxRequests", POOLS),
        yes("maxRequestsPerConnection", POOLS),
        yes("maxRetries", POOLS),
        yes("idleTimeout", POOLS),
        yes("h2UpgradePolicy", POOLS),
        yes("useClientProtocol", POOLS),
        yes("maxConcurrentStreams", POOLS),
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
        yes("splitExternalLocalOriginErrors", OUTLIERS),
        yes("consecutiveLocalOriginFailures", OUTLIERS),
        yes("consecutiveGatewayErrors", OUTLIERS),
        yes("consecutive5xxErrors", OUTLIERS),
        yes("interval", OUTLIERS),
        yes("baseEjectionTime", OUTLIERS),
        yes("maxEjectionPercent", OUTLIERS),
        yes("minHealthPercent", OUTLIERS),
        yes("outlierDetectionHttpErrorCodes", OUTLIERS),
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
