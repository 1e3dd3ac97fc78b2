//! The proxying role from its start to its end: settings in, threads, controller, certificates and pods joined.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use daemon::log::Log;
use daemon::metrics::traffic::Traffic;
use daemon::metrics::{Metrics, expire};
use daemon::readiness::Readiness;
use daemon::settings::Settings;
use daemon::shutdown::{Cause, Shutdown};
use daemon::start::StartError;
use daemon::tasks::Tasks;
use hbone::account::{AccountLimits, Ledger};
use hbone::limits::Limits;
use proto::type_url;
use proxy::admin::Addresses;
use proxy::controller;
use proxy::threads::{self, Threads, ending};
use proxy::trust::Trust;
use tokio::sync::mpsc;
use tokio::time::timeout;
use xds::client::ClientHandle;
use xds::convert::Decoder;
use xds::delta::subscriber::{Mode, Subscriber, Subscription};
use xds::diagnostics::Ring;
use xds::feed::Feed as Updates;

use super::decisions::Desk;
use super::demand::{self, Demand};
use super::dns::Upstreams;
use super::dns_metrics::DnsMetrics;
use super::handover::Predecessors;
use super::handshakes::Handshakes;
use super::journal::Journal;
use super::limits::Hits;
use super::parking::{self, Parking};
use super::restore::{Recorded, restore};
use super::state::{PATIENCE, State};
use super::top::Rates;
use super::{Agent, admin, files, members, memory, retire, save, top, worker};
use crate::code;
use crate::config::name;
use crate::pods::{Feed, Sources};
use crate::socket::check_congestion_control;

/// Runs the role until it is told to end.
///
/// # Errors
/// It could not start.
pub fn run(settings: &Settings, log: &Log) -> Result<(), Box<dyn std::error::Error>> {
    // Threads of their own carry connections; this one has the controller and the pods.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings, log.clone()))?;
    Ok(())
}

async fn serve(settings: &Settings, log: Log) -> Result<(), StartError> {
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    readiness.pending(STATE);
    readiness.pending(PODS);
    let shutdown = Shutdown::default();
    let parent = nix::unistd::getppid();
    // One future from the start to the end: a signal between two would be nobody's.
    let mut signalled = pin!(shutdown.signalled());
    let tasks = Tasks::default();

    let (agent, mailboxes) = agent(settings, log, &metrics)?;
    let workers = start_workers(&agent, mailboxes)?;
    let sources = Sources {
        zds: settings.text(name::ZDS_SOCKET).into(),
        private: settings.optional(name::REDIRECT_SOCKET).map(PathBuf::from),
    };
    let keeps_state = sources.private.is_some();
    let page = admin::Page {
        agent: agent.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
    };
    // Where there may be a predecessor it has the ports until it hears of this one.
    let ports = admin::listen_unless_taken(Addresses::of(settings)?, keeps_state)?;
    tasks.spawn("admin", admin::serve(ports, page));
    let authority = controller::authority(settings, &agent.trust.tls, true)?;
    tasks.spawn_lasting("certificates", agent.trust.certificates.drive(authority));
    keep_house(&tasks, &agent);

    // The hand-over first: whoever was served before us is served again before the controller has said a word.
    let (feed, saved) = tokio::select! {
        opened = Feed::open(sources) => opened,
        ending = ending(signalled.as_mut(), &tasks, &workers) => {
            tracing::info!(cause = %ending?, "ending before the redirecting role was there");
            return Ok(());
        }
    };
    let mut decoder = Decoder::default();
    let mut subscriber =
        Subscriber::new(controller::node(settings, "ztunnel").to_wire(), subscriptions(agent.demand.is_on()));
    let (journal, restored) = match keeps_state {
        true => restore(&agent, &mut decoder, &mut subscriber, saved),
        false => (Journal::off(), false),
    };
    let journal = Arc::new(journal);
    let handler = updates(agent.clone(), decoder);
    let handler = Recorded { handler, agent: agent.clone(), journal: journal.clone() };
    let (client, handle) = controller::client(settings, &agent.trust.tls, &metrics, subscriber, handler)?;
    let client = client.answering(Arc::new(Desk(agent.clone())));
    tasks.spawn_lasting("controller", async move { match client.run().await {} });
    if restored {
        agent.state.restored();
        readiness.done(STATE);
    }
    if agent.demand.is_on() {
        tasks.spawn_lasting("demand", demand::pump(agent.clone(), handle.clone()));
        tasks.spawn_lasting("forget", demand::sweep(agent.clone(), journal.clone()));
    }
    tasks.spawn("ready", ready(agent.clone(), handle, journal.clone(), readiness.clone()));
    let feed_handle = feed.handle();
    tasks.spawn_lasting("save", save::keep(agent.clone(), journal, feed_handle.clone()));
    let (retirement, mut successors) = mpsc::channel(retire::SUCCESSORS);
    let ends = members::Ends { shutdown: shutdown.clone(), retirement };
    tasks.spawn_lasting("pods", members::follow(agent.clone(), feed, readiness, ends));

    let cause = ending(signalled, &tasks, &workers).await?;
    tracing::info!(%cause, "draining");
    let mut grace = retire::Grace {
        drain: settings.duration(name::DRAIN)?,
        hand_over: settings.duration(name::HANDOVER_GRACE)?,
        told: cause != Cause::Request,
    };
    let end = async {
        let mut feed = feed_handle;
        let replaced = retire::until_replaced(&agent, &mut feed, &mut successors, grace.drain, parent);
        let (first, left) = replaced.await;
        grace.drain = left;
        retire::retire(&agent, first, successors, grace).await;
    };
    tokio::select! {
        () = end => {}
        defect = tasks.defect(&workers) => return Err(defect.into()),
    }
    tasks.stop().await;
    Ok(())
}

