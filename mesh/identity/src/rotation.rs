//! Certificates of all identities that this process speaks as: fetched on first need, renewed at half of their life,
//! kept while they are valid whatever happens to the authority.
//!
//! ```text
//! get / prefetch / forget ─► store (what is due?) ─► drive: ≤ 8 fetches ─► authority
//!        ▲                        │  ▲                       │
//!        └── current, watches ◄───┘  └───── finish ◄─────────┘
//! ```
//!
//! The owner spawns the one future that [`Certificates::drive`] returns; handles work from any thread.

mod expiry;
mod export;
mod listing;
mod schedule;
mod store;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::identity::Identity;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::authority::{AuthorityError, CertificateAuthority};
use crate::bundle::{CertificateBundle, RootBundle};
use crate::revocation::RevokedSet;
use crate::tls::{Credentials, Tls, TlsError};

pub use expiry::Expiries;
pub use export::ImportError;
pub use listing::{CertificateState, ListedCertificate};
use store::{Fetch, Snapshot, Store};

/// The longest the driver sleeps without looking at the clock: a suspended machine or a stepped clock is noticed
/// within this.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// What time it is. Injected so that tests can let a day pass.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How urgently an identity is wanted, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Renewal: there is half a lifetime for it.
    Background,
    /// A pod of this node will need it.
    Warmup,
    /// A connection waits for it.
    RealTime,
}

/// Limits of the rotation.
#[derive(Debug, Clone)]
pub struct RotationSettings {
    /// Fetches under way at a time.
    pub concurrent_fetches: usize,
    /// How long one fetch may take before it counts as failed.
    pub fetch_timeout: Duration,
    /// How long [`Certificates::get`] waits for a first certificate.
    pub first_wait: Duration,
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self {
            concurrent_fetches: 8,
            fetch_timeout: Duration::from_secs(10),
            first_wait: Duration::from_secs(5),
        }
    }
}

/// Why an identity has no certificate right now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no certificate for {identity}: {why}")]
pub struct Unavailable {
    /// Whose.
    pub identity: Identity,
    /// The last failure, or that the first fetch has not come back yet.
    pub why: Arc<str>,
}

/// The certificates of this process. A handle; clones share everything.
#[derive(Clone)]
pub struct Certificates(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    /// Something became due earlier than the driver knows.
    wake: Notify,
    /// Counts changes of what is held, for whoever keeps a copy ([`Certificates::export`]).
    changes: watch::Sender<u64>,
    /// The roots in force, for whoever has to act when they change.
    roots: watch::Sender<Option<RootBundle>>,
    settings: RotationSettings,
    clock: WallClock,
    tls: Tls,
}

/// One identity's certificate, followed without looking it up again.
#[derive(Clone)]
pub struct CertificateWatch {
    identity: Identity,
    snapshot: watch::Receiver<Snapshot>,
    clock: WallClock,
}

impl Certificates {
    /// No identities yet; nothing is fetched before [`Self::drive`] runs.
    pub fn new(tls: Tls, settings: RotationSettings) -> Self {
        Self::with_clock(tls, settings, Arc::new(SystemTime::now))
    }

    /// As [`Self::new`], by another clock.
    pub fn with_clock(tls: Tls, settings: RotationSettings, clock: WallClock) -> Self {
        Self(Arc::new(Shared {
            store: Mutex::new(Store::new(tls.clone())),
            wake: Notify::new(),
            changes: watch::Sender::new(0),
            roots: watch::Sender::new(None),
            settings,
            clock,
            tls,
        }))
    }

    /// The certificate of an identity, if there is one that is valid now. Never waits, fetches nothing.
    pub fn current(&self, identity: &Identity) -> Option<Arc<Credentials>> {
        self.0.store().peek(identity)?.usable(self.0.now()).cloned()
    }

    /// The certificate of an identity, waiting for the first one. All who wait share one fetch; a failed fetch is
    /// retried while they wait, as an authority may not know a pod yet that was just scheduled.
    ///
    /// # Errors
    /// [`Unavailable`] after [`RotationSettings::first_wait`], or at once if the next attempt is further away.
    pub async fn get(&self, identity: &Identity) -> Result<Arc<Credentials>, Unavailable> {
        if let Some(held) = self.current(identity) {
            return Ok(held);
        }
        let mut watch = self.want(identity, Priority::RealTime);
        let deadline = self.0.now() + self.0.settings.first_wait;
        let waited = tokio::time::timeout(self.0.settings.first_wait, watch.ready(deadline)).await;
        waited.unwrap_or_else(|_| Err(watch.unavailable()))
    }

    /// Fetches an identity's certificate ahead of need and keeps it renewed until [`Self::forget`].
    pub fn prefetch(&self, identity: &Identity) -> CertificateWatch {
        self.want(identity, Priority::Warmup)
    }

    /// Drops an identity, when its last pod has left.
    pub fn forget(&self, identity: &Identity) {
        if self.0.store().forget(identity) {
            self.0.changed();
        }
    }

    /// Takes what the controller says beside the certificates' own replies: the roots in force, and which certificate
    /// signs now; what another signed is fetched anew, spread over a while. Without roots those of the newest reply
    /// stay in force, as of a controller that says nothing of them.
    ///
    /// # Errors
    /// If there is no usable root among them; those in force stay then.
    pub fn announce(
        &self,
        roots: Option<RootBundle>,
        issuer: Option<CertificateDer<'static>>,
    ) -> Result<(), TlsError> {
        let (now, tls) = (self.0.now(), &self.0.tls);
        if self.0.store().announce(roots, issuer, now, || tls.chance())? {
            self.0.wake.notify_one();
            self.0.changed();
        }
        Ok(())
    }

