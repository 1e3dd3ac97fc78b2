//! The tasks of what is asked for: one tells the controller, one lets go of what nobody uses.

use std::sync::Arc;
use std::time::Duration;

use model::mesh::Update;
use proto::type_url::ADDRESS;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use xds::client::ClientHandle;
use xds::delta::subscriber::Delivery;

use super::{Demand, Uses};
use crate::proxy::Agent;
use crate::proxy::journal::Journal;
use crate::proxy::worker::Job;

/// How often it is looked for what is not used, at most and at least.
const LOOK: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(20)];

/// Tells the controller what is asked for and let go of, as it comes: what comes while it is being told goes together.
pub(crate) async fn pump(agent: Arc<Agent>, handle: ClientHandle) {
    let Demand(Some(inner)) = &agent.demand else { return };
    // There is one client.
    let _ = inner.link.set(handle.watch());
    loop {
        let wish = inner.table().take_wish();
        if wish.is_empty() {
            inner.wake.notified().await;
        } else if handle.wish(ADDRESS, wish).await.is_err() {
            return;
        }
    }
}

/// Forgets what has not been used for a while. While the controller is away nothing is: it could not be had again.
pub(crate) async fn sweep(agent: Arc<Agent>, journal: Arc<Journal>) {
    let Demand(Some(inner)) = &agent.demand else { return };
    let [least, most] = LOOK;
    let look = (inner.idle / 4).clamp(least, most);
    loop {
        sleep(look).await;
        let uses = uses(&agent).await;
        if !inner.is_connected() || !agent.state.is_told() {
            continue;
        }
        let unwanted = {
            let mesh = agent.state.read();
            inner.table().sweep(&mesh, &uses, Instant::now(), inner.idle)
        };
        if !unwanted.is_empty() {
            agent.take(unwanted.iter().cloned().map(Update::RemoveAddress).collect());
            let gone = Delivery {
                type_url: ADDRESS.into(),
                revision: String::new(),
                resources: Vec::new(),
                removed: unwanted,
                more: false,
                ours: false,
            };
            journal.record(&gone, &[], |_| None);
        }
        inner.wake.notify_one();
    }
}

/// What the connections of all threads use.
async fn uses(agent: &Agent) -> Uses {
    let mut all = Uses::default();
    for worker in &agent.workers {
        let (answer, uses) = oneshot::channel();
        worker.send(Job::Uses(answer)).await;
        all.join(uses.await.unwrap_or_default());
    }
    all
}
