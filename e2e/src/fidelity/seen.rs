//! What can be seen of a request from both of its ends, in a form that two proxies can be compared by.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::raw::{Message, bytes};

/// Fields of an answer that are each proxy's own, or about its connection to the client (Envoy ends it where a request's body was
/// not read).
const OWN_OF_ANSWER: [&str; 5] =
    ["date", "server", "x-envoy-upstream-service-time", "connection", "transfer-encoding"];

/// Fields of the request that the origin gets that a waypoint has of the tunnel, or makes up.
const OWN_OF_REQUEST: [&str; 3] = ["x-request-id", "x-forwarded-for", "x-forwarded-client-cert"];

/// How long the origin may take: it is there in both or in neither; what is left when the request goes, the machine's.
const TIME: &str = "x-envoy-expected-rq-timeout-ms";

/// An answer as it can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// All of it that is to be the same.
    pub same: Value,
    /// Its code; 0 where there was none.
    pub status: u16,
    /// What the origin was told of the client: address and certificate.
    pub client: Option<[String; 2]>,
}

/// What was answered to `sent`, and, where the origin answered, what it was asked.
pub fn seen(sent: &str, answer: &Value) -> Seen {
    if answer.get("error").is_some() {
        return Seen { same: answer.clone(), status: 0, client: None };
    }
    let answer: Message = serde_json::from_value(answer.clone()).unwrap_or_default();
    let status = answer.status();
    let origin: Option<Value> = serde_json::from_slice(&bytes(&answer.body)).ok();
    let mut headers = sorted(&answer.headers, &OWN_OF_ANSWER);
    if sent.starts_with("HEAD ") {
        // Of what would have been the body, in which both proxies' own fields are.
        headers.remove("content-length");
    }
    let Some(origin) = origin.filter(|origin| origin.get("version").is_some()) else {
        return Seen {
            same: json!({ "status": status, "headers": headers, "body": answer.body }),
            status,
            client: None,
        };
    };
    headers.remove("content-length");
    let request: Message = serde_json::from_value(origin["request"].clone()).unwrap_or_default();
    let mut told = sorted(&request.headers, &OWN_OF_REQUEST);
    if told.get("content-length").is_some_and(|length| length == "0") {
        // Envoy says so of methods that might have a body.
        told.remove("content-length");
    }
    if let Some(time) = told.get_mut(TIME) {
        *time = String::from("some");
    }
    let value = |name| request.values(name).collect::<Vec<_>>().join(",");
    Seen {
        same: json!({
            "status": status, "headers": headers, "version": origin["version"], "tries": origin["tries"],
            "start": request.start, "body": request.body, "told": told,
        }),
        status,
        client: Some([value("x-forwarded-for"), value("x-forwarded-client-cert")]),
    }
}

/// By name; those of one name as one, which they mean (RFC 9110, section 5.3).
fn sorted(headers: &[(String, String)], but: &[&str]) -> BTreeMap<String, String> {
    let mut sorted: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if but.contains(&name.as_str()) {
            continue;
        }
        sorted
            .entry(name)
            .and_modify(|before| {
                before.push(',');
                before.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    sorted
}
