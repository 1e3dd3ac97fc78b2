//! `lateen upgrade` of a mesh on Kubernetes: this command's version in place of the installed one, with the values that it has.

use serde_json::Value;

use crate::Outcome;
use crate::args::{InstallArgs, UpgradeArgs};
use crate::chart::values;
use crate::cluster::{self, ClusterArgs};

use super::{allowed, blocking, own_version, put, record};

pub(super) fn run(cluster: &ClusterArgs, namespace: &str, args: &UpgradeArgs) -> Outcome {
    let UpgradeArgs { reset_values, install } = args;
    blocking(async {
        let cluster = cluster::connect(cluster).await?;
        allowed(&cluster, namespace).await?;
        record::not_helms(&cluster, namespace).await?;
        let Some(before) = record::read(&cluster, namespace).await? else {
            return Err(format!(
                "nothing is installed in {namespace} of cluster {}; use: lateen install",
                cluster.name
            )
            .into());
        };
        let kept = if *reset_values { Value::Object(serde_json::Map::new()) } else { before.values.clone() };
        let asked = values::asked(kept, &install.values.files, &install.values.settings)?;
        crate::say(&format!("version {} in place of {}", own_version(), before.version));
        let install: &InstallArgs = install;
        put(&cluster, namespace, asked, Some(before), install).await
    })
}
