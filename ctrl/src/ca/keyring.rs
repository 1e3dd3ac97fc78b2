//! Every authority whose certificates count: the one that signs, its successor, those that signed before. Roots change by
//! [`phase`]; what was issued stands in [`ledger`], what was revoked in [`revoked`].
//!
//! Nothing here waits or knows of connections: [`upkeep`](super::upkeep) tells the time and who trusts what, and
//! publishes what comes of it.

mod authorities;
pub mod ledger;
mod look;
pub mod phase;
mod plugged;
pub mod revoked;
mod shared;
mod stored;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use identity::bundle::RootBundle;
use identity::revocation::{MAX_LISTS, RevocationList, serial_of};
use model::identity::Identity;
use model::mesh::Trust;

pub use self::look::Ends;
pub use self::shared::Texts;

use self::authorities::{Authorities, Member};
use self::ledger::{Issued, Ledger, Print};
use self::plugged::Plugged;
use self::revoked::{RevokedHere, SignedList, lists_pem, may_sign_lists};
use super::authorize::Caller;
use super::issue::{self, IssueError, Lifetimes};
use super::root::{Authority, ROOT_FILE, RootError, write_atomically};
use crate::limits::{Limit, Limits};

/// Roots do not change more often than this while one certificate is signed.
const ATTEMPTS: usize = 4;

/// The published lists of revoked certificates, beside the published roots.
const CRL_FILE: &str = "ca-crl.pem";

/// How roots are made and changed.
#[derive(Debug, Clone)]
pub struct KeyringSettings {
    /// What outlives a restart.
    pub state: PathBuf,
    /// Folder of a plugged-in authority.
    pub plugged: Option<PathBuf>,
    /// Of the identities issued here.
    pub trust_domain: Arc<str>,
    /// How long a root made here lives.
    pub root_lifetime: Duration,
    /// The share of a root's life, in percent, that is left when its successor is made.
    pub grace_percent: u32,
    /// How long a successor waits for those who have not said that they trust it.
    pub patience: Duration,
    /// Of what is issued.
    pub lifetimes: Lifetimes,
    /// Told when more is issued than is remembered.
    pub limits: Limits,
    /// Other replicas sign with the same authorities, each with a list of its own of what it issued.
    pub replicated: bool,
}

impl KeyringSettings {
    /// The usual settings for a state folder.
    pub fn new(state: impl Into<PathBuf>, trust_domain: impl Into<Arc<str>>) -> Self {
        Self {
            state: state.into(),
            plugged: None,
            trust_domain: trust_domain.into(),
            root_lifetime: Duration::from_secs(10 * 365 * 24 * 3600),
            grace_percent: 20,
            patience: Duration::from_secs(24 * 3600),
            lifetimes: Lifetimes::default(),
            limits: Limits::default(),
            replicated: false,
        }
    }
}

/// The authorities of a mesh.
#[derive(Debug)]
pub struct Keyring {
    pub(super) settings: KeyringSettings,
    held: RwLock<Held>,
}

#[derive(Debug)]
struct Held {
    authorities: Authorities,
    ledger: Ledger,
    revoked: RevokedHere,
    plugged: Option<Plugged>,
    /// Lists signed here, each with its signer.
    lists: Vec<(String, SignedList)>,
    /// Something was revoked since they were signed.
    stale: bool,
    /// What is in force is not all written down.
    unkept: bool,
}

/// Who signs, and whom its holder is to trust.
#[derive(Debug)]
struct Signer {
    authority: Arc<Authority>,
    print: Print,
    bundle: RootBundle,
}

