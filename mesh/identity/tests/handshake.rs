//! Handshakes in memory: who accepts whom, and what is negotiated.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::bundle::CertificateBundle;
use identity::key::PrivateKey;
use identity::revocation::{self, ListError, RevocationList, RevokedSet, Side};
use identity::tls::{Credentials, KeyExchange, Tls, TlsSettings, no_server_name};
use identity::verify::{TrustDomains, explain, peer_identity};
use model::identity::Identity;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::{CipherSuite, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};
use testkit::certificates::{Leaf, TestAuthority};

fn workload(trust_domain: &str, account: &str) -> Identity {
    Identity::new(trust_domain, "default", account)
}

fn tls(key_exchange: KeyExchange) -> Tls {
    Tls::new(TlsSettings {
        key_exchange,
        trust_domains: TrustDomains::new(["cluster.local"]),
        ..TlsSettings::default()
    })
}

fn credentials(tls: &Tls, bundle: Arc<CertificateBundle>) -> Credentials {
    let trust = tls.trust(bundle.roots().clone()).unwrap();
    tls.credentials(bundle, &trust).unwrap()
}

/// Runs a handshake to its end; the refusing side's error, and which side it was.
fn shake(
    client: &Credentials,
    server: &Credentials,
    expected: &[Identity],
) -> Result<(ClientConnection, ServerConnection), String> {
    let config = client.client_config(expected.to_vec());
    let mut near = ClientConnection::new(config, no_server_name()).unwrap();
    let mut far = ServerConnection::new(server.server_config()).unwrap();
    // Round after round until both sides are quiet: tickets or alerts may follow the last flight.
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while near.wants_write() {
            near.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            far.read_tls(&mut input).unwrap();
            far.process_new_packets().map_err(|error| format!("server: {}", explain(&error)))?;
        }
        let mut bytes = Vec::new();
        while far.wants_write() {
            far.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            near.read_tls(&mut input).unwrap();
            near.process_new_packets().map_err(|error| format!("client: {}", explain(&error)))?;
        }
    }
    assert!(!near.is_handshaking() && !far.is_handshaking());
    Ok((near, far))
}

