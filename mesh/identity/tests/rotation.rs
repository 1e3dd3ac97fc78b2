//! Rotation on a paused clock: the wall clock of these tests is the runtime's, so a day passes in no time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

#[path = "support/log.rs"]
mod log;
#[path = "rotation/told.rs"]
mod told;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use identity::authority::{AuthorityError, CertificateAuthority};
use identity::bundle::{CertificateBundle, RootBundle};
use identity::revocation::{RevocationList, RevokedSet, serial_of};
use identity::rotation::{Certificates, RotationSettings, WallClock};
use identity::tls::{Tls, TlsSettings};
use identity::verify::TrustDomains;
use model::identity::Identity;
use testkit::certificates::TestAuthority;
use tokio::time::Instant;
use tracing::Level;

use log::Counted;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn account(name: &str) -> Identity {
    Identity::new("cluster.local", "default", name)
}

/// The wall clock that moves with the runtime's.
fn wall_clock() -> WallClock {
    let (began, origin) = (SystemTime::now(), Instant::now());
    Arc::new(move || began + origin.elapsed())
}

/// An authority by script: how long it takes, whom it refuses, which one signs.
struct Scripted {
    clock: WallClock,
    state: Mutex<State>,
}

struct State {
    signer: Arc<TestAuthority>,
    /// Who answers every other time.
    other: Option<Arc<TestAuthority>>,
    delay: Duration,
    refuse: bool,
    calls: Vec<(Identity, SystemTime)>,
    /// Fetches under way, and the most there ever were.
    under_way: usize,
    most: usize,
}

