//! What a reply of a certificate authority must be before it is used.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

#[path = "support/log.rs"]
mod log;

use std::time::{Duration, SystemTime};

use identity::bundle::{BundleError, CertificateBundle, CertificateFacts, RootBundle, certificate_pem};
use identity::key::PrivateKey;
use identity::verify::{PeerError, TrustDomains, is_signed_by, leads_to, peer_identity};
use model::identity::Identity;
use testkit::certificates::{Leaf, TestAuthority};
use tracing::Level;

use log::Counted;

fn reviews() -> Identity {
    Identity::new("cluster.local", "default", "reviews")
}

/// A reply as the wire carries it: leaf, intermediates, roots.
fn reply(authority: &TestAuthority, key: &PrivateKey, leaf: &Leaf) -> Vec<String> {
    let mut elements: Vec<_> = authority.sign(&key.public(), leaf).iter().map(certificate_pem).collect();
    elements.push(authority.roots().to_pem());
    elements
}

fn accept(key: PrivateKey, elements: &[String]) -> Result<CertificateBundle, BundleError> {
    CertificateBundle::from_reply(reviews(), key, elements, SystemTime::now())
}

#[test]
fn takes_a_good_reply() {
    let root = TestAuthority::default();
    let second = TestAuthority::new("the next root");
    let key = PrivateKey::generate().unwrap();
    let authority = root.intermediate("region").intermediate("cluster");
    let mut elements = reply(&authority, &key, &Leaf::of(&reviews()));
    assert_eq!(elements.len(), 4, "leaf, two intermediates, root");
    // The last element may hold several roots, and some authorities repeat the root in the chain.
    elements.insert(3, root.roots().to_pem());
    *elements.last_mut().unwrap() += &second.roots().to_pem();

    let bundle = accept(key.clone(), &elements).unwrap();
    assert_eq!(bundle.identity(), &reviews());
    assert_eq!(bundle.chain().len(), 3, "no root is sent to peers");
    assert_eq!(bundle.roots().certificates().len(), 2);
    assert_eq!(bundle.key().public(), key.public());
    assert!(bundle.validity().not_after > SystemTime::now());
    let facts = CertificateFacts::read(&bundle.chain()[0]).unwrap();
    assert!(facts.serial.bytes().all(|byte| byte.is_ascii_digit()), "{facts:?}");
}

#[test]
fn refuses_the_rest() {
    let root = TestAuthority::default();
    let stranger = TestAuthority::new("stranger");
    let key = PrivateKey::generate().unwrap();
    let other_key = PrivateKey::generate().unwrap();
    let good = Leaf::of(&reviews());
    let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
    let ratings = Leaf::of(&Identity::new("cluster.local", "default", "ratings"));
    let nameless = Leaf { uris: Vec::new(), dns: vec!["reviews.default.svc".to_owned()], ..good.clone() };
    let expired = Leaf { not_before: ago(100), not_after: ago(1), ..good.clone() };
    let future = Leaf { not_before: SystemTime::now() + Duration::from_secs(60), ..good.clone() };
    let foreign_root = {
        let mut elements = reply(&root, &key, &good);
        *elements.last_mut().unwrap() = stranger.roots().to_pem();
        elements
    };
    let damaged = {
        let mut elements = reply(&root, &key, &good);
        elements[0] =
            elements[0].replace("-----BEGIN CERTIFICATE-----\nMII", "-----BEGIN CERTIFICATE-----\n***");
        elements
    };

    for (about, elements, expected) in [
        ("nothing", vec![], "0 elements"),
        ("no roots", reply(&root, &key, &good)[..1].to_vec(), "1 elements"),
        ("no PEM", vec!["x".to_owned(), root.roots().to_pem()], "the leaf is not a PEM certificate"),
        ("damaged PEM", damaged, "the leaf is not a PEM certificate"),
        (
            "no root in the roots",
            vec![reply(&root, &key, &good)[0].clone(), String::new()],
            "the root bundle",
        ),
        (
            "another identity",
            reply(&root, &key, &ratings),
            "is for spiffe://cluster.local/ns/default/sa/ratings",
        ),
        ("no identity", reply(&root, &key, &nameless), "names no workload"),
        ("another key", reply(&root, &other_key, &good), "another key"),
        ("expired", reply(&root, &key, &expired), "expired already"),
        ("not valid yet", reply(&root, &key, &future), "does not verify"),
        ("roots of a stranger", foreign_root, "does not verify"),
        ("only the root", vec![root.roots().to_pem(), root.roots().to_pem()], "0 elements"),
    ] {
        match accept(key.clone(), &elements) {
            Ok(_) => panic!("{about}: was accepted"),
            Err(error) => assert!(error.to_string().contains(expected), "{about}: {error}"),
        }
    }
}