#[test]
fn two_identities_meet() {
    let authority = TestAuthority::default().intermediate("cluster");
    let tls = tls(KeyExchange::X25519);
    let (sleep, reviews) = (workload("cluster.local", "sleep"), workload("cluster.local", "reviews"));
    let client = credentials(&tls, authority.bundle(&sleep));
    let server = credentials(&tls, authority.bundle(&reviews));
    let (near, far) = shake(&client, &server, std::slice::from_ref(&reviews)).unwrap();

    assert_eq!(peer_identity(far.peer_certificates().unwrap()), Ok(sleep));
    assert_eq!(peer_identity(near.peer_certificates().unwrap()), Ok(reviews));
    assert_eq!(near.peer_certificates().unwrap().len(), 2, "leaf and intermediate, no root");
    assert_eq!(near.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(near.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_256_GCM_SHA384);
    assert_eq!(near.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(far.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(far.server_name(), None, "no SNI is sent");
    assert_eq!(near.tls13_tickets_received(), 0);
}

#[test]
fn nothing_is_resumed() {
    let authority = TestAuthority::default();
    let tls = tls(KeyExchange::X25519);
    let name = workload("cluster.local", "reviews");
    let both = credentials(&tls, authority.bundle(&name));
    for _ in 0..3 {
        let (near, far) = shake(&both, &both, std::slice::from_ref(&name)).unwrap();
        assert_eq!(near.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(far.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn who_is_refused() {
    let authority = TestAuthority::default();
    let tls = tls(KeyExchange::X25519);
    let reviews = workload("cluster.local", "reviews");
    let ratings = workload("cluster.local", "ratings");
    let foreign = workload("elsewhere.org", "sleep");
    let good = credentials(&tls, authority.bundle(&reviews));

    let of_leaf = |leaf: &Leaf, identity: &Identity| {
        let key = PrivateKey::generate().unwrap();
        let chain = authority.sign(&key.public(), leaf);
        // Made "in the past", when it was still valid.
        let made = leaf.not_before + Duration::from_secs(1);
        let bundle = CertificateBundle::new(identity.clone(), key, chain, authority.roots(), made).unwrap();
        credentials(&tls, Arc::new(bundle))
    };
    let two_names = Leaf { uris: vec![foreign.to_string(), reviews.to_string()], ..Leaf::of(&reviews) };
    let expired = Leaf {
        not_before: SystemTime::now() - Duration::from_secs(7200),
        not_after: SystemTime::now() - Duration::from_secs(3600),
        ..Leaf::of(&reviews)
    };
    let client_only = Leaf { usages: vec![ClientAuth], ..Leaf::of(&reviews) };
    let server_only = Leaf { usages: vec![ServerAuth, ClientAuth], ..Leaf::of(&reviews) };
    let stranger = credentials(&tls, TestAuthority::new("stranger").bundle(&reviews));

    let row = |about, client, server, expected: &[&Identity], outcome| {
        (about, client, server, expected.iter().map(|name| (*name).clone()).collect::<Vec<_>>(), outcome)
    };
    let foreign_client = credentials(&tls, authority.bundle(&foreign));
    let two_named = of_leaf(&two_names, &foreign);
    let (expired, client_only) = (of_leaf(&expired, &reviews), of_leaf(&client_only, &reviews));
    let server_only = of_leaf(&server_only, &reviews);
    for (about, client, server, expected, outcome) in [
        row("expected", &good, &good, &[&reviews], None),
        row("one of several expected", &good, &good, &[&ratings, &reviews], None),
        row("both usages", &server_only, &server_only, &[&reviews], None),
        row("another workload answers", &good, &good, &[&ratings], Some("client: ")),
        row("nobody is expected", &good, &good, &[], Some("client: ")),
        row("a foreign trust domain", &foreign_client, &good, &[&reviews], Some("server: ")),
        // Some SAN is of our trust domain, but policies would see the first.
        row("a foreign trust domain first", &two_named, &good, &[&reviews], Some("server: ")),
        row("an expired client", &expired, &good, &[&reviews], Some("server: ")),
        row("an expired server", &good, &expired, &[&reviews], Some("client: ")),
        row("a server without the usage", &good, &client_only, &[&reviews], Some("client: ")),
        row("a server of another root", &good, &stranger, &[&reviews], Some("client: ")),
        row("a client of another root", &stranger, &good, &[&reviews], Some("client: ")),
    ] {
        match (shake(client, server, &expected), outcome) {
            (Ok(_), None) => {}
            (Err(error), Some(side)) => assert!(error.starts_with(side), "{about}: {error}"),
            (Ok(_), Some(_)) => panic!("{about}: was accepted"),
            (Err(error), None) => panic!("{about}: {error}"),
        }
    }
}

#[test]
fn a_client_needs_its_usage_and_a_certificate() {
    let authority = TestAuthority::default();
    let tls = tls(KeyExchange::X25519);
    let reviews = workload("cluster.local", "reviews");
    let server = credentials(&tls, authority.bundle(&reviews));

    // A bundle refuses to hold a server-only certificate, so this client is made with rustls alone.
    let key = PrivateKey::generate().unwrap();
    let chain = authority.sign(&key.public(), &Leaf { usages: vec![ServerAuth], ..Leaf::of(&reviews) });
    let server_only = rustls_client(&tls, &authority, Some((chain, key)));
    let nobody = rustls_client(&tls, &authority, None);
    for (about, config) in [("server-only", server_only), ("no certificate", nobody)] {
        let mut near = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let mut far = ServerConnection::new(server.server_config()).unwrap();
        let mut refused = None;
        for _ in 0..4 {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            near.write_tls(&mut up).unwrap();
            let _ = far.read_tls(&mut up.as_slice());
            if let Err(error) = far.process_new_packets() {
                refused = Some(error);
                break;
            }
            while far.wants_write() {
                far.write_tls(&mut down).unwrap();
            }
            let mut input = down.as_slice();
            while !input.is_empty() {
                near.read_tls(&mut input).unwrap();
                near.process_new_packets().unwrap();
            }
        }
        assert!(refused.is_some(), "{about}: was accepted");
    }
}

/// A client that believes any server and presents `own`.
fn rustls_client(
    tls: &Tls,
    authority: &TestAuthority,
    own: Option<(Vec<rustls_pki_types::CertificateDer<'static>>, PrivateKey)>,
) -> Arc<rustls::ClientConfig> {
    let any = credentials(tls, authority.bundle(&workload("cluster.local", "reviews")));
    let mut config = (*any.client_config([workload("cluster.local", "reviews")])).clone();
    config.client_auth_cert_resolver = match own {
        Some((chain, key)) => {
            let der = rustls_pki_types::PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
            Arc::new(rustls::sign::SingleCertAndKey::from(tls.certified_key(chain, der.into()).unwrap()))
        }
        None => Arc::new(NoCertificate),
    };
    Arc::new(config)
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn trust_domains_change_while_serving() {
    let authority = TestAuthority::default();
    let tls = tls(KeyExchange::X25519);
    let reviews = workload("cluster.local", "reviews");
    let client = credentials(&tls, authority.bundle(&workload("old.example", "sleep")));
    let server = credentials(&tls, authority.bundle(&reviews));
    let expected = [reviews];
    assert!(shake(&client, &server, &expected).is_err());
    tls.trust_domains().set(["cluster.local", "old.example"]);
    assert!(shake(&client, &server, &expected).is_ok());
    tls.trust_domains().set(["cluster.local"]);
    assert!(shake(&client, &server, &expected).is_err());
}

/// Istio's controller says nothing of trust domains; ztunnel then accepts that of its own certificate.
#[test]
fn the_own_trust_domain_needs_no_naming() {
    let authority = TestAuthority::default();
    let tls = Tls::new(TlsSettings::default());
    let reviews = workload("cluster.local", "reviews");
    let server = credentials(&tls, authority.bundle(&reviews));
    let expected = [reviews];
    for (domain, accepted) in [("cluster.local", true), ("old.example", false)] {
        let client = credentials(&tls, authority.bundle(&workload(domain, "sleep")));
        assert_eq!(shake(&client, &server, &expected).is_ok(), accepted, "{domain}");
    }
}

#[test]
fn a_refusal_says_why() {
    let authority = TestAuthority::default();
    let tls = tls(KeyExchange::X25519);
    let reviews = workload("cluster.local", "reviews");
    let good = credentials(&tls, authority.bundle(&reviews));
    let foreign = credentials(&tls, authority.bundle(&workload("elsewhere.org", "sleep")));
    let stranger = credentials(&tls, TestAuthority::new("stranger").bundle(&reviews));
    // A root that was made anew: the same name, another key.
    let namesake = credentials(&tls, TestAuthority::default().bundle(&reviews));
    let foreign_root = "client: the peer's certificate is signed by no root of this mesh; has one side missed a \
                        change of roots?";
    for (client, server, expected, text) in [
        (
            &good,
            &good,
            vec![workload("cluster.local", "ratings")],
            "client: the peer proved to be spiffe://cluster.local/ns/default/sa/reviews, expected was \
             spiffe://cluster.local/ns/default/sa/ratings; has the address moved to another pod?",
        ),
        (
            &foreign,
            &good,
            vec![reviews.clone()],
            "server: the peer spiffe://elsewhere.org/ns/default/sa/sleep is of a foreign trust domain; accepted \
             here: cluster.local",
        ),
        (&good, &stranger, vec![reviews.clone()], foreign_root),
        (&good, &namesake, vec![reviews], foreign_root),
    ] {
        assert_eq!(shake(client, server, &expected).unwrap_err(), text);
    }
}

#[test]
fn groups_are_negotiated() {
    use KeyExchange::{Hybrid, HybridOnly, X25519};
    let authority = TestAuthority::default();
    let name = workload("cluster.local", "reviews");
    for (client, server, expected) in [
        (X25519, X25519, NamedGroup::X25519),
        (X25519, Hybrid, NamedGroup::X25519),
        (Hybrid, X25519, NamedGroup::X25519MLKEM768),
        (Hybrid, Hybrid, NamedGroup::X25519MLKEM768),
        // Costs a round trip (HelloRetryRequest), works all the same.
        (X25519, HybridOnly, NamedGroup::X25519MLKEM768),
        (HybridOnly, X25519, NamedGroup::X25519MLKEM768),
    ] {
        let near = credentials(&tls(client), authority.bundle(&name));
        let far = credentials(&tls(server), authority.bundle(&name));
        let (near, _) = shake(&near, &far, std::slice::from_ref(&name)).unwrap();
        let group = near.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, expected, "{client:?} to {server:?}");
    }
}

#[test]
fn secrets_come_out_only_if_asked_for() {
    let authority = TestAuthority::default();
    let name = workload("cluster.local", "reviews");
    for secret_extraction in [false, true] {
        let tls = Tls::new(TlsSettings {
            secret_extraction,
            trust_domains: TrustDomains::new(["cluster.local"]),
            ..TlsSettings::default()
        });
        let both = credentials(&tls, authority.bundle(&name));
        let (near, far) = shake(&both, &both, std::slice::from_ref(&name)).unwrap();
        assert_eq!(near.dangerous_extract_secrets().is_ok(), secret_extraction);
        assert_eq!(far.dangerous_extract_secrets().is_ok(), secret_extraction);
    }
}

/// The serial numbers of a chain, leaf first.
fn serials(credentials: &Credentials) -> Vec<revocation::Serial> {
    credentials
        .bundle()
        .chain()
        .iter()
        .map(|certificate| revocation::serial_of(certificate).unwrap())
        .collect()
}

#[test]
fn who_is_revoked_is_refused_by_both_sides_and_told_so() {
    let root = TestAuthority::default();
    let authority = root.intermediate("cluster");
    let tls = tls(KeyExchange::X25519);
    let (sleep, reviews) = (workload("cluster.local", "sleep"), workload("cluster.local", "reviews"));
    let client = credentials(&tls, authority.bundle(&sleep));
    let server = credentials(&tls, authority.bundle(&reviews));
    let expected = std::slice::from_ref(&reviews);
    let now = SystemTime::now();
    let list = |signer: &TestAuthority, serial: &[u8]| {
        RevocationList::from_der(&signer.revoke([serial], now)).unwrap()
    };
    // Another authority of the same name: its numbers are not ours.
    let namesake = root.intermediate("cluster");
    let (own, other) = (serials(&client), serials(&server));
    for (about, lists, refused) in [
        ("no list", vec![], None),
        ("somebody else", vec![list(&authority, b"\x12\x34")], None),
        ("the list of a namesake", vec![list(&namesake, &own[0])], None),
        ("the leaf's number under the root's name", vec![list(&root, &own[0])], None),
        ("the client", vec![list(&authority, &own[0])], Some("server")),
        ("the server", vec![list(&authority, &other[0])], Some("client")),
        ("the second list", vec![list(&root, b"\x01"), list(&authority, &own[0])], Some("server")),
        ("the intermediate of both", vec![list(&root, &own[1])], Some("client")),
    ] {
        tls.revocations().set(RevokedSet { lists, ..RevokedSet::default() });
        match (shake(&client, &server, expected).err(), refused) {
            (None, None) => {}
            (Some(error), Some(side)) => assert_eq!(
                error,
                format!("{side}: the peer's certificate is revoked; the log names it"),
                "{about}"
            ),
            (outcome, _) => panic!("{about}: {outcome:?}"),
        }
    }
    let counted = [Side::Client, Side::Server].map(|side| tls.revocations().refused(side));
    assert_eq!(counted, [2, 2]);
    // A whole identity, whatever its certificates.
    for (identity, side) in [(&sleep, "server"), (&reviews, "client")] {
        let identities = [identity.clone()].into();
        tls.revocations().set(RevokedSet { identities, ..RevokedSet::default() });
        let error = shake(&client, &server, expected).unwrap_err();
        assert!(error.starts_with(side) && error.contains("is revoked"), "{identity}: {error}");
    }
    tls.revocations().set(RevokedSet::default());
    shake(&client, &server, expected).unwrap();
}

#[test]
fn lists_are_read_as_they_are_meant() {
    let authority = TestAuthority::default();
    let now = SystemTime::now();
    let der = authority.revoke([&[0, 0, 7][..], &[9]], now);
    let list = RevocationList::from_der(&der).unwrap();
    assert_eq!((list.len(), list.is_empty()), (2, false));
    let signer = authority.signing_certificate();
    assert!(list.is_signed_by(std::slice::from_ref(&signer)));
    assert!(
        !list.is_signed_by(&[TestAuthority::default().signing_certificate()]),
        "of that name, not that key"
    );
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(!RevocationList::from_der(&forged).unwrap().is_signed_by(&[signer]));
    let trailing = [der.clone(), vec![0]].concat();
    for bytes in [&b""[..], b"x", &der[..der.len() - 1], &trailing] {
        assert!(matches!(RevocationList::from_der(bytes), Err(ListError::Malformed(_))));
    }
    assert_eq!(RevocationList::from_pem("nothing").unwrap_err(), ListError::NotPem);
    let pem = pem::encode(&pem::Pem::new("X509 CRL", der.clone()));
    assert_eq!(RevocationList::from_pem(&(pem.clone() + &pem)).unwrap().len(), 2);
}
