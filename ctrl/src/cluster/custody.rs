//! One authority for all replicas: what it is stands in a Secret of the controller's namespace, made by whoever comes first.
//! The replica that leads changes it, the others take it over. A Secret `cacerts`, with Istio's names of its files, is the
//! authority that people plug in.
//!
//! Roots change as with one controller (`ca/keyring/phase.rs`), with two more waits: no step is taken before the one before is
//! written down, and a new root signs when the other replicas say that their proxies know it, too.

mod secret;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::answer::answered;
use crate::ca::custody::{Custody, Report};
use crate::ca::keyring::{Keyring, KeyringSettings};
use crate::ca::root::RootError;
use crate::ca::upkeep::Upkeep;
use crate::source::kube::outage::Outage;

/// The Secret of the authority.
const NAME: &str = "lateen-ca";
/// The Secret of a plugged-in authority, by Istio's name, and its folder below the state folder.
const PLUGGED: &str = "cacerts";
/// While roots change: what each replica still waits for.
const REPORTS: &str = "lateen-replicas";
/// How often it is looked whether there is something to write.
const TICK: Duration = Duration::from_millis(500);
/// How often reports are read and written, while there is anything to report.
const REPORTING: Duration = Duration::from_secs(5);
/// Between two tries to reach the API server at start.
const AGAIN: Duration = Duration::from_secs(2);

/// Opens the authority that all replicas have in common: the Secret's, or one that is put there.
///
/// # Errors
/// What is there cannot be used.
pub(crate) async fn open(
    client: &Client,
    namespace: &str,
    mut settings: KeyringSettings,
    outage: &Outage,
) -> Result<(Keyring, Custody), RootError> {
    settings.replicated = true;
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    if settings.plugged.is_none()
        && let Some(plugged) = asked(&secrets, PLUGGED, &settings, outage).await.flatten()
    {
        let folder = settings.state.join(PLUGGED);
        secret::unpack(&plugged, &folder)?;
        settings.plugged = Some(folder);
    }
    loop {
        let Some(found) = asked(&secrets, NAME, &settings, outage).await else {
            // A replica that is started anew while the API server is away goes on with what it had.
            return Ok((Keyring::open(settings, SystemTime::now())?, Custody::new(None)));
        };
        if let Some(found) = found {
            let texts = secret::texts(&found)?;
            texts.write(&settings.state)?;
            let custody = Custody::new(Some((texts, found.metadata.resource_version)));
            return Ok((Keyring::open(settings, SystemTime::now())?, custody));
        }
        let keyring = Keyring::open(settings.clone(), SystemTime::now())?;
        let texts = keyring.texts();
        let (post, made) = (kube::api::PostParams::default(), secret::made(NAME, &texts, None));
        match answered(secrets.create(&post, &made)).await {
            Ok(made) => {
                tracing::info!(secret = NAME, namespace, "the authority is kept there for all replicas");
                return Ok((keyring, Custody::new(Some((texts, made.metadata.resource_version)))));
            }
            // Another replica was faster: its authority counts.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                outage.note("Secret", &error);
                sleep(AGAIN).await;
            }
        }
    }
}

/// Asks for a Secret until there is an answer; `None` where there is none and an earlier process has left an authority.
async fn asked(
    secrets: &Api<Secret>,
    name: &str,
    settings: &KeyringSettings,
    outage: &Outage,
) -> Option<Option<Secret>> {
    loop {
        match answered(secrets.get_opt(name)).await {
            Ok(found) => return Some(found),
            Err(error) => outage.note("Secret", &error),
        }
        if Keyring::is_kept(&settings.state) {
            return None;
        }
        sleep(AGAIN).await;
    }
}

/// Whom the task serves.
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// This replica's name.
    pub(super) us: String,
    pub(super) upkeep: Upkeep,
    pub(super) custody: Custody,
    pub(super) outage: Outage,
}

