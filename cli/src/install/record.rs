//! What was installed, as the cluster has it noted: by which version, with which values, which objects. Without it nobody
//! could take away later what a newer version does not have any more.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::objects::{Applying, Reference, apply};
use crate::cluster::{Cluster, ClusterError, failed};

/// The revision of the control plane that others stand beside.
pub(crate) const DEFAULT: &str = "default";
/// The ConfigMap of that one; those of others have their names behind it.
const NAME: &str = "lateen-installed";

/// What it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: String,
    /// Of the control plane.
    #[serde(default = "default_revision")]
    pub(super) revision: String,
    /// Only what differs from the chart's defaults.
    pub(super) values: Value,
    /// In the order in which they are applied.
    pub(super) objects: Vec<Reference>,
}

fn default_revision() -> String {
    DEFAULT.to_owned()
}

impl Record {
    /// Of what `values` make, which differ from the chart's defaults by what they have.
    pub(super) fn of(version: &str, values: &Value, objects: &[Value]) -> Self {
        let objects = objects.iter().filter_map(Reference::of).collect();
        let revision = revision_of(values).to_owned();
        Self { version: version.to_owned(), revision, values: values.clone(), objects }
    }

    /// Whether the agents are among it.
    pub(super) fn has_agents(&self) -> bool {
        self.objects.iter().any(|object| object.kind == "DaemonSet")
    }

    /// With what was there before and is not any more: while it is being replaced, both are there.
    pub(super) fn with(&self, before: Option<&Self>) -> Self {
        let mut both = self.clone();
        both.objects.extend(before.into_iter().flat_map(|before| before.superseded(self)));
        both
    }

    /// Objects of this that a newer one does not have, the last first.
    pub(super) fn superseded(&self, by: &Self) -> Vec<Reference> {
        let gone = self.objects.iter().filter(|object| !by.objects.iter().any(|other| same(object, other)));
        gone.rev().cloned().collect()
    }
}

/// Whatever version of its kind names it.
fn same(a: &Reference, b: &Reference) -> bool {
    let group =
        |reference: &Reference| reference.api_version.rsplit_once('/').map(|(group, _)| group.to_owned());
    (group(a), &a.kind, &a.namespace, &a.name) == (group(b), &b.kind, &b.namespace, &b.name)
}

/// The revision that values ask for.
pub(super) fn revision_of(values: &Value) -> &str {
    values["revision"].as_str().unwrap_or(DEFAULT)
}

/// Refuses what can be no revision: it is part of the names of what is installed.
///
/// # Errors
/// It has other characters than those of names, or too many.
pub(crate) fn revision_name(text: &str) -> Result<String, String> {
    match is_word(text, 40, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        true => Ok(text.to_owned()),
        false => {
            Err("a revision has at most 40 small letters, digits and -, and no - at its ends".to_owned())
        }
    }
}

/// Whether a text is of these characters, so many at most, with a letter or a digit at both ends.
pub(super) fn is_word(text: &str, most: usize, allowed: impl Fn(char) -> bool) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= most && edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(allowed)
}

/// What a thing of a revision is called: that of default alone has no revision in its name.
fn named(thing: &str, revision: &str) -> String {
    if revision == DEFAULT { thing.to_owned() } else { format!("{thing}-{revision}") }
}

/// Where it is noted.
pub(super) fn note(namespace: &str, revision: &str) -> Reference {
    Reference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: namespace.to_owned(),
        name: named(NAME, revision),
    }
}

/// What is noted of a revision in a namespace.
pub(super) async fn read(
    cluster: &Cluster,
    namespace: &str,
    revision: &str,
) -> Result<Option<Record>, ClusterError> {
    let note = note(namespace, revision);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let noted = maps
        .get_opt(&note.name)
        .await
        .map_err(|error| failed(format!("what is installed in {namespace} cannot be read"), &error))?;
    let Some(text) = noted.and_then(|map| map.data).and_then(|data| data.get("installed").cloned()) else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|error| ClusterError::Refused {
        doing: format!("{} is not understood", note.shown()),
        reason: format!("{error}; a newer lateen wrote it, perhaps"),
    })
}

/// Revisions that are noted in a namespace, but this one.
pub(super) async fn others(
    cluster: &Cluster,
    namespace: &str,
    revision: &str,
) -> Result<Vec<String>, ClusterError> {
    let notes = note(namespace, DEFAULT).likewise(&cluster.client).await?;
    let named = notes.iter().filter_map(|note| match note.name.strip_prefix(NAME)? {
        "" => Some(DEFAULT),
        rest => rest.strip_prefix('-'),
    });
    Ok(named.filter(|named| *named != revision).map(str::to_owned).collect())
}

/// What is noted of all revisions in a namespace.
pub(super) async fn all(cluster: &Cluster, namespace: &str) -> Result<Vec<Record>, ClusterError> {
    let mut all = Vec::new();
    // None is called so.
    for revision in others(cluster, namespace, "").await? {
        all.extend(read(cluster, namespace, &revision).await?);
    }
    Ok(all)
}

/// Notes it.
pub(super) async fn write(cluster: &Cluster, namespace: &str, record: &Record) -> Result<(), ClusterError> {
    let text = serde_json::to_string(record).map_err(|error| ClusterError::Refused {
        doing: "what is installed cannot be noted".to_owned(),
        reason: error.to_string(),
    })?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": note(namespace, &record.revision).name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "lateen"}},
        "data": {"installed": text},
    });
    apply(&cluster.client, &map, Applying { dry_run: false, force: true }).await.map(drop)
}

/// Refuses where helm has installed it: two would take each other's objects away.
///
/// # Errors
/// It has.
pub(super) async fn not_helms(
    cluster: &Cluster,
    namespace: &str,
    revision: &str,
) -> Result<(), ClusterError> {
    let reference = Reference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: namespace.to_owned(),
        name: named("lateen-ctrl", revision),
    };
    let there = reference.get(&cluster.client).await?;
    let notes = there.as_ref().and_then(|object| object.metadata.annotations.as_ref());
    match notes.and_then(|notes| notes.get("meta.helm.sh/release-name")) {
        None => Ok(()),
        Some(release) => Err(ClusterError::Refused {
            doing: format!("helm has installed Lateen in {namespace}, as release {release}"),
            reason: "go on with helm upgrade and helm uninstall".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Record, revision_name};

    fn record(objects: &[(&str, &str, &str)]) -> Record {
        let objects: Vec<_> = objects
            .iter()
            .map(|(version, kind, name)| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}}))
            .collect();
        Record::of("1", &json!({}), &objects)
    }

    #[test]
    fn revisions_are_parts_of_names() {
        for good in ["default", "canary", "1-2-3"] {
            assert_eq!(revision_name(good), Ok(good.to_owned()));
        }
        for bad in ["", "Bad", "a.b", "-a", "a-", "a b", &"x".repeat(41)] {
            assert!(revision_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_newer_one_does_not_have_goes_the_last_first() {
        let before =
            record(&[("v1", "Service", "a"), ("x/v1", "A", "b"), ("x/v1", "B", "b"), ("y/v1", "A", "b")]);
        let after = record(&[("v1", "Service", "a"), ("x/v2", "A", "b"), ("x/v1", "A", "new")]);
        let gone: Vec<_> = before.superseded(&after).iter().map(super::Reference::shown).collect();
        assert_eq!(
            gone,
            ["A b", "B b"],
            "another version of a kind is the same object; another group is not"
        );
        let both = after.with(Some(&before));
        assert_eq!(both.objects.len(), 5);
        assert_eq!(after.with(None), after);
    }
}
