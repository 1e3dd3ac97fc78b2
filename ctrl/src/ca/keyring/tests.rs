//! Changes of roots over restarts in every phase, plugged-in authorities that change, and what is revoked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use identity::bundle::CertificateBundle;
use identity::csr::certificate_request;
use identity::key::PrivateKey;
use identity::revocation;
use identity::verify::check_chain;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};

use super::*;
use crate::ca::root::{CERT_FILE, CHAIN_FILE, KEY_FILE};

type Issuer = CertifiedIssuer<'static, KeyPair>;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn settings(state: &Path) -> KeyringSettings {
    KeyringSettings::new(state, "cluster.local")
}

fn reviews() -> Identity {
    Identity::new("cluster.local", "shop", "reviews")
}

fn node() -> Caller {
    Caller::Node("node-1".into())
}

/// A certificate as an agent takes it: checked against the roots it came with.
fn issue(keyring: &Keyring, now: SystemTime) -> Result<CertificateBundle, IssueError> {
    let key = PrivateKey::generate().unwrap();
    let csr = certificate_request(&key, &reviews()).unwrap();
    let issued = keyring.issue(&node(), &reviews(), &csr, None, now)?;
    Ok(CertificateBundle::from_reply(reviews(), key, &issued.elements, now).unwrap())
}

fn is_trusted(keyring: &Keyring, held: &CertificateBundle, now: SystemTime) -> bool {
    let (leaf, intermediates) = held.chain().split_first().unwrap();
    check_chain(leaf, intermediates, keyring.roots().certificates(), now).is_ok()
}

