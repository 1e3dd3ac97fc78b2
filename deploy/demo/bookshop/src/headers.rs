//! Which headers a service passes on, so that traces hold together and a signed-in customer stays one.

use http::HeaderMap;

/// The headers of Bookinfo, in its order.
const PASSED_ON: [&str; 20] = [
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
];

/// The headers of a request that go with the requests made on its behalf.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in PASSED_ON.iter().chain(&["jwt"]) {
        if let Some(value) = headers.get(*name) {
            kept.insert(*name, value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_traces_and_users_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for name in ["traceparent", "end-user", "b3", "host", "x-secret"] {
            headers.insert(name, http::HeaderValue::from_static("1"));
        }
        let kept = passed_on(&headers);
        assert_eq!(kept.len(), 3);
        assert!(!kept.contains_key("x-secret"));
    }
}
