//! What a type alone does not say, message by message, by the types' names: which fields are needed, which exclude each
//! other, and which values are refused. An object that Istio's definitions refuse is refused, and no other.

use serde_json::{Value, json};

/// Fields without which a message is refused.
const REQUIRED: &[(&str, &[&str])] = &[
    ("DestinationRule", &["host"]),
    ("Subset", &["name"]),
    ("Warmup", &["duration"]),
    ("HttpCookie", &["name"]),
    ("CookieAttribute", &["name"]),
    ("Tunnel", &["targetHost", "targetPort"]),
    ("HttpDestination", &["destination"]),
    ("RouteDestination", &["destination"]),
    ("Mirror", &["destination"]),
    ("Destination", &["host"]),
    ("DirectResponse", &["status"]),
    ("TlsRoute", &["match"]),
    ("TlsMatch", &["sniHosts"]),
    ("Condition", &["key"]),
    ("TargetRef", &["kind", "name"]),
];

/// Fields of which one may be set at most.
const AT_MOST_ONE: &[(&str, &[&[&str]])] = &[
    ("StringMatch", &[&["exact", "prefix", "regex"]]),
    ("HttpBody", &[&["string", "bytes"]]),
    ("Abort", &[&["httpStatus", "grpcStatus", "http2Error"]]),
    ("Delay", &[&["fixedDelay", "exponentialDelay"]]),
    ("Redirect", &[&["port", "derivePort"]]),
    ("LoadBalancer", &[&["simple", "consistentHash"]]),
    (
        "ConsistentHash",
        &[
            &["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"],
            &["ringHash", "maglev"],
        ],
    ),
];

/// Fields whose value may be null, which is as if they were not set.
const NULLABLE: &[(&str, &[&str])] = &[
    ("LocalityLb", &["enabled"]),
    ("ZoneAwareLb", &["enabled", "minClusterSize"]),
    ("Warmup", &["minimumPercent", "aggression"]),
    ("RetryBudget", &["percent"]),
    ("ClientTls", &["insecureSkipVerify"]),
    (
        "OutlierDetection",
        &["consecutive5xxErrors", "consecutiveGatewayErrors", "consecutiveLocalOriginFailures"],
    ),
    ("CorsPolicy", &["allowCredentials"]),
    ("Retries", &["retryRemoteLocalities", "retryIgnorePreviousHosts"]),
    ("HttpRoute", &["mirrorPercent"]),
];

/// Lengths of time that may be any, also none.
const ANY_DURATION: &[(&str, &str)] =
    &[("TcpSettings", "idleTimeout"), ("HttpCookie", "ttl"), ("RetryBudget", "budgetInterval")];

/// Values that a field may have.
fn values() -> Vec<(&'static str, &'static str, Value)> {
    let group = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let kind = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
    let accounts = json!({"maxItems": 16, "items": {"maxLength": 320}});
    vec![
        (
            "WorkloadSelector",
            "matchLabels",
            json!({
                "maxProperties": 4096,
                "additionalProperties": {
                    "maxLength": 63,
                    "x-kubernetes-validations": [rule("!self.contains(\"*\")", "a label's value has no wildcards")],
                },
                "x-kubernetes-validations": [
                    rule("self.all(key, !key.contains(\"*\"))", "a label's name has no wildcards"),
                    rule("self.all(key, key.size() != 0)", "a label's name is not empty"),
                ],
            }),
        ),
        ("TargetRef", "group", json!({"maxLength": 253, "pattern": group})),
        ("TargetRef", "kind", json!({"minLength": 1, "maxLength": 63, "pattern": kind})),
        ("TargetRef", "name", json!({"minLength": 1, "maxLength": 253})),
        (
            "TargetRef",
            "namespace",
            json!({"x-kubernetes-validations": [rule("self.size() == 0", "a target is in the policy's own namespace")]}),
        ),
        ("AuthorizationPolicy", "targetRefs", json!({"maxItems": 16})),
        ("AuthorizationPolicy", "rules", json!({"maxItems": 512})),
        ("Rule", "from", json!({"maxItems": 512})),
        ("Source", "serviceAccounts", accounts.clone()),
        ("Source", "notServiceAccounts", accounts),
        (
            "PeerAuthentication",
            "portLevelMtls",
            json!({
                "minProperties": 1,
                "x-kubernetes-validations": [
                    rule("self.all(key, 0 < int(key) && int(key) <= 65535)", "a port is a number from 1 to 65535"),
                ],
            }),
        ),
        ("TrafficPolicy", "portLevelSettings", json!({"maxItems": 4096})),
        (
            "OutlierDetection",
            "outlierDetectionHttpErrorCodes",
            json!({"items": {"minimum": 100, "maximum": 599}}),
        ),
        ("ZoneAwareLb", "minClusterSize", json!({"minimum": 1})),
        ("Warmup", "minimumPercent", json!({"minimum": 0, "maximum": 100})),
        ("Warmup", "aggression", json!({"minimum": 0})),
        ("RetryBudget", "percent", json!({"minimum": 0, "maximum": 100})),
        ("HttpBody", "bytes", json!({"format": "byte"})),
    ]
}

