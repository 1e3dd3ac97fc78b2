//! Plugged-in authorities, good and bad.

use rcgen::{CertifiedIssuer, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};

use super::*;
use crate::ca::issue::Lifetimes;
use identity::bundle::CertificateBundle;
use identity::csr::certificate_request;

type Signer = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(365 * 24 * 3600)).into();
    params
}

fn root(name: &str) -> Signer {
    Signer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
}

fn under(name: &str, signer: &Signer, key: KeyPair) -> Signer {
    Signer::signed_by(params(name), key, signer).unwrap()
}

/// A `cacerts` folder: signing certificate, its key, chain and root.
fn folder(own: &Signer, chain: &[&Signer], root: &Signer) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |file, text: String| fs::write(folder.path().join(file), text).unwrap();
    write(CERT_FILE, own.pem());
    write(KEY_FILE, own.key().serialize_pem());
    write(ROOT_FILE, root.pem());
    write(CHAIN_FILE, chain.iter().map(|signer| signer.pem()).collect());
    folder
}

fn open(plugged: &Path) -> Result<Authority, RootError> {
    Authority::of(&Material::plugged(plugged)?, "cluster.local", SystemTime::now())
}

/// A certificate signed by it verifies, checked as the agents check.
fn issues(authority: &Authority) -> Vec<String> {
    let identity = Identity::new("cluster.local", "default", "reviews");
    let key = PrivateKey::generate().unwrap();
    let csr = certificate_request(&key, &identity).unwrap();
    let now = SystemTime::now();
    let lifetimes = Lifetimes::default();
    let (issued, _) = authority.issue(&identity, &csr, None, lifetimes, authority.roots(), now).unwrap();
    CertificateBundle::from_reply(identity, key, &issued.elements, now).unwrap();
    issued.elements
}

#[test]
fn takes_what_istio_takes() {
    let top = root("root");
    let region = under("region", &top, KeyPair::generate().unwrap());
    let cluster = under("cluster", &region, KeyPair::generate().unwrap());
    for (about, folder, elements) in [
        ("the root itself", folder(&top, &[], &top), 2),
        ("one intermediate", folder(&region, &[&region], &top), 3),
        ("the chain with the root at its end", folder(&region, &[&region, &top], &top), 3),
        ("two intermediates", folder(&cluster, &[&cluster, &region, &top], &top), 4),
        ("the chain without the signing certificate", folder(&cluster, &[&region], &top), 4),
    ] {
        let authority = open(folder.path()).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(issues(&authority).len(), elements, "{about}");
    }

    // Without a chain file at all, and with two roots.
    let plain = folder(&region, &[], &top);
    fs::remove_file(plain.path().join(CHAIN_FILE)).unwrap();
    fs::write(plain.path().join(ROOT_FILE), root("next").pem() + &top.pem()).unwrap();
    let authority = open(plain.path()).unwrap();
    assert_eq!(authority.roots().certificates().len(), 2);
    issues(&authority);
}

#[test]
fn takes_other_keys_and_forms() {
    let top = root("root");
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    for key in [rsa, p384] {
        let signer = under("cluster", &top, key);
        issues(&open(folder(&signer, &[&signer], &top).path()).unwrap());
    }
    // The forms that OpenSSL writes: PKCS#1 and SEC1. Without OpenSSL they are not tried.
    let convert = |signer: &Signer, kind: &str| {
        let folder = folder(signer, &[signer], &top);
        let key = folder.path().join(KEY_FILE);
        let key = key.to_str().unwrap();
        let arguments = match kind {
            "rsa" => vec!["rsa", "-traditional", "-in", key, "-out", key],
            _ => vec!["ec", "-in", key, "-out", key],
        };
        match std::process::Command::new("openssl").args(arguments).output() {
            Ok(output) => {
                assert!(output.status.success(), "{output:?}");
                let text = fs::read_to_string(key).unwrap();
                assert!(!text.starts_with("-----BEGIN PRIVATE KEY"), "{kind} was not converted");
                issues(&open(folder.path()).unwrap_or_else(|error| panic!("{kind}: {error}")));
            }
            Err(error) => eprintln!("skipped {kind}: {error}"),
        }
    };
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    convert(&under("cluster", &top, rsa), "rsa");
    convert(&under("cluster", &top, KeyPair::generate().unwrap()), "ec");
}

