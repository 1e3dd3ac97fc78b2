//! Waypoints as the world runs them: pods of a Deployment like any other, each with the token of its own identity.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use manifest::Object;

use super::World;
use crate::local::manifests::{Manifests, ObjectName};
use crate::local::scheduler::{Kind, Owner};
use crate::local::source::Problem;
use crate::local::{components, daemon, waypoints};
use crate::state::write_private;

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
        let around = components::surroundings(&self.host);
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

    /// A waypoint can do nothing without the roots that vouch for ctrl.
    pub(super) fn waits_for_ctrl(&self, manifests: &Manifests, owner: &Owner) -> bool {
        let name = ObjectName { namespace: owner.namespace.clone(), name: owner.name.clone() };
        owner.kind == Kind::Deployment
            && manifests.waypoints.contains(&name)
            && !components::root_cert(&self.host.dir).exists()
    }
}
