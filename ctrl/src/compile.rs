//! From changes of the index to an edit of what is published: the changed keys are translated, nothing else.

mod claims;
pub(crate) mod deployments;
mod lagging;
mod routes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use manifest::{Batch, Finding, Object};
use model::address::{NamespacedHostname, Str};
use model::authz::Policy;
use model::mesh::Trust;
use model::route::Routing;
use model::workload::{PolicyName, Workload};
use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS, REQUEST_AUTHORIZATION, ROUTING};
use xds::convert::resource;
use xds::delta::store::{Edit, Resource};

use crate::index::{Changes, Index, Kept, Name};
use crate::translate::{self, Context, authz, peer_authentication, waypoint};

pub use xds::convert::resource::TYPES;

use self::claims::{Claimant, Claims};
use self::deployments::Deployments;
use self::lagging::Lagging;
use self::routes::Routes;
use crate::translate::routing::{Outcome, Standing};

/// What waypoints are told: the same, and how hosts are routed, behind the endpoints that this is for.
pub fn layer7_types() -> impl Iterator<Item = &'static str> {
    TYPES.into_iter().chain([ROUTING])
}

/// Everything that is known, and what was made of it.
#[derive(Debug)]
pub struct Compiler {
    index: Index,
    context: Context,
    /// The workloads that came of each slice.
    of_slices: HashMap<Name, BTreeSet<Str>>,
    claims: Claims,
    /// The policies that pods name which take only what comes by a waypoint, and how many name each.
    required: HashMap<Name, PolicyName>,
    required_by: BTreeMap<PolicyName, usize>,
    routes: Routes,
    lagging: Lagging,
    deployments: Deployments,
    /// There are waypoints, or have been: they are told more than agents.
    layer7: bool,
    begun: bool,
}

/// What changes at clients, by what they understand.
#[derive(Debug, Default)]
pub struct Edits {
    /// For proxies that know our extensions.
    pub ours: Edit,
    /// For those that would overlook them.
    pub foreign: Edit,
    /// For waypoints, from the moment at which there is one: the same with the labels of workloads.
    pub layer7: Edit,
    /// What must outlive a restart.
    pub kept: Vec<Kept>,
    /// How many keys were translated.
    pub translated: usize,
    /// Others than before claim addresses that are not theirs, or rules name other things that are not there.
    pub claims: bool,
    /// Other routings than before are the last good ones.
    pub routings_kept: bool,
    to_layer7: bool,
}

impl Compiler {
    /// Of a mesh in which nothing is known yet.
    pub fn new(context: Context) -> Self {
        let routes = Routes::new(&context);
        let mesh = &context.settings;
        let index = Index::new(mesh.root_namespace.clone())
            .with_objects(context.objects.clone())
            .with_ranges(mesh.service_ranges.clone(), mesh.pod_ranges.clone());
        Self {
            index,
            context,
            of_slices: HashMap::new(),
            claims: Claims::default(),
            required: HashMap::new(),
            required_by: BTreeMap::new(),
            routes,
            lagging: Lagging::default(),
            deployments: Deployments::default(),
            layer7: false,
            begun: false,
        }
    }

    /// Waypoints that have been ready before a restart, by their Gateways as they were.
    pub fn remember(&mut self, gateways: &[Object]) {
        self.index.remember(gateways);
    }

    /// Routings as they were last good before a restart.
    pub fn remember_routings(&mut self, routings: impl IntoIterator<Item = Routing>) {
        self.routes.remember(routings);
    }

    /// Last good routings of another replica: they count where rules do not resolve now.
    pub fn adopt_routings(&mut self, routings: impl IntoIterator<Item = Arc<Routing>>) -> Edits {
        let mut edits = Edits { to_layer7: self.layer7, ..Edits::default() };
        self.routes.adopt(routings, &mut edits);
        edits
    }

    /// How hosts are routed, and why.
    pub fn routing(&self) -> &Outcome {
        self.routes.routings().outcome()
    }

    /// What became of a VirtualService; nothing if there is none of the name.
    pub fn virtual_service(&self, name: &Name) -> Option<Standing> {
        self.routes.routings().virtual_service(name)
    }

    /// What became of a DestinationRule.
    pub fn destination_rule(&self, name: &Name) -> Option<Standing> {
        self.routes.routings().destination_rule(name)
    }

    /// How many hosts' routings were compiled so far, each time counted.
    pub fn routings_compiled(&self) -> u64 {
        self.routes.routings().compiled()
    }

    /// The hosts whose last good routing is another than when this was asked last, with it.
    pub fn take_last_good(&mut self) -> Vec<(NamespacedHostname, Option<Arc<Routing>>)> {
        self.routes.take_kept()
    }

