//! What the leader watches for Gateways: the objects that were made for them, the ConfigMaps that they may refer to, and
//! whether GatewayClasses are defined. Of all of them only the metadata; of ConfigMaps the data of those that count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use manifest::waypoint::MADE_BY;
use tokio::time::{Instant, sleep_until};

use super::resource;
use super::step::{Id, There};
use crate::cluster::answer::answered;
use crate::gateways::{KINDS, Kind};
use crate::index::Name;
use crate::source::kube::outage::Outage;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Made(Kind),
    Maps,
    Definition,
}

/// An event, and what it is of.
type EventOf = (Of, Result<Event<ObjectMeta>, watcher::Error>);

/// The watches, and what they have told.
pub(super) struct Watches {
    events: SelectAll<BoxStream<'static, EventOf>>,
    /// Kinds not listed yet.
    pending: BTreeSet<Of>,
    listing: BTreeMap<Kind, BTreeMap<Id, There>>,
    /// What was made here.
    pub(super) there: BTreeMap<Id, There>,
    /// The ConfigMaps that Gateways refer to.
    pub(super) maps: Maps,
    /// Whether there may be GatewayClasses.
    pub(super) has_classes: bool,
    /// Something is different since somebody has set this to false.
    pub(super) touched: bool,
}

impl Watches {
    /// Begins to watch.
    pub(super) fn start(client: &Client) -> Self {
        let mut events = SelectAll::new();
        let ours = Config::default().labels(&format!("{}={}", MADE_BY.0, MADE_BY.1));
        for kind in KINDS {
            let resource = resource(kind.api_version(), kind.name(), kind.plural());
            events.push(follow(client, &resource, ours.clone(), Of::Made(kind)));
        }
        events.push(follow(client, &resource("v1", "ConfigMap", "configmaps"), Config::default(), Of::Maps));
        let definition =
            resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions");
        let named = Config::default().fields("metadata.name=gatewayclasses.gateway.networking.k8s.io");
        events.push(follow(client, &definition, named, Of::Definition));
        let pending = KINDS.into_iter().map(Of::Made).chain([Of::Maps, Of::Definition]).collect();
        Self {
            events,
            pending,
            listing: BTreeMap::new(),
            there: BTreeMap::new(),
            maps: Maps::default(),
            has_classes: false,
            touched: true,
        }
    }

    /// Whether everything has been listed.
    pub(super) fn is_listed(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes the next event, and those that wait. False: there will be no more.
    pub(super) async fn next(&mut self, outage: &Outage) -> bool {
        let Some(event) = self.events.next().await else { return false };
        self.take(event, outage);
        while let Some(Some(event)) = self.events.next().now_or_never() {
            self.take(event, outage);
        }
        true
    }

    /// Takes events for so long: what changes together is done together.
    pub(super) async fn settle(&mut self, time: Duration, outage: &Outage) {
        let end = Instant::now() + time;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                event = self.events.next() => match event {
                    Some(event) => self.take(event, outage),
                    None => return,
                },
            }
        }
    }

    fn take(&mut self, (of, event): EventOf, outage: &Outage) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                let kind = match of {
                    Of::Made(kind) => kind.name(),
                    Of::Maps => "ConfigMap",
                    Of::Definition => "CustomResourceDefinition",
                };
                return outage.note(kind, &error);
            }
        };
        if matches!(event, Event::InitDone) {
            self.touched |= self.pending.remove(&of);
        }
        match of {
            Of::Made(kind) => self.made(kind, event),
            Of::Maps => self.touched |= self.maps.take(event),
            Of::Definition => {
                self.touched = true;
                match event {
                    Event::InitApply(_) | Event::Apply(_) => self.has_classes = true,
                    Event::Init | Event::Delete(_) => self.has_classes = false,
                    Event::InitDone => {}
                }
            }
        }
    }

    fn made(&mut self, kind: Kind, event: Event<ObjectMeta>) {
        let id = |metadata: &ObjectMeta| Id { kind, name: name_of(metadata) };
        let listing = self.listing.entry(kind).or_default();
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(one) => drop(listing.insert(id(&one), There::of(&one))),
            Event::InitDone => {
                let listed = std::mem::take(listing);
                self.there.retain(|id, _| id.kind != kind);
                self.there.extend(listed);
                self.touched = true;
            }
            Event::Apply(one) => {
                let (id, now) = (id(&one), There::of(&one));
                self.touched |= self.there.get(&id) != Some(&now);
                self.there.insert(id, now);
            }
            Event::Delete(one) => self.touched |= self.there.remove(&id(&one)).is_some(),
        }
    }
}

/// One watch, of metadata only.
fn follow(client: &Client, resource: &ApiResource, config: Config, of: Of) -> BoxStream<'static, EventOf> {
    let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), resource);
    let events = watcher(api, config).backoff(DefaultBackoff::default());
    let metadata = |event| match event {
        Event::Init => Event::Init,
        Event::InitApply(one) => Event::InitApply(meta(one)),
        Event::InitDone => Event::InitDone,
        Event::Apply(one) => Event::Apply(meta(one)),
        Event::Delete(one) => Event::Delete(meta(one)),
    };
    events.map(move |event| (of, event.map(metadata))).boxed()
}

fn meta(object: PartialObjectMeta<DynamicObject>) -> ObjectMeta {
    object.metadata
}

fn name_of(metadata: &ObjectMeta) -> Name {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Name::new(&text(&metadata.namespace), &text(&metadata.name))
}

/// The ConfigMaps that Gateways refer to. A cluster has many others, which are not kept.
#[derive(Debug, Default)]
pub(super) struct Maps {
    /// Their data, of those that are there.
    pub(super) data: BTreeMap<Name, BTreeMap<String, String>>,
    /// Those that were looked for, there or not, and have not changed since.
    known: BTreeSet<Name>,
}

impl Maps {
    /// True if some of it is to be read again, or may have to be.
    fn take(&mut self, event: Event<ObjectMeta>) -> bool {
        match event {
            // What changed while nothing was watched is not told one by one.
            Event::Init => {
                self.known.clear();
                true
            }
            Event::InitDone => true,
            Event::InitApply(one) | Event::Apply(one) | Event::Delete(one) => {
                self.known.remove(&name_of(&one))
            }
        }
    }

    /// Reads those that are not known. What cannot be read stays as it was, and is tried again.
    pub(super) async fn fetch(&mut self, client: &Client, wanted: &BTreeSet<Name>, outage: &Outage) -> bool {
        self.known.retain(|name| wanted.contains(name));
        self.data.retain(|name, _| wanted.contains(name));
        let mut done = true;
        for name in wanted {
            if self.known.contains(name) {
                continue;
            }
            let maps = Api::<ConfigMap>::namespaced(client.clone(), &name.namespace);
            match answered(maps.get_opt(&name.name)).await {
                Ok(map) => {
                    match map {
                        Some(map) => self.data.insert(name.clone(), map.data.unwrap_or_default()),
                        None => self.data.remove(name),
                    };
                    self.known.insert(name.clone());
                }
                Err(error) => {
                    outage.note("ConfigMap", &error);
                    done = false;
                }
            }
        }
        done
    }
}
