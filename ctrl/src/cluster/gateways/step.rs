//! What is to be done so that there is what Gateways ask for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use kube::core::ObjectMeta;
use manifest::waypoint::{GATEWAY_CLASS, GATEWAY_NAME, controller_of};
use serde_json::Value;

use crate::cluster::statuses::MANAGER;
use crate::gateways::{Kind, Made};
use crate::index::Name;

/// What tells one made object from the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) kind: Kind,
    pub(super) name: Name,
}

impl Id {
    pub(super) fn of(made: &Made) -> Self {
        Self { kind: made.kind, name: made.name.clone() }
    }
}

/// An object that was made here, as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct There {
    uid: Option<String>,
    /// The Gateway that it is for, while its class is one of ours: another controller may have taken it over.
    gateway: Option<Name>,
    /// Which of its fields are ours, as a hash: who changes or removes one takes it from us.
    pub(super) fields: u64,
}

impl There {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        let ours = metadata.managed_fields.iter().flatten().filter(|entry| {
            entry.manager.as_deref() == Some(MANAGER)
                && entry.operation.as_deref() == Some("Apply")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        });
        let mut hasher = DefaultHasher::new();
        for fields in ours.filter_map(|entry| entry.fields_v1.as_ref()) {
            fields.0.to_string().hash(&mut hasher);
        }
        let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name));
        let ours = label(GATEWAY_CLASS).is_some_and(|class| controller_of(class).is_some());
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        Self {
            gateway: label(GATEWAY_NAME).filter(|_| ours).map(|name| Name::new(namespace, name)),
            uid: metadata.uid.clone(),
            fields: hasher.finish(),
        }
    }
}

/// What was applied, and which fields were ours afterwards.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    pub(super) value: Value,
    pub(super) fields: u64,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    Apply(&'a Made),
    /// The object of this uid.
    Delete(Id, Option<String>),
}

/// What is to be done: whatever is not there as it was applied, and objects that a Gateway of `settled` asks for no more.
/// What was applied and is not wanted now is forgotten: before it is wanted again another revision may have given the same
/// fields other values, as its own address, and fields do not tell of that.
pub(super) fn steps<'a>(
    made: &'a [Made],
    settled: &BTreeSet<Name>,
    there: &BTreeMap<Id, There>,
    applied: &mut BTreeMap<Id, Applied>,
) -> Vec<Step<'a>> {
    let wanted: BTreeSet<Id> = made.iter().map(Id::of).collect();
    applied.retain(|id, _| there.contains_key(id) && wanted.contains(id));
    let is_done = |one: &&Made| {
        let id = Id::of(one);
        matches!((there.get(&id), applied.get(&id)), (Some(there), Some(applied))
            if applied.fields == there.fields && applied.value == one.value)
    };
    let gone = there.iter().filter(|(id, one)| {
        !wanted.contains(id) && one.gateway.as_ref().is_some_and(|gateway| settled.contains(gateway))
    });
    let apply = made.iter().filter(|one| !is_done(one)).map(Step::Apply);
    apply.chain(gone.map(|(id, one)| Step::Delete(id.clone(), one.uid.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(kind: Kind, value: i32) -> Made {
        Made { kind, name: Name::new("shop", "w"), value: json!(value) }
    }

    fn metadata(manager: &str, fields: &Value, class: &str) -> ObjectMeta {
        let value = json!({
            "namespace": "shop", "name": "w", "uid": "7", "labels": {GATEWAY_NAME: "w", GATEWAY_CLASS: class},
            "managedFields": [
                {"manager": manager, "operation": "Apply", "fieldsV1": fields},
                {"manager": MANAGER, "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ],
        });
        serde_json::from_value(value).expect("metadata")
    }

    fn there(manager: &str, fields: &Value) -> There {
        There::of(&metadata(manager, fields, "istio-waypoint"))
    }

    #[test]
    fn what_is_as_it_was_applied_is_left_alone() {
        let ours = || there(MANAGER, &json!({"f:spec": {}}));
        for (about, there, applied, does) in [
            ("nothing is there", None, None, true),
            ("it is there from before", Some(ours()), None, true),
            ("it is as it was applied", Some(ours()), Some(1), false),
            ("another one is wanted", Some(ours()), Some(2), true),
            ("a field was taken from us", Some(there(MANAGER, &json!({}))), Some(1), true),
            ("all fields were", Some(there("another", &json!({"f:spec": {}}))), Some(1), true),
            ("it was removed", None, Some(1), true),
        ] {
            let one = made(Kind::Service, 1);
            let id = Id::of(&one);
            let there: BTreeMap<Id, There> = there.into_iter().map(|there| (id.clone(), there)).collect();
            let applied =
                applied.map(|value| (id.clone(), Applied { value: json!(value), fields: ours().fields }));
            let mut applied: BTreeMap<Id, Applied> = applied.into_iter().collect();
            let steps = steps(std::slice::from_ref(&one), &BTreeSet::new(), &there, &mut applied);
            let wanted = if does { vec![Step::Apply(&one)] } else { Vec::new() };
            assert_eq!(steps, wanted, "{about}");
        }
    }

    #[test]
    fn what_a_gateway_asks_for_no_more_goes_and_nothing_else_does() {
        let autoscaler = || Id { kind: Kind::HorizontalPodAutoscaler, name: Name::new("shop", "w") };
        for (about, settled, class, goes) in [
            ("it has another class, or another ConfigMap", true, "istio-waypoint", true),
            ("it is gone, broken, or its ConfigMap is", false, "istio-waypoint", false),
            ("another controller has taken it over", true, "istio", false),
        ] {
            let one = There::of(&metadata(MANAGER, &json!({}), class));
            let settled = settled.then(|| Name::new("shop", "w")).into_iter().collect();
            let steps = steps(&[], &settled, &[(autoscaler(), one)].into(), &mut BTreeMap::new());
            let wanted =
                if goes { vec![Step::Delete(autoscaler(), Some("7".to_owned()))] } else { Vec::new() };
            assert_eq!(steps, wanted, "{about}");
        }
    }
}
