//! The connection to the controller: keeps one stream open, passes what comes to a
//! [`Subscriber`](crate::delta::subscriber::Subscriber), and tries again when it breaks. What is there stays in
//! force meanwhile.

mod backoff;
mod connect;
mod patience;

use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use model::address::Str;
use prost::Message;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant};
use tonic::Streaming;
use tonic::transport::Channel;

use self::backoff::Backoff;
pub use self::backoff::Ending;
pub(crate) use self::connect::add_headers;
pub use self::connect::{ConnectError, Dial};
use self::patience::Patience;
use crate::delta::subscriber::{Handler, Subscriber, Wish};
use crate::diagnostics::{Answers, attend};

/// Changes of what is asked for that wait to be sent.
const COMMANDS: usize = 256;

/// How the controller is reached.
#[derive(Clone)]
pub struct ClientConfig {
    /// What the log calls the controller.
    pub address: String,
    /// Makes the connection. It should verify the controller and be encrypted, or the token is anybody's.
    pub dial: Dial,
    /// Where the service account's token is; read again for every connection, as it changes.
    pub token_file: Option<PathBuf>,
    /// This cluster's name.
    pub cluster_id: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// What is known of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// A stream is open.
    pub connected: bool,
    /// Everything required has been received once; stays so.
    pub ready: bool,
}

/// Told what happens, for metrics.
pub trait Observer: Send + Sync {
    /// A response came, of so many bytes.
    fn received(&self, type_url: &str, bytes: usize) {
        let _ = (type_url, bytes);
    }

    /// A connection, or an attempt at one, ended.
    fn ended(&self, ending: Ending) {
        let _ = ending;
    }
}

impl Observer for () {}

/// The client; [`run`](Client::run) it.
pub struct Client<H> {
    config: ClientConfig,
    subscriber: Subscriber,
    handler: H,
    observer: Arc<dyn Observer>,
    /// Answers what people ask by the controller.
    answers: Option<Arc<dyn Answers>>,
    link: watch::Sender<Link>,
    commands: mpsc::Receiver<Command>,
}

/// Speaks to a running [`Client`].
#[derive(Debug, Clone)]
pub struct ClientHandle {
    link: watch::Receiver<Link>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Command {
    type_url: Str,
    wish: Wish,
}

/// The client is not running any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the client of the controller has stopped")]
pub struct Stopped;

impl<H: Handler> Client<H> {
    /// A client that passes what it receives to `handler`.
    pub fn new(config: ClientConfig, subscriber: Subscriber, handler: H) -> (Self, ClientHandle) {
        let link = Link { connected: false, ready: subscriber.is_ready() };
        let (link, link_seen) = watch::channel(link);
        let (commands, commands_seen) = mpsc::channel(COMMANDS);
        let observer = Arc::new(());
        let client =
            Self { config, subscriber, handler, observer, answers: None, link, commands: commands_seen };
        (client, ClientHandle { link: link_seen, commands })
    }

    /// Tells an observer what happens.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Answers what the controller asks on behalf of people.
    #[must_use]
    pub fn answering(mut self, answers: Arc<dyn Answers>) -> Self {
        self.answers = Some(answers);
        self
    }

    /// Stays connected until dropped. The handler is called on this task: give it a thread that nothing urgent
    /// shares if the mesh is large.
    pub async fn run(mut self) -> Infallible {
        let mut backoff = Backoff::default();
        let mut patience = Patience::new(Instant::now());
        loop {
            let start = Instant::now();
            let error = match self.connection(&mut patience).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.link.send_modify(|link| link.connected = false);
            let ending = Ending::of(&error);
            self.observer.ended(ending);
            let wait = backoff.next(ending, start.elapsed());
            if ending == Ending::Benign {
                tracing::debug!(%error, "the controller closed the stream");
            } else {
                tracing::warn!(%error, ?wait, controller = self.config.address, "no stream to the controller");
            }
            self.wait(wait).await;
        }
    }

    /// One connection, until it breaks.
    async fn connection(&mut self, patience: &mut Patience) -> Result<Infallible, ConnectError> {
        let opening = self.subscriber.connect();
        let node = opening.first().and_then(|first| first.node.clone());
        let (requests, outbound) = connect::requests(opening).await?;
        let (mut responses, channel) = self.open(&requests, outbound).await?;
        self.link.send_modify(|link| link.connected = true);
        tracing::info!(controller = self.config.address, "connected to the controller");
        let config = self.config.clone();
        let asked = node.zip(self.answers.clone());
        let mut attending = pin!(async {
            match asked {
                Some((node, answers)) => attend(&config, channel, node, answers).await,
                None => pending().await,
            }
        });
        let mut listens = Instant::now();
        loop {
            let request = tokio::select! {
                never = attending.as_mut() => match never {},
                response = async {
                    time::sleep_until(listens).await;
                    responses.message().await
                } => {
                    let answer = self.answer(response)?;
                    if answer.error_detail.is_some() {
                        listens = patience.refused(Instant::now());
                    }
                    Some(answer)
                }
                Some(command) = self.commands.recv() => self.command(command),
            };
            if let Some(request) = request {
                requests.send(request).await?;
            }
        }
    }

