//! `lateen tag`: further names of the control planes that are installed in a cluster, by which `istio.io/rev` may call them.
//! A tag is a value of the installation (`revisionTags`), so that setting one is an upgrade of nothing else.

use std::collections::BTreeMap;
use std::process::ExitCode;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::args::{InstallArgs, TagArgs, TagCommand, TagFormat};
use crate::cluster::{self, Cluster, ClusterArgs, ClusterError, failed};
use crate::table::align;
use crate::{Outcome, say};

use super::record::{self, DEFAULT, Record, is_word};
use super::{allowed, blocking, own_version, put};

/// By which namespaces choose a control plane.
const LABEL: &str = "istio.io/rev";

/// Runs `tag`.
pub(crate) fn run(cluster: &ClusterArgs, namespace: &str, args: &TagArgs) -> Outcome {
    blocking(async {
        let cluster = cluster::connect(cluster).await?;
        let mut installed = record::all(&cluster, namespace).await?;
        match &args.command {
            TagCommand::List { output } => list(&cluster, &installed, *output).await,
            TagCommand::Set { tag, revision, overwrite } => {
                let plan = moved(&installed, tag, revision, *overwrite)?;
                change(&cluster, namespace, &mut installed, &plan).await
            }
            TagCommand::Remove { tag } => {
                let plan = removed(&installed, tag)?;
                change(&cluster, namespace, &mut installed, &plan).await
            }
        }
    })
}

/// Tags that a revision is to have from now on.
type Change = (String, Vec<String>);