#[test]
fn makes_a_root_once_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("deep/state");
    let now = SystemTime::now();
    let first = Keyring::open(settings(&state), now).unwrap();
    let again = Keyring::open(settings(&state), now + HOUR).unwrap();
    assert_eq!(first.roots(), again.roots());
    for (file, mode) in [
        (KEY_FILE, 0o600),
        (CERT_FILE, 0o600),
        (ROOT_FILE, 0o644),
        (stored::FILE, 0o600),
        ("issued.jsonl", 0o600),
    ] {
        let found = fs::metadata(state.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    assert_eq!(fs::read_dir(&state).unwrap().count(), 5, "no draft is left");
    assert_eq!(fs::read_to_string(state.join(ROOT_FILE)).unwrap(), first.roots().to_pem());
    let years = first.ends().chain.not_after.duration_since(now).unwrap().as_secs() / (365 * 24 * 3600);
    assert!((9..=10).contains(&years), "{years} years");
    issue(&again, now).unwrap();

    // A restart heals what was published, and what stands in files of its own.
    for file in [ROOT_FILE, KEY_FILE, CERT_FILE] {
        fs::write(state.join(file), "garbage").unwrap();
    }
    let healed = Keyring::open(settings(&state), now).unwrap();
    assert_eq!(fs::read_to_string(state.join(ROOT_FILE)).unwrap(), first.roots().to_pem());
    assert_eq!(healed.current().roots(), first.current().roots());
    // What cannot be read is not replaced by another root.
    fs::write(state.join(stored::FILE), "garbage").unwrap();
    let error = Keyring::open(settings(&state), now).unwrap_err();
    assert!(matches!(error, RootError::Stored { .. }), "{error}");
}

#[test]
fn goes_on_with_the_root_of_an_earlier_version() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = Keyring::open(settings(folder.path()), now).unwrap();
    for file in [stored::FILE, "issued.jsonl"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    let upgraded = Keyring::open(settings(folder.path()), now).unwrap();
    assert_eq!(upgraded.roots(), first.roots());
    // What the earlier version issued nobody noted: its root stays as long as any certificate may last.
    upgraded.begin(now).unwrap();
    upgraded.switch(now).unwrap();
    let longest = Lifetimes::default().longest;
    assert!(upgraded.retired_ends()[0] >= now + longest - Duration::from_secs(1));

    fs::remove_file(folder.path().join(stored::FILE)).unwrap();
    fs::remove_file(folder.path().join(KEY_FILE)).unwrap();
    let error = Keyring::open(settings(folder.path()), now).unwrap_err();
    assert!(matches!(error, RootError::KeyLost { .. }), "{error}");
}

#[test]
fn a_change_of_roots_goes_on_after_a_restart_in_every_phase() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let open = |now| Keyring::open(settings(folder.path()), now).unwrap();
    let keyring = open(now);
    let old = keyring.current_print();
    let held = issue(&keyring, now).unwrap();
    let ends = held.validity().not_after;

    assert!(keyring.begin(now).unwrap());
    assert!(!keyring.begin(now).unwrap(), "one at a time");
    let distributing = |keyring: &Keyring| {
        assert_eq!(keyring.current_print(), old, "the old one signs");
        assert_eq!(keyring.roots().certificates().len(), 2);
        assert!(keyring.successor_since().is_some());
        assert_eq!(issue(keyring, now).unwrap().roots().certificates().len(), 2, "replies carry both");
    };
    distributing(&keyring);
    let keyring = open(now);
    distributing(&keyring);

    let later = now + HOUR;
    let last = issue(&keyring, later).unwrap();
    keyring.switch(later).unwrap();
    let retiring = |keyring: &Keyring| {
        assert_ne!(keyring.current_print(), old, "the new one signs");
        assert_eq!(keyring.successor_since(), None);
        let until = keyring.retired_ends();
        assert_eq!(until.len(), 1);
        assert!(until[0] >= last.validity().not_after && until[0] > ends, "until the last has ended");
        assert!(is_trusted(keyring, &held, later) && is_trusted(keyring, &last, later));
        let new = issue(keyring, later).unwrap();
        assert!(is_trusted(keyring, &new, later));
    };
    retiring(&keyring);
    let keyring = open(later);
    retiring(&keyring);

    let end = later + DAY + Duration::from_secs(1);
    assert!(keyring.retired_ends()[0] <= end);
    keyring.drop_retired(0, end).unwrap();
    let stable = |keyring: &Keyring| {
        assert_eq!(keyring.roots().certificates().len(), 1);
        assert!(!is_trusted(keyring, &held, now), "its root is trusted no more");
        assert_eq!(fs::read_to_string(folder.path().join(ROOT_FILE)).unwrap(), keyring.roots().to_pem());
    };
    stable(&keyring);
    stable(&open(end));
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + DAY * 365).into();
    params
}

fn root(name: &str) -> Issuer {
    Issuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
}

fn plug(folder: &Path, own: &Issuer, root: &Issuer) {
    fs::write(folder.join(CERT_FILE), own.pem()).unwrap();
    fs::write(folder.join(KEY_FILE), own.key().serialize_pem()).unwrap();
    fs::write(folder.join(CHAIN_FILE), own.pem()).unwrap();
    fs::write(folder.join(ROOT_FILE), root.pem()).unwrap();
}

fn under(name: &str, signer: &Issuer) -> Issuer {
    Issuer::signed_by(params(name), KeyPair::generate().unwrap(), signer).unwrap()
}

