//! The files say what Envoy needs to know.

use super::*;

fn credentials(peers: &[&str]) -> Credentials {
    Credentials {
        chain: "CHAIN".to_owned(),
        key: "KEY".to_owned(),
        roots: "ROOTS".to_owned(),
        peers: peers.iter().map(|&uri| uri.to_owned()).collect(),
    }
}

fn parsed(end: &End, credentials: &Credentials) -> Value {
    serde_json::from_str(&bootstrap(end, credentials, None)).unwrap()
}

#[test]
fn an_hbone_client_asks_for_the_authority_over_h2_with_its_certificate() {
    let end = End::HboneClient {
        listen: "127.0.0.1:15001".parse().unwrap(),
        peer: "[fd00::2]:15008".parse().unwrap(),
        authority: "10.0.0.2:8080".to_owned(),
    };
    let file = parsed(&end, &credentials(&["spiffe://td/ns/a/sa/b"]));
    let proxy = &file["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(proxy["tunneling_config"]["hostname"], "10.0.0.2:8080");
    let cluster = &file["static_resources"]["clusters"][0];
    let tls = &cluster["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(tls["alpn_protocols"], json!(["h2"]));
    assert_eq!(
        tls["validation_context"]["match_typed_subject_alt_names"][0]["matcher"]["exact"],
        "spiffe://td/ns/a/sa/b"
    );
    let at = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
    assert_eq!((&at["address"], &at["port_value"]), (&json!("fd00::2"), &json!(15008)));
}

#[test]
fn a_server_demands_a_client_certificate_and_accepts_any_name_when_none_is_listed() {
    for end in [
        End::HboneServer { listen: "0.0.0.0:15008".parse().unwrap(), refuse: Vec::new() },
        End::TlsServer { listen: "0.0.0.0:15009".parse().unwrap(), app: "127.0.0.1:80".parse().unwrap() },
    ] {
        let file = parsed(&end, &credentials(&[]));
        let tls =
            &file["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"];
        assert_eq!(tls["require_client_certificate"], true);
        let validation = &tls["common_tls_context"]["validation_context"];
        assert_eq!(validation["trusted_ca"]["inline_string"], "ROOTS");
        assert!(validation.get("match_typed_subject_alt_names").is_none());
    }
}

#[test]
fn several_ends_have_clusters_of_their_own_and_send_pings() {
    let peer = "10.0.0.2:15008".parse().unwrap();
    let ends = [
        End::HboneClient {
            listen: "127.0.0.1:1".parse().unwrap(),
            peer,
            authority: "10.0.0.2:80".to_owned(),
        },
        End::ConnectProxy { listen: "127.0.0.1:2".parse().unwrap(), peer },
        End::HboneServer { listen: "[::]:15008".parse().unwrap(), refuse: vec!["10.0.0.2:99".to_owned()] },
    ];
    let file: Value =
        serde_json::from_str(&bootstrap_many(&ends, &credentials(&[]), Duration::from_secs(1))).unwrap();
    let resources = &file["static_resources"];
    for number in 0..3 {
        assert_eq!(resources["listeners"][number]["name"], json!(format!("in-{number}")));
        assert_eq!(resources["clusters"][number]["name"], json!(format!("next-{number}")));
    }
    let proxied =
        |number: usize| &resources["listeners"][number]["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(proxied(0)["cluster"], "next-0");
    assert_eq!(proxied(1)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"], "next-1");
    assert_eq!(proxied(2)["http2_protocol_options"]["connection_keepalive"]["interval"], "1s");
    let refused = &proxied(2)["route_config"]["virtual_hosts"][1];
    assert_eq!(refused["domains"], json!(["10.0.0.2:99"]));
    assert_eq!(refused["routes"][0]["direct_response"]["status"], 403);
    assert_eq!(resources["listeners"][2]["address"]["socket_address"]["ipv4_compat"], true);
}