/// Tags of an installation.
fn tags(record: &Record) -> Vec<String> {
    let listed = record.values["revisionTags"].as_array().into_iter().flatten();
    listed.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What gives a revision a tag: it first, then, where another one has it, that one no more. In between it is both of them, so
/// that what names it is never nobody's.
///
/// # Errors
/// There is no such revision; the tag is another's, or a revision's own name.
fn moved(installed: &[Record], tag: &str, revision: &str, overwrite: bool) -> Result<Vec<Change>, String> {
    let names = || installed.iter().map(|record| record.revision.as_str()).collect::<Vec<_>>().join(", ");
    let Some(to) = installed.iter().find(|record| record.revision == revision) else {
        return Err(match installed {
            [] => "nothing is installed; use: lateen install".to_owned(),
            _ => format!("there is no revision {revision}; installed: {}", names()),
        });
    };
    if installed.iter().any(|record| record.revision == tag) {
        return Err(format!(
            "{tag} is a revision itself; choose another tag, or give Gateways and namespaces {LABEL}={revision}"
        ));
    }
    let mut plan = Vec::new();
    if !tags(to).contains(&tag.to_owned()) {
        plan.push((revision.to_owned(), [tags(to), vec![tag.to_owned()]].concat()));
    }
    for other in installed.iter().filter(|record| record.revision != revision) {
        let mut left = tags(other);
        let had = left.len();
        left.retain(|one| one != tag);
        if left.len() == had {
            continue;
        }
        if !overwrite {
            return Err(format!("tag {tag} is revision {}'s; --overwrite moves it", other.revision));
        }
        plan.push((other.revision.clone(), left));
    }
    Ok(plan)
}

/// What takes a tag away.
///
/// # Errors
/// Nobody has it.
fn removed(installed: &[Record], tag: &str) -> Result<Vec<Change>, String> {
    let with: Vec<&Record> =
        installed.iter().filter(|record| tags(record).iter().any(|one| one == tag)).collect();
    if with.is_empty() {
        return Err(format!("there is no tag {tag}"));
    }
    let left = |record: &Record| tags(record).into_iter().filter(|one| one != tag).collect();
    Ok(with.into_iter().map(|record| (record.revision.clone(), left(record))).collect())
}

async fn change(cluster: &Cluster, namespace: &str, installed: &mut Vec<Record>, plan: &[Change]) -> Outcome {
    allowed(cluster, namespace).await?;
    for (revision, tags) in plan {
        let Some(place) = installed.iter().position(|record| record.revision == *revision) else { continue };
        let before = installed.remove(place);
        if before.version != own_version() {
            return Err(format!(
                "revision {revision} is of version {}, this is {}; use that version's lateen, or upgrade first: \
                 lateen upgrade --revision {revision}",
                before.version,
                own_version()
            )
            .into());
        }
        record::not_helms(cluster, namespace, revision).await?;
        let mut values = before.values.clone();
        values["revisionTags"] = json!(tags);
        put(cluster, namespace, values, Some(before), &InstallArgs::waiting()).await?;
    }
    if plan.is_empty() {
        say("unchanged");
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of `tag list`.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Line {
    tag: String,
    revision: String,
    /// Those that name the tag.
    namespaces: Vec<String>,
}

fn lines(installed: &[Record], labelled: &BTreeMap<String, Vec<String>>) -> Vec<Line> {
    let mut lines: Vec<Line> = installed
        .iter()
        .flat_map(|record| tags(record).into_iter().map(|tag| (tag, record.revision.clone())))
        .map(|(tag, revision)| {
            let namespaces = labelled.get(&tag).cloned().unwrap_or_default();
            Line { tag, revision, namespaces }
        })
        .collect();
    lines.sort_by(|a, b| (&a.tag, &a.revision).cmp(&(&b.tag, &b.revision)));
    lines
}

async fn list(cluster: &Cluster, installed: &[Record], output: Option<TagFormat>) -> Outcome {
    let lines = lines(installed, &labelled(cluster).await?);
    if output == Some(TagFormat::Json) {
        say(&serde_json::to_string_pretty(&lines)?);
        return Ok(ExitCode::SUCCESS);
    }
    if lines.is_empty() {
        say("No tags found.");
        return Ok(ExitCode::SUCCESS);
    }
    let rows = lines.into_iter().map(|line| vec![line.tag, line.revision, line.namespaces.join(",")]);
    let head = ["TAG", "REVISION", "NAMESPACES"].map(str::to_owned).to_vec();
    say(align(&std::iter::once(head).chain(rows).collect::<Vec<_>>()).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Namespaces by what they name.
async fn labelled(cluster: &Cluster) -> Result<BTreeMap<String, Vec<String>>, ClusterError> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let list = namespaces
        .list(&ListParams::default().labels(LABEL))
        .await
        .map_err(|error| failed("the cluster's namespaces", &error))?;
    let mut labelled: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for namespace in list.items {
        let named = namespace.metadata.labels.and_then(|mut labels| labels.remove(LABEL));
        if let (Some(named), Some(name)) = (named, namespace.metadata.name) {
            labelled.entry(named).or_default().push(name);
        }
    }
    Ok(labelled)
}

/// Refuses what can be no tag: it is a label's value, and part of no name.
///
/// # Errors
/// It has other characters, or begins or ends with one that is neither letter nor digit.
pub(crate) fn tag_name(text: &str) -> Result<String, String> {
    match text {
        DEFAULT => Err("what names no revision is default's: install the other one as --revision default".to_owned()),
        _ if is_word(text, 63, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) => Ok(text.to_owned()),
        _ => Err("a tag is a label's value: 63 letters, digits, - _ . at most, and one of the first two at its ends".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{Line, lines, moved, removed, tag_name};
    use crate::install::record::Record;

    fn installed() -> Vec<Record> {
        let of = |revision: &str, tags: &[&str]| {
            Record::of("1", &json!({"revision": revision, "revisionTags": tags}), &[])
        };
        vec![of("default", &["stable", "prod"]), of("canary", &[])]
    }

    fn plan(changes: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |tags: &&[&str]| tags.iter().map(|&tag| tag.to_owned()).collect();
        changes.iter().map(|(revision, tags)| ((*revision).to_owned(), owned(tags))).collect()
    }

    #[test]
    fn a_tag_is_somebodys_at_every_moment() {
        let all = installed();
        assert_eq!(moved(&all, "next", "canary", false), Ok(plan(&[("canary", &["next"])])));
        assert_eq!(
            moved(&all, "prod", "canary", true),
            Ok(plan(&[("canary", &["prod"]), ("default", &["stable"])])),
            "the new one has it before the old one has it no more"
        );
        assert_eq!(moved(&all, "prod", "default", false), Ok(plan(&[])));
        for (tag, revision, said) in [
            ("prod", "canary", "tag prod is revision default's; --overwrite"),
            ("prod", "other", "there is no revision other; installed: default, canary"),
            ("canary", "default", "canary is a revision itself"),
        ] {
            let refused = moved(&all, tag, revision, false).expect_err(said);
            assert!(refused.contains(said), "{refused}");
        }
        assert_eq!(removed(&all, "prod"), Ok(plan(&[("default", &["stable"])])));
        assert_eq!(removed(&all, "none"), Err("there is no tag none".to_owned()));
        assert!(moved(&[], "prod", "canary", false).expect_err("nothing").contains("lateen install"));
    }

    #[test]
    fn a_list_says_who_names_a_tag() {
        let labelled = BTreeMap::from([("prod".to_owned(), vec!["shop".to_owned()])]);
        let line = |tag: &str, namespaces: &[&str]| Line {
            tag: tag.to_owned(),
            revision: "default".to_owned(),
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(lines(&installed(), &labelled), [line("prod", &["shop"]), line("stable", &[])]);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for good in ["prod", "v1.2", "A_b-3"] {
            assert_eq!(tag_name(good), Ok(good.to_owned()));
        }
        for bad in ["", "default", "-a", "a-", "a b", "a/b", &"x".repeat(64)] {
            assert!(tag_name(bad).is_err(), "{bad}");
        }
    }
}
