//! A redirector that takes another one's place, in the middle of its work (`docs/decisions/0011-hand-over.md`): an upgrade of
//! the agent. It gets the pods with their listeners, the saved state, and the sockets of the connected proxies, which do
//! not notice.
//!
//! The old one stops capturing first, and goes on as before if the new one does not say in time that it has everything.

use std::{
    io::{self, ErrorKind},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use tracing::info;

use super::{
    MAX_MESSAGE, OLDEST_VERSION, VERSION,
    client::{HeldPod, assemble},
    saved::Saved,
    server::{Held, PrivateServer, hear, send},
    wire::{FromProxy, Hello, News, ProxyMessage, Said, ToProxy, Welcome},
};
use crate::{
    seqpacket::{SeqPacket, in_time},
    zds::server::CapturedPod,
};

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

/// Why a redirector that is there has not handed over. It goes on: beside it nobody may begin.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// Its socket.
    #[error("the private socket {path} cannot be used: {source}")]
    Socket {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It said so, or broke off.
    #[error("the redirector at {path} does not hand over: {reason}")]
    Refused {
        /// Its private socket.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// It said nothing, or not enough.
    #[error(
        "the redirector at {path} has not handed over within {} s; if it hangs, end it, and start this one again",
        PATIENCE.as_secs()
    )]
    Late {
        /// Its private socket.
        path: PathBuf,
    },
}

/// Takes over from the redirector that listens at `path`; `None` if there is none.
///
/// # Errors
/// When there is one and it does not hand over. It has let go of nothing then, or takes everything up again.
pub(crate) async fn take_over(path: &Path) -> Result<Option<Taken>, TakeOverError> {
    take_over_within(PATIENCE, path).await
}

async fn take_over_within(patience: Duration, path: &Path) -> Result<Option<Taken>, TakeOverError> {
    let at = || path.to_owned();
    let socket = match SeqPacket::connect(path) {
        Ok(socket) => socket,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(source) => return Err(TakeOverError::Socket { path: at(), source }),
    };
    let taken = in_time(patience, take(&socket)).await.map_err(|_| TakeOverError::Late { path: at() })?;
    let taken = taken.map_err(|reason| TakeOverError::Refused { path: at(), reason })?;
    info!(pods = taken.pods.len(), proxies = taken.proxies.len(), "took over from the redirector before");
    Ok(Some(taken))
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
    let outcome = in_time(PATIENCE, all).await.unwrap_or_else(|_| Err("it takes too long".into()));
    outcome.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{private::wire::ToProxy, seqpacket::SeqListener};

    #[tokio::test]
    async fn whoever_is_there_and_does_not_hand_over_is_no_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private.sock");
        assert!(take_over(&path).await.unwrap().is_none(), "there is no socket");
        let listener = SeqListener::bind(&path).unwrap();
        let caller = async || {
            let socket = listener.accept().await.unwrap();
            socket.receive(MAX_MESSAGE).await.unwrap();
            socket
        };

        let (refused, ()) = tokio::join!(take_over(&path), async {
            let refusal = ToProxy { sequence: 0, news: Some(News::Refused("version 9 only".into())) };
            caller().await.send(&refusal.encode_to_vec(), &[]).await.unwrap();
        });
        assert!(refused.unwrap_err().to_string().contains("does not hand over: version 9 only"));
        let (closed, socket) = tokio::join!(take_over(&path), async { drop(caller().await) });
        assert!(matches!(closed, Err(TakeOverError::Refused { .. })), "{socket:?}");
        let (late, _silent) = tokio::join!(take_over_within(Duration::from_millis(50), &path), caller());
        assert!(matches!(late, Err(TakeOverError::Late { .. })));

        drop(listener);
        assert!(take_over(&path).await.unwrap().is_none(), "what is left of a crash listens no more");
    }
}
