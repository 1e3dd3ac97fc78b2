//! `lateen upgrade` of a mesh on Kubernetes: this command's version in place of the installed one, with the values that it has.

use serde_json::Value;

use crate::Outcome;
use crate::args::{InstallArgs, UpgradeArgs};
use crate::cluster::{self, ClusterArgs};

use super::{allowed, asked, blocking, own_version, put, record};

pub(super) fn run(cluster: &ClusterArgs, namespace: &str, args: &UpgradeArgs) -> Outcome {
    let UpgradeArgs { reset_values, install } = args;
    blocking(async {
        let cluster = cluster::connect(cluster).await?;
        allowed(&cluster, namespace).await?;
        let revision = asked(Value::Null, &install.values)?;
        let revision = record::revision_of(&revision);
        record::not_helms(&cluster, namespace, revision).await?;
        let Some(before) = record::read(&cluster, namespace, revision).await? else {
            return Err(format!(
                "revision {revision} is not installed in {namespace} of cluster {}; use: lateen install",
                cluster.name
            )
            .into());
        };
        let kept = if *reset_values { Value::Null } else { before.values.clone() };
        let asked = asked(kept, &install.values)?;
        crate::say(&format!("version {} in place of {}", own_version(), before.version));
        let install: &InstallArgs = install;
        put(&cluster, namespace, asked, Some(before), install).await
    })
}
