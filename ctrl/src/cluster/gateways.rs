//! Makes what the Gateways of our classes become (`crate::gateways`): by server-side apply, from the replica that leads,
//! and only where something else is there. What somebody changes or removes is put right; what others own, as an
//! autoscaler the number of replicas, stays theirs. With a Gateway the API server's collector removes what was made for it.

mod step;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::{Api, Client};
use manifest::waypoint::{self, CLASSES, MADE_BY, MANAGED};
use manifest::{Key, Object, Typed};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::step::{Applied, Id, Step, There};
use self::watches::Watches;
use super::answer::answered;
use super::statuses::MANAGER;
use crate::compile::deployments::Deployment;
use crate::core::{Core, Held};
use crate::gateways::{self, Kind, Made, Surroundings, Unmade};
use crate::index::Name;
use crate::index::facts::Waypoint;
use crate::source::kube::outage::Outage;
use crate::source::kube::revision::Revision;

/// Between two rounds: what changes meanwhile is done once.
const ROUND: Duration = Duration::from_millis(200);
/// How the API server begins what it says of a field of the wrong type, as an error of its own (500).
const UNTYPED: &str = "failed to create typed patch object";
/// After a round in which something could not be done.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether an account that somebody else made is still there.
const FOREIGN: Duration = Duration::from_secs(60);
/// The group of Gateways and their classes.
const GROUP: &str = "gateway.networking.k8s.io";

/// Makes objects for as long as the controller runs, while `leads` is true: of the Gateways that this revision runs.
pub(super) async fn run(
    client: Client,
    core: Core,
    outage: Outage,
    (revision, around): (Revision, Surroundings),
    mut leads: watch::Receiver<bool>,
) {
    loop {
        if leads.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        let mut maker = Maker {
            client: &client,
            core: &core,
            outage: &outage,
            revision: &revision,
            around: &around,
            applied: BTreeMap::new(),
            later: BTreeMap::new(),
        };
        tokio::select! {
            () = maker.run() => return,
            ended = leads.wait_for(|leads| !*leads) => if ended.is_err() { return },
        }
        // The next leader tells.
        core.note_deployments(BTreeMap::new());
    }
}

/// What a replica knows while it leads.
struct Maker<'a> {
    client: &'a Client,
    core: &'a Core,
    outage: &'a Outage,
    revision: &'a Revision,
    around: &'a Surroundings,
    /// What was applied, and what came of it.
    applied: BTreeMap<Id, Applied>,
    /// What is not tried again before long.
    later: BTreeMap<Id, Later>,
}

/// Something that could not be applied.
struct Later {
    value: Value,
    until: Instant,
    /// What to tell; nothing where what is there instead is as good.
    told: Option<String>,
}

/// What the Gateways come to.
#[derive(Default)]
struct Wanted {
    made: Vec<Made>,
    told: BTreeMap<Name, Deployment>,
    /// Gateways whose objects are to be exactly these.
    settled: BTreeSet<Name>,
    /// Classes that are not there yet.
    classes: Vec<(&'static str, &'static str)>,
}

