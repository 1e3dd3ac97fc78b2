//! What is issued, for how long, and for which requests.

use std::process::Command;

use identity::bundle::{CertificateBundle, CertificateFacts};
use identity::csr::certificate_request;
use identity::key::PrivateKey;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::super::root::Material;
use super::*;

/// What is sent, by an authority alone.
fn issue(
    authority: &Authority,
    identity: &Identity,
    csr: &str,
    lifetime: Option<Duration>,
    now: SystemTime,
) -> Result<Issued, IssueError> {
    let issued = authority.issue(identity, csr, lifetime, Lifetimes::default(), authority.roots(), now);
    issued.map(|(issued, _)| issued)
}

const DAY: u64 = 24 * 3600;

fn reviews() -> Identity {
    Identity::new("cluster.local", "default", "reviews")
}

fn authority() -> (tempfile::TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let year = Duration::from_secs(10 * 365 * DAY);
    let material = Material::make(folder.path(), "cluster.local", year, now).unwrap();
    let authority = Authority::of(&material, "cluster.local", now).unwrap();
    (folder, authority)
}

#[test]
fn lifetimes_by_table() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 * DAY);
    let at = |offset: i64| {
        let distance = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { now - distance } else { now + distance }
    };
    let year = 365 * DAY as i64;
    let day = DAY as i64;
    // Wanted lifetime, the authority's span, and what comes out; seconds relative to now.
    for (about, wanted, authority, expected) in [
        ("not said", None, (-year, year), Ok((-120, day))),
        ("zero", Some(0), (-year, year), Ok((-120, day))),
        ("an hour", Some(3600), (-year, year), Ok((-120, 3600))),
        ("ten minutes: backdated by a tenth", Some(600), (-year, year), Ok((-60, 600))),
        ("ten seconds", Some(10), (-year, year), Ok((-1, 10))),
        ("more than the most", Some(1000 * DAY), (-year, year), Ok((-120, 90 * day))),
        ("more than can be counted", Some(u64::MAX / 4), (-year, year), Ok((-120, 90 * day))),
        ("beyond the authority's end", None, (-year, 7200), Ok((-120, 7200))),
        ("near the authority's end", None, (-year, 600), Ok((-60, 600))),
        ("before the authority's beginning", None, (-30, year), Ok((-30, day))),
        ("authority expired", None, (-year, -1), Err(IssueError::AuthorityExpired)),
        ("authority expires now", None, (-year, 0), Err(IssueError::AuthorityExpired)),
        ("authority not valid yet", None, (60, year), Err(IssueError::AuthorityExpired)),
    ] {
        let authority = Validity { not_before: at(authority.0), not_after: at(authority.1) };
        let wanted = wanted.map(Duration::from_secs);
        let outcome = validity(wanted, Lifetimes::default(), authority, now);
        let expected = expected.map(|(from, to)| Validity { not_before: at(from), not_after: at(to) });
        assert_eq!(outcome, expected, "{about}");
        if let Ok(span) = outcome {
            let life = span.not_after.duration_since(span.not_before).unwrap();
            assert!(span.not_before + life / 2 > now, "{about}: half of its life is over when it is issued");
        }
    }
}

