//! From what was last good to ConfigMaps and back. Pure. A host that has only its default routing is kept as its name; all
//! of a small mesh is one ConfigMap, of a larger one each of eight has its share, so that a change writes one of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use manifest::{API_SERVER, Object, from_json};
use model::address::NamespacedHostname;
use model::route::Routing;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::LastGoods;
use crate::source::routings;

/// ConfigMaps at most.
pub(super) const PARTS: usize = 8;
/// So many bytes are one ConfigMap's.
const SMALL: usize = 256 << 10;
/// The most that goes into one: the API server takes a mebibyte, of which other fields have some, in base64.
const MOST: usize = 700 << 10;
/// Keys of a ConfigMap.
const COUNT: &str = "parts";
const DEFAULTS: &str = "default-routings";
const ROUTINGS: &str = "routings";
const WAYPOINTS: &str = "ready-waypoints";
const POLICIES: &str = "last-good-policies";

/// One ConfigMap.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Part {
    /// How many there are.
    pub(super) count: usize,
    defaults: String,
    routings: Vec<u8>,
    waypoints: Vec<Value>,
    policies: Vec<Value>,
    bytes: usize,
}

/// One thing to be kept.
enum Item {
    Default(String),
    Routing(Vec<u8>),
    Waypoint(Value),
    Policy(Value),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Default(name) => name.len() + 1,
            Self::Routing(bytes) => bytes.len(),
            Self::Waypoint(value) | Self::Policy(value) => value.to_string().len() + 1,
        }
    }
}

/// The parts, and how many things have no room in them: of hosts with nothing but a default routing, if need be.
pub(super) fn pack(kept: &LastGoods) -> (Vec<Part>, usize) {
    let named = |object: &Object| format!("{}", object.key());
    let of = |objects: &[Arc<Object>], item: fn(Value) -> Item| -> Vec<(String, Item)> {
        objects.iter().map(|object| (named(object), item(with_namespace(object)))).collect()
    };
    let mut items = of(&kept.waypoints, Item::Waypoint);
    items.extend(of(&kept.policies, Item::Policy));
    let (plain, routed): (Vec<_>, Vec<_>) = kept.routings.iter().partition(|routing| routing.is_by_default());
    for routing in routed {
        let mut bytes = Vec::new();
        routings::append(&mut bytes, routing);
        items.push((routing.host.to_string(), Item::Routing(bytes)));
    }
    for routing in plain {
        let name = routing.host.to_string();
        items.push((name.clone(), Item::Default(name)));
    }
    let count = if items.iter().map(|(_, item)| item.bytes()).sum::<usize>() <= SMALL { 1 } else { PARTS };
    let mut parts = vec![Part { count, ..Part::default() }; PARTS];
    let mut left_out = 0;
    for (name, item) in items {
        let number = if count == 1 { 0 } else { usize::from(Sha256::digest(&name)[0]) % PARTS };
        left_out += usize::from(!parts[number].put(item));
    }
    // The first says how many count, so what stands in the others then is of no consequence.
    parts.truncate(if count == 1 { 1 } else { PARTS });
    (parts, left_out)
}

/// What parts say, together.
pub(super) fn unpack(parts: Vec<Part>) -> LastGoods {
    let origin: Arc<Path> = Arc::from(Path::new(API_SERVER));
    let object = |value: &Value| from_json(value, &origin).objects.pop().map(Arc::new);
    let mut kept = LastGoods::default();
    let mut routings = BTreeMap::new();
    for part in parts {
        let plain = part.defaults.lines().filter_map(host).map(Routing::by_default);
        let routed = routings::decode(part.routings, Path::new(super::NAME));
        for routing in plain.chain(routed) {
            routings.insert(routing.host.clone(), Arc::new(routing));
        }
        kept.waypoints.extend(part.waypoints.iter().filter_map(object));
        kept.policies.extend(part.policies.iter().filter_map(object));
    }
    kept.routings = routings.into_values().collect();
    kept
}

impl Part {
    fn put(&mut self, item: Item) -> bool {
        let bytes = item.bytes();
        if self.bytes + bytes > MOST {
            return false;
        }
        self.bytes += bytes;
        match item {
            Item::Default(name) => {
                self.defaults.push_str(&name);
                self.defaults.push('\n');
            }
            Item::Routing(bytes) => self.routings.extend(bytes),
            Item::Waypoint(value) => self.waypoints.push(value),
            Item::Policy(value) => self.policies.push(value),
        }
        true
    }