#[test]
fn reads_the_first_name_that_is_an_identity() {
    let authority = TestAuthority::default();
    let key = PrivateKey::generate().unwrap();
    let good = "spiffe://cluster.local/ns/default/sa/reviews";
    let other = "spiffe://cluster.local/ns/default/sa/other";
    for (uris, expected) in [
        (vec![good], Some(good)),
        (vec![good, other], Some(good)),
        (vec![other, good], Some(other)),
        (vec!["https://example.org/", good], Some(good)),
        (vec!["spiffe://cluster.local/workload/7", good], Some(good)),
        (vec!["spiffe://cluster.local/ns/default/sa/reviews\0.evil", good], Some(good)),
        (vec!["spiffe://cluster.local/ns/default/sa/reviews\0"], None),
        (vec!["spiffe://cluster.local/ns/default/sa/reviews/x"], None),
        (vec!["https://example.org/"], None),
        (vec![], None),
        // Names beyond the sixteenth are not looked at.
        ([vec!["https://example.org/"; 16], vec![good]].concat(), None),
    ] {
        let leaf = Leaf { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..Leaf::of(&reviews()) };
        let chain = authority.sign(&key.public(), &leaf);
        match peer_identity(&chain) {
            Ok(found) => assert_eq!(Some(found.to_string().as_str()), expected, "{uris:?}"),
            Err(PeerError::NoIdentity(_)) => assert_eq!(None, expected, "{uris:?}"),
            Err(other) => panic!("{uris:?}: {other}"),
        }
    }
    assert_eq!(peer_identity(&[]), Err(PeerError::NoCertificate));
    assert!(matches!(peer_identity(&[vec![0x30, 0x03, 1, 2, 3].into()]), Err(PeerError::Malformed(_))));
}

#[test]
fn a_text_has_from_one_to_64_certificates() {
    let one = certificate_pem(&TestAuthority::default().roots().certificates()[0]);
    let other = pem::encode(&pem::Pem::new("X509 CRL", [1, 2, 3]));
    for (text, expected) in [
        (one.clone(), Ok(1)),
        (one.repeat(64), Ok(64)),
        (other.clone() + &one.repeat(2) + &other, Ok(2)),
        (one.repeat(65), Err("the root bundle is not a PEM certificate: more than 64 certificates")),
        (one.repeat(300), Err("the root bundle is not a PEM certificate: more than 64 certificates")),
        (String::new(), Err("the root bundle is not a PEM certificate: no certificate in it")),
        (other, Err("the root bundle is not a PEM certificate: no certificate in it")),
    ] {
        let read = RootBundle::from_pem(&text).map(|roots| roots.certificates().len());
        assert_eq!(read.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }
}

/// Other names prove nothing here, but somebody should know that they are issued.
#[test]
fn names_that_are_no_identity_are_warned_of() {
    let authority = TestAuthority::default();
    let key = PrivateKey::generate().unwrap();
    let good = reviews().to_string();
    for (uris, warnings) in [
        (vec![good.clone()], 0),
        (vec![good.clone(), "spiffe://cluster.local/ns/default/sa/other".to_owned()], 0),
        (vec![good.clone(), "https://example.org/".to_owned()], 1),
        (vec!["https://example.org/".to_owned(), "https://example.com/".to_owned(), good], 1),
    ] {
        let chain = authority.sign(&key.public(), &Leaf { uris: uris.clone(), ..Leaf::of(&reviews()) });
        let counted = Counted::at(Level::WARN);
        assert_eq!(peer_identity(&chain), Ok(reviews()));
        assert_eq!(counted.said(), warnings, "{uris:?}");
    }
}

#[test]
fn a_chain_leads_to_the_roots_that_signed_it_whatever_the_time() {
    let root = TestAuthority::default();
    let (namesake, stranger) = (TestAuthority::default(), TestAuthority::new("stranger"));
    let cluster = root.intermediate("region").intermediate("cluster");
    let public = PrivateKey::generate().unwrap().public();
    let good = Leaf::of(&reviews());
    let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
    let ended = Leaf { not_before: ago(7200), not_after: ago(3600), ..good.clone() };
    let to_come = Leaf {
        not_before: good.not_after,
        not_after: good.not_after + Duration::from_secs(3600),
        ..good.clone()
    };
    let moment = Leaf { not_before: ago(60), not_after: ago(60), ..good.clone() };
    let server_only = Leaf { usages: vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth], ..good.clone() };
    let chain = cluster.sign(&public, &good);
    let both = [root.roots().certificates(), stranger.roots().certificates()].concat();
    for (about, chain, roots, expected) in [
        ("by the root", root.sign(&public, &good), root.roots(), true),
        ("by authorities under it", chain.clone(), root.roots(), true),
        ("one of two roots", chain.clone(), RootBundle::new(both), true),
        ("ended", root.sign(&public, &ended), root.roots(), true),
        ("not begun", root.sign(&public, &to_come), root.roots(), true),
        ("valid for one moment", root.sign(&public, &moment), root.roots(), true),
        ("a link is missing", vec![chain[0].clone(), chain[2].clone()], root.roots(), false),
        ("another root of that name", chain.clone(), namesake.roots(), false),
        ("another root", chain.clone(), stranger.roots(), false),
        ("no root", chain, RootBundle::new([]), false),
        ("not for clients", root.sign(&public, &server_only), root.roots(), false),
        ("no chain", vec![], root.roots(), false),
        ("no certificate", vec![vec![0x30, 0].into()], root.roots(), false),
    ] {
        assert_eq!(leads_to(&chain, roots.certificates()), expected, "{about}");
    }
}

