//! The proxy's end of the private socket. [`crate::pods`] joins it with ZDS to one stream of events.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use prost::Message;
use proto::zds::WorkloadInfo;

use super::{
    MAX_MESSAGE, OLDEST_VERSION, VERSION,
    saved::Saved,
    wire::{FromProxy, Hello, News, PodMessage, Said, ToProxy},
};
use crate::{
    listeners::{Listeners, Slot},
    netns::NetnsFd,
    seqpacket::SeqPacket,
    socket::{PROXY_MARK, Packet},
};

/// A captured pod with all that is open in it.
#[derive(Debug)]
pub struct HeldPod {
    /// Kubernetes uid.
    pub uid: String,
    /// Who it is.
    pub info: WorkloadInfo,
    /// Its network namespace.
    pub netns: NetnsFd,
    /// Its open listeners.
    pub listeners: Listeners,
    /// Whether it is leaving the mesh: what is captured lives on, nothing new comes.
    pub draining: bool,
    /// Mark of what the proxy opens to the application.
    pub app_mark: u32,
}

/// What the redirector says after the welcome.
#[derive(Debug)]
pub enum PrivateNews {
    /// A pod and its listeners.
    Pod(Box<HeldPod>),
    /// The hand-over is complete.
    Complete,
    /// Nothing new of this pod is captured; report when its last connection has ended.
    Draining(String),
    /// The pod is captured again.
    Resumed(String),
    /// The pod has left: close its listeners.
    Removed(String),
    /// A newer proxy has everything: stop accepting, drain. With a socket, hand it over what can be.
    Superseded(Option<SeqPacket>),
    /// This proxy takes the place of one that still runs, and that will hand over what it can.
    Predecessor(SeqPacket),
}

/// The connection is of no further use: connect again.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The socket failed.
    #[error("the private socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The redirector closed it.
    #[error("the redirector closed the private socket")]
    Closed,
    /// The redirector does not want us.
    #[error("the redirector refused this proxy: {0}")]
    Refused(String),
    /// The redirector said something this version does not understand.
    #[error("the redirector said something unexpected: {0}")]
    Unexpected(&'static str),
}

/// A connection to the redirector, after the welcome.
#[derive(Debug)]
pub struct PrivateClient {
    socket: SeqPacket,
}

impl PrivateClient {
    /// Connects, says hello and takes the saved state, if there is one.
    ///
    /// # Errors
    /// When nobody listens at `path`, or the redirector speaks no common version.
    pub async fn connect(path: &Path) -> Result<(Self, Vec<Saved>), PrivateError> {
        let client = Self { socket: SeqPacket::connect(path)? };
        client.say(Said::Hello(Hello { oldest: OLDEST_VERSION, newest: VERSION })).await?;
        let (message, packet) = client.receive().await?;
        match message.news {
            Some(News::Welcome(_)) => Ok((client, accept(packet.fds))),
            Some(News::Refused(reason)) => Err(PrivateError::Refused(reason)),
            _ => Err(PrivateError::Unexpected("no welcome")),
        }
    }

    /// The next news. What is returned counts as received.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn next(&self) -> Result<PrivateNews, PrivateError> {
        loop {
            let (message, packet) = self.receive().await?;
            // News of a later version is received, and ignored.
            let news = message.news.map(|news| understand(news, packet)).transpose()?.flatten();
            if message.sequence != 0 {
                self.say(Said::Received(message.sequence)).await?;
            }
            if let Some(news) = news {
                return Ok(news);
            }
        }
    }

    /// Asks the redirector to keep these files for this proxy's successor, to be read in this order, in place of those
    /// that it kept before. What is written to them later is in them.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn store(&self, files: &[Arc<Saved>]) -> Result<(), PrivateError> {
        let message = FromProxy { said: Some(Said::Store(files.len() as u64)) };
        let fds: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        Ok(self.socket.send(&message.encode_to_vec(), &fds).await?)
    }

    /// Reports that the last captured connection of a draining pod has ended.
    ///
    /// # Errors
    /// When the connection ended; the redirector's next hand-over will say again that the pod is draining.
    pub async fn drained(&self, uid: &str) -> Result<(), PrivateError> {
        self.say(Said::Drained(uid.to_owned())).await
    }

    /// Asks for another proxy, which is to take this one's place.
    ///
    /// # Errors
    /// When the connection ended. One that does not know this ends it.
    pub async fn leaving(&self) -> Result<(), PrivateError> {
        self.say(Said::Leaving(true)).await
    }

    async fn say(&self, said: Said) -> Result<(), PrivateError> {
        Ok(self.socket.send(&FromProxy { said: Some(said) }.encode_to_vec(), &[]).await?)
    }

    async fn receive(&self) -> Result<(ToProxy, Packet), PrivateError> {
        let packet = self.socket.receive(MAX_MESSAGE).await?.ok_or(PrivateError::Closed)?;
        let message = ToProxy::decode(packet.bytes.as_slice())
            .map_err(|_| PrivateError::Unexpected("not one of our messages"))?;
        Ok((message, packet))
    }
}

/// Takes the saved state over, all of it or none; without it the controller is asked for all.
fn accept(files: Vec<OwnedFd>) -> Vec<Saved> {
    let accepted = files.into_iter().map(Saved::accept_sealed).collect::<Result<_, _>>();
    accepted
        .inspect_err(|error| tracing::warn!(%error, "the predecessor's state is of no use"))
        .unwrap_or_default()
}

fn understand(news: News, mut packet: Packet) -> Result<Option<PrivateNews>, PrivateError> {
    let mut end = || packet.fds.pop().map(SeqPacket::from_fd).transpose();
    Ok(Some(match news {
        News::Pod(pod) => PrivateNews::Pod(Box::new(assemble(pod, packet)?)),
        News::Complete(_) => PrivateNews::Complete,
        News::Draining(uid) => PrivateNews::Draining(uid),
        News::Resumed(uid) => PrivateNews::Resumed(uid),
        News::Removed(uid) => PrivateNews::Removed(uid),
        News::Superseded(_) => PrivateNews::Superseded(end()?),
        News::Predecessor(_) => PrivateNews::Predecessor(
            end()?.ok_or(PrivateError::Unexpected("a predecessor without a socket"))?,
        ),
        News::Welcome(_) | News::Refused(_) | News::Proxy(_) => return Ok(None),
    }))
}

/// Joins names and descriptors; a slot that this version does not know is closed.
pub(super) fn assemble(pod: PodMessage, packet: Packet) -> Result<HeldPod, PrivateError> {
    if packet.fds.len() != pod.slots.len() + 1 {
        return Err(PrivateError::Unexpected("a pod without all of its descriptors"));
    }
    let mut fds = packet.fds.into_iter();
    let netns = fds.next().ok_or(PrivateError::Unexpected("a pod without its namespace"))?;
    let sockets =
        pod.slots.iter().zip(fds).filter_map(|(number, fd)| Some((Slot::from_number(*number)?, fd)));
    Ok(HeldPod {
        listeners: Listeners::from_parts(sockets.collect()),
        netns: NetnsFd::from_fd(netns)?,
        uid: pod.uid,
        info: WorkloadInfo { name: pod.name, namespace: pod.namespace, service_account: pod.service_account },
        draining: pod.draining,
        app_mark: if pod.app_mark == 0 { PROXY_MARK } else { pod.app_mark },
    })
}