impl Maker<'_> {
    /// Ends only with the controller.
    async fn run(&mut self) {
        let mut watches = Watches::start(self.client);
        let mut changes = self.core.changes();
        // A moment, and not a time from now on: other changes come more often.
        let (mut again_at, mut seen) = (None, Vec::new());
        loop {
            tokio::select! {
                going_on = watches.next(self.outage) => if !going_on { return },
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
            }
            let again = again_at.is_some_and(|at| at <= Instant::now());
            if !watches.is_listed() {
                continue;
            }
            watches.settle(ROUND, self.outage).await;
            changes.mark_unchanged();
            let now = versions(&self.core.read());
            if !again && !watches.touched && now == seen {
                continue;
            }
            seen = now;
            watches.touched = false;
            let referred = referred(&self.core.read());
            let read = watches.maps.fetch(self.client, &referred, self.outage).await;
            let mut wanted = wanted(&self.core.read(), &watches.maps.data, self.revision, self.around);
            if watches.has_classes {
                wanted.classes = missing_classes(&self.core.read());
            }
            let done = self.round(wanted, &mut watches.there).await && read;
            again_at = (!done).then(|| Instant::now() + AGAIN);
        }
    }

    /// Does what there is to do. False: some of it is to be tried again.
    async fn round(&mut self, wanted: Wanted, there: &mut BTreeMap<Id, There>) -> bool {
        let Wanted { made, mut told, settled, classes, .. } = wanted;
        let mut done = true;
        for (class, controller) in classes {
            done &= self.make_class(class, controller).await;
        }
        let wanted: BTreeSet<Id> = made.iter().map(Id::of).collect();
        self.later.retain(|id, _| wanted.contains(id));
        for step in step::steps(&made, &settled, there, &mut self.applied) {
            match step {
                Step::Apply(made) => {
                    let gateway = &made.name;
                    if matches!(told.get(gateway), Some(Deployment::Refused(_))) {
                        continue;
                    }
                    if let Err(refused) = self.try_to_apply(made, there).await {
                        done = false;
                        told.insert(gateway.clone(), Deployment::Refused(refused));
                    }
                }
                Step::Delete(id, uid) => done &= self.delete(&id, uid).await,
            }
        }
        self.core.note_deployments(told);
        done
    }

    /// Applies it, unless that failed a moment ago. Why it was refused, for the Gateway's status.
    async fn try_to_apply(&mut self, made: &Made, there: &mut BTreeMap<Id, There>) -> Result<(), String> {
        let id = Id::of(made);
        if let Some(later) =
            self.later.get(&id).filter(|one| one.value == made.value && one.until > Instant::now())
        {
            return later.told.clone().map_or(Ok(()), Err);
        }
        let before = self.later.remove(&id).and_then(|later| later.told);
        let result = self.apply(made, there).await;
        if !there.contains_key(&id) || result.is_err() {
            let told = result.clone().err();
            // Once, and not with every try.
            if let Some(told) = told.as_ref().filter(|told| before.as_ref() != Some(told)) {
                tracing::warn!(name = %made.name, "what a Gateway becomes is not as it should be: {told}");
            }
            let until = Instant::now() + if told.is_some() { AGAIN } else { FOREIGN };
            self.later.insert(id, Later { value: made.value.clone(), until, told });
        }
        result
    }

    async fn apply(&mut self, made: &Made, there: &mut BTreeMap<Id, There>) -> Result<(), String> {
        let id = Id::of(made);
        let (kind, name) = (made.kind.name(), &made.name);
        let api = self.api(made.kind, &name.namespace);
        let failed = |error: &kube::Error| match error {
            kube::Error::Api(status) if status.code < 500 || status.message.starts_with(UNTYPED) => {
                format!("the API server refuses its {kind}: {}", status.message)
            }
            other => {
                self.outage.note(kind, other);
                format!("its {kind} cannot be applied: {other}")
            }
        };
        if !there.contains_key(&id)
            && let Some(other) =
                answered(api.get_metadata_opt(&name.name)).await.map_err(|error| failed(&error))?
            && !may_be_taken_over(&other, &made.value)
        {
            return match made.kind {
                // An account that somebody else made is as good; it is not ours to change.
                Kind::ServiceAccount => Ok(()),
                _ => Err(format!(
                    "there is a {kind} {name} that was not made for this Gateway; rename one of them"
                )),
            };
        }
        let parameters = PatchParams { force: true, ..PatchParams::apply(MANAGER) }.validation_strict();
        let applied = answered(api.patch(&name.name, &parameters, &Patch::Apply(&made.value))).await;
        let now = There::of(&applied.map_err(|error| failed(&error))?.metadata);
        tracing::info!(kind, name = %name, "made for its Gateway, or put right");
        self.applied.insert(id.clone(), Applied { value: made.value.clone(), fields: now.fields });
        there.insert(id, now);
        Ok(())
    }

    async fn delete(&self, id: &Id, uid: Option<String>) -> bool {
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::background() };
        let api = self.api(id.kind, &id.name.namespace);
        match answered(api.delete(&id.name.name, &parameters)).await {
            Ok(_) => {
                tracing::info!(kind = id.kind.name(), name = %id.name, "removed: its Gateway asks for it no more")
            }
            // Gone, or another one of its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                self.outage.note(id.kind.name(), &error);
                return false;
            }
        }
        true
    }

    /// A class of ours that nobody has made yet. Who has made it may have given it to another controller.
    async fn make_class(&self, class: &str, controller: &str) -> bool {
        let resource = resource(&format!("{GROUP}/v1"), "GatewayClass", "gatewayclasses");
        let value = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": class, "labels": {MADE_BY.0: MADE_BY.1}},
            "spec": {"controllerName": controller, "description": "Waypoints: proxies for layer 7"},
        });
        let Ok(object) = serde_json::from_value::<DynamicObject>(value) else { return true };
        let classes = Api::all_with(self.client.clone(), &resource);
        match answered(classes.create(&Default::default(), &object)).await {
            Ok(_) => tracing::info!(class, "GatewayClass made"),
            // Somebody was faster, or its definition is on its way out.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                self.outage.note("GatewayClass", &error);
                return false;
            }
        }
        true
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(kind.api_version(), kind.name(), kind.plural());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

