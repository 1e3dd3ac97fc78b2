//! The fields of a DestinationRule.

use super::{Message, Test, planned, refused, yes};

const READ: &[Test] = &[("mesh/manifest/src/compatibility/tests.rs", "every_field_is_read_into_its_type")];
const OUTSIDE: &str = "TLS towards hosts outside the mesh is not there yet";

/// `spec` of a DestinationRule.
pub(crate) const DESTINATION_RULE: Message = Message {
    name: "DestinationRule",
    fields: &[
        yes("host", READ),
        yes("trafficPolicy", READ).of(&TRAFFIC_POLICY),
        yes("subsets", READ).of(&SUBSET),
        yes("exportTo", READ),
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
        yes("name", READ),
        yes("labels", READ),
        yes("trafficPolicy", READ).of(&TRAFFIC_POLICY).note("section by section in the place of the host's"),
    ],
};

const TRAFFIC_POLICY: Message = Message {
    name: "TrafficPolicy",
    fields: &[
        yes("loadBalancer", READ).of(&LOAD_BALANCER),
        yes("connectionPool", READ).of(&CONNECTION_POOL),
        yes("outlierDetection", READ).of(&OUTLIER_DETECTION),
        yes("tls", READ).of(&TLS),
        yes("portLevelSettings", READ).of(&PORT_POLICY).note("in the place of all of the above"),
        planned("tunnel", "no waypoint speaks CONNECT to what is outside the mesh").of(&TUNNEL),
        planned("proxyProtocol", "workloads of the mesh see the client's own address already")
            .of(&PROXY_PROTOCOL),
        yes("retryBudget", READ).of(&RETRY_BUDGET),
    ],
};

const PORT_POLICY: Message = Message {
    name: "TrafficPolicy.PortTrafficPolicy",
    fields: &[
        yes("port", READ).of(&PORT),
        yes("loadBalancer", READ).of(&LOAD_BALANCER),
        yes("connectionPool", READ).of(&CONNECTION_POOL),
        yes("outlierDetection", READ).of(&OUTLIER_DETECTION),
        yes("tls", READ).of(&TLS),
    ],
};

const PORT: Message = Message { name: "PortSelector", fields: &[yes("number", READ)] };

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
    fields: &[yes("percent", READ), yes("minRetryConcurrency", READ), yes("budgetInterval", READ)],
};

const LOAD_BALANCER: Message = Message {
    name: "LoadBalancerSettings",
    fields: &[
        yes("simple", READ),
        yes("consistentHash", READ).of(&CONSISTENT_HASH),
        yes("localityLbSetting", READ).of(&LOCALITY),
        refused("zoneAwareLbSetting", "Istio does not have it for waypoints; use `localityLbSetting`")
            .of(&ZONE_AWARE),
        yes("warmupDurationSecs", READ).note("the older form of `warmup.duration`"),
        yes("warmup", READ).of(&WARMUP),
    ],
};

const CONSISTENT_HASH: Message = Message {
    name: "LoadBalancerSettings.ConsistentHashLB",
    fields: &[
        yes("httpHeaderName", READ),
        yes("httpCookie", READ).of(&COOKIE),
        yes("useSourceIp", READ),
        yes("httpQueryParameterName", READ),
        yes("ringHash", READ).of(&RING),
        yes("maglev", READ).of(&MAGLEV),
        yes("minimumRingSize", READ).note("the older form of `ringHash.minimumRingSize`"),
    ],
};

const COOKIE: Message = Message {
    name: "ConsistentHashLB.HTTPCookie",
    fields: &[
        yes("name", READ),
        yes("path", READ),
        yes("ttl", READ).note("without it the cookie is only read"),
        yes("attributes", READ).of(&ATTRIBUTE),
    ],
};

const ATTRIBUTE: Message =
    Message { name: "HTTPCookie.Attribute", fields: &[yes("name", READ), yes("value", READ)] };

const RING: Message = Message { name: "ConsistentHashLB.RingHash", fields: &[yes("minimumRingSize", READ)] };

const MAGLEV: Message = Message { name: "ConsistentHashLB.MagLev", fields: &[yes("tableSize", READ)] };

const LOCALITY: Message = Message {
    name: "LocalityLoadBalancerSetting",
    fields: &[
        yes("distribute", READ).of(&DISTRIBUTE),
        yes("failover", READ).of(&FAILOVER),
        yes("failoverPriority", READ),
        yes("enabled", READ),
    ],
};

const DISTRIBUTE: Message =
    Message { name: "LocalityLoadBalancerSetting.Distribute", fields: &[yes("from", READ), yes("to", READ)] };

const FAILOVER: Message =
    Message { name: "LocalityLoadBalancerSetting.Failover", fields: &[yes("from", READ), yes("to", READ)] };

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
    fields: &[yes("duration", READ), yes("minimumPercent", READ), yes("aggression", READ)],
};

const CONNECTION_POOL: Message = Message {
    name: "ConnectionPoolSettings",
    fields: &[yes("tcp", READ).of(&TCP), yes("http", READ).of(&HTTP)],
};

const TCP: Message = Message {
    name: "ConnectionPoolSettings.TCPSettings",
    fields: &[
        yes("maxConnections", READ),
        yes("connectTimeout", READ),
        yes("tcpKeepalive", READ).of(&KEEPALIVE),
        yes("maxConnectionDuration", READ),
        yes("idleTimeout", READ),
    ],
};

const KEEPALIVE: Message = Message {
    name: "TCPSettings.TcpKeepalive",
    fields: &[yes("probes", READ), yes("time", READ), yes("interval", READ)],
};

const HTTP: Message = Message {
    name: "ConnectionPoolSettings.HTTPSettings",
    fields: &[
        yes("http1MaxPendingRequests", READ),
        yes("http2MaxRequests", READ),
        yes("maxRequestsPerConnection", READ),
        yes("maxRetries", READ),
        yes("idleTimeout", READ),
        yes("h2UpgradePolicy", READ),
        yes("useClientProtocol", READ),
        yes("maxConcurrentStreams", READ),
        yes("http2KeepAlive", READ).of(&PING),
    ],
};

const PING: Message = Message {
    name: "HTTPSettings.ConnectionKeepalive",
    fields: &[yes("interval", READ), yes("timeout", READ)],
};

const OUTLIER_DETECTION: Message = Message {
    name: "OutlierDetection",
    fields: &[
        refused(
            "consecutiveErrors",
            "Istio ignores it since long; use `consecutive5xxErrors` or `consecutiveGatewayErrors`",
        ),
        yes("splitExternalLocalOriginErrors", READ),
        yes("consecutiveLocalOriginFailures", READ),
        yes("consecutiveGatewayErrors", READ),
        yes("consecutive5xxErrors", READ),
        yes("interval", READ),
        yes("baseEjectionTime", READ),
        yes("maxEjectionPercent", READ),
        yes("minHealthPercent", READ),
        yes("outlierDetectionHttpErrorCodes", READ),
    ],
};

const TLS: Message = Message {
    name: "ClientTLSSettings",
    fields: &[
        yes("mode", READ).note("`ISTIO_MUTUAL`, which is so without it; the others are refused"),
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