#[test]
fn the_name_is_not_taken_from_the_request() {
    let (_folder, authority) = authority();
    let key = PrivateKey::generate().unwrap();
    let csr = certificate_request(&key, &Identity::new("cluster.local", "kube-system", "admin")).unwrap();
    let now = SystemTime::now();
    let issued = issue(&authority, &reviews(), &csr, None, now).unwrap();
    // The bundle's own checks: name, key, chain, time.
    let bundle = CertificateBundle::from_reply(reviews(), key, &issued.elements, now).unwrap();
    let (_, leaf) = X509Certificate::from_der(&bundle.chain()[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical, "the subject is empty");
    assert_eq!(san.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/default/sa/reviews")]);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
}

#[test]
fn serial_numbers_differ_for_one_key() {
    let (_folder, authority) = authority();
    let key = PrivateKey::generate().unwrap();
    let csr = certificate_request(&key, &reviews()).unwrap();
    let serials: std::collections::HashSet<_> = (0..50)
        .map(|_| {
            let now = SystemTime::now();
            let issued = issue(&authority, &reviews(), &csr, None, now).unwrap();
            let key = key.clone();
            let bundle = CertificateBundle::from_reply(reviews(), key, &issued.elements, now).unwrap();
            CertificateFacts::read(&bundle.chain()[0]).unwrap().serial
        })
        .collect();
    assert_eq!(serials.len(), 50);
}

#[test]
fn requests_by_table() {
    let (_folder, authority) = authority();
    let params = CertificateParams::default();
    let request = |key: &KeyPair| params.serialize_request(key).unwrap().pem().unwrap();
    let good = request(&KeyPair::generate().unwrap());
    let rsa = request(&KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    let p384 = request(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    let ed25519 = request(&KeyPair::generate_for(&PKCS_ED25519).unwrap());
    // A request for somebody else's key: the signature no longer fits.
    let stolen = {
        let mut der = pem::parse(&good).unwrap().into_contents();
        let other = KeyPair::generate().unwrap().subject_public_key_info();
        let own = X509CertificationRequest::from_der(&der).unwrap().1;
        let own = own.certification_request_info.subject_pki.raw.to_vec();
        let at = der.windows(own.len()).position(|window| window == own).unwrap();
        der[at..at + own.len()].copy_from_slice(&other);
        pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
    };
    let trailing = {
        let mut der = pem::parse(&good).unwrap().into_contents();
        der.push(0);
        pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
    };
    let certificate = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    for (about, csr, expected) in [
        ("ECDSA P-256", good.clone(), None),
        ("ECDSA P-384", p384, None),
        ("RSA 2048", rsa, None),
        ("Microsoft's name for it", good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"), None),
        ("Ed25519", ed25519, Some("neither ECDSA nor RSA")),
        ("a stolen public key", stolen, Some("not by its own key")),
        ("bytes after the end", trailing, Some("bytes follow")),
        ("a certificate", certificate, Some("not a CERTIFICATE REQUEST")),
        ("no PEM", "hello".to_owned(), Some("not PEM")),
        ("nothing", String::new(), Some("not PEM")),
        ("far too long", "x".repeat(20_000), Some("larger than 16 KiB")),
    ] {
        let outcome = issue(&authority, &reviews(), &csr, None, SystemTime::now());
        match (outcome, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{about}: {error}"),
            (outcome, _) => panic!("{about}: {outcome:?}"),
        }
    }
}

#[test]
fn a_damaged_request_is_refused_and_never_panics() {
    let key = PrivateKey::generate().unwrap();
    let good = pem::parse(certificate_request(&key, &reviews()).unwrap()).unwrap().into_contents();
    for position in 0..good.len() {
        for value in [0x00, 0x01, 0x30, 0x7f, 0x80, 0x84, 0xff] {
            let mut damaged = good.clone();
            if damaged[position] == value {
                continue;
            }
            damaged[position] = value;
            let csr = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", damaged));
            // What the signature does not cover is the form around it; the key it does.
            if let Ok(public_key) = requested_key(&csr) {
                assert_eq!(public_key, key.public(), "byte {position} set to {value:#x}");
            }
        }
    }
}

/// OpenSSL as an outside judge of what we issue. It stands on every machine these tests run on; where it does not,
/// the test says so.
#[test]
fn openssl_agrees() {
    let (folder, authority) = authority();
    let key = PrivateKey::generate().unwrap();
    let csr = certificate_request(&key, &reviews()).unwrap();
    let issued = issue(&authority, &reviews(), &csr, None, SystemTime::now()).unwrap();
    let (leaf, request) = (folder.path().join("leaf.pem"), folder.path().join("leaf.csr"));
    std::fs::write(&leaf, &issued.elements[0]).unwrap();
    std::fs::write(&request, &csr).unwrap();
    let roots = folder.path().join("root-cert.pem");
    std::fs::write(&roots, authority.roots().to_pem()).unwrap();
    let run = |arguments: &[&str]| Command::new("openssl").args(arguments).output();
    let (leaf, request) = (leaf.to_str().unwrap(), request.to_str().unwrap());
    for purpose in ["sslclient", "sslserver"] {
        let arguments =
            ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", roots.to_str().unwrap(), leaf];
        match run(&arguments) {
            Ok(output) => assert!(output.status.success(), "{purpose}: {output:?}"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: no openssl on this machine");
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let output = run(&["req", "-in", request, "-noout", "-verify", "-text"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("X509v3 Subject Alternative Name: critical"), "{text}");
    assert!(text.contains("URI:spiffe://cluster.local/ns/default/sa/reviews"), "{text}");
}