impl Keeper {
    /// Runs for as long as the controller does.
    pub(super) async fn run(self, mut leads: watch::Receiver<bool>) {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
        let watched = |name| watcher(secrets.clone(), named(name)).backoff(DefaultBackoff::default());
        let (mut shared, mut plugged) = (pin!(watched(NAME)), pin!(watched(PLUGGED)));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = Reported::default();
        loop {
            tokio::select! {
                event = shared.next() => match event {
                    Some(Ok(Event::Apply(secret) | Event::InitApply(secret))) => self.told(&secret),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => self.outage.note("Secret", &error),
                    None => return,
                },
                event = plugged.next() => match event {
                    Some(Ok(Event::Apply(secret) | Event::InitApply(secret))) => self.plugged(&secret),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => self.outage.note("Secret", &error),
                    None => return,
                },
                changed = leads.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
            }
            let lead = *leads.borrow_and_update();
            if lead && !self.custody.leads() {
                // What the one before has done last counts, whatever the watch has told so far.
                let took = self.take_over(&secrets).await;
                self.custody.with(|held| held.leads = took);
            } else if !lead {
                self.custody.with(|held| held.leads = false);
            }
            let work = async {
                if self.custody.leads() {
                    self.write(&secrets).await;
                }
                self.report(&mut reported).await;
            };
            tokio::select! {
                () = work => {}
                // What is not this replica's any more is left off; the rest is taken up again.
                changed = leads.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The Secret is another. Who leads knows: the news may be older than what it has done since.
    fn told(&self, secret: &Secret) {
        if !self.custody.leads() {
            self.adopt(secret);
        }
    }

    fn adopt(&self, secret: &Secret) {
        let taken = secret::texts(secret).and_then(|texts| {
            let adopted = self.upkeep.keyring.adopt(&texts, SystemTime::now());
            self.custody.with(|held| {
                (held.there, held.version) = (Some(texts), secret.metadata.resource_version.clone());
            });
            adopted
        });
        match taken {
            Ok(true) => {
                tracing::info!(secret = NAME, "took over what another replica did with the authority");
                self.upkeep.advance(SystemTime::now());
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, secret = NAME, "what is in force stays in force"),
        }
    }

    /// Reads the Secret. False: it could not be read, and this replica must not change anything yet.
    async fn take_over(&self, secrets: &Api<Secret>) -> bool {
        match answered(secrets.get_opt(NAME)).await {
            Ok(Some(secret)) => self.adopt(&secret),
            Ok(None) => self.custody.with(|held| (held.there, held.version) = (None, None)),
            Err(error) => {
                self.outage.note("Secret", &error);
                return false;
            }
        }
        true
    }

    /// Writes down what this replica has done, if there is anything.
    async fn write(&self, secrets: &Api<Secret>) {
        let texts = self.upkeep.keyring.texts();
        let (same, version) =
            self.custody.with(|held| (held.there.as_ref() == Some(&texts), held.version.clone()));
        if same {
            return;
        }
        let post = kube::api::PostParams::default();
        let written = match &version {
            Some(_) => {
                answered(secrets.replace(NAME, &post, &secret::made(NAME, &texts, version.clone()))).await
            }
            None => answered(secrets.create(&post, &secret::made(NAME, &texts, None))).await,
        };
        match written {
            Ok(secret) => self.custody.with(|held| {
                (held.there, held.version) = (Some(texts), secret.metadata.resource_version);
            }),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.custody.with(|held| held.version = None);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::error!(
                    secret = NAME,
                    "somebody else has changed it: that counts, and what this replica did since with the authority does not"
                );
                self.take_over(secrets).await;
            }
            Err(error) => self.outage.note("Secret", &error),
        }
    }

    /// Files of a plugged-in authority: the keyring reads them again by itself.
    fn plugged(&self, secret: &Secret) {
        let folder = self.upkeep.keyring.settings().state.join(PLUGGED);
        match &self.upkeep.keyring.settings().plugged {
            Some(plugged) if *plugged == folder => {
                if let Err(error) = secret::unpack(secret, &folder) {
                    tracing::error!(%error, secret = PLUGGED, "the authority in force stays");
                }
            }
            // Files that somebody mounted: those count.
            Some(_) => {}
            None => tracing::warn!(
                secret = PLUGGED,
                "an authority was plugged in; it counts once the controller is started anew: \
                 kubectl rollout restart the controller's Deployment"
            ),
        }
    }

    /// While there is a successor, says whose proxies do not know it yet; who leads reads what the others say.
    async fn report(&self, reported: &mut Reported) {
        let Some(since) = self.upkeep.keyring.successor_since() else {
            self.custody.with(|held| held.others.clear());
            return;
        };
        if reported.at.is_some_and(|at| at.elapsed() < REPORTING) {
            return;
        }
        reported.at = Some(Instant::now());
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let done = if self.custody.leads() {
            answered(maps.get_opt(REPORTS)).await.map(|map| {
                let data = map.and_then(|map| map.data).unwrap_or_default();
                self.custody.with(|held| held.others.read(&data, &self.us, Instant::now()));
            })
        } else {
            reported.count += 1;
            let report = Report::of(since, self.upkeep.awaited(since), reported.count);
            answered(self.tell(&maps, &report)).await
        };
        if let Err(error) = done {
            self.outage.note("ConfigMap", &error);
        }
    }

    async fn tell(&self, maps: &Api<ConfigMap>, report: &Report) -> Result<(), kube::Error> {
        let data = BTreeMap::from([(self.us.clone(), report.text())]);
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": REPORTS}, "data": data});
        // A manager each, so that nobody takes away what another says.
        let parameters = PatchParams::apply(&format!("{}/{}", super::statuses::MANAGER, self.us)).force();
        maps.patch(REPORTS, &parameters, &Patch::Apply(&map)).await.map(drop)
    }
}

/// What this replica has reported.
#[derive(Debug, Default)]
struct Reported {
    at: Option<Instant>,
    count: u64,
}