/// What is looked after for as long as the process lives, whatever pods and controllers there are.
fn keep_house(tasks: &Tasks, agent: &Arc<Agent>) {
    tasks.spawn_lasting("parking", parking::expire(agent.clone()));
    let expiring = agent.clone();
    tasks.spawn_lasting("expire series", expire(move || expiring.traffic.expire()));
    tasks.spawn_lasting("memory", memory::watch(agent.clone()));
    tasks.spawn_lasting("rates", top::follow(agent.clone()));
    tasks.spawn_lasting("ends of roots", agent.trust.clone().warn_of_the_end());
}

fn start_workers(agent: &Arc<Agent>, mailboxes: Vec<worker::Mailbox>) -> Result<Threads, StartError> {
    let agent = agent.clone();
    threads::start(mailboxes, move |index, mailbox| worker::run(index, agent.clone(), mailbox))
}

const STATE: &str = "state from the controller";
/// What readiness calls the pods of the hand-over.
pub(crate) const PODS: &str = "pods of this node";

/// Puts together what all threads share, and the mailboxes of the threads.
pub(super) fn agent(
    settings: &Settings,
    log: Log,
    metrics: &Metrics,
) -> Result<(Arc<Agent>, Vec<worker::Mailbox>), StartError> {
    let trust = Trust::new(settings, metrics)?;
    let traffic = Traffic::new(settings.parse(name::METRIC_SERIES, "a number of sets of labels")?);
    metrics.register_istio(|registry| registry.register_collector(Box::new(traffic.clone())));
    let dns_metrics = metrics.register_istio(DnsMetrics::new);
    let upstreams = Upstreams::new(&settings.list(name::DNS_UPSTREAMS), "/etc/resolv.conf".as_ref())
        .map_err(StartError::Value)?;
    let tunnel_congestion_control = settings.text(name::TUNNEL_CONGESTION_CONTROL).to_owned();
    check_congestion_control(&tunnel_congestion_control)
        .map_err(|error| StartError::Value(format!("{}: {error}", name::TUNNEL_CONGESTION_CONTROL)))?;
    let threads = threads::count(settings)?;
    let demand = match settings.switch(name::ON_DEMAND)? {
        true => Demand::on(settings.duration(name::ON_DEMAND_IDLE)?),
        false => Demand::off(),
    };
    let (workers, mailboxes) = (0..threads).map(|_| worker::mailbox()).unzip();
    let memory_limit = memory::limit(settings.text(name::MEMORY_LIMIT)).map_err(StartError::Value)?;
    let open_files = daemon::files::set_limit(settings.parse(name::OPEN_FILES, "a number of files, or 0")?);
    let thread_busy = memory::size(settings.text(name::THREAD_BUSY))
        .map_err(|error| StartError::Value(format!("{}: {error}", name::THREAD_BUSY)))?;
    let limits = Limits::default();
    let buffers = memory::for_buffers(memory_limit);
    let ledger = Ledger::new(files::for_pods(open_files), buffers, limits.hits.clone());
    let agent = Agent {
        state: State::new(settings.text(name::NETWORK), settings.text(name::NODE_NAME)),
        demand,
        trust,
        decisions: Ring::new(settings.parse(name::DECISION_RECORDS, "a number of records")?),
        traffic,
        log,
        limits,
        account_limits: AccountLimits::default(),
        ledger,
        handshakes: Handshakes::new(memory_limit),
        memory_limit,
        open_files,
        hits: Hits::default(),
        rates: Rates::default(),
        node: settings.text(name::NODE_NAME).to_owned(),
        tunnel_congestion_control,
        thread_busy,
        workers,
        upstreams,
        domain: settings.text(name::CLUSTER_DOMAIN).trim_matches('.').to_ascii_lowercase(),
        dns_metrics,
        pods: Mutex::new(HashMap::new()),
        parking: Parking::default(),
        predecessors: Predecessors::default(),
        onward: RwLock::default(),
        superseded: Shutdown::default(),
        over: Shutdown::default(),
        refused_before: AtomicU64::new(0),
        config: serde_json::json!(settings.in_force()),
    };
    Ok((Arc::new(agent), mailboxes))
}

/// Everything, or of workloads and services what is asked for; the mesh's own settings only from a controller that
/// knows them. Where nothing is asked for, nothing may come, so that this is not waited for.
fn subscriptions(on_demand: bool) -> [Subscription; 3] {
    let some = |type_url: &str, mode, required| Subscription { type_url: type_url.into(), mode, required };
    let addresses = if on_demand { Mode::Demand } else { Mode::All };
    [
        some(type_url::MESH_SETTINGS, Mode::All, false),
        some(type_url::AUTHORIZATION, Mode::All, true),
        some(type_url::ADDRESS, addresses, !on_demand),
    ]
}

fn updates(agent: Arc<Agent>, decoder: Decoder) -> Updates<impl FnMut(Vec<model::mesh::Update>) + Send> {
    Updates::new(decoder, move |updates| agent.take(updates))
}

async fn ready(agent: Arc<Agent>, handle: ClientHandle, journal: Arc<Journal>, readiness: Readiness) {
    let told = match timeout(PATIENCE, handle.ready()).await {
        Ok(told) => told,
        Err(_) => {
            agent.state.rely_on_saved();
            handle.ready().await
        }
    };
    if told.is_ok() {
        agent.state.told_all();
        journal.record_complete(agent.demand.is_on());
        code::forget();
        readiness.done(STATE);
    }
}

#[cfg(test)]
pub(crate) mod tests;
