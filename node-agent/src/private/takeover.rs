//! A redirector that takes another one's place, in the middle of its work (`design.md` D8): an upgrade of the agent. It
//! gets the pods with their listeners, the saved state, and the sockets of the connected proxies, which do not notice.
//!
//! The old one stops capturing first, and goes on as before if the new one does not say in time that it has everything.

use std::{io, os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use prost::Message;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    MAX_MESSAGE, OLDEST_VERSION, VERSION,
    client::{HeldPod, assemble},
    saved::Saved,
    server::{Held, PrivateServer, hear, send},
    wire::{FromProxy, Hello, News, ProxyMessage, Said, ToProxy, Welcome},
};
use crate::{seqpacket::SeqPacket, zds::server::CapturedPod};

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a redirector holds, as another one takes it over.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Its pods.
    pub(crate) pods: Vec<Held>,
    /// What the proxy leaves to its successor.
    pub(super) saved: Arc<[Saved]>,
    /// The connected proxies, oldest first.
    pub(super) proxies: Vec<TakenProxy>,
}

/// A connected proxy.
#[derive(Debug)]
pub(super) struct TakenProxy {
    pub(super) version: u32,
    pub(super) sequence: u64,
    pub(super) superseded: bool,
    pub(super) socket: Arc<SeqPacket>,
}

/// Takes over from the redirector that listens at `path`; `None` if there is none, or it does not hand over. Then pods
/// are captured anew, and connections wait or end as after a crash.
pub(crate) async fn take_over(path: &Path) -> Option<Taken> {
    let socket = SeqPacket::connect(path).ok()?;
    match timeout(PATIENCE, take(&socket)).await {
        Ok(Ok(taken)) => {
            let (pods, proxies) = (taken.pods.len(), taken.proxies.len());
            info!(pods, proxies, "took over from the redirector before");
            Some(taken)
        }
        Ok(Err(error)) => {
            warn!(error, "the redirector before does not hand over; starting anew");
            None
        }
        Err(_) => {
            warn!("the redirector before does not hand over in time; starting anew");
            None
        }
    }
}

async fn take(socket: &SeqPacket) -> Result<Taken, String> {
    say(socket, Said::TakeOver(Hello { oldest: OLDEST_VERSION, newest: VERSION })).await?;
    let mut taken = Taken { pods: Vec::new(), saved: Arc::default(), proxies: Vec::new() };
    loop {
        let packet = socket.receive(MAX_MESSAGE).await.map_err(text)?.ok_or("it has closed")?;
        let message = ToProxy::decode(packet.bytes.as_slice()).map_err(text)?;
        match message.news {
            Some(News::Welcome(_)) => {
                let saved = packet.fds.into_iter().map(Saved::accept_growing).collect::<Result<_, _>>();
                taken.saved = saved.map_err(text)?;
            }
            Some(News::Pod(pod)) => taken.pods.push(held(assemble(pod, packet).map_err(text)?)),
            Some(News::Proxy(ProxyMessage { version, sequence, superseded })) => {
                let fd = packet.fds.into_iter().next().ok_or("a proxy without its socket")?;
                let socket = Arc::new(SeqPacket::from_fd(fd).map_err(text)?);
                taken.proxies.push(TakenProxy { version, sequence, superseded, socket });
            }
            Some(News::Complete(_)) => break,
            Some(News::Refused(reason)) => return Err(reason),
            _ => return Err("it said something unexpected".into()),
        }
    }
    say(socket, Said::Taken(true)).await?;
    Ok(taken)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn say(socket: &SeqPacket, said: Said) -> Result<(), String> {
    socket.send(&FromProxy { said: Some(said) }.encode_to_vec(), &[]).await.map_err(text)
}

fn held(pod: HeldPod) -> Held {
    let HeldPod { uid, info, netns, listeners, draining, app_mark } = pod;
    Held { pod: CapturedPod { uid, info, netns }, listeners: Arc::new(listeners), app_mark, draining }
}

/// Hands everything over to another redirector. Nothing may change meanwhile, and nobody may speak with the proxies.
///
/// # Errors
/// When it does not say in time that it has everything: it is to be taken for dead, and this one goes on.
pub(crate) async fn hand_over(server: &PrivateServer, heir: &SeqPacket) -> io::Result<()> {
    let estate = server.estate();
    let all = async {
        let welcome = News::Welcome(Welcome { version: VERSION, state: !estate.saved.is_empty() });
        let saved: Vec<_> = estate.saved.iter().map(AsFd::as_fd).collect();
        send(heir, 0, welcome, &saved).await?;
        for pod in &estate.pods {
            send(heir, 0, pod.message(), &pod.descriptors()).await?;
        }
        for TakenProxy { version, sequence, superseded, socket } in &estate.proxies {
            let (version, sequence, superseded) = (*version, *sequence, *superseded);
            let message = News::Proxy(ProxyMessage { version, sequence, superseded });
            send(heir, 0, message, &[socket.as_fd()]).await?;
        }
        send(heir, 0, News::Complete(true), &[]).await?;
        match hear(heir).await? {
            Some((Said::Taken(_), _)) => Ok(()),
            _ => Err(String::from("it has gone")),
        }
    };
    let outcome = timeout(PATIENCE, all).await.unwrap_or_else(|_| Err("it takes too long".into()));
    outcome.map_err(io::Error::other)
}