    /// Connected waypoints that do not do what those of this version do.
    pub fn lagging(&self) -> &Lagging {
        &self.lagging
    }

    /// The same, to note who comes and goes.
    pub(crate) fn lagging_mut(&mut self) -> &mut Lagging {
        &mut self.lagging
    }

    /// What became of the objects that are made for Gateways.
    pub fn deployments(&self) -> &Deployments {
        &self.deployments
    }

    /// The same, to note it.
    pub(crate) fn deployments_mut(&mut self) -> &mut Deployments {
        &mut self.deployments
    }

    /// What is known.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The mesh.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Takes a batch into account, and says what is to be published because of it.
    pub fn apply(&mut self, batch: &Batch) -> Edits {
        let mut changes = self.index.apply(batch);
        let mut edits = Edits { kept: std::mem::take(&mut changes.kept), ..Edits::default() };
        let mut begins = !std::mem::replace(&mut self.begun, true);
        if self.index.has_waypoints() && !std::mem::replace(&mut self.layer7, true) {
            // What was never said to anybody is said now; to agents it is nothing new.
            changes.add(self.index.everything());
            begins = true;
        }
        edits.to_layer7 = self.layer7;
        if begins {
            self.begin(&mut edits);
        }
        self.policies(&changes, &mut edits);
        self.requirements(&changes, &mut edits);
        self.addresses(&changes, &mut edits);
        self.routes.update(&self.index, &changes, &mut edits);
        edits
    }

    /// What is wrong with those who claim addresses of others, and with rules that name what is not there.
    pub fn findings(&self) -> Vec<Finding> {
        self.claims.findings(&self.index).chain(self.routes.findings(&self.index)).collect()
    }

    /// Takes whose certificates count, and says what is to be published because of it: nothing if that is known, and
    /// nothing before the first batch, which brings it along.
    pub fn set_trust(&mut self, trust: Trust) -> Option<Edits> {
        if self.context.settings.trust == trust {
            return None;
        }
        self.context.settings.trust = trust;
        let mut edits = Edits { to_layer7: self.layer7, ..Edits::default() };
        self.begun.then(|| {
            edits.put(MESH_SETTINGS, resource::settings(&self.context.settings, &self.context.network));
            edits
        })
    }

    /// What is there whatever the configuration says.
    fn begin(&self, edits: &mut Edits) {
        let settings = resource::settings(&self.context.settings, &self.context.network);
        edits.put(MESH_SETTINGS, settings);
        edits.put_policy(&peer_authentication::static_strict(&self.context.settings.root_namespace));
    }

    fn policies(&self, changes: &Changes, edits: &mut Edits) {
        let mesh = &self.context.settings;
        for name in &changes.policies {
            let object = self.index.policy_object(name);
            let wire = authz::policy_name(name);
            let agents = object.and_then(|object| authz::policy(object, mesh).policy);
            edits.set_agents_policy(&wire, agents.as_ref());
            let full = object.and_then(|object| authz::for_waypoints(object, &self.context).policy);
            edits.set_waypoints_policy(&wire, full.as_ref());
        }
        for name in &changes.peer_rules {
            match peer_authentication::converted(&self.index, name) {
                Some(policy) => edits.put_policy(&policy),
                None => edits.remove_policy(&peer_authentication::policy_name(name)),
            }
        }
    }

    /// The policies of pods that take only what comes by a waypoint: there as long as a pod names them.
    fn requirements(&mut self, changes: &Changes, edits: &mut Edits) {
        for name in &changes.pods {
            let pod = self.index.pod(name).filter(|pod| !pod.ended);
            let policy = pod.and_then(|pod| waypoint::required(&self.index, &self.context, pod));
            let now = policy.as_ref().map(|policy| policy.name.clone());
            let before = match now.clone() {
                Some(now) => self.required.insert(name.clone(), now),
                None => self.required.remove(name),
            };
            if let Some(policy) = &policy {
                if before != now {
                    *self.required_by.entry(policy.name.clone()).or_default() += 1;
                }
                edits.set_agents_policy(&policy.name, Some(policy));
            }
            let Some(before) = before.filter(|before| Some(before) != now.as_ref()) else { continue };
            let left = self.required_by.get(&before).map_or(0, |count| count - 1);
            if left > 0 {
                self.required_by.insert(before, left);
            } else {
                self.required_by.remove(&before);
                edits.remove_policy(&before);
            }
        }
    }

