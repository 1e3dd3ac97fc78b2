//! A namespace that goes over to another revision takes its waypoints there, and back.

use std::path::Path;

use manifest::Batch;
use model::mesh::Settings;

use super::*;
use crate::translate::Context;

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
    metadata: {name: w, namespace: shop, uid: u-1, resourceVersion: '7'}\n\
    spec:\n  gatewayClassName: istio-waypoint\n  listeners: [{name: mesh, port: 15008, protocol: HBONE}]\n";

fn apply(core: &Core, text: &str) {
    let parsed = manifest::parse(text, &Arc::from(Path::new("mesh.yaml")));
    let upserted = parsed.objects.into_iter().map(Arc::new).collect();
    core.apply(&Batch { upserted, ..Batch::default() });
}

/// The namespace, naming a revision.
fn namespace(revision: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{istio.io/rev: '{revision}'}}}}\n"
    )
}

/// A revision's replica that leads, as far as it decides.
struct Replica {
    revision: Revision,
    around: Surroundings,
    applied: BTreeMap<Id, Applied>,
}

impl Replica {
    fn new(name: &str, tag: &str) -> Self {
        let around = Surroundings { controller: format!("https://{name}:15012"), ..Surroundings::default() };
        Self { revision: Revision::new(name, [tag.to_owned()]), around, applied: BTreeMap::new() }
    }

    /// Does what there is to do, of which the API server tells: which fields are the controllers', not what is in them.
    /// The Deployments that it applied, and the Gateways that it has something to say of.
    fn round(&mut self, core: &Core, there: &mut BTreeMap<Id, There>) -> (Vec<Value>, Vec<Name>) {
        let wanted = wanted(&core.read(), &BTreeMap::new(), &self.revision, &self.around);
        let mut deployments = Vec::new();
        for step in step::steps(&wanted.made, &wanted.settled, there, &mut self.applied) {
            let Step::Apply(made) = step else { panic!("{}: {step:?}", self.revision.name()) };
            let mut metadata = made.value["metadata"].clone();
            metadata["managedFields"] =
                json!([{"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {}}}]);
            let now = There::of(&serde_json::from_value(metadata).expect("metadata"));
            self.applied.insert(Id::of(made), Applied { value: made.value.clone(), fields: now.fields });
            there.insert(Id::of(made), now);
            deployments.extend((made.kind == Kind::Deployment).then(|| made.value.clone()));
        }
        (deployments, wanted.told.into_keys().collect())
    }
}

#[test]
fn a_namespace_takes_its_waypoints_to_another_revision_and_back() {
    let core = Core::new(Context::new(Settings::default()));
    apply(&core, GATEWAY);
    let mut replicas = [Replica::new("default", ""), Replica::new("canary", "next")];
    let mut there = BTreeMap::new();
    let mut seen = Vec::new();
    for (label, runs, applies) in [
        ("", "default", true),
        ("canary", "canary", true),
        ("next", "canary", false),
        ("default", "default", true),
        ("next", "canary", true),
        ("", "default", true),
    ] {
        apply(&core, &namespace(label));
        let now = versions(&core.read());
        assert_ne!(now, seen, "{label:?}: nobody would look");
        seen = now;
        for replica in &mut replicas {
            let name = replica.revision.name().to_owned();
            let (deployments, told) = replica.round(&core, &mut there);
            assert_eq!(told.len(), usize::from(name == runs), "{name}, of {label:?}");
            assert_eq!(deployments.len(), usize::from(name == runs && applies), "{name}, of {label:?}");
            let asks = json!({"name": "XDS_ADDRESS", "value": format!("https://{name}:15012")});
            for deployment in &deployments {
                let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
                assert!(env.as_array().is_some_and(|all| all.contains(&asks)), "{name}, of {label:?}: {env}");
            }
        }
    }
}
