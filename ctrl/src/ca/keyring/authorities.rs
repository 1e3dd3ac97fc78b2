//! The authorities that are trusted, as they are kept and as they are found again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::bundle::RootBundle;
use identity::revocation::hexadecimal;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::KeyringSettings;
use super::ledger::{Ledger, Print, seconds, time};
use super::revoked::may_sign_lists;
use super::stored::{Stored, StoredAuthority, StoredNext, StoredRetired};
use crate::ca::root::{
    Authority, CERT_FILE, KEY_FILE, Material, ROOT_FILE, RootError, one_certificate, read_roots,
    write_atomically,
};

/// All authorities whose certificates count.
#[derive(Debug)]
pub(crate) struct Authorities {
    /// The one that signs.
    pub(crate) current: Member,
    /// The one that is trusted already and signs next, and since when it is distributed.
    pub(crate) next: Option<(Member, SystemTime)>,
    /// Those that signed before.
    pub(crate) retired: Vec<Retired>,
}

/// An authority that can sign.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) authority: Arc<Authority>,
    pub(crate) print: Print,
    /// Made here, and not brought by people.
    pub(crate) made_here: bool,
    stored: StoredAuthority,
}

/// An authority that signs no more certificates.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) print: Print,
    pub(crate) roots: RootBundle,
    /// When the last certificate it signed ends.
    pub(crate) until: SystemTime,
    certificate: CertificateDer<'static>,
    /// For its list of revoked certificates; nothing where its key is gone.
    issuer: Option<Issuer<'static, KeyPair>>,
    stored: StoredAuthority,
}

/// A digest of a signing certificate.
pub(crate) fn print_of(certificate: &CertificateDer<'_>) -> Print {
    hexadecimal(&Sha256::digest(certificate)[..16])
}

impl Member {
    pub(super) fn of(
        material: &Material,
        made_here: bool,
        trust_domain: &str,
        now: SystemTime,
    ) -> Result<Self, RootError> {
        let authority = Arc::new(Authority::of(material, trust_domain, now)?);
        let print = print_of(&authority.certificate);
        Ok(Self { authority, print, made_here, stored: StoredAuthority::of(material, made_here) })
    }

    /// A new root.
    pub(super) fn make(settings: &KeyringSettings, now: SystemTime) -> Result<Self, RootError> {
        let KeyringSettings { state, trust_domain, root_lifetime, .. } = settings;
        let material = Material::make(state, trust_domain, *root_lifetime, now)?;
        Self::of(&material, true, trust_domain, now)
    }

    fn retire(self, key: Option<String>, until: SystemTime) -> Result<Retired, RootError> {
        let stored = StoredAuthority { key, ..self.stored };
        Retired::of(stored, until, Path::new(""))
    }
}

impl Retired {
    fn of(stored: StoredAuthority, until: SystemTime, folder: &Path) -> Result<Self, RootError> {
        let certificate = one_certificate(&folder.join(CERT_FILE), &stored.certificate)?;
        let roots = read_roots(&folder.join(ROOT_FILE), &stored.root)?;
        let key = stored.key.as_deref().and_then(|pem| KeyPair::from_pem(pem).ok());
        let issuer = key.and_then(|key| Issuer::from_ca_cert_der(&certificate, key).ok());
        Ok(Self { print: print_of(&certificate), roots, until, certificate, issuer, stored })
    }
}

