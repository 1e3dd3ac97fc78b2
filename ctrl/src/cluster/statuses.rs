//! Writes what became of each object into its status at the API server: by server-side apply, so that others' fields stay
//! theirs, only what differs, and only from the replica that leads.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use manifest::waypoint::controller_of;
use manifest::{Key, Object, Typed};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::answer::answered;
use crate::compile::Compiler;
use crate::core::{Core, Held};
use crate::index::Name;
use crate::source::kube::outage::Outage;
use crate::source::kube::resource_of;
use crate::source::kube::revision::{self, Revision};
use crate::status;

/// Who writes, for the API server.
pub(super) const MANAGER: &str = "lateen-ctrl";
/// Between two rounds: what changes meanwhile is written once.
const ROUND: Duration = Duration::from_millis(500);
/// After a round in which something could not be written.
const AGAIN: Duration = Duration::from_secs(5);

/// One status to write.
#[derive(Debug)]
struct Writing {
    key: Key,
    resource: ApiResource,
    /// The version of the object that it was made from.
    version: Option<String>,
    status: Value,
}

/// Runs for as long as the controller does.
pub(super) async fn run(
    client: Client,
    core: Core,
    outage: Outage,
    of: Revision,
    (mut leads, mut common): (watch::Receiver<bool>, watch::Receiver<bool>),
) {
    let mut changes = core.changes();
    // What was written of which version: until the API server tells of it, it is not to be written again.
    let mut written: HashMap<Key, (Option<String>, Value)> = HashMap::new();
    loop {
        // Of what names no revision all take account, and one of them writes.
        let whose = (*leads.borrow_and_update(), *common.borrow_and_update());
        if whose == (false, false) {
            tokio::select! {
                changed = leads.changed() => if changed.is_err() { return },
                changed = common.changed() => if changed.is_err() { return },
            }
            continue;
        }
        changes.mark_unchanged();
        let wanted = wanted(&core.read(), &of, whose, &now());
        let mut failed = false;
        let open: HashSet<&Key> = wanted.iter().map(|one| &one.key).collect();
        written.retain(|key, _| open.contains(key));
        for one in wanted {
            if (*leads.borrow(), *common.borrow()) != whose {
                break;
            }
            let before = written.get(&one.key);
            if before.is_some_and(|(version, status)| *version == one.version && same(status, &one.status)) {
                continue;
            }
            match answered(write(&client, &one)).await {
                Ok(()) => drop(written.insert(one.key, (one.version, one.status))),
                // Gone meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    failed = true;
                    outage.note("status", &error);
                }
            }
        }
        sleep(ROUND).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = leads.changed() => if changed.is_err() { return },
            changed = common.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if failed => {}
        }
    }
}

/// Two statuses that differ only in when.
fn same(one: &Value, other: &Value) -> bool {
    let without_time = |status: &Value| {
        let mut status = status.clone();
        let forget = |conditions: &mut Value| {
            for condition in conditions.as_array_mut().into_iter().flatten() {
                condition.as_object_mut().map(|fields| fields.remove("lastTransitionTime"));
            }
        };
        forget(&mut status["conditions"]);
        for listener in status.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
            forget(&mut listener["conditions"]);
        }
        status
    };
    without_time(one) == without_time(other)
}

/// All statuses that are not as they should be, of objects that are a revision's own and of those that are everybody's, as
/// far as they are for this replica to write.
fn wanted(held: &Held, of: &Revision, (leads, common): (bool, bool), now: &str) -> Vec<Writing> {
    let mut all = Vec::new();
    let index = held.compiler.index();
    let whose = |object: &Object| match &object.spec {
        Typed::Gateway(_) => {
            let namespace = object.metadata.namespace.as_deref().and_then(|name| index.revision_of(name));
            leads && of.runs(object, namespace)
        }
        _ if revision::named(object).is_some() => leads,
        _ => common,
    };
    for object in index.objects().filter(|object| is_ours(&held.compiler, object) && whose(object)) {
        let conditions = status::conditions(&held.compiler, object, &held.findings);
        let addresses = status::addresses(&held.compiler, object);
        let Some(status) = status::write::status(object, &conditions, addresses, now) else { continue };
        let version = object.metadata.resource_version.clone();
        all.push(Writing { key: object.key(), resource: resource_of(object), version, status });
    }
    all
}

/// Objects whose status is for us to write: a Gateway of another class is another controller's. One of ours is told when
/// it is known what became of it.
fn is_ours(compiler: &Compiler, object: &Object) -> bool {
    match &object.spec {
        Typed::Gateway(gateway) => {
            let class = &gateway.gateway_class_name;
            let name =
                Name::new(object.metadata.namespace.as_deref().unwrap_or_default(), &object.metadata.name);
            controller_of(class).is_some()
                && compiler.index().answers_for(class)
                && (compiler.index().waypoint(&name).is_none() || !compiler.deployments().is_pending(&name))
        }
        _ if object.kind == "GatewayClass" => status::is_own_class(compiler, object),
        Typed::Service(_) => true,
        _ => object.api_version.contains(".istio.io/"),
    }
}

async fn write(client: &Client, one: &Writing) -> Result<(), kube::Error> {
    let objects = match &one.key.namespace {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &one.resource),
        None => Api::all_with(client.clone(), &one.resource),
    };
    let patch = json!({
        "apiVersion": one.resource.api_version,
        "kind": one.resource.kind,
        "metadata": {"name": one.key.name},
        "status": one.status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    objects.patch_status(&one.key.name, &parameters, &Patch::Apply(&patch)).await.map(|_| ())
}

fn now() -> String {
    let now =
        time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
