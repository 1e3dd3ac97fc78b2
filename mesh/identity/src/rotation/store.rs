//! What is held for each identity and what is due: synchronous, told the time, doing no I/O. The driver in
//! [`rotation`](super) fetches what [`Store::start`] names and brings the outcome to [`Store::finish`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::identity::Identity;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::Priority;
use super::schedule::{Situation, next_fetch};
use crate::bundle::{CertificateBundle, RootBundle, Validity};
use crate::tls::{Credentials, Tls, TlsError, Trust};
use crate::verify;

/// How soon after its last fetch an identity may be fetched again because the roots changed. Two controller
/// replicas that disagree on the roots would otherwise have every identity fetched without pause.
const TRUST_REFETCH: Duration = Duration::from_secs(60);

/// Fetches because of another signing certificate are spread over this, and over a quarter of what remains of the
/// certificate at most: all agents of a mesh hear of it at once.
const REPLACE_WITHIN: Duration = Duration::from_secs(30);

/// The sequence of what an earlier process left: anything fetched by this one is newer.
const BEFORE_ALL: u64 = 0;

/// What is known of one identity at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// The newest certificate, perhaps expired: ask [`Snapshot::usable`].
    pub(crate) held: Option<Arc<Credentials>>,
    /// Why the last attempt failed, if it did.
    pub(crate) failure: Option<Arc<str>>,
    /// When the next attempt begins.
    pub(crate) due: SystemTime,
}

/// A fetch that the driver is asked to make.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    pub(crate) identity: Identity,
    /// Orders fetches by their start.
    sequence: u64,
}

/// All identities of a process.
pub(crate) struct Store {
    tls: Tls,
    entries: HashMap<Identity, Entry>,
    trust: Option<(u64, Trust)>,
    announced: Announced,
    started: u64,
    in_flight: usize,
}

/// What the controller said of roots and of who signs, beside the certificates' own replies.
#[derive(Debug, Default)]
struct Announced {
    /// Its roots are the ones in force, whatever replies say.
    roots: bool,
    issuer: Option<CertificateDer<'static>>,
    /// The last fetch that had begun when it was said.
    since: u64,
}

struct Entry {
    snapshot: watch::Sender<Snapshot>,
    failures: u32,
    priority: Priority,
    in_flight: bool,
    fetched: SystemTime,
}

impl Snapshot {
    /// The certificate, if it is valid at `now`.
    pub(crate) fn usable(&self, now: SystemTime) -> Option<&Arc<Credentials>> {
        self.held.as_ref().filter(|held| held.bundle().validity().not_after > now)
    }
}

impl Entry {
    fn new(held: Option<Arc<Credentials>>, priority: Priority, due: SystemTime, now: SystemTime) -> Self {
        let snapshot = watch::Sender::new(Snapshot { held, failure: None, due });
        Self { snapshot, failures: 0, priority, in_flight: false, fetched: now }
    }

    fn due(&self) -> SystemTime {
        self.snapshot.borrow().due
    }
}

impl Store {
    pub(crate) fn new(tls: Tls) -> Self {
        let announced = Announced::default();
        Self { tls, entries: HashMap::new(), trust: None, announced, started: 0, in_flight: 0 }
    }

    /// What is known of an identity.
    pub(crate) fn peek(&self, identity: &Identity) -> Option<Snapshot> {
        self.entries.get(identity).map(|entry| entry.snapshot.borrow().clone())
    }

