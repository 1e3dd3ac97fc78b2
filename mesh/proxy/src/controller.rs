//! A proxy's way to its controller, by the settings that every proxy has ([`shared`](daemon::settings::shared)): what is in
//! force from it, and certificates.

mod metrics;

use std::path::PathBuf;
use std::sync::Arc;

use daemon::metrics::Metrics;
use daemon::settings::Settings;
use daemon::settings::shared::name;
use daemon::start::StartError;
use identity::ca_client::{CaClient, CaClientSettings};
use identity::control_plane::{ControlPlane, ControlPlaneSettings};
use identity::tls::Tls;
use xds::client::{Client, ClientConfig, ClientHandle};
use xds::delta::subscriber::{Handler, Subscriber};
use xds::node::NodeInfo;

use self::metrics::XdsMetrics;

/// The connection that configuration comes on to `handler`, counted in the `istio_xds_*` series.
///
/// # Errors
/// A setting cannot be used.
pub fn client<H: Handler>(
    settings: &Settings,
    tls: &Tls,
    metrics: &Metrics,
    subscriber: Subscriber,
    handler: H,
) -> Result<(Client<H>, ClientHandle), StartError> {
    let (client, handle) = Client::new(configuration(settings, tls)?, subscriber, handler);
    Ok((client.observed_by(Arc::new(XdsMetrics::new(metrics))), handle))
}

fn configuration(settings: &Settings, tls: &Tls) -> Result<ClientConfig, StartError> {
    let names = [name::XDS_ADDRESS, name::XDS_ROOT_CA, name::ALT_XDS_HOSTNAME];
    let controller = control_plane(settings, tls, names)?;
    Ok(ClientConfig {
        address: settings.text(name::XDS_ADDRESS).to_owned(),
        dial: Arc::new(move || Box::pin(controller.connect())),
        token_file: settings.optional(name::TOKEN_FILE).map(PathBuf::from),
        cluster_id: settings.text(name::CLUSTER_ID).to_owned(),
        headers: Vec::new(),
    })
}

/// Who issues certificates: with `impersonate` those of others, by the workload that a request names.
///
/// # Errors
/// A setting cannot be used.
pub fn authority(settings: &Settings, tls: &Tls, impersonate: bool) -> Result<CaClient, StartError> {
    let names = [name::CA_ADDRESS, name::CA_ROOT_CA, name::ALT_CA_HOSTNAME];
    let authority = control_plane(settings, tls, names)?;
    let ca = CaClientSettings {
        token_file: settings.optional(name::TOKEN_FILE).map(PathBuf::from),
        cluster_id: settings.text(name::CLUSTER_ID).to_owned(),
        lifetime: settings.duration(name::SECRET_TTL)?,
        impersonate,
        headers: Vec::new(),
    };
    CaClient::new(authority.channel(), ca).map_err(|error| StartError::Value(error.to_string()))
}

/// Who this proxy is to the controller.
pub fn node(settings: &Settings, role: &str) -> NodeInfo {
    let ip = settings.text(name::INSTANCE_IP).parse().ok();
    NodeInfo::new(role, ip, settings.text(name::POD_NAME), settings.text(name::POD_NAMESPACE))
        .on_node(settings.text(name::NODE_NAME))
        .in_cluster(settings.text(name::CLUSTER_ID))
}

/// A controller by the names of the settings that hold its address, its roots and its name.
fn control_plane(
    settings: &Settings,
    tls: &Tls,
    [address, roots, server_name]: [&'static str; 3],
) -> Result<ControlPlane, StartError> {
    let mut plane = ControlPlaneSettings::new(settings.text(address), settings.text(roots));
    plane.server_name = settings.optional(server_name).map(str::to_owned);
    ControlPlane::new(tls, &plane).map_err(|error| StartError::Value(format!("{address}: {error}")))
}
