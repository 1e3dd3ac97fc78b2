//! Who is told of changes, which roots and certificates count at the edges, and what is never shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use identity::bundle::RootBundle;
use identity::revocation::RevokedSet;
use identity::rotation::{Certificates, RotationSettings, WallClock};
use testkit::certificates::TestAuthority;

use super::{HOUR, Scripted, account, rig, tls};

#[tokio::test(start_paused = true)]
async fn who_keeps_a_copy_is_told_of_each_change_and_of_nothing_else() {
    let rig = rig();
    let (reviews, sleep) = (account("reviews"), account("sleep"));
    let mut changes = rig.certificates.changes();
    let mut counted = 0;
    let mut told = |about: &str, expected: bool| {
        assert_eq!(changes.has_changed().unwrap(), expected, "{about}");
        let count = *changes.borrow_and_update();
        assert_eq!(count > counted, expected, "{about}");
        counted = count;
    };
    told("nothing yet", false);
    rig.certificates.get(&reviews).await.unwrap();
    told("fetched", true);
    rig.certificates.get(&reviews).await.unwrap();
    told("asked for again", false);
    rig.certificates.forget(&sleep);
    told("forgotten, but nobody knew it", false);

    let old = rig.authority.state.lock().unwrap().signer.clone();
    let next = TestAuthority::new("the next root");
    let both = RootBundle::new([old.roots().certificates(), next.roots().certificates()].concat());
    let steps = [
        ("two roots", Some(both.clone()), None, true),
        ("the same again", Some(both.clone()), None, false),
        ("who signs", Some(both.clone()), Some(&*old), true),
        ("the same signs", Some(both.clone()), Some(&*old), false),
        ("another signs", Some(both.clone()), Some(&next), true),
        ("nothing is said of it", Some(both), None, true),
        ("nor of roots", None, None, true),
        ("nor again", None, None, false),
    ];
    for (about, roots, issuer, expected) in steps {
        rig.certificates.announce(roots, issuer.map(TestAuthority::signing_certificate)).unwrap();
        told(about, expected);
    }
    rig.certificates.announce(Some(RootBundle::new([])), None).unwrap_err();
    told("no root at all", false);

    for (about, identity, expected) in [("somebody else", &sleep, false), ("revoked", &reviews, true)] {
        let revoked = RevokedSet { identities: [identity.clone()].into(), ..RevokedSet::default() };
        assert!(rig.certificates.revoke(revoked.clone()));
        told(about, expected);
        assert!(!rig.certificates.revoke(revoked));
        told("revoked again", false);
    }
    rig.certificates.forget(&reviews);
    told("forgotten", true);
    rig.certificates.forget(&reviews);
    told("forgotten again", false);
}

#[tokio::test(start_paused = true)]
async fn what_has_little_time_left_is_replaced_within_a_quarter_of_it() {
    let rig = rig();
    let old = Arc::new(TestAuthority::new("old").with_lifetime(Duration::from_secs(40)));
    rig.authority.set(|state| state.signer = Arc::clone(&old));
    for number in 0..20 {
        rig.certificates.get(&account(&format!("a{number}"))).await.unwrap();
    }
    let next = TestAuthority::new("next");
    let both = RootBundle::new([old.roots().certificates(), next.roots().certificates()].concat());
    let next = Arc::new(next.with_lifetime(Duration::from_secs(3600)).with_bundle(both.clone()));
    rig.authority.set(|state| state.signer = Arc::clone(&next));
    rig.certificates.announce(Some(both), Some(next.signing_certificate())).unwrap();
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    assert_eq!(rig.authority.count(), 40);
}

