//! The fields of a VirtualService.

use super::{Message, Test, noted, refused, yes};

const ROUTING: &str = "ctrl/src/translate/routing/tests.rs";
const FIELDS: &str = "ctrl/src/translate/routing/tests/fields.rs";

const HOSTS: &[Test] = &[(ROUTING, "which_hosts_a_virtual_service_is_for")];
const EXPORT: &[Test] =
    &[(ROUTING, "which_hosts_a_virtual_service_is_for"), (ROUTING, "who_routes_says_whose_rules_count")];
const GATEWAYS: &[Test] =
    &[(ROUTING, "which_hosts_a_virtual_service_is_for"), (ROUTING, "rules_for_gateways_alone_are_left_out")];
const MERGED: &[Test] = &[(ROUTING, "several_for_one_host_count_one_after_the_other")];
const REFERENCES: &[Test] = &[(ROUTING, "references_resolve_or_are_named")];
const DELEGATES: &[Test] = &[(ROUTING, "delegates_stand_in_the_place_of_who_names_them")];
const MATCHES: &[Test] = &[(FIELDS, "matches")];
const WEIGHTS: &[Test] = &[(FIELDS, "weights_and_headers_of_destinations")];
const TRIES: &[Test] = &[(FIELDS, "timeouts_and_retries")];
const FAULTS: &[Test] = &[(FIELDS, "faults")];
const MIRRORS: &[Test] = &[
    (FIELDS, "mirrors"),
    ("waypoint/src/tests/traffic.rs", "a_mirror_gets_the_whole_body_and_its_failure_is_nobody_s"),
];
const CHANGES: &[Test] = &[(FIELDS, "headers_of_requests_and_responses")];
const REWRITES: &[Test] = &[(FIELDS, "rewrites")];
const REDIRECTS: &[Test] = &[(FIELDS, "redirects")];
const ANSWERS: &[Test] = &[(FIELDS, "answers")];
const ORIGINS: &[Test] = &[(FIELDS, "cross_origin")];
const STREAMS: &[Test] = &[(FIELDS, "rules_for_tls_and_tcp")];

/// `spec` of a VirtualService.
pub(crate) const VIRTUAL_SERVICE: Message = Message {
    name: "VirtualService",
    fields: &[
        yes("hosts", HOSTS).note("names, short names, `*.` and a name"),
        yes("gateways", GATEWAYS).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("http", MERGED).of(&HTTP_ROUTE),
        yes("tls", STREAMS).of(&TLS_ROUTE),
        yes("tcp", STREAMS).of(&TCP_ROUTE),
        yes("exportTo", EXPORT),
    ],
};

const HTTP_ROUTE: Message = Message {
    name: "HTTPRoute",
    fields: &[
        yes("name", MATCHES).note("named where a decision tells its cause"),
        yes("match", MATCHES).of(&HTTP_MATCH),
        yes("route", REFERENCES).of(&HTTP_DESTINATION),
        yes("redirect", REDIRECTS).of(&REDIRECT),
        yes("directResponse", ANSWERS).of(&DIRECT_RESPONSE),
        yes("delegate", DELEGATES).of(&DELEGATE),
        yes("rewrite", REWRITES).of(&REWRITE),
        yes("timeout", TRIES).note("counted from when the whole request has come, as in Envoy"),
        yes("retries", TRIES).of(&RETRIES),
        yes("fault", FAULTS).of(&FAULT),
        yes("mirror", MIRRORS).of(&DESTINATION),
        yes("mirrors", MIRRORS).of(&MIRROR),
        yes("mirrorPercent", MIRRORS).note("the older form of `mirrorPercentage`"),
        yes("mirrorPercentage", MIRRORS).of(&PERCENT),
        yes("corsPolicy", ORIGINS).of(&CORS),
        yes("headers", CHANGES).of(&HEADERS),
    ],
};

const HTTP_MATCH: Message = Message {
    name: "HTTPMatchRequest",
    fields: &[
        yes("name", MATCHES).note("named where a decision tells its cause"),
        yes("uri", MATCHES).of(&STRING_MATCH),
        yes("scheme", MATCHES).of(&STRING_MATCH),
        yes("method", MATCHES).of(&STRING_MATCH),
        yes("authority", MATCHES).of(&STRING_MATCH),
        yes("headers", MATCHES).map(&STRING_MATCH),
        yes("port", MATCHES),
        yes("sourceLabels", MATCHES).note("of the client's own workload, which Istio's waypoints ignore"),
        yes("gateways", GATEWAYS).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("queryParams", MATCHES).map(&STRING_MATCH),
        yes("ignoreUriCase", MATCHES),
        yes("withoutHeaders", MATCHES).map(&STRING_MATCH),
        yes("sourceNamespace", MATCHES).note("of the client's own identity, not of the waypoint as in Istio"),
        noted("statPrefix", "there are no statistics that it could name; metrics have Istio's labels"),
    ],
};

const STRING_MATCH: Message = Message {
    name: "StringMatch",
    fields: &[
        yes("exact", MATCHES),
        yes("prefix", MATCHES),
        yes("regex", MATCHES).note("RE2's syntax, at most 1024 bytes; the whole text must fit"),
    ],
};

const HTTP_DESTINATION: Message = Message {
    name: "HTTPRouteDestination",
    fields: &[
        yes("destination", WEIGHTS).of(&DESTINATION),
        yes("weight", WEIGHTS).note("a part of the sum of all weights"),
        yes("headers", WEIGHTS).of(&HEADERS),
    ],
};

const DESTINATION: Message = Message {
    name: "Destination",
    fields: &[yes("host", REFERENCES), yes("subset", REFERENCES), yes("port", REFERENCES).of(&PORT)],
};