/// Why something is not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// Neither a name nor a number that is known.
    #[error(
        "{0:?} is neither an identity (spiffe://… or NAMESPACE/SERVICEACCOUNT) nor the serial number of a certificate \
         that was issued here and has not ended"
    )]
    Unknown(String),
    /// An identity of another mesh.
    #[error("{0} is not of this mesh's trust domain")]
    Foreign(Identity),
    /// The plugged-in authority signs no lists.
    #[error(
        "the plugged-in signing certificate may not sign lists of revoked certificates (its key usage lacks cRLSign); \
         have its own authority sign one and put it beside it as ca-crl.pem"
    )]
    MayNotSign,
    /// It could not be kept.
    #[error(transparent)]
    Kept(#[from] RootError),
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedNow {
    /// Whose certificates.
    pub identity: Identity,
    /// Whether the identity gets no more certificates.
    pub whole: bool,
    /// How many of them had not ended.
    pub certificates: usize,
}

impl Keyring {
    /// The authorities as an earlier process left them; the plugged-in one if a folder is named; else one made here.
    ///
    /// # Errors
    /// [`RootError`], naming the file at fault. A plugged-in authority that is wrong is never replaced by another.
    pub fn open(settings: KeyringSettings, now: SystemTime) -> Result<Self, RootError> {
        let state = &settings.state;
        std::fs::create_dir_all(state).map_err(|source| RootError::Write { path: state.clone(), source })?;
        let plugged = settings.plugged.as_deref().map(Plugged::open).transpose()?;
        let (authorities, fresh) =
            Authorities::open(&settings, plugged.as_ref().map(Plugged::material), now)?;
        let mut held = Held {
            authorities,
            ledger: Ledger::open(ledger::path(state), fresh, now)?,
            revoked: RevokedHere::open(state)?,
            plugged,
            lists: Vec::new(),
            stale: true,
            unkept: false,
        };
        held.authorities.settle_ends(&held.ledger, settings.lifetimes.longest, now);
        let keyring = Self { settings, held: RwLock::new(held) };
        keyring.keep(&mut keyring.write(), now)?;
        Ok(keyring)
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the identities issued here.
    pub fn trust_domain(&self) -> &str {
        &self.settings.trust_domain
    }

    /// The authority that signs now.
    pub fn current(&self) -> Arc<Authority> {
        self.read().authorities.current.authority.clone()
    }

    /// What it is known by.
    pub(super) fn current_print(&self) -> String {
        self.read().authorities.current.print.clone()
    }

    /// Everything that is trusted now.
    pub fn roots(&self) -> RootBundle {
        self.read().authorities.bundle()
    }

    /// What proxies are told.
    pub fn trust(&self) -> Trust {
        let held = self.read();
        let own = held.lists.iter().map(|(_, signed)| &signed.list);
        let plugged = held.plugged.iter().flat_map(Plugged::lists);
        Trust {
            roots: held.authorities.bundle().certificates().iter().map(|root| Arc::from(&**root)).collect(),
            crls: own.chain(plugged).take(MAX_LISTS).map(|list| list.der().clone()).collect(),
            identities: held.revoked.identities().map(|(identity, _)| identity.clone()).collect(),
            issuer: Some(Arc::from(&*held.authorities.current.authority.certificate)),
        }
    }

    /// Issues a certificate for `identity` to `holder`, and notes it.
    ///
    /// # Errors
    /// [`IssueError`] if the request is no good, the identity is revoked or the authority is out of its time.
    pub fn issue(
        &self,
        holder: &Caller,
        identity: &Identity,
        csr: &str,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<issue::Issued, IssueError> {
        for _ in 0..ATTEMPTS {
            let by = self.signer(identity)?;
            let (issued, leaf) =
                by.authority.issue(identity, csr, lifetime, self.settings.lifetimes, &by.bundle, now)?;
            let serial =
                serial_of(&leaf).ok_or_else(|| IssueError::Sign("it has no serial number".to_owned()))?;
            let noted = Issued {
                serial,
                issuer: by.print.clone(),
                holder: holder.clone(),
                identity: identity.clone(),
                at: now,
                not_after: issued.validity.not_after,
            };
            if self.note(&by, noted)? {
                return Ok(issued);
            }
        }
        Err(IssueError::Sign("the roots changed each time while it was signed".to_owned()))
    }

    /// Who signs for an identity now. Signing takes no lock: it is most of the work.
    fn signer(&self, identity: &Identity) -> Result<Signer, IssueError> {
        let held = self.read();
        if held.revoked.is_revoked(identity) {
            return Err(IssueError::Revoked(identity.clone()));
        }
        let Member { authority, print, .. } = &held.authorities.current;
        Ok(Signer { authority: authority.clone(), print: print.clone(), bundle: held.authorities.bundle() })
    }

    /// Notes what was signed. False if it must not be given away, as things have changed since: nothing is signed by an
    /// authority whose last certificate was looked for already, and nobody overlooks a root.
    fn note(&self, by: &Signer, issued: Issued) -> Result<bool, IssueError> {
        let mut held = self.write();
        if held.revoked.is_revoked(&issued.identity) {
            return Err(IssueError::Revoked(issued.identity));
        }
        if held.authorities.current.print != by.print || held.authorities.bundle() != by.bundle {
            return Ok(false);
        }
        if let Some(forgotten) = held.ledger.note(issued)
            && self.settings.limits.hit_and_tell(Limit::CertificatesKnown)
        {
            tracing::warn!(
                holder = ?forgotten.holder, identity = %forgotten.identity,
                "so many certificates are in use that the oldest of who holds most is forgotten: it can be revoked with \
                 its identity only"
            );
        }
        Ok(true)
    }

    /// Begins a change of roots: a new one is made and distributed. False if one is under way.
    ///
    /// # Errors
    /// It cannot be made or kept; nothing changes.
    pub fn begin(&self, now: SystemTime) -> Result<bool, RootError> {
        let mut held = self.write();
        if held.authorities.next.is_some() {
            return Ok(false);
        }
        let made = Member::make(&self.settings, now)?;
        tracing::info!(root = %made.print, "a new root is distributed; it signs once everybody trusts it");
        held.authorities.next = Some((made, now));
        if let Err(error) = self.keep(&mut held, now) {
            held.authorities.next = None;
            return Err(error);
        }
        Ok(true)
    }

    /// The successor signs from now on, the one before stays trusted until the last certificate it signed has ended.
    ///
    /// # Errors
    /// It cannot be written down now, and [`Keyring::tidy`] tries again; it signs all the same.
    pub fn switch(&self, now: SystemTime) -> Result<(), RootError> {
        let mut held = self.write();
        let held = &mut *held;
        if self.settings.replicated {
            held.ledger.others_sign(now);
        }
        held.authorities.switch(&held.ledger, self.settings.lifetimes.longest, now);
        tracing::info!(issuer = %held.authorities.current.print, "another authority signs from now on");
        self.keep(held, now)
    }

    /// A retired authority is trusted no more.
    ///
    /// # Errors
    /// It cannot be written down now, and [`Keyring::tidy`] tries again.
    pub fn drop_retired(&self, place: usize, now: SystemTime) -> Result<(), RootError> {
        let mut held = self.write();
        let gone = held.authorities.retired.remove(place);
        tracing::info!(issuer = %gone.print, "a retired authority is trusted no more: all it signed has ended");
        self.keep(&mut held, now)
    }

    /// Reads the plugged-in authority again. True if something has changed.
    ///
    /// # Errors
    /// What is wrong with the files, said once; what is in force stays. Or what is in force now cannot be written down, and
    /// [`Keyring::tidy`] tries again.
    pub fn reread(&self, now: SystemTime) -> Result<bool, RootError> {
        let Some(folder) = &self.settings.plugged else { return Ok(false) };
        let seen = Plugged::look(folder);
        let mut held = self.write();
        let held = &mut *held;
        let Some(plugged) = held.plugged.as_mut().filter(|plugged| plugged.is_news(&seen)) else {
            return Ok(false);
        };
        let fresh = plugged.take(seen, &self.settings.trust_domain, now)?;
        if let Some(member) = fresh {
            held.authorities.plug(member, now);
        }
        self.keep(held, now)?;
        Ok(true)
    }

    /// What is wrong with the plugged-in files, if they are not what is in force.
    pub fn problem(&self) -> Option<String> {
        self.read().plugged.as_ref().and_then(|plugged| plugged.problem().map(str::to_owned))
    }

    /// Revokes what a person named: an identity with all its certificates, or one certificate.
    ///
    /// # Errors
    /// [`RevokeError`]; nothing is revoked then, unless it is that it cannot be written down.
    pub fn revoke(&self, named: &str, now: SystemTime) -> Result<RevokedNow, RevokeError> {
        let mut held = self.write();
        let held = &mut *held;
        if !may_sign_lists(&held.authorities.current.authority.certificate) {
            return Err(RevokeError::MayNotSign);
        }
        held.ledger.expire(now);
        let done = match self.named(named) {
            Some(identity) => {
                if **identity.trust_domain() != *self.settings.trust_domain {
                    return Err(RevokeError::Foreign(identity));
                }
                let of_it = held.ledger.iter().filter(|issued| issued.identity == identity);
                let of_it: Vec<&Issued> = of_it.collect();
                held.revoked.add(Some(&identity), of_it.iter().copied(), now)?;
                RevokedNow { certificates: of_it.len(), whole: true, identity }
            }
            None => {
                let serial = serial_named(named);
                let found = held.ledger.iter().find(|issued| Some(&issued.serial) == serial.as_ref());
                let issued = found.ok_or_else(|| RevokeError::Unknown(named.to_owned()))?;
                held.revoked.add(None, [issued], now)?;
                RevokedNow { certificates: 1, whole: false, identity: issued.identity.clone() }
            }
        };
        tracing::warn!(identity = %done.identity, whole = done.whole, certificates = done.certificates, "revoked");
        held.stale = true;
        self.keep(held, now)?;
        Ok(done)
    }

    /// Lets an identity have certificates again.
    ///
    /// # Errors
    /// It is no identity, or was not revoked, or it cannot be kept.
    pub fn restore(&self, named: &str) -> Result<Identity, RevokeError> {
        let unknown = || RevokeError::Unknown(named.to_owned());
        let identity = self.named(named).ok_or_else(unknown)?;
        let restored = self.write().revoked.restore(&identity)?;
        tracing::warn!(%identity, restored, "gets certificates again");
        if restored { Ok(identity) } else { Err(unknown()) }
    }

    fn named(&self, text: &str) -> Option<Identity> {
        if text.starts_with("spiffe://") {
            return text.parse().ok();
        }
        let (namespace, account) = text.split_once('/')?;
        let whole = !namespace.is_empty() && !account.is_empty() && !account.contains('/');
        let spiffe = format!("spiffe://{}/ns/{namespace}/sa/{account}", self.settings.trust_domain);
        spiffe.parse().ok().filter(|_| whole)
    }

    /// Forgets what has ended and signs lists that are due. True if proxies have to be told.
    pub fn tidy(&self, now: SystemTime) -> bool {
        let mut held = self.write();
        let held = &mut *held;
        held.ledger.expire(now);
        held.stale |= held.revoked.expire(now);
        if held.unkept
            && let Err(error) = self.keep(held, now)
        {
            tracing::error!(%error, "what is in force is still not written down; it is tried again");
        }
        self.sign_lists(held, now)
    }

    /// Signs lists that are due, writes everything down, publishes roots and lists as files. What fails,
    /// [`Keyring::tidy`] tries again.
    fn keep(&self, held: &mut Held, now: SystemTime) -> Result<(), RootError> {
        held.unkept = true;
        self.sign_lists(held, now);
        held.authorities.keep(&self.settings.state)?;
        publish(&self.settings.state.join(ROOT_FILE), &held.authorities.bundle().to_pem())?;
        held.unkept = false;
        Ok(())
    }

    fn sign_lists(&self, held: &mut Held, now: SystemTime) -> bool {
        let signers: Vec<_> = held.authorities.signers().collect();
        let mut lists = Vec::with_capacity(signers.len());
        let mut failed = false;
        for (print, certificate, issuer) in signers {
            let before = held.lists.iter().find(|(signer, _)| signer == print).map(|(_, signed)| signed);
            match held.revoked.list(print, certificate, issuer, before, held.stale, now) {
                Ok(list) => lists.extend(list.map(|list| (print.to_owned(), list))),
                Err(error) => {
                    tracing::error!(%error, issuer = print, "a list of revoked certificates cannot be signed");
                    lists.extend(before.map(|before| (print.to_owned(), before.clone())));
                    failed = true;
                }
            }
        }
        // One that is older than what was revoked since is signed again.
        held.stale = failed;
        let ders = |lists: &[(String, SignedList)]| -> Vec<_> {
            lists.iter().map(|(_, signed)| signed.list.der().clone()).collect()
        };
        let changed = ders(&lists) != ders(&held.lists);
        held.lists = lists;
        let plugged = held.plugged.iter().flat_map(Plugged::lists);
        let all: Vec<&RevocationList> =
            held.lists.iter().map(|(_, signed)| &signed.list).chain(plugged).collect();
        let path = self.settings.state.join(CRL_FILE);
        if (!all.is_empty() || path.exists())
            && let Err(error) = publish(&path, &lists_pem(all))
        {
            tracing::error!(%error, "the lists of revoked certificates are not published as a file");
        }
        changed
    }
}

/// Writes a file for others to watch: not when it says the same already.
fn publish(path: &Path, text: &str) -> Result<(), RootError> {
    if std::fs::read_to_string(path).ok().as_deref() == Some(text) {
        return Ok(());
    }
    write_atomically(path, text, 0o644)
}

/// A serial number as people write it: hexadecimal, with or without colons, or decimal as listings have it.
fn serial_named(text: &str) -> Option<Box<[u8]>> {
    let digits: String = text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    let hexadecimal = stored::bytes(&digits).map(|raw| identity::revocation::serial(&raw));
    // 127 bits are 38 or 39 decimal digits and 32 hexadecimal ones: no number is both.
    if digits.len() > 34 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u128 = digits.parse().ok()?;
        return Some(identity::revocation::serial(&number.to_be_bytes()));
    }
    hexadecimal
}

#[cfg(test)]
mod tests;
