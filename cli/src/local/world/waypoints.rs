//! Waypoints as the world runs them: pods of a Deployment like any other, each with the token of its own identity.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use manifest::Object;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Message, World};
use crate::local::manifests::{Manifests, ObjectName};
use crate::local::scheduler::{Kind, Owner};
use crate::local::source::Problem;
use crate::local::{components, daemon, services, waypoints};
use crate::state::write_private;

/// How long new waypoints may take to become ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// What waypoints are run as.
#[derive(Debug, Clone, Default)]
pub(super) struct Generation {
    upgrades: u64,
    /// Where their program is; the mesh's own folder if none is given.
    binaries: Option<PathBuf>,
}

/// Waypoints on their way from one generation to the next.
#[derive(Debug)]
pub(super) struct Rollout {
    before: Generation,
    begun: Instant,
    done: oneshot::Sender<Result<Vec<(String, String)>, String>>,
}

impl World {
    /// Adds what is made for Gateways, and gives their waypoints tokens.
    pub(super) fn add_waypoints(
        &mut self,
        manifests: &mut Manifests,
        objects: &[Arc<Object>],
    ) -> Vec<Problem> {
        if !components::has_agents() {
            return Vec::new();
        }
        let mut around = components::surroundings(&self.host);
        around.upgrades = self.generation.upgrades;
        if let Some(binaries) = &self.generation.binaries {
            around.binaries.clone_from(binaries);
        }
        let told = waypoints::add(manifests, objects, &around);
        let mut problems: Vec<Problem> =
            told.into_iter().map(|text| Problem { text, unreadable: false }).collect();
        let program = around.binaries.join(waypoints::PROGRAM);
        if let Some(name) = manifests.waypoints.first()
            && !program.is_file()
        {
            let text = format!(
                "waypoint {name} cannot be run: there is no {}; build it: cargo build --release --workspace --bins",
                program.display()
            );
            problems.push(Problem { text, unreadable: true });
        }
        if let Err(error) = self.give_tokens(&manifests.waypoints) {
            problems.push(Problem { text: format!("tokens of waypoints: {error}"), unreadable: true });
        }
        problems
    }

    /// A token for each waypoint there is, and none for those that are gone.
    fn give_tokens(&mut self, waypoints: &BTreeSet<ObjectName>) -> io::Result<()> {
        let folder = self.host.dir.tokens();
        for name in waypoints.difference(&self.tokens) {
            write_private(&folder.join(waypoints::token_file(name)), daemon::token()?.as_bytes())?;
        }
        for name in self.tokens.difference(waypoints) {
            std::fs::remove_file(folder.join(waypoints::token_file(name)))?;
        }
        self.tokens.clone_from(waypoints);
        Ok(())
    }

    /// Begins to replace the pods of all waypoints by such as run the program of this folder: new ones are ready before
    /// old ones are told to end.
    pub(super) fn upgrade_waypoints(
        &mut self,
        binaries: PathBuf,
        done: oneshot::Sender<Result<Vec<(String, String)>, String>>,
    ) {
        if self.rollout.is_some() {
            let _ = done.send(Err("waypoints are being upgraded already; wait for it".to_owned()));
            return;
        }
        if self.manifests.borrow().waypoints.is_empty() {
            let _ = done.send(Ok(Vec::new()));
            return;
        }
        let program = binaries.join(waypoints::PROGRAM);
        if !program.is_file() {
            let reason = format!("there is no {}; build it; the waypoints before go on", program.display());
            let _ = done.send(Err(reason));
            return;
        }
        let next = Generation { upgrades: self.generation.upgrades + 1, binaries: Some(binaries) };
        let before = std::mem::replace(&mut self.generation, next);
        self.rollout = Some(Rollout { before, begun: Instant::now(), done });
        self.note_objects(Vec::new());
        let to_self = self.to_self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let _ = to_self.send(Message::Tick).await;
        });
    }

    /// Tells when every waypoint has been replaced, or takes the ones before back where the new ones do not become ready.
    pub(super) fn follow_rollout(&mut self, manifests: &Manifests) {
        let Some(begun) = self.rollout.as_ref().map(|rollout| rollout.begun) else { return };
        let standing: Result<Vec<_>, String> = manifests
            .waypoints
            .iter()
            .map(|name| {
                let ready = self.replaced(manifests, name)?;
                let took = begun.elapsed().as_millis();
                Ok((format!("waypoint/{name}"), format!("{ready} ready in {took} ms, the ones before drain")))
            })
            .collect();
        let outcome = match standing {
            Ok(told) => Ok(told),
            Err(_) if begun.elapsed() < PATIENCE => return,
            Err(reason) => Err(format!("{reason} within {PATIENCE:?}; the ones before go on")),
        };
        let Some(rollout) = self.rollout.take() else { return };
        if outcome.is_err() {
            self.generation = rollout.before;
            self.note_objects(Vec::new());
        }
        let _ = rollout.done.send(outcome);
    }

    /// How many replicas of a waypoint there are, once all of them are as they should be and ready.
    fn replaced(&self, manifests: &Manifests, name: &ObjectName) -> Result<usize, String> {
        let is_its = |owner: &Owner| {
            owner.kind == Kind::Deployment && owner.namespace == name.namespace && owner.name == name.name
        };
        let Some(workload) = manifests.workloads.iter().find(|workload| is_its(&workload.owner)) else {
            return Ok(0);
        };
        let mut ready = 0;
        for entry in self.pods.values().filter(|entry| is_its(&entry.owner) && !entry.leaving) {
            if entry.hash != workload.hash {
                continue;
            }
            if !services::is_ready(&entry.pod) {
                return Err(format!("waypoint/{name}: {}", super::trouble(entry)));
            }
            ready += 1;
        }
        let old = self
            .pods
            .values()
            .any(|entry| is_its(&entry.owner) && !entry.leaving && entry.hash != workload.hash);
        if ready < workload.replicas || old {
            return Err(format!("waypoint/{name}: {ready} of {} are ready", workload.replicas));
        }
        Ok(ready)
    }

    /// A waypoint can do nothing without the roots that vouch for ctrl.
    pub(super) fn waits_for_ctrl(&self, manifests: &Manifests, owner: &Owner) -> bool {
        let name = ObjectName { namespace: owner.namespace.clone(), name: owner.name.clone() };
        owner.kind == Kind::Deployment
            && manifests.waypoints.contains(&name)
            && !components::root_cert(&self.host.dir).exists()
    }
}