#[test]
fn who_signed_is_known_by_name_and_key() {
    let root = TestAuthority::default();
    let (namesake, stranger) = (TestAuthority::default(), TestAuthority::new("stranger"));
    let cluster = root.intermediate("cluster");
    let chain = cluster.sign(&PrivateKey::generate().unwrap().public(), &Leaf::of(&reviews()));
    let (leaf, own) = (&chain[0], &chain[1]);
    let root_certificate = &root.signing_certificate();
    let nothing = vec![0x30, 0].into();
    for (about, certificate, issuer, expected) in [
        ("the authority", leaf, own, true),
        ("the root of the authority", own, root_certificate, true),
        ("the root of itself", root_certificate, root_certificate, true),
        ("the root, at one remove", leaf, root_certificate, false),
        ("itself", leaf, leaf, false),
        ("the other way round", own, leaf, false),
        ("of that name, not that key", own, &namesake.signing_certificate(), false),
        ("of another name", own, &stranger.signing_certificate(), false),
        ("no certificate", &nothing, own, false),
        ("no issuer", leaf, &nothing, false),
    ] {
        assert_eq!(is_signed_by(certificate, issuer), expected, "{about}");
    }
}

#[test]
fn trust_domains_show_what_they_are() {
    let domains = TrustDomains::new(["old.example"]);
    domains.set(["b.example", "a.example"]);
    assert_eq!(format!("{domains:?}"), r#"TrustDomains({"a.example", "b.example"})"#);
}

#[test]
fn a_damaged_certificate_ends_in_an_error_never_in_a_panic() {
    let authority = TestAuthority::default();
    let key = PrivateKey::generate().unwrap();
    let good = authority.sign(&key.public(), &Leaf::of(&reviews())).swap_remove(0);
    let now = SystemTime::now();
    let mut refused = 0;
    for position in 0..good.len() {
        for value in [0x00, 0x01, 0x30, 0x7f, 0x80, 0x84, 0xff] {
            let mut damaged = good.to_vec();
            if damaged[position] == value {
                continue;
            }
            damaged[position] = value;
            let chain = vec![damaged.into()];
            let _ = peer_identity(&chain);
            let _ = CertificateFacts::read(&chain[0]);
            let outcome = CertificateBundle::new(reviews(), key.clone(), chain, authority.roots(), now);
            assert!(outcome.is_err(), "byte {position} set to {value:#x} was accepted");
            refused += 1;
        }
        let _ = peer_identity(&[good[..position].to_vec().into()]);
    }
    assert!(refused > 2000, "{refused}");
}
