//! What a controller of a cluster does beside reading its objects: the authority that all replicas have in common, what was
//! last good, and what one of them, which leads, writes: statuses, the root certificates in every namespace, the objects of
//! waypoints, and whom the API server trusts as its webhook.

pub mod client;
pub mod custody;
pub(crate) mod memory;

mod answer;
mod gateways;
mod leader;
mod roots;
mod statuses;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use daemon::tasks::Tasks;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::sync::watch;

use self::memory::LastGoods;
use crate::ca::custody::Custody;
use crate::ca::upkeep::Upkeep;
use crate::core::Core;
use crate::gateways::Surroundings;
use crate::source::kube::outage::Outage;
use crate::source::kube::revision::Revision;

/// Who this replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The namespace of the controller, where its Lease is.
    pub namespace: String,
    /// Its own name, which no other replica has.
    pub name: String,
    /// Of which revision.
    pub revision: Revision,
}

/// What a controller of a cluster has before it serves.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) replica: Replica,
    pub(crate) outage: Outage,
    pub(crate) custody: Custody,
}

/// Starts all of it. What Gateways become is run as `waypoints` says; `memory` tells what was last good here.
pub(crate) fn start(
    tasks: &Tasks,
    member: &Member,
    core: &Core,
    upkeep: &Upkeep,
    waypoints: Surroundings,
    memory: watch::Receiver<Option<Arc<LastGoods>>>,
) {
    // Before anybody writes a Gateway's status: that waits for what becomes of it.
    core.note_deployments(BTreeMap::new());
    let Member { client, replica, outage, custody } = member;
    let Replica { namespace, name, revision } = replica;
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let elect = |task, lease: String| {
        let (lead, leads) = watch::channel(false);
        tasks.spawn_lasting(task, leader::run(leases.clone(), lease, name.clone(), outage.clone(), lead));
        leads
    };
    // What all revisions have in common, and what is this one's.
    let common = elect("leader", leader::NAME.to_owned());
    let leads = elect("leader of the revision", format!("{}-{}", leader::NAME, revision.name()));
    tasks.spawn_lasting("roots", roots::run(client.clone(), core.clone(), outage.clone(), common.clone()));
    tasks.spawn_lasting(
        "gateways",
        gateways::run(
            client.clone(),
            core.clone(),
            outage.clone(),
            (revision.clone(), waypoints),
            leads.clone(),
        ),
    );
    let whose = (leads.clone(), common.clone());
    tasks.spawn_lasting(
        "statuses",
        statuses::run(client.clone(), core.clone(), outage.clone(), revision.clone(), whose),
    );
    let configuration = format!("{}-{}", webhook::NAME, revision.name());
    let trusted = webhook::run(client.clone(), configuration, core.clone(), outage.clone(), leads.clone());
    tasks.spawn_lasting("webhook", trusted);
    let custody = custody::Keeper {
        client: client.clone(),
        namespace: namespace.clone(),
        us: name.clone(),
        upkeep: upkeep.clone(),
        custody: custody.clone(),
        outage: outage.clone(),
    };
    tasks.spawn_lasting("authority", custody.run(common));
    let memory = memory::Keeper {
        client: client.clone(),
        namespace: namespace.clone(),
        name: memory::name_of(revision),
        core: core.clone(),
        outage: outage.clone(),
        memory,
    };
    tasks.spawn_lasting("last good", memory.run(leads));
}
