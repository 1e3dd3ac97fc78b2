//! The fields of a VirtualService.

use super::{Message, Test, noted, refused, yes};

const READ: &[Test] = &[("mesh/manifest/src/compatibility/tests.rs", "every_field_is_read_into_its_type")];

/// `spec` of a VirtualService.
pub(crate) const VIRTUAL_SERVICE: Message = Message {
    name: "VirtualService",
    fields: &[
        yes("hosts", READ).note("names, short names, `*.` and a name"),
        yes("gateways", READ).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("http", READ).of(&HTTP_ROUTE),
        yes("tls", READ).of(&TLS_ROUTE),
        yes("tcp", READ).of(&TCP_ROUTE),
        yes("exportTo", READ),
    ],
};

const HTTP_ROUTE: Message = Message {
    name: "HTTPRoute",
    fields: &[
        yes("name", READ).note("named where a decision tells its cause"),
        yes("match", READ).of(&HTTP_MATCH),
        yes("route", READ).of(&HTTP_DESTINATION),
        yes("redirect", READ).of(&REDIRECT),
        yes("directResponse", READ).of(&DIRECT_RESPONSE),
        yes("delegate", READ).of(&DELEGATE),
        yes("rewrite", READ).of(&REWRITE),
        yes("timeout", READ),
        yes("retries", READ).of(&RETRIES),
        yes("fault", READ).of(&FAULT),
        yes("mirror", READ).of(&DESTINATION),
        yes("mirrors", READ).of(&MIRROR),
        yes("mirrorPercent", READ).note("the older form of `mirrorPercentage`"),
        yes("mirrorPercentage", READ).of(&PERCENT),
        yes("corsPolicy", READ).of(&CORS),
        yes("headers", READ).of(&HEADERS),
    ],
};

const HTTP_MATCH: Message = Message {
    name: "HTTPMatchRequest",
    fields: &[
        yes("name", READ).note("named where a decision tells its cause"),
        yes("uri", READ).of(&STRING_MATCH),
        yes("scheme", READ).of(&STRING_MATCH),
        yes("method", READ).of(&STRING_MATCH),
        yes("authority", READ).of(&STRING_MATCH),
        yes("headers", READ).map(&STRING_MATCH),
        yes("port", READ),
        yes("sourceLabels", READ).note("of the client's own workload, which Istio's waypoints ignore"),
        yes("gateways", READ).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("queryParams", READ).map(&STRING_MATCH),
        yes("ignoreUriCase", READ),
        yes("withoutHeaders", READ).map(&STRING_MATCH),
        yes("sourceNamespace", READ).note("of the client's own identity, not of the waypoint as in Istio"),
        noted("statPrefix", "there are no statistics that it could name; metrics have Istio's labels"),
    ],
};

const STRING_MATCH: Message = Message {
    name: "StringMatch",
    fields: &[
        yes("exact", READ),
        yes("prefix", READ),
        yes("regex", READ).note("RE2's syntax, at most 1024 bytes; the whole text must fit"),
    ],
};

const HTTP_DESTINATION: Message = Message {
    name: "HTTPRouteDestination",
    fields: &[
        yes("destination", READ).of(&DESTINATION),
        yes("weight", READ).note("a part of the sum of all weights"),
        yes("headers", READ).of(&HEADERS),
    ],
};

const DESTINATION: Message = Message {
    name: "Destination",
    fields: &[yes("host", READ), yes("subset", READ), yes("port", READ).of(&PORT)],
};

const PORT: Message = Message { name: "PortSelector", fields: &[yes("number", READ)] };

const PERCENT: Message = Message { name: "Percent", fields: &[yes("value", READ)] };

const REDIRECT: Message = Message {
    name: "HTTPRedirect",
    fields: &[
        yes("uri", READ),
        yes("authority", READ),
        yes("port", READ),
        yes("derivePort", READ),
        yes("scheme", READ),
        yes("redirectCode", READ).note("any status from 300 to 399"),
        yes("prefixRewrite", READ),
    ],
};

const DIRECT_RESPONSE: Message =
    Message { name: "HTTPDirectResponse", fields: &[yes("status", READ), yes("body", READ).of(&BODY)] };