#[test]
fn a_plugged_in_authority_is_read_again_and_followed_with_an_overlap() {
    let (state, plugged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (top, other) = (root("top"), root("other"));
    let (first, second, third) = (under("first", &top), under("second", &top), under("third", &other));
    let now = SystemTime::now();
    let settings = || KeyringSettings { plugged: Some(plugged.path().to_owned()), ..settings(state.path()) };
    plug(plugged.path(), &first, &top);
    let keyring = Keyring::open(settings(), now).unwrap();
    let held = issue(&keyring, now).unwrap();
    let print = keyring.current_print();
    assert!(!keyring.reread(now).unwrap(), "nothing is new");
    assert!(keyring.own_root().is_none(), "people renew it");

    // A file that is bad is named, once; what was in force stays.
    fs::write(plugged.path().join(KEY_FILE), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = keyring.reread(now).unwrap_err().to_string();
    assert!(error.contains("is not the key of") && error.contains(KEY_FILE), "{error}");
    assert_eq!(keyring.problem(), Some(error));
    assert!(!keyring.reread(now).unwrap(), "said once");
    issue(&keyring, now).unwrap();

    // Another intermediate of the same root, then one of another root: each is distributed before it signs.
    for (own, root, roots) in [(&second, &top, 1), (&third, &other, 2)] {
        plug(plugged.path(), own, root);
        assert!(keyring.reread(now).unwrap());
        assert_eq!(keyring.problem(), None);
        assert!(keyring.successor_since().is_some());
        assert_eq!(keyring.current_print(), print, "not yet");
        assert_eq!(keyring.roots().certificates().len(), roots);
    }
    keyring.switch(now).unwrap();
    let new = issue(&keyring, now).unwrap();
    assert!(is_trusted(&keyring, &held, now) && is_trusted(&keyring, &new, now));
    assert!(!fs::read_to_string(state.path().join(stored::FILE)).unwrap().contains("PRIVATE KEY"));

    // Changed while the controller was away: the key of before is gone, so the new one signs; both are trusted.
    plug(plugged.path(), &first, &top);
    let keyring = Keyring::open(settings(), now).unwrap();
    assert_eq!(keyring.current_print(), print);
    assert!(is_trusted(&keyring, &held, now) && is_trusted(&keyring, &new, now));
    assert!(keyring.retired_ends().iter().any(|until| *until >= new.validity().not_after));
}

#[test]
fn from_a_root_made_here_to_a_plugged_in_authority_and_back() {
    let (state, plugged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now = SystemTime::now();
    let keyring = Keyring::open(settings(state.path()), now).unwrap();
    let made = keyring.current_print();
    let top = root("top");
    plug(plugged.path(), &top, &top);
    let with_plugged =
        || KeyringSettings { plugged: Some(plugged.path().to_owned()), ..settings(state.path()) };
    for _ in 0..2 {
        let keyring = Keyring::open(with_plugged(), now).unwrap();
        assert_eq!(keyring.current_print(), made, "the one made here signs until the other is trusted");
        assert_eq!(keyring.roots().certificates().len(), 2);
    }
    let keyring = Keyring::open(with_plugged(), now).unwrap();
    keyring.switch(now).unwrap();
    let held = issue(&keyring, now).unwrap();
    let back = Keyring::open(settings(state.path()), now).unwrap();
    assert!(back.made_here());
    assert!(is_trusted(&back, &held, now), "what the plugged-in one signed counts until it ends");
}

#[test]
fn what_is_revoked_is_on_a_list_that_the_authority_signed_and_stays_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let open = |now| Keyring::open(settings(folder.path()), now).unwrap();
    let keyring = open(now);
    let (one, two) = (issue(&keyring, now).unwrap(), issue(&keyring, now).unwrap());
    assert!(keyring.trust().crls.is_empty());

    // One certificate: the other counts on, and another is issued.
    let serial = revocation::hexadecimal(&serial_of(&one.chain()[0]).unwrap());
    let done = keyring.revoke(&serial, now).unwrap();
    assert_eq!(done, RevokedNow { identity: reviews(), whole: false, certificates: 1 });
    let lists = |keyring: &Keyring| -> Vec<RevocationList> {
        keyring.trust().crls.iter().map(|der| RevocationList::from_der(der).unwrap()).collect()
    };
    let check =
        |keyring: &Keyring, held: &CertificateBundle| revocation::check(&lists(keyring), held.chain());
    assert!(check(&keyring, &one).is_err() && check(&keyring, &two).is_ok());
    let three = issue(&keyring, now).unwrap();

    // The identity: nothing counts, nothing is issued.
    let done = keyring.revoke("shop/reviews", now).unwrap();
    assert_eq!(done, RevokedNow { identity: reviews(), whole: true, certificates: 3 });
    let refused = issue(&keyring, now).unwrap_err();
    assert!(refused.to_string().contains("is revoked"), "{refused}");
    let again = open(now);
    for keyring in [&keyring, &again] {
        assert!([&one, &two, &three].iter().all(|held| check(keyring, held).is_err()));
        assert!(issue(keyring, now).is_err());
        let signer = keyring.current().certificate.clone();
        assert!(lists(keyring).iter().all(|list| list.is_signed_by(std::slice::from_ref(&signer))));
    }
    by_openssl(folder.path());

    // A change of roots: the list of the one that signed them stays, signed by it.
    again.begin(now).unwrap();
    again.switch(now).unwrap();
    assert!([&one, &two, &three].iter().all(|held| check(&again, held).is_err()));
    let again = open(now);
    assert!(check(&again, &two).is_err(), "after a restart too");

    // Another attempt for whom somebody forgives; the certificates revoked stay so, until they have ended.
    assert_eq!(again.restore("spiffe://cluster.local/ns/shop/sa/reviews").unwrap(), reviews());
    let four = issue(&again, now).unwrap();
    assert!(check(&again, &four).is_ok() && check(&again, &two).is_err());
    let later = now + DAY * 2;
    assert!(again.tidy(later));
    assert!(again.trust().crls.is_empty() && again.revoked_certificates() == 0);

    for (named, part) in [
        ("ff00", "neither an identity"),
        ("reviews", "neither an identity"),
        ("", "neither an identity"),
        ("spiffe://other/ns/a/sa/b", "not of this mesh"),
    ] {
        let error = again.revoke(named, now).unwrap_err().to_string();
        assert!(error.contains(part), "{named:?}: {error}");
    }
}

/// What others read: the list verifies, and names three certificates.
fn by_openssl(state: &Path) {
    let path = |file| state.join(file).to_str().unwrap().to_owned();
    let arguments =
        ["crl", "-in", &path(CRL_FILE), "-CAfile", &path(ROOT_FILE), "-noout", "-text", "-verify"];
    match Command::new("openssl").args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("verify OK"), "{text}");
            assert_eq!(text.matches("Serial Number:").count(), 3, "{text}");
        }
        Err(error) => eprintln!("skipped openssl: {error}"),
    }
}

