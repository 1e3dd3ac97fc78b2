//! The proxy's end of ZDS: typed requests out of datagrams, acknowledgements back. What they mean for the pods
//! served is [`super::members`]'s business.

use std::{io, path::Path};

use prost::Message;
use proto::zds::{
    Ack, Version, WorkloadInfo, WorkloadRequest, WorkloadResponse, ZdsHello, workload_request,
    workload_response,
};

use super::MAX_MESSAGE;
use crate::{netns::NetnsFd, seqpacket::SeqPacket, socket::Packet};

/// What the redirector asks. Each is to be acknowledged before the next comes.
#[derive(Debug)]
pub enum ZdsRequest {
    /// Serve this pod.
    Add {
        /// Kubernetes uid.
        uid: String,
        /// Who it is.
        info: WorkloadInfo,
        /// Its network namespace.
        netns: NetnsFd,
    },
    /// Go on serving this pod, whose namespace the redirector no longer holds.
    Keep {
        /// Kubernetes uid.
        uid: String,
    },
    /// Stop serving this pod.
    Del {
        /// Kubernetes uid.
        uid: String,
    },
    /// All pods have been named.
    SnapshotSent,
}

/// The connection is of no further use: connect again.
#[derive(Debug, thiserror::Error)]
pub enum ZdsClientError {
    /// The socket failed.
    #[error("the ZDS socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The redirector closed it.
    #[error("the redirector closed the ZDS socket")]
    Closed,
    /// It was told so by a refusal.
    #[error("the redirector broke the protocol: {0}")]
    Protocol(String),
}

/// A connection to the redirector, after the hello.
#[derive(Debug)]
pub struct ZdsClient {
    socket: SeqPacket,
}

impl ZdsClient {
    /// Connects and says hello.
    ///
    /// # Errors
    /// When nobody listens at `path`.
    pub async fn connect(path: &Path) -> Result<Self, ZdsClientError> {
        let socket = SeqPacket::connect(path)?;
        socket.send(&ZdsHello { version: Version::V1 as i32 }.encode_to_vec(), &[]).await?;
        Ok(Self { socket })
    }

    /// The next request. Can be dropped and called again without losing one.
    ///
    /// # Errors
    /// When the connection ended or the request was malformed (then it has been refused).
    pub async fn next(&self) -> Result<ZdsRequest, ZdsClientError> {
        let packet = self.socket.receive(MAX_MESSAGE).await?.ok_or(ZdsClientError::Closed)?;
        match parse(packet) {
            Ok(request) => Ok(request),
            Err(reason) => Err(self.refuse(reason).await),
        }
    }

    /// Acknowledges the last request, or says why it failed.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn ack(&self, outcome: Result<(), String>) -> Result<(), ZdsClientError> {
        let mut error = outcome.err().unwrap_or_default();
        let end = (0..=error.len().min(MAX_MESSAGE - 64)).rev().find(|end| error.is_char_boundary(*end));
        error.truncate(end.unwrap_or(0));
        let response = WorkloadResponse { payload: Some(workload_response::Payload::Ack(Ack { error })) };
        Ok(self.socket.send(&response.encode_to_vec(), &[]).await?)
    }

    /// Refuses the last request as a breach of the protocol; the connection is then to be dropped.
    pub async fn refuse(&self, reason: String) -> ZdsClientError {
        let _ = self.ack(Err(reason.clone())).await;
        ZdsClientError::Protocol(reason)
    }
}

pub(crate) fn parse(mut packet: Packet) -> Result<ZdsRequest, String> {
    use workload_request::Payload;
    let request = WorkloadRequest::decode(packet.bytes.as_slice())
        .map_err(|error| format!("not a ZDS request: {error}"))?;
    let payload = request.payload.ok_or("a request that this version does not know")?;
    let expected = usize::from(matches!(payload, Payload::Add(_)));
    if packet.fds.len() != expected {
        return Err(format!("{} descriptors where {expected} belong", packet.fds.len()));
    }
    Ok(match payload {
        Payload::Add(add) => ZdsRequest::Add {
            uid: add.uid,
            info: add.workload_info.ok_or("an addition without workload_info")?,
            netns: packet
                .fds
                .pop()
                .map(NetnsFd::from_fd)
                .ok_or("an addition without its namespace")?
                .map_err(|error| format!("the namespace's descriptor is of no use: {error}"))?,
        },
        Payload::Keep(keep) => ZdsRequest::Keep { uid: keep.uid },
        Payload::Del(del) => ZdsRequest::Del { uid: del.uid },
        Payload::SnapshotSent(_) => ZdsRequest::SnapshotSent,
    })
}