/// Another replica of the controller may not have heard yet of a root that is about to sign.
#[tokio::test(start_paused = true)]
async fn what_is_announced_is_in_force_whatever_replies_say() {
    let rig = rig();
    let old = rig.authority.state.lock().unwrap().signer.clone();
    let next = TestAuthority::new("the next root");
    let both = RootBundle::new([old.roots().certificates(), next.roots().certificates()].concat());
    rig.certificates.get(&account("before")).await.unwrap();
    rig.certificates.announce(Some(both.clone()), None).unwrap();
    let credentials = rig.certificates.get(&account("reviews")).await.unwrap();
    assert_eq!(credentials.bundle().roots(), &old.roots());
    assert_eq!(credentials.roots(), &both);
    assert_eq!(rig.certificates.roots().borrow().as_ref(), Some(&both));
    // Once nothing is said of roots any more, those of the next reply count.
    rig.certificates.announce(None, None).unwrap();
    assert_eq!(rig.certificates.current(&account("reviews")).unwrap().roots(), &both);
    let credentials = rig.certificates.get(&account("sleep")).await.unwrap();
    assert_eq!(credentials.roots(), &old.roots());
}

/// Roots asked for later are newer, whichever answer comes first.
#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_bring_back_old_roots() {
    let rig = rig();
    rig.authority.set(|state| state.delay = Duration::from_secs(3));
    let slow = rig.certificates.prefetch(&account("slow"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let next = Arc::new(TestAuthority::new("the next root"));
    rig.authority.set(|state| {
        state.signer = Arc::clone(&next);
        state.delay = Duration::from_millis(10);
    });
    rig.certificates.get(&account("quick")).await.unwrap();
    assert!(slow.current().is_none());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_ne!(slow.current().unwrap().bundle().roots(), &next.roots());
    for name in ["slow", "quick"] {
        let credentials = rig.certificates.current(&account(name)).unwrap();
        assert_eq!(credentials.roots(), &next.roots(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_goes_on_signing_as_before_is_asked_once() {
    let rig = rig();
    rig.certificates.get(&account("reviews")).await.unwrap();
    let old = rig.authority.state.lock().unwrap().signer.clone();
    let next = TestAuthority::new("the next root");
    let both = RootBundle::new([old.roots().certificates(), next.roots().certificates()].concat());
    rig.certificates.announce(Some(both), Some(next.signing_certificate())).unwrap();
    tokio::time::sleep(HOUR).await;
    assert_eq!(rig.authority.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_counts_until_the_moment_it_ends() {
    let seconds = Arc::new(AtomicU64::new(2_000_000_000));
    let clock: WallClock = {
        let seconds = Arc::clone(&seconds);
        Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)))
    };
    let certificates = Certificates::with_clock(tls(), RotationSettings::default(), Arc::clone(&clock));
    let driver = tokio::spawn(certificates.drive(Scripted::new(&clock)));
    let held = certificates.get(&account("reviews")).await.unwrap();
    let watch = certificates.prefetch(&account("reviews"));
    driver.abort();
    let end = held.bundle().validity().not_after.duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (now, counts) in [(end - 1, true), (end, false), (end + 1, false)] {
        seconds.store(now, Ordering::Relaxed);
        assert_eq!(certificates.current(&account("reviews")).is_some(), counts, "{now} of {end}");
        assert_eq!(watch.current().is_some(), counts, "{now} of {end}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_has_a_largest_size() {
    const LIMIT: usize = 64 << 20;
    let certificates = Certificates::new(tls(), RotationSettings::default());
    for (size, expected) in
        [(LIMIT, "not an export"), (LIMIT + 1, "an export of 67108865 bytes is refused; the limit is 64 MiB")]
    {
        let error = certificates.import(&vec![b' '; size]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{size}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_key_is_shown() {
    let rig = rig();
    let credentials = rig.certificates.get(&account("reviews")).await.unwrap();
    let watch = rig.certificates.prefetch(&account("reviews"));
    assert_eq!(format!("{:?}", rig.certificates), "Certificates { .. }");
    assert!(format!("{watch:?}").starts_with("CertificateWatch { identity: "));
    let shown = [format!("{watch:?}"), format!("{:?}", credentials.bundle())].concat();
    let key = credentials.bundle().key().pkcs8();
    assert!(!shown.contains(&format!("{key:?}")) && !shown.contains("PRIVATE"), "{shown}");
    assert!(shown.contains("PrivateKey(elided)"));
}