    /// All identities with what is known of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Identity, Snapshot)> {
        self.entries.iter().map(|(identity, entry)| (identity, entry.snapshot.borrow().clone()))
    }

    /// Wants an identity: the first time it becomes due at once; later the more urgent priority stands. A failed one
    /// keeps its wait, or callers would turn the backoff off.
    pub(crate) fn want(
        &mut self,
        identity: &Identity,
        priority: Priority,
        now: SystemTime,
    ) -> watch::Receiver<Snapshot> {
        let entry =
            self.entries.entry(identity.clone()).or_insert_with(|| Entry::new(None, priority, now, now));
        entry.priority = entry.priority.max(priority);
        entry.snapshot.subscribe()
    }

    /// Forgets an identity; what is under way for it is thrown away when it arrives. True if it was known.
    pub(crate) fn forget(&mut self, identity: &Identity) -> bool {
        self.entries.remove(identity).is_some()
    }

    /// Takes up to `limit` − in flight fetches that are due, the most urgent first.
    pub(crate) fn start(&mut self, now: SystemTime, limit: usize) -> Vec<Fetch> {
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.in_flight && entry.due() <= now)
            .map(|(identity, entry)| (std::cmp::Reverse(entry.priority), entry.due(), identity.clone()))
            .collect();
        due.sort();
        due.truncate(limit.saturating_sub(self.in_flight));
        let mut fetches = Vec::with_capacity(due.len());
        for (_, _, identity) in due {
            if let Some(entry) = self.entries.get_mut(&identity) {
                entry.in_flight = true;
                self.in_flight += 1;
                self.started += 1;
                fetches.push(Fetch { identity, sequence: self.started });
            }
        }
        fetches
    }

    /// When the next fetch is due, of those not under way.
    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        self.entries.values().filter(|entry| !entry.in_flight).map(Entry::due).min()
    }

    /// Takes the outcome of a fetch.
    pub(crate) fn finish(
        &mut self,
        fetch: &Fetch,
        outcome: Result<CertificateBundle, String>,
        now: SystemTime,
        chance: f64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let outcome = outcome.and_then(|bundle| {
            self.tls.revocations().check(bundle.chain()).map_err(|revoked| revoked.to_string())?;
            self.adopt(Arc::new(bundle), fetch.sequence, now).map_err(|error| error.to_string())
        });
        // Signed before it was said that another signs.
        let outdated = fetch.sequence <= self.announced.since
            && outcome.as_ref().is_ok_and(|credentials| !self.announced.issued(credentials.bundle()));
        let Some(entry) = self.entries.get_mut(&fetch.identity) else {
            return; // forgotten meanwhile
        };
        entry.in_flight = false;
        let credentials = match outcome {
            Ok(credentials) => {
                entry.failures = 0;
                entry.fetched = now;
                entry.priority = Priority::Background;
                Ok(Arc::new(credentials))
            }
            Err(why) => {
                entry.failures = entry.failures.saturating_add(1);
                Err(Arc::<str>::from(why))
            }
        };
        let failures = entry.failures;
        entry.snapshot.send_modify(|snapshot| {
            match credentials {
                Ok(credentials) => {
                    snapshot.held = Some(credentials);
                    snapshot.failure = None;
                }
                Err(why) => snapshot.failure = Some(why),
            }
            let held = snapshot.held.as_ref().map(|held| held.bundle().validity());
            snapshot.due = next_fetch(Situation { held, failures, now, chance });
            if let Some(held) = held.filter(|_| outdated) {
                snapshot.due = snapshot.due.min(replace_at(held, now, chance));
            }
        });
    }

    /// Takes what the controller says of roots and of who signs: certificates that others signed are fetched anew,
    /// those that no root vouches for at once. Without roots those of the newest reply stay in force.
    ///
    /// # Errors
    /// If there is no usable root among them; nothing is changed then.
    pub(crate) fn announce(
        &mut self,
        roots: Option<RootBundle>,
        issuer: Option<CertificateDer<'static>>,
        now: SystemTime,
        mut chance: impl FnMut() -> f64,
    ) -> Result<bool, TlsError> {
        let trusted = roots.as_ref().is_none_or(|roots| self.roots() == Some(roots));
        if trusted && self.announced.roots == roots.is_some() && self.announced.issuer == issuer {
            return Ok(false);
        }
        let announced = Announced { roots: roots.is_some(), issuer, since: self.started };
        if let Some(roots) = roots.filter(|_| !trusted) {
            let trust = self.tls.trust(roots)?;
            self.trust = Some((self.started, trust.clone()));
            self.retrust(&trust, now, |_| now);
        }
        self.announced = announced;
        for entry in self.entries.values() {
            let outdated = |held: &Arc<Credentials>| !self.announced.issued(held.bundle());
            entry.snapshot.send_if_modified(|snapshot| {
                match snapshot.held.as_ref().filter(|held| outdated(held)) {
                    Some(held) => {
                        let at = replace_at(held.bundle().validity(), now, chance());
                        snapshot.due = snapshot.due.min(at);
                        true
                    }
                    None => false,
                }
            });
        }
        Ok(true)
    }

    /// Gives up what is revoked, and has it fetched anew at once, like what there was none of: that may have been because
    /// its identity was revoked. Returns whose was given up.
    pub(crate) fn drop_revoked(&mut self, now: SystemTime) -> Vec<Identity> {
        let revoked = self.tls.revocations().current();
        let mut dropped = Vec::new();
        for (identity, entry) in &mut self.entries {
            let held = entry.snapshot.borrow().held.clone();
            let Some(held) = held else {
                entry.failures = 0;
                entry.snapshot.send_modify(|snapshot| snapshot.due = snapshot.due.min(now));
                continue;
            };
            let Err(revoked) = revoked.check(held.bundle().chain()) else { continue };
            dropped.push(identity.clone());
            entry.failures = 0;
            entry.snapshot.send_modify(|snapshot| {
                snapshot.held = None;
                snapshot.failure = Some(revoked.to_string().into());
                snapshot.due = now;
            });
        }
        dropped
    }

    /// The roots that peers are verified against, once there was a certificate.
    pub(crate) fn roots(&self) -> Option<&RootBundle> {
        self.trust.as_ref().map(|(_, trust)| trust.bundle())
    }

    /// Takes the roots kept from an earlier process, before its certificates.
    ///
    /// # Errors
    /// If they hold no usable root.
    pub(crate) fn restore_roots(&mut self, roots: RootBundle, now: SystemTime) -> Result<(), TlsError> {
        if self.trust.is_none() {
            self.change_trust(roots, BEFORE_ALL, now)?;
        }
        Ok(())
    }

    /// Takes a certificate kept from an earlier process.
    ///
    /// # Errors
    /// If it is revoked, or no TLS configuration can be made of it.
    pub(crate) fn restore(
        &mut self,
        bundle: Arc<CertificateBundle>,
        now: SystemTime,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let identity = bundle.identity().clone();
        let validity = bundle.validity();
        self.tls.revocations().check(bundle.chain())?;
        let credentials = self.adopt(bundle, BEFORE_ALL, now)?;
        let outdated = !self.announced.issued(credentials.bundle());
        let mut due = next_fetch(Situation { held: Some(validity), failures: 0, now, chance: 0.5 });
        if outdated {
            due = due.min(replace_at(validity, now, self.tls.chance()));
        }
        let entry =
            self.entries.entry(identity).or_insert_with(|| Entry::new(None, Priority::Background, due, now));
        entry.snapshot.send_if_modified(|snapshot| {
            let wanted = snapshot.held.is_none();
            if wanted {
                snapshot.held = Some(Arc::new(credentials));
                snapshot.due = due;
            }
            wanted
        });
        Ok(())
    }

    /// Makes credentials of a bundle under the roots announced, else the newest. All certificates come from one
    /// authority, so roots that differ from those in use and were asked for later are its newest, and take effect for
    /// every identity at once rather than at each one's own half-life.
    fn adopt(
        &mut self,
        bundle: Arc<CertificateBundle>,
        sequence: u64,
        now: SystemTime,
    ) -> Result<Credentials, TlsError> {
        let trust = match &self.trust {
            // The reply may be of a replica that knows less.
            Some((_, trust)) if self.announced.roots => trust.clone(),
            Some((since, trust)) if *since >= sequence || trust.bundle() == bundle.roots() => trust.clone(),
            _ => self.change_trust(bundle.roots().clone(), sequence, now)?,
        };
        self.tls.credentials(bundle, &trust)
    }

    fn change_trust(&mut self, roots: RootBundle, sequence: u64, now: SystemTime) -> Result<Trust, TlsError> {
        let trust = self.tls.trust(roots)?;
        self.trust = Some((sequence, trust.clone()));
        self.retrust(&trust, now, |fetched| now.max(fetched + TRUST_REFETCH));
        Ok(trust)
    }

    /// Rebuilds everything held under new roots; what they do not vouch for is fetched again soon, as peers that have
    /// the new roots will refuse it.
    fn retrust(&mut self, trust: &Trust, now: SystemTime, soon: impl Fn(SystemTime) -> SystemTime) {
        for (identity, entry) in &mut self.entries {
            let Some(held) = entry.snapshot.borrow().held.clone() else { continue };
            let vouched = trust.vouches_for(held.bundle(), now);
            let rebuilt = match self.tls.credentials(Arc::clone(held.bundle()), trust) {
                Ok(credentials) => Arc::new(credentials),
                Err(error) => {
                    tracing::error!(%identity, %error, "cannot use new roots; the old ones stay for this identity");
                    continue;
                }
            };
            let soon = soon(entry.fetched);
            entry.snapshot.send_modify(|snapshot| {
                snapshot.held = Some(rebuilt);
                if !vouched {
                    snapshot.due = snapshot.due.min(soon);
                }
            });
        }
    }
}

impl Announced {
    /// Whether who signs now signed this; true where nobody said who does.
    fn issued(&self, bundle: &CertificateBundle) -> bool {
        match (&self.issuer, bundle.chain().first()) {
            (Some(issuer), Some(leaf)) => verify::is_signed_by(leaf, issuer),
            _ => true,
        }
    }
}

/// When a certificate that another has to replace is fetched: soon, but not by all at once.
fn replace_at(held: Validity, now: SystemTime, chance: f64) -> SystemTime {
    let remaining = held.not_after.duration_since(now).unwrap_or_default();
    now + (remaining / 4).min(REPLACE_WITHIN).mul_f64(chance.clamp(0.0, 1.0))
}
