//! Whose certificates count for a proxy: those that it holds, what the controller says of those of others
//! (`identity::trust`), and what an operator is told of both.

mod metrics;
mod tunnels;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use daemon::metrics::Metrics;
use daemon::settings::Settings;
use daemon::settings::shared::name;
use daemon::start::StartError;
use identity::rotation::{Certificates, RotationSettings};
use identity::tls::{KeyExchange, Tls, TlsSettings};
use identity::trust::Ended;
use model::mesh::Update;
use tokio::time::sleep;

use self::metrics::TrustMetrics;
pub use self::tunnels::{Leave, Tunnels};

/// How long before the end of the last root the log speaks of it, once a day.
const ROOT_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// The certificates of a proxy, and by what it judges those of others. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Those that it holds, and its roots.
    pub certificates: Certificates,
    /// What is made of them, and who is revoked.
    pub tls: Tls,
    /// Whether the controller is the one who issues certificates, so that its roots are theirs.
    own_roots: bool,
    /// Tunnels that were ended because a certificate is revoked.
    ended: Arc<Ended>,
}

impl Trust {
    /// By the settings that every proxy has; what it comes to can be scraped from then on.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn new(settings: &Settings, metrics: &Metrics) -> Result<Self, StartError> {
        let key_exchange: KeyExchange = settings.parse_explained(name::KEY_EXCHANGE)?;
        // The tunnels seal and open their records themselves (`docs/decisions/0001`): the keys are theirs.
        let tls = Tls::new(TlsSettings { key_exchange, secret_extraction: true, ..TlsSettings::default() });
        let trust = Self {
            certificates: Certificates::new(tls.clone(), RotationSettings::default()),
            tls,
            own_roots: settings.text(name::CA_ADDRESS) == settings.text(name::XDS_ADDRESS),
            ended: Arc::default(),
        };
        metrics.register(|registry| registry.register_collector(Box::new(TrustMetrics(trust.clone()))));
        Ok(trust)
    }

    /// Takes what the controller says of it, before anybody is judged by the same updates.
    pub fn take(&self, updates: &[Update]) {
        let settings = updates.iter().rev().find_map(|update| match update {
            Update::Settings(settings) => Some(settings),
            _ => None,
        });
        if let Some(settings) = settings {
            identity::trust::take(&self.certificates, &self.tls, settings, self.own_roots);
        }
    }

    /// Says once a day in the log that the last root will end, for the month before.
    pub async fn warn_of_the_end(self) {
        loop {
            let now = SystemTime::now();
            let root = self.certificates.expiries().root;
            let left = root.map(|end| end.duration_since(now).unwrap_or_default());
            let pause = match left.filter(|left| *left < ROOT_WARNING) {
                Some(left) => {
                    tracing::warn!(
                        days = left.as_secs() / (24 * 3600),
                        "the last root that peers are verified against ends soon, and with it all tunnels; see: lateen ca status"
                    );
                    24 * HOUR
                }
                None => HOUR,
            };
            sleep(pause).await;
        }
    }
}