impl Authorities {
    /// As an earlier process left them; also says whether nothing can have been issued before.
    pub(super) fn open(
        settings: &KeyringSettings,
        plugged: Option<&Material>,
        now: SystemTime,
    ) -> Result<(Self, bool), RootError> {
        let (state, trust_domain) = (&settings.state, &settings.trust_domain);
        let plugged = plugged.map(|material| Member::of(material, false, trust_domain, now)).transpose()?;
        let Some(stored) = Stored::read(state)? else {
            return Self::first(settings, plugged, now);
        };
        let folder = state.as_path();
        let mut retired = Vec::new();
        for one in stored.retired {
            retired.push(Retired::of(one.authority, time(one.until), folder)?);
        }
        let made = |one: &StoredAuthority| {
            let material = one.material(folder);
            material.map(|material| Member::of(&material, true, trust_domain, now)).transpose()
        };
        let before = one_certificate(&folder.join(CERT_FILE), &stored.current.certificate)?;
        let same = plugged.as_ref().is_some_and(|plugged| plugged.print == print_of(&before));
        let next = match (&stored.next, plugged) {
            // The plugged-in authority that signed before, perhaps with other roots around it.
            (_, Some(plugged)) if same => return Ok((Self { current: plugged, next: None, retired }, false)),
            (Some(next), Some(plugged)) => {
                let known = one_certificate(&folder.join(CERT_FILE), &next.authority.certificate)?;
                let since = if print_of(&known) == plugged.print { time(next.since) } else { now };
                Some((plugged, since))
            }
            (None, Some(plugged)) => Some((plugged, now)),
            (Some(next), None) => made(&next.authority)?.map(|member| (member, time(next.since))),
            (None, None) => None,
        };
        if let Some(current) = made(&stored.current)? {
            return Ok((Self { current, next, retired }, false));
        }
        // The key of what signed before was never ours to keep: its successor signs at once.
        let (current, _) = match next {
            Some(next) => next,
            None => (Member::make(settings, now)?, now),
        };
        tracing::warn!(
            "another authority than the one that signed before is there and that one's key is not: it signs at once, and \
             proxies that have not heard of it refuse what it signs until they have"
        );
        retired.push(Retired::of(stored.current, now, folder)?);
        Ok((Self { current, next: None, retired }, false))
    }

    /// At the first start of this version.
    fn first(
        settings: &KeyringSettings,
        plugged: Option<Member>,
        now: SystemTime,
    ) -> Result<(Self, bool), RootError> {
        let of = |current, next| Self { current, next, retired: Vec::new() };
        match (Material::kept(&settings.state)?, plugged) {
            // Of an earlier version, or what it made before another was plugged in.
            (Some(_), Some(plugged)) => Ok((of(plugged, None), false)),
            (None, Some(plugged)) => Ok((of(plugged, None), true)),
            (Some(kept), None) => {
                Ok((of(Member::of(&kept, true, &settings.trust_domain, now)?, None), false))
            }
            (None, None) => {
                let made = Member::make(settings, now)?;
                tracing::info!(folder = %settings.state.display(), root = %made.print, "made a root certificate");
                Ok((of(made, None), true))
            }
        }
    }

    /// What is retired without a moment when that ends gets one.
    pub(super) fn settle_ends(&mut self, ledger: &Ledger, longest: Duration, now: SystemTime) {
        for retired in &mut self.retired {
            retired.until = retired.until.max(ledger.last_end(&retired.print, longest, now));
        }
    }

    /// Everything that is trusted: of who signs first, each once.
    pub(crate) fn bundle(&self) -> RootBundle {
        let mut all: Vec<CertificateDer<'static>> = Vec::new();
        let next = self.next.iter().map(|(next, _)| &next.authority.roots);
        let retired = self.retired.iter().map(|retired| &retired.roots);
        for roots in [&self.current.authority.roots].into_iter().chain(next).chain(retired) {
            for root in roots.certificates() {
                if !all.contains(root) {
                    all.push(root.clone());
                }
            }
        }
        RootBundle::new(all)
    }

    /// Those that can sign lists, with what they are known by.
    pub(super) fn signers(
        &self,
    ) -> impl Iterator<Item = (&str, &CertificateDer<'static>, &Issuer<'static, KeyPair>)> {
        let next = self.next.iter().map(|(next, _)| next);
        let members = [&self.current].into_iter().chain(next).map(|member| {
            let authority = &member.authority;
            (member.print.as_str(), &authority.certificate, &authority.issuer)
        });
        let retired = self.retired.iter().filter_map(|retired| {
            Some((retired.print.as_str(), &retired.certificate, retired.issuer.as_ref()?))
        });
        members.chain(retired).filter(|(_, certificate, _)| may_sign_lists(certificate))
    }

