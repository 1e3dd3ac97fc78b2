//! How long what is held still lasts, and the alarm when renewing it fails for long.

use std::time::{Duration, SystemTime};

use model::identity::Identity;

use super::{Certificates, Shared};
use crate::bundle::{CertificateFacts, Validity};

/// When what is held ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expiries {
    /// The root that lasts longest: with it nobody trusts anybody any more.
    pub root: Option<SystemTime>,
    /// The intermediate that ends first.
    pub intermediate: Option<SystemTime>,
    /// The workload's certificate that ends first.
    pub workload: Option<SystemTime>,
    /// Identities whose renewal is late: past two thirds of their certificate's life.
    pub late: usize,
}

/// Whether a certificate ought to have been renewed long since (which is due at half of its life).
pub(crate) fn is_late(validity: Validity, now: SystemTime) -> bool {
    let life = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    now >= validity.not_before + life * 2 / 3
}

impl Certificates {
    /// When what is held ends.
    pub fn expiries(&self) -> Expiries {
        let now = self.0.now();
        let store = self.0.store();
        let roots = store.roots().map(|roots| roots.certificates().to_vec()).unwrap_or_default();
        let held: Vec<_> = store.iter().filter_map(|(_, snapshot)| snapshot.held).collect();
        drop(store);
        let ends = |certificate| Some(CertificateFacts::read(certificate).ok()?.validity.not_after);
        let intermediates = held.iter().flat_map(|held| held.bundle().chain().iter().skip(1));
        Expiries {
            root: roots.iter().filter_map(ends).max(),
            intermediate: intermediates.filter_map(ends).min(),
            workload: held.iter().map(|held| held.bundle().validity().not_after).min(),
            late: held.iter().filter(|held| is_late(held.bundle().validity(), now)).count(),
        }
    }
}

impl Shared {
    /// Says loudly that a certificate which is still in use will end unrenewed, if it looks like it.
    pub(super) fn alarm(&self, identity: &Identity) {
        let now = self.now();
        let held = self.store().peek(identity).and_then(|snapshot| snapshot.held);
        let Some(validity) = held.map(|held| held.bundle().validity()).filter(|held| is_late(*held, now))
        else {
            return;
        };
        let left = validity.not_after.duration_since(now).unwrap_or(Duration::ZERO);
        tracing::error!(
            %identity, ?left,
            "renewing the certificate has failed past two thirds of its life; when it ends, so do new connections"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_past_two_thirds_of_its_life() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let validity = Validity { not_before: at(100), not_after: at(400) };
        for (now, late) in [(100, false), (250, false), (299, false), (300, true), (400, true), (1000, true)]
        {
            assert_eq!(is_late(validity, at(now)), late, "at {now}");
        }
    }
}
