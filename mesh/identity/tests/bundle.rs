//! What a reply of a certificate authority must be before it is used.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::time::{Duration, SystemTime};

use identity::bundle::{BundleError, CertificateBundle, CertificateFacts, certificate_pem};
use identity::key::PrivateKey;
use identity::verify::{PeerError, peer_identity};
use model::identity::Identity;
use testkit::certificates::{Leaf, TestAuthority};

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