const PORT: Message = Message { name: "PortSelector", fields: &[yes("number", REFERENCES)] };

const PERCENT: Message = Message { name: "Percent", fields: &[yes("value", MIRRORS)] };

const REDIRECT: Message = Message {
    name: "HTTPRedirect",
    fields: &[
        yes("uri", REDIRECTS),
        yes("authority", REDIRECTS),
        yes("port", REDIRECTS),
        yes("derivePort", REDIRECTS),
        yes("scheme", REDIRECTS),
        yes("redirectCode", REDIRECTS).note("any status from 300 to 399"),
        yes("prefixRewrite", REDIRECTS),
    ],
};

const DIRECT_RESPONSE: Message =
    Message { name: "HTTPDirectResponse", fields: &[yes("status", ANSWERS), yes("body", ANSWERS).of(&BODY)] };

const BODY: Message = Message {
    name: "HTTPBody",
    fields: &[yes("string", ANSWERS), yes("bytes", ANSWERS).note("Base64, up to 1 MiB, as `string`")],
};

const DELEGATE: Message =
    Message { name: "Delegate", fields: &[yes("name", DELEGATES), yes("namespace", DELEGATES)] };

const REWRITE: Message = Message {
    name: "HTTPRewrite",
    fields: &[
        yes("uri", REWRITES),
        yes("authority", REWRITES),
        yes("uriRegexRewrite", REWRITES).of(&REGEX_REWRITE),
    ],
};

const REGEX_REWRITE: Message =
    Message { name: "RegexRewrite", fields: &[yes("match", REWRITES), yes("rewrite", REWRITES)] };

const RETRIES: Message = Message {
    name: "HTTPRetry",
    fields: &[
        yes("attempts", TRIES),
        yes("perTryTimeout", TRIES).note("counted from when the whole request has come; connecting counts"),
        yes("retryOn", TRIES),
        yes("retryRemoteLocalities", TRIES),
        yes("retryIgnorePreviousHosts", TRIES),
        yes("backoff", TRIES),
    ],
};

const FAULT: Message = Message {
    name: "HTTPFaultInjection",
    fields: &[yes("delay", FAULTS).of(&DELAY), yes("abort", FAULTS).of(&ABORT)],
};

const DELAY: Message = Message {
    name: "HTTPFaultInjection.Delay",
    fields: &[
        yes("percent", FAULTS).note("the older form of `percentage`"),
        yes("fixedDelay", FAULTS),
        refused("exponentialDelay", "Istio has only its name"),
        yes("percentage", FAULTS).of(&PERCENT),
    ],
};

const ABORT: Message = Message {
    name: "HTTPFaultInjection.Abort",
    fields: &[
        yes("httpStatus", FAULTS),
        yes("grpcStatus", FAULTS),
        refused("http2Error", "Istio has only its name"),
        yes("percentage", FAULTS).of(&PERCENT),
    ],
};

const MIRROR: Message = Message {
    name: "HTTPMirrorPolicy",
    fields: &[yes("destination", MIRRORS).of(&DESTINATION), yes("percentage", MIRRORS).of(&PERCENT)],
};

const CORS: Message = Message {
    name: "CorsPolicy",
    fields: &[
        yes("allowOrigin", ORIGINS).note("the older form of `allowOrigins`"),
        yes("allowOrigins", ORIGINS).of(&STRING_MATCH),
        yes("allowMethods", ORIGINS),
        yes("allowHeaders", ORIGINS),
        yes("exposeHeaders", ORIGINS),
        yes("maxAge", ORIGINS),
        yes("allowCredentials", ORIGINS),
        yes("unmatchedPreflights", ORIGINS),
    ],
};

const HEADERS: Message = Message {
    name: "Headers",
    fields: &[
        yes("request", CHANGES).of(&HEADER_OPERATIONS),
        yes("response", CHANGES).of(&HEADER_OPERATIONS),
    ],
};

const HEADER_OPERATIONS: Message = Message {
    name: "Headers.HeaderOperations",
    fields: &[
        yes("set", CHANGES)
            .note("of Envoy's variables those of the request, the response and the connection"),
        yes("add", CHANGES).note("as `set`"),
        yes("remove", CHANGES),
    ],
};

const TLS_ROUTE: Message = Message {
    name: "TLSRoute",
    fields: &[yes("match", STREAMS).of(&TLS_MATCH), yes("route", STREAMS).of(&ROUTE_DESTINATION)],
};

const TLS_MATCH: Message = Message {
    name: "TLSMatchAttributes",
    fields: &[
        yes("sniHosts", STREAMS),
        yes("destinationSubnets", STREAMS),
        yes("port", STREAMS),
        yes("sourceLabels", STREAMS),
        yes("gateways", STREAMS).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("sourceNamespace", STREAMS),
    ],
};

const TCP_ROUTE: Message = Message {
    name: "TCPRoute",
    fields: &[yes("match", STREAMS).of(&TCP_MATCH), yes("route", STREAMS).of(&ROUTE_DESTINATION)],
};

const TCP_MATCH: Message = Message {
    name: "L4MatchAttributes",
    fields: &[
        yes("destinationSubnets", STREAMS),
        yes("port", STREAMS),
        refused("sourceSubnet", "Istio has only its name"),
        yes("sourceLabels", STREAMS),
        yes("gateways", STREAMS).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("sourceNamespace", STREAMS),
    ],
};

const ROUTE_DESTINATION: Message = Message {
    name: "RouteDestination",
    fields: &[
        yes("destination", STREAMS).of(&DESTINATION),
        yes("weight", STREAMS).note("a part of the sum of all weights"),
    ],
};