/// A kind as API servers call it.
fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Whether an object of a name that we want is one that was made for the Gateway, here or by Istio.
fn may_be_taken_over(there: &PartialObjectMeta<DynamicObject>, wanted: &Value) -> bool {
    let owner = &wanted["metadata"]["ownerReferences"][0]["uid"];
    let owned = there.metadata.owner_references.iter().flatten().any(|one| *owner == *one.uid);
    owned || there.metadata.labels.iter().flatten().any(|(label, _)| label == MANAGED)
}

fn name_of(object: &Object) -> Name {
    Name::new(object.metadata.namespace.as_deref().unwrap_or_default(), &object.metadata.name)
}

/// The waypoints whose objects are made here, with their Gateways' objects; `None` for a Gateway that cannot be read.
fn waypoints(held: &Held) -> impl Iterator<Item = (&Arc<Object>, Option<&Waypoint>)> {
    let index = held.compiler.index();
    index.objects_of(GROUP, "Gateway").filter_map(move |object| {
        let name = name_of(object);
        match &object.spec {
            Typed::Broken => Some((object, None)),
            _ => index
                .waypoint(&name)
                .filter(|waypoint| {
                    index.answers_for(waypoint.class) && object.metadata.deletion_timestamp.is_none()
                })
                .map(|waypoint| (object, Some(&**waypoint))),
        }
    })
}

/// A Gateway or class, its version, and the revision that its namespace names: by all of these it is decided who runs it.
type Version = (Key, Option<String>, Option<String>);

/// Which Gateways and classes there are, in which versions.
fn versions(held: &Held) -> Vec<Version> {
    let index = held.compiler.index();
    let all = index.objects_of(GROUP, "Gateway").chain(index.objects_of(GROUP, "GatewayClass"));
    let version = |object: &Arc<Object>| {
        let namespace = object.metadata.namespace.as_deref();
        let revision = namespace.and_then(|name| index.revision_of(name));
        (object.key(), object.metadata.resource_version.clone(), revision.map(str::to_owned))
    };
    all.map(version).collect()
}

/// The ConfigMaps that Gateways refer to.
fn referred(held: &Held) -> BTreeSet<Name> {
    let of = |(object, given): (&Arc<Object>, Option<&Waypoint>)| match &object.spec {
        Typed::Gateway(gateway) => {
            let map = waypoint::parameters(gateway).ok()??;
            Some(Name::new(&given?.name.namespace, map))
        }
        _ => None,
    };
    waypoints(held).filter_map(of).collect()
}

/// What the Gateways that this revision runs come to; `maps` has the data of the ConfigMaps that they refer to.
fn wanted(
    held: &Held,
    maps: &BTreeMap<Name, BTreeMap<String, String>>,
    revision: &Revision,
    around: &Surroundings,
) -> Wanted {
    let index = held.compiler.index();
    let mut wanted = Wanted::default();
    let mut unsettled = BTreeSet::new();
    let runs = |object: &Object| {
        revision.runs(object, object.metadata.namespace.as_deref().and_then(|name| index.revision_of(name)))
    };
    for (object, waypoint) in waypoints(held).filter(|(object, _)| runs(object)) {
        let Some(waypoint) = waypoint else {
            unsettled.insert(name_of(object));
            continue;
        };
        let name = waypoint.name.clone();
        let told = match gateways::made(object, &name, maps, around) {
            Ok(made) => {
                wanted.made.extend(made);
                Deployment::Made
            }
            Err(error) => {
                unsettled.insert(name.clone());
                told(&error)
            }
        };
        wanted.told.insert(name, told);
    }
    // Also those of a class that is not ours any more. What is gone altogether is the collector's; what is another
    // revision's is that one's.
    let there =
        index.objects_of(GROUP, "Gateway").filter(|object| runs(object)).map(|object| name_of(object));
    wanted.settled = there.filter(|name| !unsettled.contains(name)).collect();
    wanted
}

/// The classes of ours that are not there.
fn missing_classes(held: &Held) -> Vec<(&'static str, &'static str)> {
    let index = held.compiler.index();
    CLASSES.iter().copied().filter(|(class, _)| index.controller_of_class(class).is_none()).collect()
}

fn told(error: &Unmade) -> Deployment {
    match error.is_unresolved() {
        true => Deployment::Unresolved(error.to_string()),
        false => Deployment::Invalid(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
