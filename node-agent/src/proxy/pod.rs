//! A captured pod as all threads see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hbone::account::{Account, Descriptors};
use model::mesh::Mesh;
use model::workload::Workload;
use proto::zds::WorkloadInfo;
use proxy::threads::{Count, Counted};
use tokio::sync::watch;

use super::files::OF_POD;
use super::places::Places;
use crate::netns::NetnsFd;

/// Where a pod is in its life with the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Captured.
    Serving,
    /// Nothing new is captured; what is there goes on to its end.
    Draining,
    /// Its namespace is gone.
    Gone,
}

/// A captured pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its Kubernetes uid.
    pub(crate) uid: Arc<str>,
    /// Its name.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its service account.
    pub(crate) service_account: String,
    /// Where its sockets are made.
    pub(crate) netns: NetnsFd,
    /// What it costs.
    pub(crate) account: Arc<Account>,
    /// Its namespace and listeners; none where too few are left, which ends no pod.
    _descriptors: Option<Descriptors>,
    /// What of it is under way before it is on the account.
    pub(crate) places: Places,
    /// Which thread accepts for it.
    pub(crate) home: usize,
    app_mark: AtomicU32,
    phase: watch::Sender<Phase>,
    /// Names that it waits for.
    queries: Count,
}

impl Pod {
    /// A pod with no connections yet.
    pub(crate) fn new(
        uid: &str,
        info: WorkloadInfo,
        netns: NetnsFd,
        account: Arc<Account>,
        home: usize,
        app_mark: u32,
    ) -> Self {
        Self {
            uid: uid.into(),
            name: info.name,
            namespace: info.namespace,
            service_account: info.service_account,
            netns,
            _descriptors: account.descriptors_for(OF_POD).ok(),
            account,
            places: Places::default(),
            home,
            app_mark: AtomicU32::new(app_mark),
            phase: watch::Sender::new(Phase::Serving),
            queries: Count::default(),
        }
    }

    /// A name is asked for, until what is returned is dropped.
    pub(crate) fn asked(&self) -> Counted {
        self.queries.one()
    }

    /// Whether it waits for no name.
    pub(crate) fn has_no_query(&self) -> bool {
        self.queries.get() == 0
    }

    /// The pod as the controller describes it.
    pub(crate) fn workload<'a>(&self, mesh: &'a Mesh) -> Option<&'a Arc<Workload>> {
        mesh.local_workload(&self.namespace, &self.name, &self.service_account)
    }

    /// Mark of what is opened to its application.
    pub(crate) fn app_mark(&self) -> u32 {
        self.app_mark.load(Ordering::Relaxed)
    }

    /// Its rules want another mark from now on.
    pub(crate) fn set_app_mark(&self, mark: u32) {
        self.app_mark.store(mark, Ordering::Relaxed);
    }

    /// Whether nothing of it is here that a connection hangs on: none is being opened, carried, parked or on its way to
    /// another tunnel, thread or process.
    pub(crate) fn has_no_connection(&self) -> bool {
        // In this order: what is being opened has a place until it is on the account.
        !self.places.some_opening() && self.account.connections() == 0
    }

    /// Where it is in its life.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// It moves on. One that is gone stays gone.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let lives = *now != Phase::Gone;
            if lives {
                *now = phase;
            }
            lives
        });
    }

    /// Its phases, as they change.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}
