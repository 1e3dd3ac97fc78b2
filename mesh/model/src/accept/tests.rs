//! What is accepted and what is refused of incoming requests.

use std::net::SocketAddr;

use super::{Authority, Misdirected, accept};
use crate::fixtures::{edit, ip, key, ports, service, socket, tunnelled};
use crate::mesh::{Mesh, Update};
use crate::service::Service;

#[test]
fn reads_authorities() {
    let address = |text: &str| Authority::Address(socket(text));
    let host = |host: &str, port| Authority::Host { host: host.into(), port };
    let longest = "x".repeat(253);
    let table = [
        ("10.1.2.3:80".to_owned(), address("10.1.2.3:80")),
        ("[fd00::1]:80".into(), address("[fd00::1]:80")),
        ("[::ffff:10.1.2.3]:65535".into(), address("[::ffff:10.1.2.3]:65535")),
        ("reviews.default.svc:9080".into(), host("reviews.default.svc", 9080)),
        ("Reviews.Default.svc:1".into(), host("reviews.default.svc", 1)),
        ("*.example.com:443".into(), host("*.example.com", 443)),
        // Not an address, so a name that nobody has.
        ("1.2.3:80".into(), host("1.2.3", 80)),
        (format!("{longest}:80"), host(&longest, 80)),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
}

#[test]
fn refuses_what_is_no_authority() {
    let long = format!("{}:80", "x".repeat(254));
    let endless = "x".repeat(100_000);
    for text in [
        "",
        ":",
        "host",
        "host:",
        ":80",
        "host:0",
        "host:65536",
        "host:+80",
        "host:8 0",
        "a b:80",
        "10.1.2.3",
        "10.1.2.3:",
        "10.1.2.3:0",
        "10.1.2.3:65536",
        "10.1.2.3:+80",
        " 10.1.2.3:80",
        "[::1]",
        "[::1]:0",
        "[fe80::1%1]:80",
        "[fe80::1%eth0]:80",
        "::1:80",
        "host:80:90",
        "h/x:80",
        "user@host:80",
        "h\u{e4}:80",
        "host\0:80",
        &long,
        &endless,
    ] {
        let refused = text.parse::<Authority>().expect_err(text);
        assert!(refused.0.len() <= 300 && text.starts_with(&refused.0));
    }
}

/// A pod at 10.0.0.1 and fd00::1 that serves `ns/web`, beside services that it does not.
fn mesh() -> Mesh {
    let pod = edit(tunnelled("pod", &["10.0.0.1", "fd00::1"], &[]), |profile| {
        let of_web = ports(&[(80, 8080), (81, 15006)]);
        profile.services = [(key("ns/web.ns"), of_web), (key("ns/plain.ns"), ports(&[]))].into();
    });
    let mut mesh = Mesh::new("".into(), None);
    for update in [
        Update::Workload(pod),
        Update::Service(Service {
            ports: ports(&[(80, 0), (443, 8443)]),
            ..service("ns/web.ns", &["10.96.0.1"])
        }),
        Update::Service(Service { ports: ports(&[(80, 0)]), ..service("ns/plain.ns", &["10.96.0.2"]) }),
        // The same name elsewhere; a client of another namespace may mean that, but it came here.
        Update::Service(Service { canonical: true, ports: ports(&[(80, 1)]), ..service("a/web.ns", &[]) }),
    ] {
        mesh.apply(update);
    }
    mesh
}

#[test]
fn each_request_is_delivered_or_refused() {
    let mesh = mesh();
    let pod = mesh.workload("pod").unwrap();
    let table: [(&str, &str, Result<&str, u16>); 18] = [
        // The pod's own address, as the tunnel reached it.
        ("10.0.0.1", "10.0.0.1:8080", Ok("10.0.0.1:8080")),
        ("10.0.0.1", "10.0.0.1:1", Ok("10.0.0.1:1")),
        ("::ffff:10.0.0.1", "10.0.0.1:80", Ok("10.0.0.1:80")),
        ("10.0.0.1", "[::ffff:10.0.0.1]:80", Ok("10.0.0.1:80")),
        ("fd00::1", "[fd00::1]:80", Ok("[fd00::1]:80")),
        // Another's: a pod that is gone, the pod's address of the other family, an address inside the pod, a VIP.
        ("10.0.0.1", "10.0.0.2:80", Err(400)),
        ("10.0.0.1", "[fd00::1]:80", Err(400)),
        ("10.0.0.1", "127.0.0.1:80", Err(400)),
        ("10.0.0.1", "10.96.0.1:80", Err(400)),
        // A name: the port is the endpoint's, else the service's, the address always the pod's.
        ("10.0.0.1", "web.ns:80", Ok("10.0.0.1:8080")),
        ("fd00::1", "web.ns:80", Ok("[fd00::1]:8080")),
        ("10.0.0.1", "web.ns:443", Ok("10.0.0.1:8443")),
        ("10.0.0.1", "web.ns:444", Err(503)),
        ("10.0.0.1", "other.ns:80", Err(503)),
        ("10.0.0.1", "plain.ns:80", Err(503)),
        // The proxy's own ports, also where a service leads to one.
        ("10.0.0.1", "10.0.0.1:15008", Err(503)),
        ("fd00::1", "[fd00::1]:15001", Err(503)),
        ("10.0.0.1", "web.ns:81", Err(503)),
    ];
    for (own, asked, expected) in table {
        let authority: Authority = asked.parse().unwrap();
        let accepted = accept(&mesh, pod, ip(own), &authority);
        let accepted = accepted.map(|to| to.addr()).map_err(|refused| refused.status());
        let expected: Result<SocketAddr, u16> = expected.map(socket);
        assert_eq!(accepted, expected, "{asked} at {own}");
    }
}

#[test]
fn a_refusal_says_what_was_wrong() {
    let other = Misdirected::OtherAddress { asked: ip("10.0.0.2"), own: ip("10.0.0.1") };
    assert_eq!(other.to_string(), "asked for 10.0.0.2, but this pod is 10.0.0.1");
    let unknown = Misdirected::UnknownService { host: "web".into(), port: 80 };
    assert_eq!(unknown.to_string(), "no service web with port 80 is known here");
    assert_eq!(Misdirected::OwnPort(15008).to_string(), "port 15008 is the proxy's own");
    let invalid = "x:0".parse::<Authority>().unwrap_err();
    assert_eq!(
        invalid.to_string(),
        "\"x:0\" is not an authority: expected IP:PORT, [IPV6]:PORT or HOST:PORT"
    );
}