    fn addresses(&mut self, changes: &Changes, edits: &mut Edits) {
        for name in &changes.services {
            let lost = self.index.service(name).map(|facts| self.index.claims_lost(facts));
            edits.claims |= self.claims.note(Claimant::Service, name, lost.unwrap_or_default());
            match self.index.service(name) {
                Some(facts) => {
                    let service = translate::service::service(&self.index, &self.context, facts);
                    edits.put(ADDRESS, resource::service(&service));
                }
                None => edits.remove(ADDRESS, self.context.host(name).to_string().into()),
            }
        }
        for name in &changes.pods {
            let pod = self.index.pod(name);
            let lost = pod.map(|pod| self.index.pod_lost(pod));
            edits.claims |= self.claims.note(Claimant::Pod, name, lost.unwrap_or_default());
            match pod.and_then(|pod| translate::workload::pod(&self.index, &self.context, pod)) {
                Some(workload) => {
                    let labels = pod.into_iter().flat_map(|pod| &pod.labels);
                    edits.put_pod(&workload, labels.map(|(key, value)| (key.as_str(), value.as_str())));
                }
                None => edits.remove(ADDRESS, translate::workload::pod_uid(&self.context, name)),
            }
        }
        for name in &changes.slices {
            let slice = self.index.slice(name);
            let lost = slice.map(|slice| self.index.endpoints_lost(slice));
            edits.claims |= self.claims.note(Claimant::EndpointSlice, name, lost.unwrap_or_default());
            let workloads = slice
                .map(|slice| translate::workload::slice(&self.index, &self.context, slice))
                .unwrap_or_default();
            let now: BTreeSet<Str> = workloads.iter().map(|workload| workload.uid.clone()).collect();
            let before = self.of_slices.remove(name).unwrap_or_default();
            before.difference(&now).for_each(|uid| edits.remove(ADDRESS, uid.clone()));
            workloads.iter().for_each(|workload| edits.put(ADDRESS, resource::workload(workload, [])));
            if !now.is_empty() {
                self.of_slices.insert(name.clone(), now);
            }
        }
    }
}

impl Edits {
    fn put(&mut self, type_url: &str, resource: Resource) {
        self.translated += 1;
        self.ours.put(type_url, resource.clone());
        if self.to_layer7 {
            self.layer7.put(type_url, resource.clone());
        }
        self.foreign.put(type_url, resource);
    }

    /// A pod's workload; its labels only to those that choose among pods by them.
    fn put_pod<'a>(&mut self, workload: &Workload, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.translated += 1;
        let resource = resource::workload(workload, []);
        self.ours.put(ADDRESS, resource.clone());
        self.foreign.put(ADDRESS, resource);
        if self.to_layer7 {
            let mut workload = workload.clone();
            if workload.profile.policies.iter().any(waypoint::is_required) {
                let profile = Arc::make_mut(&mut workload.profile);
                let own = profile.policies.iter().filter(|name| !waypoint::is_required(name));
                profile.policies = own.cloned().collect();
            }
            self.layer7.put(ADDRESS, resource::workload(&workload, [resource::labels(labels)]));
        }
    }

    fn remove(&mut self, type_url: &str, name: Str) {
        self.translated += 1;
        self.ours.remove(type_url, name.clone());
        if self.to_layer7 {
            self.layer7.remove(type_url, name.clone());
        }
        self.foreign.remove(type_url, name);
    }

    /// One that means the same to all.
    fn put_policy(&mut self, policy: &Policy) {
        self.set_agents_policy(&policy.name, Some(policy));
        self.set_waypoints_policy(&policy.name, Some(policy));
    }

    fn remove_policy(&mut self, name: &PolicyName) {
        self.set_agents_policy(name, None);
        self.set_waypoints_policy(name, None);
    }

    fn set_agents_policy(&mut self, name: &PolicyName, policy: Option<&Policy>) {
        self.translated += 1;
        if let Some(policy) = policy {
            self.ours.put(AUTHORIZATION, resource::policy(policy));
            self.foreign.put(AUTHORIZATION, resource::policy_without_extensions(policy));
        } else {
            let name = Str::from(name.to_string());
            self.ours.remove(AUTHORIZATION, name.clone());
            self.foreign.remove(AUTHORIZATION, name);
        }
    }

    /// Waypoints have policies in full, and nothing of what agents have instead.
    fn set_waypoints_policy(&mut self, name: &PolicyName, policy: Option<&Policy>) {
        if !self.to_layer7 {
            return;
        }
        if let Some(policy) = policy {
            self.layer7.put(REQUEST_AUTHORIZATION, resource::request_policy(policy));
        } else {
            self.layer7.remove(REQUEST_AUTHORIZATION, Str::from(name.to_string()));
        }
    }
}

#[cfg(test)]
mod tests;