#[test]
fn lists_beside_a_plugged_in_authority_are_its_own_or_refused() {
    let (state, plugged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = root("top");
    let region = under("region", &top);
    plug(plugged.path(), &region, &top);
    let now = SystemTime::now();
    let settings = KeyringSettings { plugged: Some(plugged.path().to_owned()), ..settings(state.path()) };
    let keyring = Keyring::open(settings, now).unwrap();
    let held = issue(&keyring, now).unwrap();
    let list = |signer: &Issuer, serial: &[u8]| {
        let revoked = rcgen::RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + HOUR).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(signer).unwrap().pem().unwrap()
    };
    let revoked = |keyring: &Keyring| {
        let crls = keyring.trust().crls;
        let lists: Vec<_> = crls.iter().map(|der| RevocationList::from_der(der).unwrap()).collect();
        revocation::check(&lists, held.chain()).is_err()
    };
    let path = plugged.path().join("ca-crl.pem");
    let intermediate = serial_of(&held.chain()[1]).unwrap();
    // The root revokes the intermediate, and with it all that it signed.
    fs::write(&path, list(&top, &intermediate)).unwrap();
    assert!(keyring.reread(now).unwrap());
    assert!(revoked(&keyring));
    for (about, text) in
        [("another's", list(&root("stranger"), &intermediate)), ("garbage", "garbage".to_owned())]
    {
        fs::write(&path, text).unwrap();
        let error = keyring.reread(now).unwrap_err().to_string();
        assert!(error.contains("ca-crl.pem"), "{about}: {error}");
        assert!(revoked(&keyring), "{about}: the one before stays in force");
    }
    fs::remove_file(&path).unwrap();
    assert!(keyring.reread(now).unwrap());
    assert!(!revoked(&keyring));
    // The signing certificate may sign lists too, so a workload can be revoked here.
    keyring.revoke("shop/reviews", now).unwrap();
    assert!(revoked(&keyring));
}

