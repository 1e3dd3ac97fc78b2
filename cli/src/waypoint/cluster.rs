//! Gateways at an API server.

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use manifest::enrolment::MODE;
use manifest::waypoint::USE_WAYPOINT;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster, ClusterArgs, ClusterError, code, failed};

/// As whom fields are written.
const MANAGER: &str = "lateen-waypoint";
/// Objects of a page of a list.
const PAGE: u32 = 500;

/// The Gateways of a cluster.
pub(super) struct Gateways(Cluster);

fn resource(group: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn gateways() -> ApiResource {
    resource("gateway.networking.k8s.io", "Gateway", "gateways")
}

/// Whose kind is not defined has no objects, and gets none.
fn explained(doing: &str, error: &kube::Error) -> ClusterError {
    match code(error) {
        Some(404) => ClusterError::Refused {
            doing: doing.to_owned(),
            reason: "the cluster has no such namespace, or no definition of Gateways; install those of the Gateway API".to_owned(),
        },
        _ => failed(doing, error),
    }
}

impl Gateways {
    pub(super) async fn connect(args: &ClusterArgs) -> Result<Self, ClusterError> {
        cluster::connect(args).await.map(Self)
    }

    fn of(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let client = self.0.client.clone();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &gateways()),
            None => Api::all_with(client, &gateways()),
        }
    }

    /// Those of a namespace, or all.
    pub(super) async fn list(&self, namespace: Option<&str>) -> Result<Vec<Value>, ClusterError> {
        let api = self.of(namespace);
        let mut parameters = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = match api.list(&parameters).await {
                Ok(page) => page,
                Err(error) if code(&error) == Some(404) => return Ok(all),
                Err(error) => return Err(failed("Gateways cannot be listed", &error)),
            };
            all.extend(page.items.iter().filter_map(|one| serde_json::to_value(one).ok()));
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => parameters = parameters.continue_token(&more),
                None => return Ok(all),
            }
        }
    }

    pub(super) async fn get(&self, namespace: &str, name: &str) -> Result<Option<Value>, ClusterError> {
        let found = self.of(Some(namespace)).get_opt(name).await;
        let found = found.map_err(|error| failed(format!("Gateway {namespace}/{name}"), &error))?;
        Ok(found.and_then(|one| serde_json::to_value(one).ok()))
    }

    pub(super) async fn apply(&self, gateway: &Value) -> Result<(), ClusterError> {
        let text = |path: &str| gateway.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = self.of(Some(namespace)).patch(name, &parameters, &Patch::Apply(gateway)).await;
        applied
            .map(drop)
            .map_err(|error| explained(&format!("waypoint {namespace}/{name} cannot be applied"), &error))
    }

    /// False: it was not there.
    pub(super) async fn delete(&self, namespace: &str, name: &str) -> Result<bool, ClusterError> {
        match self.of(Some(namespace)).delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some(404) => Ok(false),
            Err(error) => Err(failed(format!("waypoint {namespace}/{name} cannot be deleted"), &error)),
        }
    }

    pub(super) async fn has_account(&self, namespace: &str, name: &str) -> Result<bool, ClusterError> {
        let accounts = resource("", "ServiceAccount", "serviceaccounts");
        let api = Api::<DynamicObject>::namespaced_with(self.0.client.clone(), namespace, &accounts);
        let found = api.get_metadata_opt(name).await;
        Ok(found.map_err(|error| failed(format!("ServiceAccount {namespace}/{name}"), &error))?.is_some())
    }

    /// Labels a namespace with its waypoint. Whether its pods are in the mesh.
    pub(super) async fn enroll(&self, namespace: &str, waypoint: &str) -> Result<bool, ClusterError> {
        let namespaces = resource("", "Namespace", "namespaces");
        let api = Api::<DynamicObject>::all_with(self.0.client.clone(), &namespaces);
        let patch = json!({"metadata": {"labels": {USE_WAYPOINT: waypoint}}});
        let labelled = api.patch(namespace, &PatchParams::default(), &Patch::Merge(&patch)).await;
        let labelled =
            labelled.map_err(|error| failed(format!("namespace {namespace} cannot be labelled"), &error))?;
        let labels = labelled.metadata.labels.unwrap_or_default();
        Ok(labels.get(MODE).is_some_and(|mode| mode == "ambient"))
    }
}