const BODY: Message = Message {
    name: "HTTPBody",
    fields: &[yes("string", READ), yes("bytes", READ).note("Base64, up to 1 MiB, as `string`")],
};

const DELEGATE: Message = Message { name: "Delegate", fields: &[yes("name", READ), yes("namespace", READ)] };

const REWRITE: Message = Message {
    name: "HTTPRewrite",
    fields: &[yes("uri", READ), yes("authority", READ), yes("uriRegexRewrite", READ).of(&REGEX_REWRITE)],
};

const REGEX_REWRITE: Message =
    Message { name: "RegexRewrite", fields: &[yes("match", READ), yes("rewrite", READ)] };

const RETRIES: Message = Message {
    name: "HTTPRetry",
    fields: &[
        yes("attempts", READ),
        yes("perTryTimeout", READ),
        yes("retryOn", READ),
        yes("retryRemoteLocalities", READ),
        yes("retryIgnorePreviousHosts", READ),
        yes("backoff", READ),
    ],
};

const FAULT: Message = Message {
    name: "HTTPFaultInjection",
    fields: &[yes("delay", READ).of(&DELAY), yes("abort", READ).of(&ABORT)],
};

const DELAY: Message = Message {
    name: "HTTPFaultInjection.Delay",
    fields: &[
        yes("percent", READ).note("the older form of `percentage`"),
        yes("fixedDelay", READ),
        refused("exponentialDelay", "Istio has only its name"),
        yes("percentage", READ).of(&PERCENT),
    ],
};

const ABORT: Message = Message {
    name: "HTTPFaultInjection.Abort",
    fields: &[
        yes("httpStatus", READ),
        yes("grpcStatus", READ),
        refused("http2Error", "Istio has only its name"),
        yes("percentage", READ).of(&PERCENT),
    ],
};

const MIRROR: Message = Message {
    name: "HTTPMirrorPolicy",
    fields: &[yes("destination", READ).of(&DESTINATION), yes("percentage", READ).of(&PERCENT)],
};

const CORS: Message = Message {
    name: "CorsPolicy",
    fields: &[
        yes("allowOrigin", READ).note("the older form of `allowOrigins`"),
        yes("allowOrigins", READ).of(&STRING_MATCH),
        yes("allowMethods", READ),
        yes("allowHeaders", READ),
        yes("exposeHeaders", READ),
        yes("maxAge", READ),
        yes("allowCredentials", READ),
        yes("unmatchedPreflights", READ),
    ],
};

const HEADERS: Message = Message {
    name: "Headers",
    fields: &[yes("request", READ).of(&HEADER_OPERATIONS), yes("response", READ).of(&HEADER_OPERATIONS)],
};

const HEADER_OPERATIONS: Message = Message {
    name: "Headers.HeaderOperations",
    fields: &[
        yes("set", READ).note("texts as they are: Envoy's variables between `%` are refused"),
        yes("add", READ).note("as `set`"),
        yes("remove", READ),
    ],
};

const TLS_ROUTE: Message = Message {
    name: "TLSRoute",
    fields: &[yes("match", READ).of(&TLS_MATCH), yes("route", READ).of(&ROUTE_DESTINATION)],
};

const TLS_MATCH: Message = Message {
    name: "TLSMatchAttributes",
    fields: &[
        yes("sniHosts", READ),
        yes("destinationSubnets", READ),
        yes("port", READ),
        yes("sourceLabels", READ),
        yes("gateways", READ).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("sourceNamespace", READ),
    ],
};

const TCP_ROUTE: Message = Message {
    name: "TCPRoute",
    fields: &[yes("match", READ).of(&TCP_MATCH), yes("route", READ).of(&ROUTE_DESTINATION)],
};

const TCP_MATCH: Message = Message {
    name: "L4MatchAttributes",
    fields: &[
        yes("destinationSubnets", READ),
        yes("port", READ),
        refused("sourceSubnet", "Istio has only its name"),
        yes("sourceLabels", READ),
        yes("gateways", READ).note("only what is for `mesh` has an effect: there are no gateways yet"),
        yes("sourceNamespace", READ),
    ],
};

const ROUTE_DESTINATION: Message = Message {
    name: "RouteDestination",
    fields: &[
        yes("destination", READ).of(&DESTINATION),
        yes("weight", READ).note("a part of the sum of all weights"),
    ],
};