/// What fields must be to each other.
fn relations() -> Vec<(&'static str, Value)> {
    vec![
        (
            "AuthorizationPolicy",
            rule(
                "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
                "a policy has a selector or targetRefs, not both",
            ),
        ),
        (
            "Source",
            rule(
                "!(has(self.serviceAccounts) || has(self.notServiceAccounts)) || (!has(self.principals) && \
                 !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces))",
                "serviceAccounts cannot stand beside principals or namespaces",
            ),
        ),
        (
            "PeerAuthentication",
            rule(
                "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) && \
                 self.selector.matchLabels.size() > 0)",
                "portLevelMtls needs a selector",
            ),
        ),
    ]
}

/// A length of time: one in which nothing can happen is a mistake.
pub(super) fn duration() -> Value {
    json!({
        "x-kubernetes-validations":
            [rule("duration(self) >= duration('1ms')", "a length of time of at least 1ms, such as 1.5s")],
    })
}

fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// Adds to the schema of a message what is known of it.
pub(super) fn refine(name: &str, schema: &mut Value) {
    for (_, fields) in REQUIRED.iter().filter(|(message, _)| *message == name) {
        merge(schema, &json!({"required": fields}));
    }
    for (_, groups) in AT_MOST_ONE.iter().filter(|(message, _)| *message == name) {
        match groups {
            [one] => merge(schema, &json!({"oneOf": one_of(one)})),
            all => {
                let all: Vec<Value> = all.iter().map(|one| json!({"oneOf": one_of(one)})).collect();
                merge(schema, &json!({"allOf": all}));
            }
        }
    }
    for (_, fields) in NULLABLE.iter().filter(|(message, _)| *message == name) {
        for field in *fields {
            merge(property(schema, field), &json!({"nullable": true}));
        }
    }
    for (_, field) in ANY_DURATION.iter().filter(|(message, _)| *message == name) {
        *property(schema, field) = json!({"type": "string"});
    }
    for (_, field, of_field) in values().iter().filter(|(message, ..)| *message == name) {
        merge(property(schema, field), of_field);
    }
    for (_, relation) in relations().into_iter().filter(|(message, _)| *message == name) {
        merge(schema, &json!({"x-kubernetes-validations": [relation]}));
    }
}

fn property<'a>(schema: &'a mut Value, field: &str) -> &'a mut Value {
    let found = schema.get_mut("properties").and_then(|properties| properties.get_mut(field));
    found.unwrap_or_else(|| panic!("the rules name the field {field}, which is not there"))
}

/// None of the fields, or one.
fn one_of(fields: &[&str]) -> Value {
    let each: Vec<Value> = fields.iter().map(|field| json!({"required": [field]})).collect();
    std::iter::once(json!({"not": {"anyOf": &each}})).chain(each.clone()).collect()
}

/// Adds keys to a schema, down to those of objects in it.
pub(super) fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
