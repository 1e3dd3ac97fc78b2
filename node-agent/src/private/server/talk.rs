//! What goes over the private socket: datagrams with descriptors, in and out.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use prost::Message;

use super::Held;
use crate::{
    private::{
        MAX_MESSAGE, OLDEST_VERSION, VERSION,
        saved::Saved,
        wire::{FromProxy, Hello, News, Said, ToProxy, Welcome},
    },
    seqpacket::{SeqPacket, in_time},
};

/// How long the other end may take over one message.
pub(super) const IO_TIME: Duration = Duration::from_secs(5);

/// Who has come.
pub(super) enum Caller {
    /// A proxy, and the version to speak with it.
    Proxy(u32),
    /// Another redirector.
    Heir,
}

pub(super) async fn expect_hello(socket: &SeqPacket) -> Result<Caller, String> {
    let said = in_time(IO_TIME, hear(socket)).await.map_err(|_| "no hello in time")??;
    let (Hello { oldest, newest }, caller) = match said {
        Some((Said::Hello(hello), _)) => (hello, Caller::Proxy(hello.newest.min(VERSION))),
        Some((Said::TakeOver(hello), _)) => (hello, Caller::Heir),
        Some(_) => return Err("it did not begin with a hello".into()),
        None => return Err("closed before its hello".into()),
    };
    if oldest <= VERSION && newest >= OLDEST_VERSION {
        return Ok(caller);
    }
    Err(format!(
        "it speaks versions {oldest} to {newest} of the private socket, the redirector {OLDEST_VERSION} to {VERSION}: \
         install both from one release, or from two that follow each other"
    ))
}

/// Everything in one go; nothing is asked in between, so a hundred pods take about a millisecond.
pub(super) async fn hand_over(
    socket: &SeqPacket,
    version: u32,
    saved: &[Saved],
    pods: &[Held],
    predecessors: &[OwnedFd],
) -> Result<(), String> {
    let welcome =
        ToProxy { sequence: 0, news: Some(News::Welcome(Welcome { version, state: !saved.is_empty() })) };
    let state: Vec<_> = saved.iter().map(AsFd::as_fd).collect();
    let all = async {
        socket.send(&welcome.encode_to_vec(), &state).await.map_err(|error| error.to_string())?;
        for held in pods {
            send(socket, 0, held.message(), &held.descriptors()).await?;
        }
        send(socket, 0, News::Complete(true), &[]).await?;
        for predecessor in predecessors {
            send(socket, 0, News::Predecessor(true), &[predecessor.as_fd()]).await?;
        }
        Ok(())
    };
    in_time(IO_TIME, all).await.map_err(|_| "it did not take the hand-over in")?
}

pub(super) fn fds(one: Option<&OwnedFd>) -> Vec<BorrowedFd<'_>> {
    one.into_iter().map(AsFd::as_fd).collect()
}

pub(in crate::private) async fn send(
    socket: &SeqPacket,
    sequence: u64,
    news: News,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), String> {
    let bytes = ToProxy { sequence, news: Some(news) }.encode_to_vec();
    socket.send(&bytes, descriptors).await.map_err(|error| error.to_string())
}

/// The next thing the proxy says; `None` when it has left.
pub(in crate::private) async fn hear(socket: &SeqPacket) -> Result<Option<(Said, Vec<OwnedFd>)>, String> {
    let Some(packet) = socket.receive(MAX_MESSAGE).await.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let message = FromProxy::decode(packet.bytes.as_slice())
        .map_err(|error| format!("not one of our messages: {error}"))?;
    let said = message.said.ok_or("a message that this version does not know")?;
    Ok(Some((said, packet.fds)))
}
