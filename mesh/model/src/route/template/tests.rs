//! Values with commands: what they come to, and those that are refused.

use http::{HeaderMap, HeaderName, StatusCode};

use super::{InvalidTemplate, MAX_TEMPLATE, Message, Template, is_command};
use crate::route::fixtures::{Sent, get};

fn value(template: &str, sent: &Sent) -> Option<String> {
    let request = sent.request();
    let message = Message { request: &request, response: None, removed: &[] };
    let value =
        Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error}")).value(&message);
    value.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
}

#[test]
fn commands_are_filled_in() {
    let sent = get("/a?b=1").header("x-user", "anna").header("x-user", "berta");
    let table = [
        ("plain", Some("plain")),
        ("", None),
        ("100%%", Some("100%")),
        ("%%REQ(x-user)%%", Some("%REQ(x-user)%")),
        ("%REQ(x-user)%", Some("anna")),
        ("%REQ(X-User)%!", Some("anna!")),
        ("<%REQ(x-user)%>", Some("<anna>")),
        ("%REQ(x-none)%", None),
        ("%REQ(x-none?x-user)%", Some("anna")),
        ("%REQ(x-none?:path)%", Some("/a?b=1")),
        ("%REQ(x-user):2%", Some("an")),
        ("%REQ(x-user):99%", Some("anna")),
        ("%REQ(:METHOD)% %REQ(:SCHEME)% %REQ(:AUTHORITY)%", Some("GET http reviews:9080")),
        ("%REQ(host)%", Some("reviews:9080")),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", Some("10.244.1.7:40000")),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", Some("10.244.1.7")),
        ("%DOWNSTREAM_REMOTE_PORT%", Some("40000")),
        ("%DOWNSTREAM_LOCAL_ADDRESS%", Some("10.96.0.1:9080")),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", Some("10.96.0.1")),
        ("%DOWNSTREAM_LOCAL_PORT%", Some("9080")),
        ("%DOWNSTREAM_PEER_URI_SAN%", Some("spiffe://cluster.local/ns/shop/sa/productpage")),
        // There is no response yet.
        ("%RESPONSE_CODE%", None),
        ("%RESP(server)%", None),
    ];
    for (template, expected) in table {
        assert_eq!(value(template, &sent).as_deref(), expected, "{template}");
    }
    assert_eq!(value("%DOWNSTREAM_PEER_URI_SAN%", &get("/").anonymous()), None);
}

#[test]
fn responses_have_more_to_say() {
    let sent = get("/").header("x-user", "anna").header("server", "client's");
    let request = sent.request();
    let mut headers = HeaderMap::new();
    headers.insert("server", "nginx".parse().unwrap());
    let removed = HeaderName::from_static("server");
    let text = |template: &str, removed: &[&HeaderName]| {
        let message =
            Message { request: &request, response: Some((StatusCode::NOT_FOUND, &headers)), removed };
        let value = Template::parse(template).unwrap().value(&message);
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    assert_eq!(text("%RESPONSE_CODE% %RESP(Server)% %REQ(x-user)%", &[]), "404 nginx anna");
    assert_eq!(text("%RESP(:path)%", &[]), "");
    // What was removed is gone from the response, and not from the request.
    assert_eq!(text("%RESP(server)%", &[&removed]), "");
    assert_eq!(text("%REQ(server)%", &[&removed]), "client's");
}

#[test]
fn refuses_what_it_cannot_fill_in() {
    let command = |name: &str| InvalidTemplate::Command(name.to_owned());
    let table = [
        ("100%", InvalidTemplate::Open),
        ("%REQ(x)", InvalidTemplate::Open),
        ("%%%", InvalidTemplate::Open),
        ("%PROTOCOL%", command("PROTOCOL")),
        ("%START_TIME(%s)%", command("START_TIME(")),
        ("%REQ%", command("REQ")),
        ("%REQ()%", command("REQ()")),
        ("%REQ(a b)%", command("REQ(a b)")),
        ("%REQ(a?)%", command("REQ(a?)")),
        ("%REQ(a):%", command("REQ(a):")),
        ("%REQ(a):x%", command("REQ(a):x")),
        ("%REQ(a)b%", command("REQ(a)b")),
        ("%req(a)%", command("req(a)")),
        ("% %", command(" ")),
        ("a\r\nx: y", InvalidTemplate::Characters),
        ("a\0", InvalidTemplate::Characters),
    ];
    for (template, expected) in table {
        assert_eq!(Template::parse(template), Err(expected), "{template:?}");
    }
    let longest = "a".repeat(MAX_TEMPLATE);
    assert_eq!(&**Template::parse(&longest).unwrap().source(), longest);
    assert_eq!(Template::parse(&format!("{longest}a")), Err(InvalidTemplate::TooLong(MAX_TEMPLATE + 1)));
    // The text of the error says what to write.
    assert!(Template::parse("50%").unwrap_err().to_string().contains("%%"));
}

/// Of a command that is known it is said how to write it, of others that there is none.
#[test]
fn commands_are_known_by_their_names() {
    for name in ["REQ", "RESP", "RESPONSE_CODE", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_PEER_URI_SAN"] {
        assert!(is_command(name), "{name}");
    }
    for name in ["", "req", "REQ(x)", "PROTOCOL", "START_TIME"] {
        assert!(!is_command(name), "{name}");
    }
}

#[test]
fn what_is_filled_in_cannot_break_out() {
    // A header's value has no line ends, so neither has what is made of it.
    let sent = get("/a").header("x", "\u{ff}\t ");
    assert_eq!(value("%REQ(x)%", &sent).as_deref(), Some("\u{ff}\t "));
}
