//! The definitions of Istio's kinds for API servers (`deploy/helm/crds`), made from the types that read them: what an API
//! server takes is what the mesh reads. The Gateway API's kinds have definitions of their own, which their project gives out.

mod rules;
pub(crate) mod types;
mod yaml;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::{
    istio::{AuthorizationPolicy, DestinationRule, PeerAuthentication, VirtualService},
    kinds::KINDS,
};

/// One definition: the kind, its short name, what `kubectl get` shows of it beside its age, and its schema.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    columns: Vec<Value>,
    spec: Value,
}

fn column(name: &str, path: &str) -> Value {
    json!({"name": name, "type": "string", "jsonPath": path})
}

/// What a condition says, in one word why, and with `-o wide` in a sentence: by whom, for how many, what is in the way.
fn condition(name: &str, kind: &str) -> [Value; 3] {
    let of = |field: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
    let message = json!({"name": "Message", "type": "string", "priority": 1, "jsonPath": of("message")});
    [column(name, &of("status")), column("Reason", &of("reason")), message]
}

fn definitions() -> Vec<Definition> {
    let columns = |own: &[(&str, &str)], of_condition: [Value; 3]| {
        own.iter().map(|(name, path)| column(name, path)).chain(of_condition).collect()
    };
    vec![
        Definition {
            kind: "AuthorizationPolicy",
            plural: "authorizationpolicies",
            short: "ap",
            columns: columns(&[("Action", ".spec.action")], condition("Enforced", "ZtunnelAccepted")),
            spec: types::schema::<AuthorizationPolicy>(),
        },
        Definition {
            kind: "PeerAuthentication",
            plural: "peerauthentications",
            short: "pa",
            columns: columns(&[("Mode", ".spec.mtls.mode")], condition("Enforced", "ZtunnelAccepted")),
            spec: types::schema::<PeerAuthentication>(),
        },
        Definition {
            kind: "VirtualService",
            plural: "virtualservices",
            short: "vs",
            columns: columns(
                &[("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")],
                condition("Accepted", "Accepted"),
            ),
            spec: types::schema::<VirtualService>(),
        },
        Definition {
            kind: "DestinationRule",
            plural: "destinationrules",
            short: "dr",
            columns: columns(&[("Host", ".spec.host")], condition("Accepted", "Accepted")),
            spec: types::schema::<DestinationRule>(),
        },
    ]
}

impl Definition {
    /// As an API server takes it. The first version is the one that is stored; all of them mean the same.
    fn object(&self) -> Value {
        let of_table =
            |kind: &&crate::kinds::Kind| kind.name == self.kind && kind.group.ends_with("istio.io");
        let known = KINDS.iter().find(of_table).expect("the kind is in the table");
        let mut columns = self.columns.clone();
        columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
        let version = |name: &&str| {
            json!({
                "name": name, "served": true, "storage": *name == known.versions[0],
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": self.spec, "status": status()},
                }},
            })
        };
        let versions: Vec<Value> = known.versions.iter().map(version).collect();
        let singular = self.kind.to_lowercase();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{}", self.plural, known.group),
                // To uninstall a mesh is not to delete what people wrote for it.
                "annotations": {"helm.sh/resource-policy": "keep"},
                // Whose they are: another mesh may have installed the same.
                "labels": {"app.kubernetes.io/part-of": "lateen"},
            },
            "spec": {
                "group": known.group,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind, "listKind": format!("{}List", self.kind), "plural": self.plural,
                    "singular": singular, "shortNames": [self.short],
                    "categories": ["istio-io", known.group.replace('.', "-")],
                },
                "versions": versions,
            },
        })
    }
}

/// Conditions by their type, so that several writers can have theirs; and what others write there.
fn status() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {
                        "type": text, "status": text, "reason": text, "message": text,
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                        "lastProbeTime": {"type": "string", "format": "date-time"},
                        "observedGeneration": {
                            "anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true,
                        },
                    },
                },
            },
            "observedGeneration": {
                "anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true,
            },
        },
    })
}

/// `make docs` writes them.
#[test]
fn the_documentation_agrees_with_the_definitions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/crds/templates");
    let mut wanted = BTreeSet::new();
    for definition in definitions() {
        let file = folder.join(format!("{}.yaml", definition.plural));
        let head = "# Made from the types in mesh/manifest by `make docs`; not to be edited.\n";
        let now = format!("{head}{}", yaml::document(&definition.object()));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(&folder)
                .and_then(|()| fs::write(&file, &now))
                .expect("the definition can be written");
        }
        let written = fs::read_to_string(&file).unwrap_or_default();
        assert!(written == now, "{} is older than the types: run `make docs`", file.display());
        wanted.insert(file);
    }
    let there: BTreeSet<_> =
        fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert_eq!(there, wanted);
}

#[test]
fn types_become_schemas_and_rules_are_added() {
    let policy = types::schema::<AuthorizationPolicy>();
    let at = |path: &str| policy.pointer(path).cloned();
    assert_eq!(at("/properties/action/enum"), Some(json!(["ALLOW", "DENY", "AUDIT", "CUSTOM"])));
    let when = "/properties/rules/items/properties/when/items";
    assert_eq!(at(&format!("{when}/required")), Some(json!(["key"])));
    assert_eq!(at(&format!("{when}/properties/values/items")), Some(json!({"type": "string"})));
    assert_eq!(at("/properties/rules/maxItems"), Some(json!(512)));

    let service = types::schema::<VirtualService>();
    let route = &service["properties"]["http"]["items"]["properties"];
    assert!(
        route["timeout"]["x-kubernetes-validations"][0]["rule"]
            .as_str()
            .is_some_and(|rule| rule.contains("1ms"))
    );
    assert_eq!(route["match"]["items"]["properties"]["uri"]["oneOf"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        route["route"]["items"]["properties"]["weight"],
        json!({"type": "integer", "format": "int32"})
    );
}

/// What is written is what an API server reads: the emitter is our own.
#[test]
fn definitions_are_read_back_as_they_were() {
    for definition in definitions() {
        let object = definition.object();
        let read: Value = serde_saphyr::from_str(&yaml::document(&object)).expect("YAML");
        assert_eq!(read, object, "{}", definition.kind);
    }
}