    /// The successor signs from now on.
    pub(super) fn switch(&mut self, ledger: &Ledger, longest: Duration, now: SystemTime) {
        let Some((next, _)) = self.next.take() else { return };
        let old = std::mem::replace(&mut self.current, next);
        let until = ledger.last_end(&old.print, longest, now);
        let key = old.stored.key.clone();
        match old.retire(key, until) {
            Ok(retired) => self.retired.push(retired),
            // It was read when it came.
            Err(error) => tracing::error!(%error, "the authority that signed before is not trusted any more"),
        }
        // One that comes back is not retired.
        self.retired.retain(|retired| retired.print != self.current.print);
    }

    /// Takes what people plugged in.
    pub(super) fn plug(&mut self, member: Member, now: SystemTime) {
        if member.print == self.current.print {
            if self.next.take().is_some() {
                tracing::info!(
                    "the plugged-in authority is the one that signs again; its successor is given up"
                );
            }
            self.current = member;
        } else {
            let since = self.next.as_ref().filter(|(next, _)| next.print == member.print);
            let since = since.map_or(now, |(_, since)| *since);
            tracing::info!(issuer = %member.print, "a plugged-in authority is distributed; it signs once everybody trusts it");
            self.next = Some((member, since));
        }
    }

    /// Takes over what another replica has written down. An authority whose key is neither written there nor known here
    /// (a plugged-in one whose files have not come yet) is trusted, and who signed here goes on signing.
    pub(super) fn adopt(
        &mut self,
        stored: &Stored,
        settings: &KeyringSettings,
        now: SystemTime,
    ) -> Result<(), RootError> {
        let folder = settings.state.as_path();
        let known: Vec<Member> =
            [&self.current].into_iter().chain(self.next.iter().map(|(next, _)| next)).cloned().collect();
        let member = |one: &StoredAuthority| {
            let print = print_of(&one_certificate(&folder.join(CERT_FILE), &one.certificate)?);
            let here = known.iter().find(|member| member.print == print).cloned();
            match (here, one.material(folder)) {
                (Some(member), _) => Ok(Some(member)),
                (None, Some(material)) => Member::of(&material, true, &settings.trust_domain, now).map(Some),
                (None, None) => Ok::<_, RootError>(None),
            }
        };
        let mut retired = Vec::new();
        for one in &stored.retired {
            retired.push(Retired::of(one.authority.clone(), time(one.until), folder)?);
        }
        let until = now + settings.lifetimes.longest;
        let current = match member(&stored.current)? {
            Some(current) => current,
            None => {
                retired.push(Retired::of(stored.current.clone(), until, folder)?);
                self.current.clone()
            }
        };
        let next = match &stored.next {
            Some(next) => match member(&next.authority)? {
                Some(member) => Some((member, time(next.since))),
                None => {
                    retired.push(Retired::of(next.authority.clone(), until, folder)?);
                    None
                }
            },
            // Files that came here first: the replica that leads will find them too.
            None => self.next.take().filter(|(next, _)| !next.made_here),
        };
        retired.retain(|one| one.print != current.print);
        let next = next.filter(|(next, _)| next.print != current.print);
        (self.current, self.next, self.retired) = (current, next, retired);
        Ok(())
    }

    /// As it is written down.
    pub(super) fn stored(&self) -> Stored {
        let next = self.next.as_ref().map(|(next, since)| StoredNext {
            authority: next.stored.clone(), // Up to the whole second: what was issued within it is not taken for issued since.
            since: seconds(*since + Duration::from_nanos(999_999_999)),
        });
        let retired = self.retired.iter().map(|retired| StoredRetired {
            authority: retired.stored.clone(),
            until: seconds(retired.until),
        });
        Stored::new(self.current.stored.clone(), next, retired.collect())
    }

    /// Writes everything down. The root made here stands in files of its own too, for people and for older versions.
    pub(super) fn keep(&self, state: &Path) -> Result<(), RootError> {
        self.stored().write(state)?;
        if let Some(key) = self.current.stored.key.as_deref().filter(|_| self.current.made_here) {
            mirror(&state.join(KEY_FILE), key)?;
            mirror(&state.join(CERT_FILE), &self.current.stored.certificate)?;
        }
        Ok(())
    }
}

fn mirror(path: &Path, text: &str) -> Result<(), RootError> {
    if std::fs::read_to_string(path).ok().as_deref() == Some(text) {
        return Ok(());
    }
    write_atomically(path, text, 0o600)
}
