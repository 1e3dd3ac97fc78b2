//! The fields of a DestinationRule.

use super::{Message, Test, planned, refused, yes};

const TRAFFIC: &str = "ctrl/src/translate/routing/tests/traffic.rs";

const WHOSE: &[Test] = &[(TRAFFIC, "whose_rule_counts")];
const MERGED: &[Test] = &[(TRAFFIC, "several_rules_for_one_host_are_merged")];
const BALANCERS: &[Test] = &[(TRAFFIC, "load_balancers")];
const PLACES: &[Test] = &[(TRAFFIC, "warm_up_and_places")];
const POOLS: &[Test] = &[(TRAFFIC, "connection_pools")];
const OUTLIERS: &[Test] = &[(TRAFFIC, "outliers_and_retry_budgets")];
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
        yes("retryBudget", OUTLIERS).of(&RETRY_BUDGET),
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
    fields: &[
        yes("percent", OUTLIERS),
        yes("minRetryConcurrency", OUTLIERS),
        yes("budgetInterval", OUTLIERS),
    ],
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
        yes("httpHeaderName", BALANCERS),
        yes("httpCookie", BALANCERS).of(&COOKIE),
        yes("useSourceIp", BALANCERS),
        yes("httpQueryParameterName", BALANCERS),
        yes("ringHash", BALANCERS).of(&RING),
        yes("maglev", BALANCERS).of(&MAGLEV),
        yes("minimumRingSize", BALANCERS).note("the older form of `ringHash.minimumRingSize`"),
    ],
};

const COOKIE: Message = Message {
    name: "ConsistentHashLB.HTTPCookie",
    fields: &[
        yes("name", BALANCERS),
        yes("path", BALANCERS),
        yes("ttl", BALANCERS).note("without it the cookie is only read"),
        yes("attributes", BALANCERS).of(&ATTRIBUTE),
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
        yes("tcpKeepalive", POOLS).of(&KEEPALIVE),
        yes("maxConnectionDuration", POOLS),
        yes("idleTimeout", POOLS),
    ],
};

const KEEPALIVE: Message = Message {
    name: "TCPSettings.TcpKeepalive",
    fields: &[yes("probes", POOLS), yes("time", POOLS), yes("interval", POOLS)],
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
