//! How one pod stands: for the step that is under way with it, of which there is one at a time, and for those who only look.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use super::PodSpec;
use crate::redirect::rules::RuleSet;

/// What a pod's enrolment has come to.
#[derive(Debug, Default)]
pub(super) enum Standing {
    #[default]
    Out,
    /// Rules stand; the proxy may have acknowledged (`served`) or not.
    In { spec: PodSpec, served: bool },
    Draining {
        spec: PodSpec,
        /// When that began: it may be taken back, and begin anew, within the grace.
        since: Instant,
    },
}

/// One pod: how it stands, and the same for those who only look.
#[derive(Debug, Default)]
pub(super) struct Slot {
    standing: tokio::sync::Mutex<Standing>,
    status: Mutex<Status>,
}

/// How a pod stands, for those who only look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing of ours is in it, as far as is known.
    #[default]
    Out,
    /// Its rules stand; the proxy has not acknowledged it.
    Pending,
    /// It is captured by these rules and served.
    Served(RuleSet),
    /// It is leaving.
    Draining,
}

impl Slot {
    /// How it stands, without waiting for a step that is under way.
    pub(super) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its standing, until no step of it is under way.
    pub(super) async fn lock(&self) -> Locked<'_> {
        Locked { standing: self.standing.lock().await, status: &self.status }
    }
}

/// A pod's standing, held; the status is brought up to date when it is let go.
pub(super) struct Locked<'a> {
    standing: tokio::sync::MutexGuard<'a, Standing>,
    status: &'a Mutex<Status>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = match &*self.standing {
            Standing::Out => Status::Out,
            Standing::In { served: false, .. } => Status::Pending,
            Standing::In { served: true, spec } => Status::Served(spec.rules.clone()),
            Standing::Draining { .. } => Status::Draining,
        };
    }
}

impl Deref for Locked<'_> {
    type Target = Standing;

    fn deref(&self) -> &Standing {
        &self.standing
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }
}
