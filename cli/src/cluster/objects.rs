//! Any object of a cluster by what it says of itself: kind, namespace and name.

use std::collections::BTreeMap;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use kube::core::{ApiResource, GroupVersionKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ClusterError, code, failed, refusal};

/// As whom the fields of what is installed are written.
pub(crate) const MANAGER: &str = "lateen-install";

/// Which object is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reference {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Reference {
    /// Of an object; none where it says no kind or no name.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            api_version: text("/apiVersion")?,
            kind: text("/kind")?,
            namespace: text("/metadata/namespace").unwrap_or_default(),
            name: text("/metadata/name")?,
        })
    }

    fn resource(&self) -> ApiResource {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &self.kind))
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &*self.namespace {
            "" => Api::all_with(client.clone(), &self.resource()),
            namespace => Api::namespaced_with(client.clone(), namespace, &self.resource()),
        }
    }

    /// Kind and name, as a person calls it.
    pub(crate) fn shown(&self) -> String {
        match &*self.namespace {
            "" => format!("{} {}", self.kind, self.name),
            namespace => format!("{} {namespace}/{}", self.kind, self.name),
        }
    }

    /// What the cluster has.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) async fn get(&self, client: &Client) -> Result<Option<DynamicObject>, ClusterError> {
        self.api(client).get_opt(&self.name).await.map_err(|error| failed(self.shown(), &error))
    }

    /// All of its kind in its namespace whose names begin as its own.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(crate) async fn likewise(&self, client: &Client) -> Result<Vec<Self>, ClusterError> {
        let listed = self.api(client).list_metadata(&ListParams::default()).await;
        let listed = listed.map_err(|error| failed(format!("the cluster's {}s", self.kind), &error))?;
        let names = listed.items.into_iter().filter_map(|one| one.metadata.name);
        let alike = names.filter(|name| name.starts_with(&self.name));
        Ok(alike.map(|name| Self { name, ..self.clone() }).collect())
    }

    /// Deletes it. False: it was not there.
    ///
    /// # Errors
    /// It may not be deleted.
    pub(crate) async fn delete(&self, client: &Client) -> Result<bool, ClusterError> {
        let foreground = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default()
        };
        match self.api(client).delete(&self.name, &foreground).await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some(404) => Ok(false),
            Err(error) => Err(failed(format!("{} cannot be deleted", self.shown()), &error)),
        }
    }
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Applying {
    /// Say what would come of it, and leave it at that.
    pub(crate) dry_run: bool,
    /// Take fields that somebody else has written.
    pub(crate) force: bool,
}

/// Applies an object on the server's side: fields that are not ours are left alone.
///
/// # Errors
/// It is refused, or somebody else has fields of it.
pub(crate) async fn apply(
    client: &Client,
    object: &Value,
    how: Applying,
) -> Result<DynamicObject, ClusterError> {
    let unnamed =
        || ClusterError::Refused { doing: "an object".to_owned(), reason: "it has no name".to_owned() };
    let reference = Reference::of(object).ok_or_else(unnamed)?;
    let params = PatchParams {
        dry_run: how.dry_run,
        force: how.force,
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let applied = reference.api(client).patch(&reference.name, &params, &Patch::Apply(object)).await;
    applied.map_err(|error| match code(&error) {
        Some(409) => ClusterError::Refused {
            doing: format!("{} has fields that somebody else writes", reference.shown()),
            reason: format!("{}; --force-conflicts takes them", refusal(&error).unwrap_or_default()),
        },
        _ => failed(format!("{} cannot be applied", reference.shown()), &error),
    })
}

/// What may be asked whether it is allowed: a verb on a kind, in a namespace or in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: Option<&'static str>,
    pub(crate) namespace: String,
}

impl Right {
    /// As a person says it.
    pub(crate) fn shown(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        let sub = self.subresource.map(|name| format!("/{name}")).unwrap_or_default();
        let place = match &*self.namespace {
            "" => String::new(),
            namespace => format!(" in {namespace}"),
        };
        format!("{} {}{sub}{dot}{}{place}", self.verb, self.resource, self.group)
    }
}

/// What applying and deleting these objects asks for, each once.
pub(crate) fn needed<'a>(objects: impl IntoIterator<Item = &'a Value>, verbs: &[&'static str]) -> Vec<Right> {
    let mut rights = BTreeMap::new();
    for reference in objects.into_iter().filter_map(Reference::of) {
        let ApiResource { group, plural, .. } = reference.resource();
        for &verb in verbs {
            let right = Right {
                verb,
                group: group.clone(),
                resource: plural.clone(),
                subresource: None,
                namespace: reference.namespace.clone(),
            };
            rights.insert(right, ());
        }
    }
    rights.into_keys().collect()
}

/// Those of the rights that the caller does not have.
///
/// # Errors
/// The cluster does not say.
pub(crate) async fn missing(client: &Client, rights: &[Right]) -> Result<Vec<String>, ClusterError> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut missing = Vec::new();
    for right in rights {
        let optional = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let attributes = ResourceAttributes {
            verb: Some(right.verb.to_owned()),
            group: optional(&right.group),
            resource: Some(right.resource.clone()),
            subresource: right.subresource.map(str::to_owned),
            namespace: optional(&right.namespace),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..Default::default()
        };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| failed("the cluster does not say what is allowed", &error))?;
        if !answer.status.is_some_and(|status| status.allowed) {
            missing.push(right.shown());
        }
    }
    Ok(missing)
}

/// Who the cluster takes the caller for.
pub(crate) async fn whoami(client: &Client) -> String {
    use k8s_openapi::api::authentication::v1::SelfSubjectReview;
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let info = answer.ok().and_then(|answer| answer.status).and_then(|status| status.user_info);
    info.and_then(|info| info.username).unwrap_or_else(|| "this kubeconfig's user".to_owned())
}