#[test]
fn serial_numbers_as_people_write_them() {
    let number: u128 = 0x4123_4567_89ab_cdef_0123_4567_89ab_cdef;
    let raw: Box<[u8]> = number.to_be_bytes().into();
    for text in [
        format!("{number:x}"),
        format!("{number:X}"),
        number.to_string(),
        "41:23:45:67:89:ab:cd:ef:01:23:45:67:89:ab:cd:ef".to_owned(),
    ] {
        assert_eq!(serial_named(&text), Some(raw.clone()), "{text}");
    }
    for text in ["", "4", "xyz", "spiffe"] {
        assert_eq!(serial_named(text), None, "{text}");
    }
}

/// What could not be written down is in force, and is written down as soon as that is possible.
#[test]
fn what_cannot_be_kept_is_kept_later() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let keyring = Keyring::open(settings(folder.path()), now).unwrap();
    let held = issue(&keyring, now).unwrap();
    let published = || fs::read_to_string(folder.path().join(ROOT_FILE)).unwrap();
    keyring.begin(now).unwrap();

    // In the way: a folder of the name of the file that everything is written to.
    let kept = folder.path().join(stored::FILE);
    let aside = folder.path().join("aside");
    fs::rename(&kept, &aside).unwrap();
    fs::create_dir(&kept).unwrap();
    let old = keyring.current_print();
    keyring.switch(now).unwrap_err();
    assert_ne!(keyring.current_print(), old, "it signs all the same");
    keyring.revoke("shop/reviews", now).unwrap_err();
    assert!(matches!(issue(&keyring, now), Err(IssueError::Revoked(_))));
    let trust = keyring.trust();
    let lists: Vec<_> = trust.crls.iter().map(|der| RevocationList::from_der(der).unwrap()).collect();
    assert!(revocation::check(&lists, held.chain()).is_err(), "agents are told");

    keyring.tidy(now);
    fs::remove_dir(&kept).unwrap();
    keyring.tidy(now);
    let again = Keyring::open(settings(folder.path()), now).unwrap();
    assert_eq!((again.current_print(), published()), (keyring.current_print(), keyring.roots().to_pem()));
    assert!(matches!(issue(&again, now), Err(IssueError::Revoked(_))));
}

/// What was signed while things changed is not given away. Looking who signs takes no more than reading does.
#[test]
fn what_was_signed_before_a_change_is_signed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let keyring = Keyring::open(settings(folder.path()), now).unwrap();
    let noted = |by: &Signer| Issued {
        serial: Box::from([7]),
        issuer: by.print.clone(),
        holder: node(),
        identity: reviews(),
        at: now,
        not_after: now + HOUR,
    };
    let by = {
        let _reading = keyring.read();
        keyring.signer(&reviews()).unwrap()
    };
    assert!(keyring.note(&by, noted(&by)).unwrap());
    keyring.begin(now).unwrap();
    assert!(!keyring.note(&by, noted(&by)).unwrap(), "it would overlook the new root");
    let by = keyring.signer(&reviews()).unwrap();
    keyring.switch(now).unwrap();
    assert!(!keyring.note(&by, noted(&by)).unwrap(), "another signs");
    let by = keyring.signer(&reviews()).unwrap();
    keyring.revoke("shop/reviews", now).unwrap();
    assert!(matches!(keyring.note(&by, noted(&by)), Err(IssueError::Revoked(_))));
}