    /// Opens the stream. What is asked for meanwhile goes with it as far as there is room: who asks does not wait for a
    /// controller that is silent.
    async fn open(
        &mut self,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        outbound: mpsc::Receiver<DeltaDiscoveryRequest>,
    ) -> Result<(Streaming<DeltaDiscoveryResponse>, Channel), ConnectError> {
        let config = self.config.clone();
        let mut opened = pin!(connect::open(&config, outbound));
        loop {
            let (command, room) = tokio::select! {
                opened = opened.as_mut() => return opened,
                Some(next) = next(&mut self.commands, requests) => next,
            };
            if let Some(request) = self.command(command) {
                room.send(request);
            }
        }
    }

    fn answer(
        &mut self,
        response: Result<Option<DeltaDiscoveryResponse>, tonic::Status>,
    ) -> Result<DeltaDiscoveryRequest, ConnectError> {
        let response = response.map_err(ConnectError::from_status)?.ok_or(ConnectError::Closed)?;
        self.observer.received(&response.type_url, response.encoded_len());
        let answer = self.subscriber.receive(response, &mut self.handler)?;
        let ready = self.subscriber.is_ready();
        self.link.send_if_modified(|link| std::mem::replace(&mut link.ready, ready) != ready);
        Ok(answer)
    }

    fn command(&mut self, command: Command) -> Option<DeltaDiscoveryRequest> {
        self.subscriber.wish(&command.type_url, command.wish)
    }

    /// Waits before the next attempt. What is asked for meanwhile goes with it.
    async fn wait(&mut self, wait: time::Duration) {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = time::sleep_until(until) => return,
                Some(command) = self.commands.recv() => drop(self.command(command)),
            }
        }
    }
}

/// The next change of what is asked for, once there is room to say so.
async fn next<'a>(
    commands: &mut mpsc::Receiver<Command>,
    requests: &'a mpsc::Sender<DeltaDiscoveryRequest>,
) -> Option<(Command, mpsc::Permit<'a, DeltaDiscoveryRequest>)> {
    let room = requests.reserve().await.ok()?;
    Some((commands.recv().await?, room))
}

impl ClientHandle {
    /// What is known of the connection now.
    pub fn link(&self) -> Link {
        *self.link.borrow()
    }

    /// Changes of what is known of the connection.
    pub fn watch(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Waits until everything required has been received once.
    ///
    /// # Errors
    /// The client has stopped.
    pub async fn ready(&self) -> Result<(), Stopped> {
        self.link.clone().wait_for(|link| link.ready).await.map(drop).map_err(|_| Stopped)
    }

    /// Changes what is asked for of an on-demand type. The handler is told what there is, or that there is nothing.
    ///
    /// # Errors
    /// The client has stopped.
    pub async fn wish(&self, type_url: &str, wish: Wish) -> Result<(), Stopped> {
        self.commands.send(Command { type_url: type_url.into(), wish }).await.map_err(|_| Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use proto::discovery::Node;
    use tokio::time::timeout;

    use super::*;
    use crate::delta::subscriber::{Delivery, Mode, Rejection, Subscription};

    struct Nothing;

    impl Handler for Nothing {
        fn apply(&mut self, _: &Delivery) -> Vec<Rejection> {
            Vec::new()
        }
    }

    struct Endings(mpsc::Sender<Ending>);

    impl Observer for Endings {
        fn ended(&self, ending: Ending) {
            self.0.try_send(ending).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_is_silent_is_given_up_and_keeps_nobody_waiting_for_long() {
        let config = ClientConfig {
            address: "https://controller".to_owned(),
            dial: Arc::new(|| pending().boxed()),
            token_file: None,
            cluster_id: "Kubernetes".to_owned(),
            headers: Vec::new(),
        };
        let some = Subscription { type_url: "some".into(), mode: Mode::Demand, required: false };
        let (client, handle) = Client::new(config, Subscriber::new(Node::default(), [some]), Nothing);
        let (ended, mut endings) = mpsc::channel(8);
        let running = tokio::spawn(client.observed_by(Arc::new(Endings(ended))).run());
        let begun = Instant::now();
        for number in 0..2 * COMMANDS {
            let wish = Wish { ask: [Str::from(number.to_string())].into(), ..Wish::default() };
            let taken = timeout(Duration::from_secs(11), handle.wish("some", wish)).await;
            assert_eq!(taken, Ok(Ok(())), "{number}");
        }
        assert_eq!(timeout(Duration::from_secs(11), endings.recv()).await, Ok(Some(Ending::NoConnection)));
        assert_eq!(begun.elapsed().as_secs(), 10);
        running.abort();
    }
}
