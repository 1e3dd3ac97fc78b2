//! Tells the API server which certificates the admission webhook is trusted by: the chart makes its configuration without
//! them, because the authority is made here.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::answer::answered;
use super::roots::bundle;
use super::statuses::MANAGER;
use crate::core::Core;
use crate::source::kube::outage::Outage;

/// What the configuration is called: this, and the revision.
pub(super) const NAME: &str = "lateen-validator";
/// How often it is looked at, for somebody may have changed or made it.
const LOOK: Duration = Duration::from_secs(15);
/// After roots have changed, which may be several changes at once.
const ROUND: Duration = Duration::from_millis(500);

/// Runs for as long as the controller does; `name` is the configuration's.
pub(super) async fn run(
    client: Client,
    name: String,
    core: Core,
    outage: Outage,
    mut leads: watch::Receiver<bool>,
) {
    let configurations = Api::<ValidatingWebhookConfiguration>::all(client);
    let mut told = String::new();
    loop {
        if leads.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        let pem = bundle(&core.read());
        if !pem.is_empty()
            && let Err(error) = answered(look(&configurations, &name, &pem)).await
        {
            outage.note("ValidatingWebhookConfiguration", &error);
        }
        told.clone_from(&pem);
        let mut changes = core.changes();
        let another = async {
            while bundle(&core.read()) == told {
                if changes.changed().await.is_err() {
                    return;
                }
            }
            sleep(ROUND).await;
        };
        tokio::select! {
            () = another => {}
            () = sleep(LOOK) => {}
            changed = leads.changed() => if changed.is_err() { return },
        }
    }
}

async fn look(
    configurations: &Api<ValidatingWebhookConfiguration>,
    name: &str,
    pem: &str,
) -> Result<(), kube::Error> {
    // Who does not want the webhook does not have its configuration.
    let Some(there) = configurations.get_opt(name).await? else { return Ok(()) };
    let Some(patch) = patch(&there, pem) else { return Ok(()) };
    configurations
        .patch(
            name,
            &PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() },
            &Patch::Strategic(patch),
        )
        .await?;
    tracing::info!(name, "the API server is told whom to trust as the admission webhook");
    Ok(())
}

/// What is to be changed of a configuration; nothing if it is as it should be.
fn patch(there: &ValidatingWebhookConfiguration, pem: &str) -> Option<Value> {
    let bundle = ByteString(pem.as_bytes().to_vec());
    let lacks =
        there.webhooks.iter().flatten().filter(|one| one.client_config.ca_bundle.as_ref() != Some(&bundle));
    let changed: Vec<Value> =
        lacks.map(|one| json!({"name": one.name, "clientConfig": {"caBundle": bundle}})).collect();
    (!changed.is_empty()).then(|| json!({"webhooks": changed}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let webhook = |name: &str, pem: Option<&str>| {
            let bundle = pem.map(|pem| ByteString(pem.as_bytes().to_vec()));
            json!({
                "name": name, "clientConfig": {"url": "https://x", "caBundle": bundle}, "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            })
        };
        let there = |webhooks: Vec<Value>| -> ValidatingWebhookConfiguration {
            let value = json!({"metadata": {"name": "x"}, "webhooks": webhooks});
            serde_json::from_value(value).expect("a configuration")
        };
        assert_eq!(patch(&there(vec![webhook("a", Some("roots"))]), "roots"), None);
        let changed = patch(&there(vec![webhook("a", Some("roots")), webhook("b", None)]), "roots");
        assert_eq!(
            changed,
            Some(json!({"webhooks": [{"name": "b", "clientConfig": {"caBundle": "cm9vdHM="}}]}))
        );
    }
}
