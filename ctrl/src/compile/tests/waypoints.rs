//! What of bindings reaches proxies: the waypoint on services and workloads, who judges for a workload, the policy of
//! those that take nothing else, and labels to waypoints only.

use proto::type_url::MESH_SETTINGS;
use xds::convert::Decoder;

use super::*;
use model::mesh::Mesh;

const TYPES_IN_ORDER: [&str; 3] = [MESH_SETTINGS, AUTHORIZATION, ADDRESS];

struct World {
    compiler: Compiler,
    ours: Store,
    layer7: Store,
}

impl World {
    fn new() -> Self {
        Self { compiler: compiler(), ours: Store::new(TYPES), layer7: Store::new(TYPES) }
    }

    fn apply(&mut self, objects: &[Value]) {
        let edits = self.compiler.apply(&batch(objects.iter().map(object).collect(), Vec::new()));
        self.ours.apply(edits.ours);
        self.layer7.apply(edits.layer7);
    }

    fn known(store: &Store) -> Mesh {
        let mut decoder = Decoder::default();
        let mut mesh = Mesh::new("".into(), None);
        for type_url in TYPES_IN_ORDER {
            for resource in store.resources(type_url) {
                mesh.apply(decoder.decode(type_url, resource.name(), resource.value().clone()).unwrap());
            }
        }
        mesh
    }

    /// The labels that a waypoint is told of a workload.
    fn labels(&self, uid: &str) -> Option<BTreeMap<String, String>> {
        let resource = self.layer7.resources(ADDRESS).find(|resource| **resource.name() == *uid)?;
        let address: proto::workload::Address = prost::Message::decode(resource.value().clone()).ok()?;
        match address.r#type? {
            proto::workload::address::Type::Workload(workload) => xds::convert::workload::labels(&workload),
            proto::workload::address::Type::Service(_) => None,
        }
    }
}

fn waypoint() -> [Value; 3] {
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "w", "namespace": "a", "annotations": {"istio.io/for-service-account": "x"}},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "m", "port": 15008, "protocol": "HBONE"}]}});
    let mut service = service("a", "w", &json!({"app": "w"}), "10.96.0.9");
    let mut replica = pod("a", "w-1", "w", "10.0.9.9", true, "n1");
    for made in [&mut service, &mut replica] {
        made["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] = json!("w");
    }
    [gateway, service, replica]
}

#[test]
fn bindings_are_told_once_the_waypoint_is_ready() {
    let mut world = World::new();
    world.apply(&[
        pod("a", "p", "x", "10.0.0.1", true, "n1"),
        service("a", "web", &json!({"app": "x"}), "10.96.0.1"),
    ]);
    assert_eq!(world.layer7.resources(ADDRESS).count(), 0, "nobody is told anything for waypoints");
    world.apply(&waypoint()[..2]);
    let uid = "Kubernetes//Pod/a/p";
    let told = |world: &World| {
        let mesh = World::known(&world.ours);
        let workload = mesh.workload(uid).unwrap().clone();
        let key = workload.profile.services[0].0.clone();
        let service = mesh.service(&key).unwrap().waypoint.clone();
        let by: Vec<String> =
            workload.profile.enforced_by.iter().flatten().map(ToString::to_string).collect();
        let at = |waypoint: Option<&model::workload::GatewayAddress>| {
            waypoint.map(|waypoint| format!("{}:{}", waypoint.destination, waypoint.hbone_port))
        };
        (at(service.as_deref()), at(workload.profile.waypoint.as_ref()), by)
    };
    assert_eq!(told(&world), (None, None, vec![]), "never ready");
    world.apply(&waypoint()[2..]);
    let at = Some("a/w.a.svc.cluster.local:15008".to_owned());
    let identity = "spiffe://cluster.local/ns/a/sa/w".to_owned();
    assert_eq!(told(&world), (at.clone(), at, vec![identity]));
    // Waypoints are told all that there was before, too, with labels; agents are not.
    assert_eq!(world.layer7.resources(ADDRESS).count(), world.ours.resources(ADDRESS).count());
    let policies = world.layer7.resources(REQUEST_AUTHORIZATION).count();
    assert_eq!(policies, world.ours.resources(AUTHORIZATION).count());
    assert_eq!(world.layer7.resources(AUTHORIZATION).count(), 0, "waypoints have them in full");
    assert_eq!(world.ours.resources(REQUEST_AUTHORIZATION).count(), 0, "agents never have them");
    assert_eq!(world.layer7.resources(MESH_SETTINGS).count(), 1);
    assert_eq!(world.labels(uid), Some([("app".to_owned(), "x".to_owned())].into()));
    let theirs = format!("{:?}", world.ours.resources(ADDRESS).collect::<Vec<_>>());
    assert!(!theirs.contains("lateen.dev/labels"));
}

#[test]
fn who_requires_a_waypoint_takes_nothing_else() {
    let mut world = World::new();
    let requiring = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "a", "labels": {"lateen.dev/require-waypoint": "true"}}});
    world.apply(&[pod("a", "p", "x", "10.0.0.1", true, "n1"), requiring]);
    let allowed = |world: &World, account: Option<&str>| {
        let mesh = World::known(&world.ours);
        let identity = account.map(|account| model::Identity::new("cluster.local", "a", account));
        let (source, destination) = ("10.0.0.7:1".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        let subject = model::authz::Subject { source, identity: identity.as_ref(), destination };
        mesh.judge(mesh.workload("Kubernetes//Pod/a/p").unwrap(), &subject).unwrap().allows()
    };
    for who in [None, Some("y"), Some("w")] {
        assert!(!allowed(&world, who), "without a waypoint nobody comes in: {who:?}");
    }
    world.apply(&waypoint());
    for (who, expected) in [(None, false), (Some("y"), false), (Some("x"), false), (Some("w"), true)] {
        assert_eq!(allowed(&world, who), expected, "{who:?}");
    }
    assert_eq!(world.ours.resources(AUTHORIZATION).count(), 2, "the policy before is gone");
    // A waypoint judges clients, none of which is a waypoint.
    let theirs = World::known(&world.layer7);
    let workload = theirs.workload("Kubernetes//Pod/a/p").unwrap();
    assert!(workload.profile.policies.is_empty() && theirs.policies_for(workload).unwrap().is_empty());
    world.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})]);
    assert!(allowed(&world, Some("y")) && allowed(&world, None));
    assert_eq!(world.ours.resources(AUTHORIZATION).count(), 1);
}
