//! The process from its start to its end: settings in, threads, controller and certificates joined.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use daemon::files;
use daemon::http::Routes;
use daemon::log::Log;
use daemon::metrics::{Metrics, expire};
use daemon::readiness::Readiness;
use daemon::settings::Settings;
use daemon::shutdown::Shutdown;
use daemon::start::StartError;
use daemon::tasks::Tasks;
use daemon::trace::TraceSettings;
use hbone::account::Ledger;
use hbone::handshakes::Handshakes;
use hbone::limits::Limits;
use hbone::windows::Windows;
use model::Identity;
use model::address::{NetworkAddress, Str};
use model::authz::GatewayName;
use proto::type_url;
use proxy::admin::{Addresses, Page};
use proxy::trust::Trust;
use proxy::{controller, threads};
use xds::client::ClientHandle;
use xds::convert::Decoder;
use xds::delta::subscriber::{Mode, Subscriber, Subscription};
use xds::feed::routing::RoutingFeed;
use xds::state::State;

use crate::balance::{AllClusters, EjectionMetrics};
use crate::config::name;
use crate::ending::{self, Ending};
use crate::feed::LabelFeed;
use crate::health::{Checks, HealthMetrics};
use crate::known::{AllLabels, Routings};
use crate::limits::{Bounds, Connections, Hits, LimitMetrics};
use crate::telemetry::{Desk, Place, Records, Spans, Telemetry};
use crate::{Own, Waypoint, admin, feed, health, listen, worker};

const STATE: &str = "state from the controller";
const CERTIFICATE: &str = "own certificate";
const SELF: &str = "own workload from the controller";
const LEAVING: &str = "its end";
/// Windows of a tunnel and of each stream in it, bytes: what a stream has at first, and once it has carried 16 MiB while
/// there is something left in [`WINDOWS`]. A tunnel carries the connections of many clients: all of them may stall, and the
/// tunnel still has room for the next.
const TUNNEL_STREAM_WINDOW: u32 = 64 << 10;
const LARGEST_TUNNEL_STREAM_WINDOW: u32 = 512 << 10;
const TUNNEL_WINDOW: u32 = 64 << 20;
/// What windows may have beyond their least, bytes, those of tunnels and of HTTP/2 connections together. 48 MiB: two HTTP/2
/// connections to endpoints at full width, or a hundred streams of tunnels.
const WINDOWS: u64 = 48 << 20;

/// Runs the waypoint until it is told to end.
///
/// # Errors
/// It could not start.
pub fn run(settings: &Settings, log: &Log) -> Result<(), Box<dyn std::error::Error>> {
    // Threads of their own carry requests; this one accepts, and has the controller and the admin page.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings, log.clone()))?;
    Ok(())
}