    /// Takes what is revoked: it counts at the next handshake of every configuration made here, what is held and
    /// revoked is given up and asked for anew, and so is what there was none of. True if it is something else than before.
    pub fn revoke(&self, revoked: RevokedSet) -> bool {
        if !self.0.tls.revocations().set(revoked) {
            return false;
        }
        let dropped = self.0.store().drop_revoked(self.0.now());
        for identity in &dropped {
            tracing::warn!(%identity, "the certificate held is revoked; it is given up, another is asked for");
        }
        self.0.wake.notify_one();
        if !dropped.is_empty() {
            self.0.changed();
        }
        true
    }

    /// The roots that peers are verified against, once there are any, and their changes.
    pub fn roots(&self) -> watch::Receiver<Option<RootBundle>> {
        self.0.roots.subscribe()
    }

    /// Counts changes: a certificate or the roots were replaced, an identity forgotten. To be watched by whoever
    /// keeps a copy of [`Self::export`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Fetches what is due, forever. Spawn it once; dropping it stops all fetching and keeps what is held.
    pub fn drive<A: CertificateAuthority>(&self, authority: A) -> impl Future<Output = ()> + use<A> {
        drive(Arc::clone(&self.0), authority)
    }

    fn want(&self, identity: &Identity, priority: Priority) -> CertificateWatch {
        let snapshot = self.0.store().want(identity, priority, self.0.now());
        self.0.wake.notify_one();
        CertificateWatch { identity: identity.clone(), snapshot, clock: Arc::clone(&self.0.clock) }
    }
}

impl CertificateWatch {
    /// The certificate, if there is one that is valid now.
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.snapshot.borrow().usable((self.clock)()).cloned()
    }

    /// Waits until the certificate, the roots or the reason for having none changes. False once the identity is
    /// forgotten.
    pub async fn changed(&mut self) -> bool {
        self.snapshot.changed().await.is_ok()
    }

    /// Waits for a valid certificate while one may still come before `deadline`.
    async fn ready(&mut self, deadline: SystemTime) -> Result<Arc<Credentials>, Unavailable> {
        loop {
            {
                let snapshot = self.snapshot.borrow_and_update();
                if let Some(held) = snapshot.usable((self.clock)()) {
                    return Ok(Arc::clone(held));
                }
                if snapshot.failure.is_some() && snapshot.due > deadline {
                    drop(snapshot);
                    return Err(self.unavailable());
                }
            }
            if self.snapshot.changed().await.is_err() {
                return Err(Unavailable {
                    identity: self.identity.clone(),
                    why: "its last pod has left this node".into(),
                });
            }
        }
    }

    fn unavailable(&self) -> Unavailable {
        let why = self.snapshot.borrow().failure.clone();
        let why = why.unwrap_or_else(|| "the certificate authority has not answered yet".into());
        Unavailable { identity: self.identity.clone(), why }
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> SystemTime {
        (self.clock)()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
        let roots = self.store().roots().cloned();
        self.roots.send_if_modified(|held| {
            let changed = *held != roots;
            if changed {
                *held = roots;
            }
            changed
        });
    }

    /// Takes the outcome of a fetch and says it in the log.
    fn finish(&self, fetch: &Fetch, outcome: Result<CertificateBundle, AuthorityError>) {
        match &outcome {
            Ok(bundle) => tracing::info!(
                identity = %fetch.identity, valid = ?bundle.validity().not_after.duration_since(self.now()).ok(),
                "certificate fetched"
            ),
            Err(error) => {
                tracing::warn!(identity = %fetch.identity, %error, "certificate not fetched");
                self.alarm(&fetch.identity);
            }
        }
        let fetched = outcome.is_ok();
        let outcome = outcome.map_err(|error| error.to_string());
        self.store().finish(fetch, outcome, self.now(), self.tls.chance());
        if fetched {
            self.changed();
        }
    }
}

async fn drive<A: CertificateAuthority>(shared: Arc<Shared>, authority: A) {
    let mut fetches = FuturesUnordered::new();
    let limit = shared.settings.concurrent_fetches.max(1);
    loop {
        let now = shared.now();
        let due = shared.store().start(now, limit);
        fetches.extend(due.into_iter().map(|fetch| perform(&shared, &authority, fetch)));
        let next = if fetches.len() < limit { shared.store().next_due() } else { None };
        let pause = next.map_or(CLOCK_CHECK, |due| due.duration_since(now).unwrap_or_default());
        tokio::select! {
            Some((fetch, outcome)) = fetches.next() => shared.finish(&fetch, outcome),
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(pause.min(CLOCK_CHECK)) => {}
        }
    }
}

async fn perform<A: CertificateAuthority>(
    shared: &Shared,
    authority: &A,
    fetch: Fetch,
) -> (Fetch, Result<CertificateBundle, AuthorityError>) {
    let limit = shared.settings.fetch_timeout;
    let outcome = tokio::time::timeout(limit, authority.issue(&fetch.identity)).await;
    (fetch, outcome.unwrap_or(Err(AuthorityError::TimedOut(limit))))
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl fmt::Debug for CertificateWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateWatch").field("identity", &self.identity).finish_non_exhaustive()
    }
}
