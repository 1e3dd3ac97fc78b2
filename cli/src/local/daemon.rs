//! `__daemon`: the mesh itself, started by process 1 inside the new namespaces. Wires the parts together, in the order
//! they need one another, and takes them down again.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::components::{self, Component};
use super::containers::run::Host;
use super::namespaces::Netns;
use super::nodes::{self, Node};
use super::server::{Server, Supervised};
use super::source;
use super::world::{Message, Network, World};
use super::{dns, rules, server, supervise};
use crate::Outcome;
use crate::args::MeshArgs;
use crate::control::Event;
use crate::state::{MeshDir, write_private};

/// Messages to the world under way.
const INBOX: usize = 1024;
/// How long all pods together may take to end.
const PODS_GRACE: Duration = Duration::from_secs(8);

/// Pause before a node's service rules, which could not be set, are tried again.
const RULES_RETRY: Duration = Duration::from_secs(1);

/// The pipe to `lateen up`, if it still listens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events;

impl Events {
    pub(crate) fn ready(&self, what: &str, detail: String) {
        self.send(&Event::Ready { what: what.to_owned(), detail });
    }

    /// Tells a person, now and in the mesh's log.
    pub(crate) fn note(&self, text: String) {
        eprintln!("{text}");
        self.send(&Event::Note { text });
    }

    /// Tells that something will not become ready by waiting.
    pub(crate) fn stuck(&self, text: String) {
        eprintln!("{text}");
        self.send(&Event::Stuck { text });
    }

    pub(crate) fn up(&self, summary: String) {
        self.send(&Event::Up { summary });
    }

    fn failed(&self, reason: String) {
        eprintln!("{reason}");
        self.send(&Event::Failed { reason, code: 1 });
    }

    fn send(&self, event: &Event) {
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            // A mesh that was left behind has nobody to tell.
            let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
        }
    }
}

/// Runs `__daemon`.
pub(crate) fn run(args: &MeshArgs) -> Outcome {
    set_pdeathsig(Signal::SIGKILL)?;
    // Keeper and process 1 wait for signals with them blocked, and a started program inherits that.
    SigSet::all().thread_unblock()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match runtime.block_on(live(args)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            Events.failed(error.to_string());
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn live(args: &MeshArgs) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let dir = MeshDir::at(&args.state);
    let host = Arc::new(Host { file: dir.read_mesh_file()?, dir, going: AtomicBool::new(false) });
    let nodes = nodes::create(&host.dir.netns(), host.file.nodes).await?;
    let listener = server::bind(&host)?;
    let (network, _) = watch::channel(Network::default());
    for node in &nodes {
        start_node(&host, node, &network).await?;
    }
    let components = prepare_components(&host, &nodes)?;
    let (to_world, inbox) = mpsc::channel(INBOX);
    let names = components.iter().map(|component| component.name.clone());
    let world = World::new(&host, &nodes, Events, network, to_world.clone(), names);
    let world = tokio::spawn(world.run(inbox));
    let stop = CancellationToken::new();
    let (supervised, upgrades) = start_components(components, &to_world, &stop);
    let _watcher = source::watch(&host.file.sources, to_world.clone())?;
    let down = CancellationToken::new();
    let server = Server {
        host: Arc::clone(&host),
        world: to_world.clone(),
        upgrades: upgrades.into(),
        down: down.clone(),
    };
    tokio::spawn(server.run(listener));
    tokio::select! {
        _ = terminate.recv() => {}
        () = down.cancelled() => {}
        result = world => return Err(format!("the mesh's own task ended: {result:?}").into()),
    }
    take_down(&to_world, supervised, &stop).await;
    Ok(())
}

/// DNS and service rules of a node, which follow the network for as long as there is one.
async fn start_node(
    host: &Arc<Host>,
    node: &Arc<Node>,
    network: &watch::Sender<Network>,
) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(host.dir.node(&node.name))?;
    let (zone, zones) = watch::channel(Arc::default());
    dns::Server::bind(&node.netns).await?.serve(&zones);
    let path = host.file.environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    let path = path.unwrap_or_default();
    apply_rules(node, &network.borrow(), &path).await?;
    let (node, mut changes) = (Arc::clone(node), network.subscribe());
    tokio::spawn(async move {
        let mut failure: Option<String> = None;
        loop {
            // Rules that could not be set are tried again, also where nothing changes.
            let wait = if failure.is_some() { RULES_RETRY } else { Duration::MAX };
            if let Ok(Err(_)) = tokio::time::timeout(wait, changes.changed()).await {
                return;
            }
            let network = changes.borrow_and_update().clone();
            zone.send_replace(Arc::clone(&network.zone));
            let outcome = apply_rules(&node, &network, &path).await.err();
            if let Some(reason) = outcome.as_ref().filter(|reason| failure.as_ref() != Some(reason)) {
                Events.note(format!("{}: {reason}", node.name));
            }
            failure = outcome;
        }
    });
    Ok(())
}

async fn apply_rules(node: &Node, network: &Network, path: &str) -> Result<(), String> {
    let (text, path) = (rules::render(&network.forwards), path.to_owned());
    node.netns.run(move || rules::apply(&text, &path)).await.map_err(|error| error.to_string())?
}

/// The components of this mesh, with the tokens they need.
fn prepare_components(host: &Arc<Host>, nodes: &[Arc<Node>]) -> io::Result<Vec<Component>> {
    if !components::has_agents() {
        return Ok(Vec::new());
    }
    for node in nodes {
        write_private(&host.dir.tokens().join(&node.name), token()?.as_bytes())?;
    }
    let mut all = vec![components::ctrl(host, &Netns::own()?)];
    all.extend(nodes.iter().map(|node| components::node_agent(host, node)));
    Ok(all)
}

/// 256 random bits.
pub(super) fn token() -> io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn start_components(
    components: Vec<Component>,
    world: &mpsc::Sender<Message>,
    stop: &CancellationToken,
) -> (tokio::task::JoinSet<()>, Vec<Supervised>) {
    let mut supervised = tokio::task::JoinSet::new();
    let mut all = Vec::new();
    let (health, mut told) = mpsc::channel(INBOX);
    for component in components {
        let (upgrades, asked) = mpsc::channel(1);
        all.push(Supervised { name: component.name.clone(), program: component.program.clone(), upgrades });
        supervised.spawn(supervise::run(component, health.clone(), asked, stop.clone()));
    }
    let world = world.clone();
    tokio::spawn(async move {
        while let Some(health) = told.recv().await {
            if world.send(Message::Health(health)).await.is_err() {
                return;
            }
        }
    });
    (supervised, all)
}

/// Ends pods, then components. What takes too long is left to the kernel, which ends everything with process 1.
async fn take_down(
    world: &mpsc::Sender<Message>,
    mut supervised: tokio::task::JoinSet<()>,
    stop: &CancellationToken,
) {
    let (done, gone) = oneshot::channel();
    let _ = world.send(Message::Down { done }).await;
    let _ = tokio::time::timeout(PODS_GRACE, gone).await;
    stop.cancel();
    while supervised.join_next().await.is_some() {}
}