async fn serve(settings: &Settings, log: Log) -> Result<(), StartError> {
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    [STATE, CERTIFICATE, SELF].into_iter().for_each(|what| readiness.pending(what));
    let shutdown = Shutdown::default();
    // One future from the start to the end: a signal between two would be nobody's.
    let signalled = pin!(shutdown.signalled());
    let tasks = Tasks::default();

    let (waypoint, mailboxes) = waypoint(settings, log, &metrics, Bounds::default())?;
    // Taken now, so that it fails now where another has it; opened when there is something to answer with.
    let tunnels = SocketAddr::new(waypoint.own.address.ip, settings.parse(name::HBONE_PORT, "a port")?);
    let port = listen::Port::take(tunnels)?;
    let ports = Addresses::of(settings)?.listen()?;
    let workers = worker::start_all(&waypoint, mailboxes)?;
    let page = Page {
        component: "waypoint",
        version: admin::version(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
        log: waypoint.log.clone(),
    };
    let probed = proxy::admin::ready(Routes::default(), &readiness);
    let own = admin::routes(waypoint.clone(), serde_json::json!(settings.in_force()));
    tasks.spawn_lasting("admin", page.serve(ports, probed, own));
    keep_up(settings, &waypoint, &tasks)?;
    let handle = follow(settings, &waypoint, &metrics, &tasks)?;
    tasks.spawn("ready", ready(waypoint.clone(), handle, readiness.clone()));

    let mut told_to_end = pin!(threads::ending(signalled, &tasks, &workers));
    let cause = tokio::select! {
        biased;
        cause = told_to_end.as_mut() => cause?,
        () = readiness.ready() => {
            let listener = port.open();
            let listener =
                listener.map_err(|error| StartError::System("tunnels cannot be listened for", error))?;
            tasks.spawn_lasting("accept", listen::accept(waypoint.clone(), listener));
            told_to_end.await?
        }
    };
    tracing::info!(%cause, "draining");
    readiness.pending(LEAVING);
    tokio::select! {
        in_order = ending::end(&waypoint, settings.duration(name::DRAIN)?) => match in_order {
            true => tracing::info!("everything has ended in order"),
            false => tracing::warn!("ending what has not ended by itself"),
        },
        defect = tasks.defect(&workers) => return Err(defect.into()),
    }
    if let Some(spans) = &waypoint.spans {
        spans.flush().await;
    }
    tasks.stop().await;
    Ok(())
}

/// Starts what keeps this waypoint as it is to be: its certificates, its endpoints, and what is told of it.
fn keep_up(settings: &Settings, waypoint: &Arc<Waypoint>, tasks: &Tasks) -> Result<(), StartError> {
    tasks.spawn_lasting(
        "certificates",
        waypoint.trust.certificates.drive(controller::authority(settings, &waypoint.trust.tls, false)?),
    );
    let expiring = waypoint.clone();
    tasks.spawn_lasting("expire series", expire(move || expiring.telemetry.expire()));
    tasks.spawn_lasting("ends of roots", waypoint.trust.clone().warn_of_the_end());
    if let Some(exporter) = waypoint.spans.as_ref().and_then(Spans::exporter) {
        tasks.spawn_lasting("spans", exporter.run());
    }
    tasks.spawn_lasting("endpoints", upkeep(waypoint.clone()));
    tasks.spawn_lasting("health checks", health::follow(waypoint.clone()));
    Ok(())
}

/// Starts to follow the controller; the handle says when it has told everything.
fn follow(
    settings: &Settings,
    waypoint: &Arc<Waypoint>,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<ClientHandle, StartError> {
    let node = controller::node(settings, "waypoint").understanding(&feed::abilities());
    let subscriber = Subscriber::new(node.to_wire(), subscriptions());
    let (taker, router) = (waypoint.clone(), waypoint.clone());
    let feed = RoutingFeed::new(
        Decoder::default(),
        move |updates| taker.take(updates),
        move |updates| router.routings.apply(updates),
    );
    let feed = LabelFeed { feed, waypoint: waypoint.clone() };
    let (client, handle) = controller::client(settings, &waypoint.trust.tls, metrics, subscriber, feed)?;
    let client = client.answering(Arc::new(Desk(waypoint.clone())));
    tasks.spawn_lasting("controller", async move { match client.run().await {} });
    Ok(handle)
}

/// Puts together what all threads share, and the mailboxes of the threads.
pub(crate) fn waypoint(
    settings: &Settings,
    log: Log,
    metrics: &Metrics,
    bounds: Bounds,
) -> Result<(Arc<Waypoint>, Vec<worker::Mailbox>), StartError> {
    let trust = Trust::new(settings, metrics)?;
    let threads = threads::count(settings)?;
    let files = files::set_limit(settings.parse(name::OPEN_FILES, "a number of files, or 0")?);
    // A sixteenth is kept back for the controller, metrics and what is open for a moment only.
    let files = files - files / 16;
    // Bytes are read here, and nothing is spliced that could go on elsewhere.
    let limits = Limits {
        hands_over: false,
        stream_window: TUNNEL_STREAM_WINDOW,
        largest_stream_window: LARGEST_TUNNEL_STREAM_WINDOW,
        windows: Windows::new(WINDOWS),
        connection_window: TUNNEL_WINDOW,
        ..Limits::default()
    };
    let series = settings.parse(name::METRIC_SERIES, "a number of sets of labels")?;
    let (workers, mailboxes) = (0..threads).map(|_| worker::mailbox()).unzip();
    let own = own(settings)?;
    let spans = spans(settings, &own, metrics)?;
    let waypoint = Waypoint {
        state: State::new(settings.text(name::NETWORK), ""),
        own,
        labels: AllLabels::default(),
        routings: Routings::default(),
        clusters: AllClusters::default(),
        checks: Checks::default(),
        trust,
        log,
        ledger: Ledger::new(files, BUFFERS, limits.hits.clone()),
        limits,
        handshakes: Handshakes::new(bounds.handshakes),
        bounds,
        hits: Hits::default(),
        connections: Connections::default(),
        telemetry: Telemetry::new(metrics, threads, series),
        records: Records::new(threads, settings.parse(name::DECISION_RECORDS, "a number of records")?),
        spans,
        workers,
        ending: Ending::default(),
    };
    let waypoint = Arc::new(waypoint);
    metrics.register(|registry| {
        registry.register_collector(Box::new(LimitMetrics(waypoint.clone())));
        registry.register_collector(Box::new(EjectionMetrics(waypoint.clone())));
        registry.register_collector(Box::new(HealthMetrics(waypoint.clone())));
    });
    Ok((waypoint, mailboxes))
}

/// Spans, if there is somebody to send them to.
fn spans(settings: &Settings, own: &Own, metrics: &Metrics) -> Result<Option<Spans>, StartError> {
    let Some(collector) = settings.optional(name::COLLECTOR) else { return Ok(None) };
    let trace = TraceSettings {
        collector: collector.to_owned(),
        sampling: settings.parse(name::TRACE_SAMPLING, "a percentage")?,
        formats: settings.parse_explained(name::PROPAGATORS)?,
        resource: Vec::new(),
    };
    let place = Place {
        pod: settings.text(name::POD_NAME),
        node: settings.text(name::NODE_NAME),
        cluster: settings.text(name::CLUSTER_ID),
    };
    let spans = Spans::new(own, &place, trace).map_err(|error| StartError::Value(error.to_string()))?;
    spans.tracer.register(metrics);
    Ok(Some(spans))
}

/// Bytes that slow peers may make the tunnels hold.
const BUFFERS: u64 = 512 << 20;

fn own(settings: &Settings) -> Result<Own, StartError> {
    let required = |name, what, field| match settings.text(name) {
        "" => Err(StartError::Value(format!(
            "{name} is not set: it is {what}; set it from {field} (env.valueFrom.fieldRef)"
        ))),
        text => Ok(text),
    };
    let account = required(
        name::SERVICE_ACCOUNT,
        "the account that this waypoint's pod runs as",
        "spec.serviceAccountName",
    )?;
    required(name::INSTANCE_IP, "the IP address of this waypoint's pod", "status.podIP")?;
    let identity =
        Identity::new(settings.text(name::TRUST_DOMAIN), settings.text(name::POD_NAMESPACE), account);
    let ip = settings.parse(name::INSTANCE_IP, "the IP address of this waypoint's pod")?;
    let principal = identity.to_string().into();
    Ok(Own {
        identity,
        principal,
        gateway: gateway(settings),
        address: NetworkAddress::new(Str::from(settings.text(name::NETWORK)), ip),
    })
}

/// The Gateway that this waypoint is of.
fn gateway(settings: &Settings) -> GatewayName {
    let gateway = match settings.text(name::GATEWAY_NAME) {
        "" => settings.text(name::SERVICE_ACCOUNT),
        given => given,
    };
    let namespace = Str::from(settings.text(name::POD_NAMESPACE));
    GatewayName { namespace, name: Str::from(gateway), class: Str::from(settings.text(name::GATEWAY_CLASS)) }
}

fn subscriptions() -> [Subscription; 4] {
    let all =
        |type_url: &str, required| Subscription { type_url: type_url.into(), mode: Mode::All, required };
    [
        all(type_url::MESH_SETTINGS, false),
        all(type_url::ROUTING, false),
        all(type_url::REQUEST_AUTHORIZATION, true),
        all(type_url::ADDRESS, true),
    ]
}

/// Ready is who can take a request: everything was told, and there is a certificate.
async fn ready(waypoint: Arc<Waypoint>, handle: ClientHandle, readiness: Readiness) {
    let told = async {
        if handle.ready().await.is_ok() {
            waypoint.state.told_all();
            readiness.done(STATE);
        }
        while waypoint.state.wait_for(|mesh| waypoint.own.workload(mesh).map(|_| ())).await.is_none() {
            tracing::warn!(
                address = %waypoint.own.address.ip, identity = %waypoint.own.identity,
                "the controller does not tell of this waypoint's own workload; are INSTANCE_IP and SERVICE_ACCOUNT its pod's?"
            );
        }
        readiness.done(SELF);
    };
    let certified = async {
        let mut watch = waypoint.trust.certificates.prefetch(&waypoint.own.identity);
        while watch.current().is_none() {
            if !watch.changed().await {
                return;
            }
        }
        readiness.done(CERTIFICATE);
    };
    tokio::join!(told, certified);
}

/// Endpoints that were ejected return.
async fn upkeep(waypoint: Arc<Waypoint>) {
    waypoint.clusters.upkeep().await;
}

#[cfg(test)]
mod tests {
    use daemon::log::Format;

    use super::*;

    #[test]
    fn what_a_waypoint_must_be_told_of_itself() {
        for (account, ip, expected) in [
            ("gate", "10.0.0.7", Ok("10.0.0.7")),
            ("", "10.0.0.7", Err("SERVICE_ACCOUNT is not set")),
            ("gate", "", Err("INSTANCE_IP is not set")),
            ("gate", "everywhere", Err("INSTANCE_IP")),
        ] {
            let args = [("--service-account", account), ("--instance-ip", ip)];
            let args = args.into_iter().filter(|(_, value)| !value.is_empty());
            let args = args.flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
            let settings = crate::config::read(args, |_| None).expect("settings");
            match (own(&settings), expected) {
                (Ok(own), Ok(expected)) => assert_eq!(own.address.ip.to_string(), expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().starts_with(expected), "{error}");
                }
                (own, expected) => panic!("{own:?}, and not {expected:?}"),
            }
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused_with_what_would_do() {
        for (given, expected) in [
            (
                "--key-exchange=rsa",
                "KEY_EXCHANGE: \"rsa\" is no key exchange: use x25519, hybrid or hybrid-only",
            ),
            ("--service-account=", "set it from spec.serviceAccountName"),
        ] {
            let settings = crate::config::read([given.to_owned()], |_| None).unwrap();
            let log = Log::start("info", Format::Plain).unwrap();
            let refused = waypoint(&settings, log, &Metrics::default(), Bounds::default()).unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }
}
