//! `lateen install`, `uninstall`, `tag` and `manifest`, and `upgrade` of a mesh on Kubernetes: the chart's objects, applied and taken
//! away, with what was installed noted in the cluster.

mod apply;
mod progress;
mod record;
mod remove;
mod rollout;
mod tag;
mod upgrade;

pub(crate) use self::record::{DEFAULT, revision_name};
pub(crate) use self::remove::enrolled;
pub(crate) use self::tag::tag_name;

use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::args::{InstallArgs, ManifestArgs, TagArgs, UninstallArgs, UpgradeArgs, ValueArgs};
use crate::chart::{self, values};
use crate::cluster::{self, Cluster, ClusterArgs, ClusterError};
use crate::{Outcome, complain, say};

use self::progress::Progress;
use self::record::Record;

/// Where the mesh is installed unless somebody says otherwise: policies there are for all of it, as with Istio.
pub(crate) const NAMESPACE: &str = "istio-system";
/// Exit code for what the caller's machine or cluster lacks (`EX_NOPERM` of sysexits.h, as for `up`).
const LACKS: u8 = 77;

/// Runs something that asks a cluster; what the cluster lacks has an exit code of its own.
pub(crate) fn blocking<F>(work: F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    match outcome {
        Err(error) => match error.downcast_ref::<ClusterError>() {
            Some(lacking) if lacks(lacking) => {
                complain(&format!("lateen: {lacking}"));
                Ok(ExitCode::from(LACKS))
            }
            _ => Err(error),
        },
        ended => ended,
    }
}

fn lacks(error: &ClusterError) -> bool {
    !matches!(error, ClusterError::Refused { .. })
}

/// Runs `manifest`.
pub(crate) fn manifest(namespace: Option<&str>, args: &ManifestArgs) -> Outcome {
    if args.defaults {
        say(chart::VALUES.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let values = asked(Value::Null, &args.values)?;
    let mut objects = if args.no_definitions { Vec::new() } else { chart::definitions()? };
    objects.extend(chart::mesh(&values::complete(&values)?, namespace.unwrap_or(NAMESPACE))?);
    for object in objects {
        say(&format!("---\n{}", serde_saphyr::to_string(&object)?.trim_end()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the command line asks for, over what was asked for before (null: nothing).
///
/// # Errors
/// A file of values cannot be read.
fn asked(kept: Value, args: &ValueArgs) -> Result<Value, values::ValuesError> {
    let kept = if kept.is_null() { Value::Object(Map::new()) } else { kept };
    let mut asked = values::asked(kept, &args.files, &args.settings)?;
    if let Some(revision) = &args.revision {
        asked["revision"] = revision.as_str().into();
    }
    Ok(asked)
}

/// Runs `install`.
pub(crate) fn install(cluster: &ClusterArgs, namespace: Option<&str>, args: &InstallArgs) -> Outcome {
    let namespace = namespace.unwrap_or(NAMESPACE);
    let asked = asked(Value::Null, &args.values)?;
    // Before the cluster is asked: what is wrong with the command line is not the cluster's.
    values::complete(&asked)?;
    blocking(async {
        let cluster = cluster::connect(cluster).await?;
        allowed(&cluster, namespace).await?;
        let revision = record::revision_of(&asked);
        let before = record::read(&cluster, namespace, revision).await?;
        if let Some(installed) = &before
            && installed.version != own_version()
        {
            return Err(format!(
                "version {} is installed in {namespace}, this is {}; use: lateen upgrade",
                installed.version,
                own_version()
            )
            .into());
        }
        record::not_helms(&cluster, namespace, revision).await?;
        put(&cluster, namespace, asked, before, args).await
    })
}

/// Runs `upgrade` on a cluster.
pub(crate) fn upgrade(cluster: &ClusterArgs, namespace: Option<&str>, args: &UpgradeArgs) -> Outcome {
    upgrade::run(cluster, namespace.unwrap_or(NAMESPACE), args)
}

/// Runs `tag`.
pub(crate) fn tag(cluster: &ClusterArgs, namespace: Option<&str>, args: &TagArgs) -> Outcome {
    tag::run(cluster, namespace.unwrap_or(NAMESPACE), args)
}

/// Runs `uninstall`.
pub(crate) fn uninstall(cluster: &ClusterArgs, namespace: Option<&str>, args: &UninstallArgs) -> Outcome {
    let namespace = namespace.unwrap_or(NAMESPACE);
    blocking(async {
        let cluster = cluster::connect(cluster).await?;
        remove::run(&cluster, namespace, args).await
    })
}

fn own_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Refuses before anything is asked or changed where the caller may not do all of it.
async fn allowed(cluster: &Cluster, namespace: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut objects = chart::definitions()?;
    objects.extend(chart::mesh(&values::complete(&Value::Object(Map::new()))?, namespace)?);
    Ok(apply::permitted(cluster, namespace, objects.iter()).await?)
}

/// Applies what `asked` makes of the chart, takes away what was there before and is no more, and waits.
async fn put(
    cluster: &Cluster,
    namespace: &str,
    asked: Value,
    before: Option<Record>,
    args: &InstallArgs,
) -> Outcome {
    let definitions = chart::definitions()?;
    let mesh = chart::mesh(&values::complete(&asked)?, namespace)?;
    let mut progress = Progress::new();
    progress.note(&format!("cluster {}, Kubernetes {}", cluster.name, cluster.version));
    let how = cluster::objects::Applying { dry_run: args.dry_run, force: args.force_conflicts };
    if args.dry_run {
        return apply::tried(cluster, namespace, &definitions, &mesh, before.as_ref(), how).await;
    }
    apply::namespace(cluster, namespace, how).await?;
    apply::definitions(cluster, &definitions, how, &mut progress).await?;
    let record = Record::of(own_version(), &asked, &mesh);
    // Noted before it is done, so that what is begun can be taken away.
    record::write(cluster, namespace, &record.with(before.as_ref())).await?;
    apply::mesh(cluster, &mesh, how, &mut progress).await?;
    if let Some(before) = &before {
        remove::superseded(cluster, before, &record, &mut progress).await?;
    }
    record::write(cluster, namespace, &record).await?;
    if args.no_wait {
        progress.note("applied; not waited for (--no-wait)");
        return Ok(ExitCode::SUCCESS);
    }
    rollout::wait(cluster, &mesh, args.timeout, &mut progress).await?;
    progress.note(&format!("Lateen {} is installed in {namespace}", own_version()));
    if before.is_none() {
        progress.note(&match &*record.revision {
            DEFAULT => "next: kubectl label namespace NAME istio.io/dataplane-mode=ambient".to_owned(),
            revision => format!("next: kubectl label namespace NAME istio.io/rev={revision}"),
        });
    }
    Ok(ExitCode::SUCCESS)
}