impl Scripted {
    fn new(clock: &WallClock) -> Arc<Self> {
        let state = State {
            signer: Arc::new(TestAuthority::default().with_lifetime(DAY)),
            other: None,
            delay: Duration::from_millis(10),
            refuse: false,
            calls: Vec::new(),
            under_way: 0,
            most: 0,
        };
        Arc::new(Self { clock: Arc::clone(clock), state: Mutex::new(state) })
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn calls(&self) -> Vec<(Identity, SystemTime)> {
        self.state.lock().unwrap().calls.clone()
    }

    fn count(&self) -> usize {
        self.calls().len()
    }
}

impl CertificateAuthority for Scripted {
    async fn issue(&self, identity: &Identity) -> Result<CertificateBundle, AuthorityError> {
        let (delay, signer, refuse) = {
            let state = &mut *self.state.lock().unwrap();
            if let Some(other) = &mut state.other {
                std::mem::swap(&mut state.signer, other);
            }
            state.calls.push((identity.clone(), (self.clock)()));
            state.under_way += 1;
            state.most = state.most.max(state.under_way);
            (state.delay, Arc::clone(&state.signer), state.refuse)
        };
        tokio::time::sleep(delay).await;
        self.state.lock().unwrap().under_way -= 1;
        if refuse {
            let (code, message) = ("Unauthenticated".to_owned(), "authentication failure".to_owned());
            return Err(AuthorityError::Refused { code, message });
        }
        signer.bundle_at(identity, (self.clock)())
    }
}

/// A manager with its driver running.
struct Rig {
    certificates: Certificates,
    authority: Arc<Scripted>,
    clock: WallClock,
    _driver: tokio::task::JoinHandle<()>,
}

fn tls() -> Tls {
    Tls::new(TlsSettings { trust_domains: TrustDomains::new(["cluster.local"]), ..TlsSettings::default() })
}

fn rig() -> Rig {
    let clock = wall_clock();
    let authority = Scripted::new(&clock);
    let certificates = Certificates::with_clock(tls(), RotationSettings::default(), Arc::clone(&clock));
    let driver = tokio::spawn(certificates.drive(Arc::clone(&authority)));
    Rig { certificates, authority, clock, _driver: driver }
}

#[tokio::test(start_paused = true)]
async fn waiters_share_one_fetch() {
    let rig = rig();
    let reviews = account("reviews");
    assert!(rig.certificates.current(&reviews).is_none());
    let (one, two, three) = tokio::join!(
        rig.certificates.get(&reviews),
        rig.certificates.get(&reviews),
        rig.certificates.get(&reviews)
    );
    let one = one.unwrap();
    assert_eq!(one.identity(), &reviews);
    assert!(Arc::ptr_eq(&one, &two.unwrap()) && Arc::ptr_eq(&one, &three.unwrap()));
    assert!(Arc::ptr_eq(&one, &rig.certificates.current(&reviews).unwrap()));
    assert_eq!(rig.authority.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn renews_at_half_life_and_keeps_serving() {
    let rig = rig();
    let reviews = account("reviews");
    let began = (rig.clock)();
    let first = rig.certificates.get(&reviews).await.unwrap();
    let mut changes = rig.certificates.changes();
    changes.mark_unchanged();

    tokio::time::sleep(11 * HOUR).await;
    assert_eq!(rig.authority.count(), 1, "not before half of its life");
    changes.changed().await.unwrap();
    let second = rig.certificates.current(&reviews).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    let renewed = rig.authority.calls()[1].1.duration_since(began).unwrap();
    // Issued for a day, backdated by a minute: half of it all is 30 s before noon.
    let expected = 12 * HOUR - Duration::from_secs(30);
    assert!(renewed.abs_diff(expected) < Duration::from_secs(2), "renewed after {renewed:?}");

    // A week without anybody asking: two fetches a day.
    tokio::time::sleep(7 * DAY).await;
    let count = rig.authority.count();
    assert!((15..=17).contains(&count), "{count} fetches");
}

#[tokio::test(start_paused = true)]
async fn a_dead_authority_costs_nothing_until_the_expiry() {
    let rig = rig();
    let reviews = account("reviews");
    let began = (rig.clock)();
    let first = rig.certificates.get(&reviews).await.unwrap();
    rig.authority.set(|state| state.refuse = true);

    tokio::time::sleep(DAY - HOUR).await;
    let kept = rig.certificates.current(&reviews).unwrap();
    assert!(Arc::ptr_eq(&first, &kept), "the valid certificate stays");
    assert_eq!(rig.certificates.list()[0].state, "Available");
    let waits: Vec<_> =
        rig.authority.calls().windows(2).map(|pair| pair[1].1.duration_since(pair[0].1).unwrap()).collect();
    for (index, wait) in waits.iter().enumerate().skip(1) {
        let ideal = Duration::from_secs(150.min(1 << (index - 1).min(8)));
        let (least, most) = (
            ideal.mul_f64(0.79),
            Duration::from_millis(150_500).min(ideal.mul_f64(1.21)) + Duration::from_millis(50),
        );
        assert!((least..=most).contains(wait), "wait {index} was {wait:?}, expected about {ideal:?}");
    }

    tokio::time::sleep_until(Instant::now() + 2 * HOUR).await;
    assert!((rig.clock)() > began + DAY);
    assert!(rig.certificates.current(&reviews).is_none(), "expired is not served");
    let listed = rig.certificates.list().swap_remove(0).state;
    assert!(
        listed.starts_with("Unavailable: the certificate authority refused (Unauthenticated)"),
        "{listed}"
    );

    rig.authority.set(|state| state.refuse = false);
    tokio::time::sleep(Duration::from_secs(151)).await;
    assert!(rig.certificates.current(&reviews).is_some(), "back within the longest wait");
}

#[tokio::test(start_paused = true)]
async fn a_pod_the_authority_does_not_know_yet_is_retried_while_its_caller_waits() {
    let rig = rig();
    rig.authority.set(|state| state.refuse = true);
    let authority = Arc::clone(&rig.authority);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        authority.set(|state| state.refuse = false);
    });
    let began = Instant::now();
    rig.certificates.get(&account("reviews")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(rig.authority.count() >= 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_has_an_end_and_a_reason() {
    let rig = rig();
    rig.authority.set(|state| state.refuse = true);
    let began = Instant::now();
    let error = rig.certificates.get(&account("reviews")).await.unwrap_err();
    assert!(began.elapsed() <= Duration::from_secs(5));
    assert!(error.to_string().contains("refused (Unauthenticated)"), "{error}");
    let calls = rig.authority.count();

    // Deep in the backoff, with the next attempt minutes away, the answer is immediate, and asking does not turn the
    // backoff off.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = rig.authority.count();
    assert!(before > calls);
    while rig.authority.count() == before {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    for _ in 0..100 {
        rig.certificates.get(&account("reviews")).await.unwrap_err();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(rig.authority.count(), before + 1);

    // An authority that hangs is no worse than one that refuses.
    rig.authority.set(|state| state.delay = HOUR);
    let error = rig.certificates.get(&account("ratings")).await.unwrap_err();
    assert!(error.to_string().contains("has not answered yet"), "{error}");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let error =
        rig.certificates.list().into_iter().find(|state| state.identity.ends_with("ratings")).unwrap();
    assert!(error.state.contains("no answer"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn eight_at_a_time_the_urgent_first() {
    let rig = rig();
    rig.authority.set(|state| state.delay = Duration::from_secs(1));
    for index in 0..40 {
        rig.certificates.prefetch(&account(&format!("warm-{index}")));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.authority.count(), 8);
    let began = Instant::now();
    rig.certificates.get(&account("urgent")).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(2100), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.authority.count(), 41);
    assert_eq!(rig.authority.state.lock().unwrap().most, 8);
    assert!(rig.certificates.list().iter().all(|state| state.state == "Available"));
}

#[tokio::test(start_paused = true)]
async fn the_forgotten_is_not_renewed() {
    let rig = rig();
    let reviews = account("reviews");
    let mut watch = rig.certificates.prefetch(&reviews);
    assert!(watch.changed().await);
    assert!(watch.current().is_some());
    rig.certificates.forget(&reviews);
    assert!(!watch.changed().await, "watchers are told");
    assert!(rig.certificates.current(&reviews).is_none());
    tokio::time::sleep(2 * DAY).await;
    assert_eq!(rig.authority.count(), 1);
    assert!(rig.certificates.list().is_empty());

    // Forgotten while its fetch is under way: the answer is thrown away, the slot freed.
    let waiting = tokio::spawn({
        let certificates = rig.certificates.clone();
        async move { certificates.get(&account("late")).await }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    rig.certificates.forget(&account("late"));
    assert!(waiting.await.unwrap().is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.certificates.current(&account("late")).is_none());
    rig.certificates.get(&account("late")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn new_roots_take_effect_for_all_at_once() {
    let rig = rig();
    let (early, late) = (account("early"), account("late"));
    let before = rig.certificates.get(&early).await.unwrap();
    let mut watch = rig.certificates.prefetch(&early);
    tokio::time::sleep(HOUR).await;

    let next = Arc::new(TestAuthority::new("the next root").with_lifetime(DAY));
    rig.authority.set(|state| state.signer = Arc::clone(&next));
    let after = rig.certificates.get(&late).await.unwrap();
    assert_eq!(after.roots(), &next.roots());
    assert!(watch.changed().await, "watchers are told of new roots");
    assert_eq!(rig.certificates.current(&early).unwrap().roots(), &next.roots());
    assert_ne!(before.roots(), &next.roots());

    // The new roots do not vouch for the older certificate, so it is fetched again long before its half-life.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let current = rig.certificates.current(&early).unwrap();
    assert_eq!(current.bundle().roots(), &next.roots());
    assert_eq!(rig.authority.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn replicas_that_disagree_on_the_roots_do_not_start_a_storm() {
    let rig = rig();
    let one = Arc::new(TestAuthority::new("one").with_lifetime(DAY));
    let two = Arc::new(TestAuthority::new("two").with_lifetime(DAY));
    for index in 0..10 {
        rig.authority.set(|state| state.signer = Arc::clone(if index % 2 == 0 { &one } else { &two }));
        rig.certificates.get(&account(&format!("a{index}"))).await.unwrap();
    }
    let before = rig.authority.count();
    for minute in 0..10 {
        rig.authority.set(|state| state.signer = Arc::clone(if minute % 2 == 0 { &one } else { &two }));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let fetches = rig.authority.count() - before;
    assert!(fetches <= 10 * 11, "{fetches} fetches in ten minutes for ten identities");

    // Nor where each answer is another's.
    rig.authority.set(|state| {
        state.other = Some(Arc::clone(if Arc::ptr_eq(&state.signer, &one) { &two } else { &one }));
        state.delay = Duration::from_secs(1);
    });
    let before = rig.authority.count();
    for name in ["b1", "b2"] {
        rig.certificates.get(&account(name)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(180)).await;
    let fetches = rig.authority.count() - before;
    assert!((3..=12 * 4).contains(&fetches), "{fetches} fetches in three minutes for twelve identities");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_serves_without_an_authority() {
    let rig = rig();
    for name in ["reviews", "ratings", "sleep"] {
        rig.certificates.get(&account(name)).await.unwrap();
    }
    let bytes = rig.certificates.export();
    let serials = |certificates: &Certificates| -> HashMap<String, String> {
        let listed = certificates.list().into_iter();
        listed.map(|state| (state.identity, state.cert_chain[0].serial_number.clone())).collect()
    };

    let restarted = Certificates::with_clock(tls(), RotationSettings::default(), Arc::clone(&rig.clock));
    // Wanted before the import: must be served by it all the same.
    let watch = restarted.prefetch(&account("reviews"));
    assert_eq!(restarted.import(&bytes).unwrap(), 3);
    assert!(watch.current().is_some());
    assert_eq!(serials(&restarted), serials(&rig.certificates));
    let credentials = restarted.current(&account("sleep")).unwrap();
    assert_eq!(credentials.roots(), rig.certificates.current(&account("sleep")).unwrap().roots());
    let driver = tokio::spawn(restarted.drive(Arc::clone(&rig.authority)));
    let before = rig.authority.count();
    tokio::time::sleep(HOUR).await;
    assert_eq!(rig.authority.count(), before, "nothing is fetched before it is due");
    tokio::time::sleep(12 * HOUR).await;
    assert_eq!(rig.authority.count(), before + 6, "both processes renew at half-life");
    driver.abort();

    // A day later none of it is valid.
    tokio::time::sleep(DAY).await;
    let late = Certificates::with_clock(tls(), RotationSettings::default(), Arc::clone(&rig.clock));
    assert_eq!(late.import(&bytes).unwrap(), 0);
    assert!(late.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_keeps_the_roots_that_were_announced() {
    let rig = rig();
    rig.certificates.get(&account("reviews")).await.unwrap();
    let old = rig.authority.state.lock().unwrap().signer.clone();
    let next = TestAuthority::new("the next root");
    let both = RootBundle::new([old.roots().certificates(), next.roots().certificates()].concat());
    rig.certificates.announce(Some(both.clone()), None).unwrap();

    let restarted = Certificates::with_clock(tls(), RotationSettings::default(), Arc::clone(&rig.clock));
    assert_eq!(restarted.import(&rig.certificates.export()).unwrap(), 1);
    // The certificate came with one root; the other is trusted before the controller is heard again.
    assert_eq!(restarted.roots().borrow().as_ref(), Some(&both));
    assert_eq!(restarted.current(&account("reviews")).unwrap().roots(), &both);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_export_is_refused_whole() {
    let certificates = Certificates::new(tls(), RotationSettings::default());
    for (bytes, expected) in [
        (&b""[..], "not an export"),
        (b"{}", "not an export"),
        (b"{\"version\":1}", "not an export"),
        (b"{\"version\":2,\"anything\":[]}", "form 2"),
    ] {
        let error = certificates.import(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_listing_has_the_shape_that_istioctl_reads() {
    let rig = rig();
    rig.certificates.get(&account("reviews")).await.unwrap();
    rig.authority.set(|state| state.delay = HOUR);
    rig.certificates.prefetch(&account("sleep"));
    let listed = serde_json::to_value(rig.certificates.list()).unwrap();
    let reviews = &listed[0];
    assert_eq!(reviews["identity"], "spiffe://cluster.local/ns/default/sa/reviews");
    assert_eq!(reviews["state"], "Available");
    for list in ["certChain", "rootCerts"] {
        let certificate = &reviews[list][0];
        assert!(
            certificate["pem"].as_str().unwrap().starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"),
            "{certificate}"
        );
        assert!(certificate["serialNumber"].as_str().unwrap().parse::<f64>().is_ok());
        for time in ["validFrom", "expirationTime"] {
            let text = certificate[time].as_str().unwrap();
            assert!(text.ends_with('Z') && text.contains('T'), "{text}");
        }
    }
    assert_eq!(listed[1]["state"], "Initializing");
    assert_eq!(listed[1]["certChain"], serde_json::json!([]));
}

fn listed(authority: &TestAuthority, certificates: &Certificates, names: &[&str]) -> RevokedSet {
    let serials: Vec<_> = names
        .iter()
        .map(|name| serial_of(&certificates.current(&account(name)).unwrap().bundle().chain()[0]).unwrap())
        .collect();
    let der = authority.revoke(serials.iter().map(|serial| &**serial), SystemTime::now());
    RevokedSet { lists: vec![RevocationList::from_der(&der).unwrap()], ..RevokedSet::default() }
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_has_certificates_replaced_soon_and_not_all_at_once() {
    let rig = rig();
    let names: Vec<String> = (0..20).map(|number| format!("a{number}")).collect();
    for name in &names {
        rig.certificates.get(&account(name)).await.unwrap();
    }
    let old = rig.authority.state.lock().unwrap().signer.clone();
    let both = |first: &TestAuthority, second: &TestAuthority| {
        let all = [first.roots().certificates(), second.roots().certificates()].concat();
        RootBundle::new(all)
    };
    let new = TestAuthority::new("the next root").with_lifetime(DAY);
    let bundle = both(&new, &old);
    let new = Arc::new(new.with_bundle(bundle));
    let announce = |roots, issuer: &TestAuthority| {
        rig.certificates.announce(Some(roots), Some(issuer.signing_certificate())).unwrap();
    };

    // The new root beside the old one: at once in force, and nothing is fetched for it.
    announce(both(&old, &new), &old);
    let mut roots = rig.certificates.roots();
    assert_eq!(roots.borrow_and_update().as_ref().map(|roots| roots.certificates().len()), Some(2));
    tokio::time::sleep(HOUR).await;
    assert_eq!(rig.authority.count(), 20);

    // Another signs: all are fetched within half a minute, not in one moment; saying it again changes nothing.
    rig.authority.set(|state| state.signer = Arc::clone(&new));
    announce(both(&new, &old), &new);
    announce(both(&new, &old), &new);
    // At half of the time, where chance has none or all of them once in a million times.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let early = rig.authority.count() - 20;
    assert!((1..20).contains(&early), "{early} of 20 within 15 of 30 s");
    tokio::time::sleep(Duration::from_secs(17)).await;
    assert_eq!(rig.authority.count(), 40);
    tokio::time::sleep(HOUR).await;
    assert_eq!(rig.authority.count(), 40);

    // What no root vouches for is fetched at once.
    let third = Arc::new(TestAuthority::new("a third root").with_lifetime(DAY));
    rig.authority.set(|state| state.signer = Arc::clone(&third));
    announce(third.roots(), &third);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.authority.count(), 60);
    let current = rig.certificates.current(&account("a0")).unwrap();
    assert_eq!(current.roots(), &third.roots());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_of_the_one_before_is_replaced_too() {
    let rig = rig();
    rig.authority.set(|state| state.delay = Duration::from_secs(3));
    let old = rig.authority.state.lock().unwrap().signer.clone();
    let new = TestAuthority::new("the next root").with_lifetime(DAY);
    let both = [new.roots().certificates(), old.roots().certificates()].concat();
    let new = Arc::new(new.with_bundle(RootBundle::new(both.clone())));
    rig.certificates.prefetch(&account("reviews"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.authority.set(|state| state.signer = Arc::clone(&new));
    let both = [new.roots().certificates(), old.roots().certificates()].concat();
    rig.certificates.announce(Some(RootBundle::new(both)), Some(new.signing_certificate())).unwrap();
    // Between at once and half a minute later: chance decides.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(rig.certificates.current(&account("reviews")).is_some(), "it serves until then");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(rig.authority.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_and_revoked_is_given_up_and_asked_for_anew() {
    let rig = rig();
    for name in ["reviews", "sleep"] {
        rig.certificates.get(&account(name)).await.unwrap();
    }
    let export = rig.certificates.export();
    let signer = rig.authority.state.lock().unwrap().signer.clone();
    let lists = listed(&signer, &rig.certificates, &["reviews"]);
    assert!(rig.certificates.revoke(lists.clone()));
    assert!(!rig.certificates.revoke(lists.clone()), "no news");
    assert!(rig.certificates.current(&account("reviews")).is_none());
    assert!(rig.certificates.current(&account("sleep")).is_some());
    rig.certificates.get(&account("reviews")).await.unwrap();
    assert_eq!(rig.authority.count(), 3, "another one is in use");

    // One whom the authority gives none: refused soon and with its reason, not after a long wait.
    rig.authority.set(|state| state.refuse = true);
    let mut both = lists.clone();
    both.identities.insert(account("sleep"));
    rig.certificates.revoke(both);
    let error = rig.certificates.get(&account("sleep")).await.unwrap_err().to_string();
    assert!(error.contains("authentication failure"), "{error}");

    // Forgiven, it has one again at once, however long the last refusals made it wait.
    tokio::time::sleep(HOUR).await;
    rig.authority.set(|state| state.refuse = false);
    rig.certificates.revoke(lists.clone());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.certificates.current(&account("sleep")).is_some());

    // A restarted process does not take up again what is revoked.
    let tls = tls();
    let restarted = Certificates::with_clock(tls, RotationSettings::default(), Arc::clone(&rig.clock));
    restarted.revoke(lists);
    assert_eq!(restarted.import(&export).unwrap(), 1);
    assert!(restarted.current(&account("reviews")).is_none());
}

#[tokio::test(start_paused = true)]
async fn says_when_what_it_holds_ends_and_what_is_late() {
    let rig = rig();
    rig.certificates.get(&account("reviews")).await.unwrap();
    let begun = (rig.clock)();
    let ends = rig.certificates.expiries();
    assert!(ends.workload.unwrap().duration_since(begun).unwrap() <= DAY);
    assert!(ends.root.unwrap() > begun + DAY * 365);
    assert_eq!((ends.intermediate, ends.late), (None, 0));
    rig.authority.set(|state| state.refuse = true);
    let errors = Counted::at(Level::ERROR);
    tokio::time::sleep(15 * HOUR).await;
    assert_eq!(rig.certificates.expiries().late, 0, "renewal fails, but there is time");
    assert_eq!(errors.said(), 0);
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(rig.certificates.expiries().late, 1);
    assert!(errors.said() > 0, "the alarm");
    rig.authority.set(|state| state.refuse = false);
    tokio::time::sleep(HOUR).await;
    assert_eq!(rig.certificates.expiries().late, 0);
}
