//! What a controller has behind it, files and a state folder or a cluster: whom it takes objects from, who its callers are,
//! where its authority is kept.

use std::sync::Arc;
use std::time::SystemTime;

use kube::Client;

use crate::ca::authorize::{Callers, TokenFolder, TokenReviews};
use crate::ca::keyring::{Keyring, KeyringSettings};
use crate::ca::root::RootError;
use crate::cluster::client::ConnectError;
use crate::cluster::{self, Member, custody};
use crate::config::{Config, SourceSettings};
use crate::limits::Limits;
use crate::source::Source;
use crate::source::file::Files;
use crate::source::kube::Cluster;
use crate::source::kube::outage::Outage;

/// A client of the API server, where there is one to ask.
pub(super) async fn connect(source: &SourceSettings) -> Result<Option<Client>, ConnectError> {
    match source {
        SourceSettings::Files { .. } => Ok(None),
        SourceSettings::Kubernetes { kubeconfig, .. } => {
            cluster::client::connect(kubeconfig.as_deref()).await.map(Some)
        }
    }
}

/// Who may call, and what proves it.
pub(super) fn callers(config: &Config, client: Option<&Client>) -> Callers {
    match (&config.source, client) {
        (SourceSettings::Kubernetes { accounts, .. }, Some(client)) => {
            Callers::Reviewed(Box::new(TokenReviews::new(client.clone(), accounts.clone())))
        }
        _ => {
            let trust_domain = config.context.settings.trust_domain.clone();
            Callers::Folder(TokenFolder::new(&config.tokens, trust_domain))
        }
    }
}

/// The authorities: of a cluster those that all replicas have in common, else those of the state folder.
pub(super) async fn authority(
    config: &Config,
    client: Option<&Client>,
    limits: &Limits,
    outage: Outage,
) -> Result<(Arc<Keyring>, Option<Member>), RootError> {
    let settings = keyring_settings(config, limits.clone());
    let (SourceSettings::Kubernetes { replica, .. }, Some(client)) = (&config.source, client) else {
        return Ok((Arc::new(Keyring::open(settings, SystemTime::now())?), None));
    };
    let (keyring, custody) = custody::open(client, &replica.namespace, settings, &outage).await?;
    let (client, replica) = (client.clone(), replica.clone());
    Ok((Arc::new(keyring), Some(Member { client, replica, outage, custody })))
}

/// What objects come from.
pub(super) fn open_source(settings: &SourceSettings, member: Option<&Member>) -> std::io::Result<Source> {
    Ok(match (settings, member) {
        (SourceSettings::Kubernetes { replica, .. }, Some(Member { client, outage, .. })) => {
            Source::Cluster(Box::new(Cluster::watch(client, replica.revision.clone(), outage)))
        }
        (SourceSettings::Files { sources, objects }, _) => {
            Source::Files(Files::watch(sources.clone(), objects.clone())?)
        }
        (SourceSettings::Kubernetes { .. }, None) => return Err(std::io::ErrorKind::NotConnected.into()),
    })
}

fn keyring_settings(config: &Config, limits: Limits) -> KeyringSettings {
    KeyringSettings {
        state: config.state.clone(),
        plugged: config.plugged_authority.clone(),
        trust_domain: config.context.settings.trust_domain.to_string().into(),
        root_lifetime: config.root_lifetime,
        grace_percent: config.root_grace_percent,
        patience: config.rotation_patience,
        lifetimes: config.lifetimes,
        limits,
        replicated: false,
    }
}