#[test]
fn refuses_with_the_file_at_fault() {
    let top = root("root");
    let region = under("region", &top, KeyPair::generate().unwrap());
    let cluster = under("cluster", &region, KeyPair::generate().unwrap());
    let changed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params("cluster");
        change(&mut params);
        let signer = Signer::signed_by(params, KeyPair::generate().unwrap(), &top).unwrap();
        folder(&signer, &[&signer], &top)
    };
    let with = |file: &str, text: &str| {
        let folder = folder(&region, &[&region], &top);
        fs::write(folder.path().join(file), text).unwrap();
        folder
    };
    let without = |file: &str| {
        let folder = folder(&region, &[&region], &top);
        fs::remove_file(folder.path().join(file)).unwrap();
        folder
    };
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let past = SystemTime::now() - Duration::from_secs(60);
    let future = SystemTime::now() + Duration::from_secs(60);
    let short = {
        let mut params = params("region");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let region = Signer::signed_by(params, KeyPair::generate().unwrap(), &top).unwrap();
        let cluster = under("cluster", &region, KeyPair::generate().unwrap());
        folder(&cluster, &[&cluster, &region], &top)
    };
    let expired_root = {
        let mut params = params("root");
        params.not_after = past.into();
        let top = Signer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let region = under("region", &top, KeyPair::generate().unwrap());
        folder(&region, &[&region], &top)
    };
    for (about, folder, expected) in [
        ("no certificate", without(CERT_FILE), vec!["cannot read", CERT_FILE]),
        ("no key", without(KEY_FILE), vec!["cannot read", KEY_FILE]),
        ("no root", without(ROOT_FILE), vec!["cannot read", ROOT_FILE]),
        ("garbage for a certificate", with(CERT_FILE, "x"), vec![CERT_FILE, "not usable"]),
        ("garbage for a key", with(KEY_FILE, "x"), vec![KEY_FILE, "not usable"]),
        ("garbage for a root", with(ROOT_FILE, "x"), vec![ROOT_FILE, "not usable"]),
        ("garbage for a chain", with(CHAIN_FILE, "x"), vec![CHAIN_FILE, "not usable"]),
        ("another key", with(KEY_FILE, &other_key), vec![KEY_FILE, "is not the key of", CERT_FILE]),
        ("another root", with(ROOT_FILE, &root("other").pem()), vec!["does not verify", ROOT_FILE]),
        ("a gap in the chain", folder(&cluster, &[&cluster], &top), vec!["does not verify", CHAIN_FILE]),
        ("a path too short", short, vec!["does not verify"]),
        ("not a CA", changed(&|params| params.is_ca = IsCa::NoCa), vec![CERT_FILE, "basic constraints"]),
        (
            "no keyCertSign",
            changed(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
            vec![CERT_FILE, "keyCertSign"],
        ),
        ("expired", changed(&|params| params.not_after = past.into()), vec![CERT_FILE, "expired"]),
        (
            "not yet valid",
            changed(&|params| params.not_before = future.into()),
            vec![CERT_FILE, "not valid yet"],
        ),
        ("an expired root", expired_root, vec![ROOT_FILE, "expired"]),
    ] {
        match open(folder.path()) {
            Ok(_) => panic!("{about}: was accepted"),
            Err(error) => {
                let text = error.to_string();
                for part in expected {
                    assert!(text.contains(part), "{about}: {part:?} is missing in {text:?}");
                }
            }
        }
    }
}