    /// As a ConfigMap of this name.
    pub(super) fn map(&self, name: &str) -> Value {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        let list = |values: &[Value]| Value::from(values).to_string();
        map.data = Some(BTreeMap::from([
            (COUNT.to_owned(), self.count.to_string()),
            (DEFAULTS.to_owned(), self.defaults.clone()),
            (WAYPOINTS.to_owned(), list(&self.waypoints)),
            (POLICIES.to_owned(), list(&self.policies)),
        ]));
        map.binary_data = Some(BTreeMap::from([(ROUTINGS.to_owned(), ByteString(self.routings.clone()))]));
        let mut value = json!(map);
        value["apiVersion"] = "v1".into();
        value["kind"] = "ConfigMap".into();
        value
    }

    /// What a ConfigMap says; what cannot be read in it is nothing.
    pub(super) fn of(map: ConfigMap) -> Self {
        let mut data = map.data.unwrap_or_default();
        let mut text = |key: &str| data.remove(key).unwrap_or_default();
        let list = |text: String| serde_json::from_str(&text).unwrap_or_default();
        let count = text(COUNT).parse().unwrap_or(1);
        let routings = map.binary_data.unwrap_or_default().remove(ROUTINGS).map(|bytes| bytes.0);
        Self {
            count,
            defaults: text(DEFAULTS),
            routings: routings.unwrap_or_default(),
            waypoints: list(text(WAYPOINTS)),
            policies: list(text(POLICIES)),
            bytes: 0,
        }
    }
}

/// `NAMESPACE/HOST`, as it is written.
fn host(text: &str) -> Option<NamespacedHostname> {
    NamespacedHostname::parse(text.into())
}

/// The object as it was written, with its namespace.
fn with_namespace(object: &Object) -> Value {
    let mut value = object.raw.clone();
    value["metadata"]["namespace"] = json!(object.metadata.namespace);
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("status");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str) -> NamespacedHostname {
        NamespacedHostname::new("shop", host)
    }

    fn routed(host: &str) -> Arc<Routing> {
        Arc::new(Routing { default: None, ..Routing::by_default(named(host)) })
    }

    fn object(kind: &str, name: &str) -> Arc<Object> {
        let value = json!({
            "apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"},
            "spec": {}, "status": {"conditions": []},
        });
        Arc::new(from_json(&value, &Arc::from(Path::new(API_SERVER))).objects.remove(0))
    }

    /// Through ConfigMaps and back.
    fn there_and_back(kept: &LastGoods) -> (LastGoods, usize) {
        let (parts, left_out) = pack(kept);
        let maps = parts.iter().map(|part| serde_json::from_value(part.map("x")).expect("a ConfigMap"));
        (unpack(maps.map(Part::of).collect()), left_out)
    }

    #[test]
    fn what_is_kept_is_there_again() {
        let kept = LastGoods {
            routings: vec![Arc::new(Routing::by_default(named("a"))), routed("b")],
            waypoints: vec![object("PeerAuthentication", "w")],
            policies: vec![object("AuthorizationPolicy", "p")],
        };
        let (again, left_out) = there_and_back(&kept);
        assert_eq!((again.routings, left_out), (kept.routings.clone(), 0));
        assert_eq!(again.waypoints[0].key(), kept.waypoints[0].key());
        assert_eq!(again.policies[0].key(), kept.policies[0].key());
        assert_eq!(again.policies[0].raw.get("status"), None);
        assert_eq!(pack(&kept).0.len(), 1, "a small mesh is one ConfigMap");
    }

    #[test]
    fn a_large_mesh_is_spread_and_a_change_writes_one_part() {
        let long = "x".repeat(100);
        let routings: Vec<_> = (0..4_000).map(|number| routed(&format!("{number}.{long}"))).collect();
        let mut kept = LastGoods { routings, ..LastGoods::default() };
        let (again, left_out) = there_and_back(&kept);
        assert_eq!((again.routings.len(), left_out), (4_000, 0));
        let before = pack(&kept).0;
        kept.routings[17] = Arc::new(Routing::by_default(kept.routings[17].host.clone()));
        let after = pack(&kept).0;
        assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 1);
    }

    #[test]
    fn what_has_no_room_is_counted_and_rules_go_before_defaults() {
        let long = "x".repeat(1_000);
        let name = |number: usize| named(&format!("{number}.{long}"));
        let mut routings: Vec<_> =
            (0..7_000).map(|number| Arc::new(Routing::by_default(name(number)))).collect();
        routings.push(routed("rules"));
        let (parts, left_out) = pack(&LastGoods { routings, ..LastGoods::default() });
        assert!(left_out > 500, "{left_out}");
        assert!(parts.iter().all(|part| part.map("x").to_string().len() < 1 << 20));
        assert_eq!(parts.iter().filter(|part| !part.routings.is_empty()).count(), 1);
    }
}
