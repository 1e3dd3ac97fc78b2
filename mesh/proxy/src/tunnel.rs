//! A tunnel's beginning, at either end: the handshake, why there is none, and the words of a refusal.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hbone::account::{Account, Descriptors, Full};
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::pool::PoolError;
use hbone::transport::{HandshakeError, Tls, Transport as _};
use hbone::tunnel::{Client, ConnectError, Driver};
use identity::rotation::Unavailable;
use identity::tls::{Credentials, no_server_name};
use identity::verify::{explain_handshake, peer_identity};
use model::Identity;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// The header of a refused CONNECT that says why, to peers of the mesh only.
const CAUSE: &str = "lateen-cause";
/// The longest cause, bytes.
const CAUSE_TEXT: usize = 512;

/// A connected socket, on an account.
#[derive(Debug)]
pub struct Dialled {
    /// The socket.
    pub socket: TcpStream,
    /// What keeps it on the account.
    pub descriptor: Descriptors,
}

impl Dialled {
    /// The socket, for who counts its descriptor from now on.
    pub fn taken_over(self) -> TcpStream {
        self.socket
    }
}

/// Why a socket is not connected.
#[derive(Debug)]
pub enum Unconnected {
    /// The account is full.
    Full(Full),
    /// The kernel says so.
    Failed(io::Error),
    /// There was no answer at all.
    Timeout,
}

/// Connects what `make` makes. It is on the account from before there is anything: what does not answer costs no less.
///
/// # Errors
/// Why not.
pub async fn connect(
    account: &Arc<Account>,
    make: impl FnOnce() -> io::Result<TcpSocket>,
    to: SocketAddr,
    limit: Duration,
) -> Result<Dialled, Unconnected> {
    let descriptor = account.descriptors_for(1).map_err(Unconnected::Full)?;
    let connecting = make().map_err(Unconnected::Failed)?.connect(to);
    let connected = timeout(limit, connecting).await.map_err(|_| Unconnected::Timeout)?;
    Ok(Dialled { socket: connected.map_err(Unconnected::Failed)?, descriptor })
}

/// Why there is no tunnel, or no stream of it. Cloneable, because all who waited for one tunnel get the same answer.
#[derive(Debug, Clone, Error)]
pub enum TunnelError {
    /// There is no certificate to open it with.
    #[error("{0}")]
    Identity(Unavailable),
    /// TLS failed.
    #[error("{}", explain_handshake(.0))]
    Tls(Arc<HandshakeError>),
    /// It is there, the far side refused.
    #[error("http status: {status}{}", .cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Refused {
        /// The status of the CONNECT.
        status: u16,
        /// What a peer of ours says of it.
        cause: Option<String>,
    },
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

impl TunnelError {
    /// Why a pool has no stream: what a dial came to, or what became of the CONNECT.
    pub fn of_pool<E: From<Self>>(error: PoolError<E>) -> E {
        match error {
            PoolError::Dial(error) => error,
            PoolError::Connect(ConnectError::Refused { status, headers }) => {
                let cause = headers.text(CAUSE).map(|text| text.chars().take(CAUSE_TEXT).collect());
                Self::Refused { status, cause }.into()
            }
            PoolError::Connect(error) => Self::Failed(error.to_string()).into(),
        }
    }
}

/// What a refused CONNECT says: one line of visible text.
pub fn cause(error: &str) -> Headers {
    let visible: String =
        error.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    Headers::new().with(CAUSE, &visible[..visible.len().min(CAUSE_TEXT)])
}

/// Shakes hands as a client with who is expected there: the tunnel, on the account, and what is to drive it.
///
/// # Errors
/// The handshake failed.
pub async fn open(
    socket: TcpStream,
    credentials: &Credentials,
    expect: Arc<[Identity]>,
    limits: &Limits,
    account: &Arc<Account>,
) -> Result<(Client, Driver), TunnelError> {
    let config = credentials.client_config(expect);
    let transport = Tls::connect(socket, config, no_server_name(), limits, account)
        .await
        .map_err(|error| TunnelError::Tls(Arc::new(error)))?;
    let (client, driver) = hbone::tunnel::client(transport, limits.clone());
    client.charge(account);
    Ok((client, driver))
}

/// Shakes hands as a server: the bytes, and who the client has proved to be.
///
/// # Errors
/// Why that failed, for the access log.
pub async fn accept(
    socket: std::net::TcpStream,
    credentials: &Credentials,
    limits: &Limits,
    account: &Arc<Account>,
) -> Result<(Tls, Identity), String> {
    let socket = TcpStream::from_std(socket).map_err(|error| error.to_string())?;
    let transport = Tls::accept(socket, credentials.server_config(), limits, account)
        .await
        .map_err(|error| explain_handshake(&error))?;
    let identity = peer_identity(transport.peer_certificates()).map_err(|error| error.to_string())?;
    Ok((transport, identity))
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use hbone::account::{AccountLimits, Ledger};

    use super::*;

    #[tokio::test]
    async fn what_is_being_connected_is_on_the_account() {
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let to = silent.local_addr().unwrap();
        let _silent = silent.listen(0).unwrap();
        // Ten of fifteen descriptors are the share of one who is alone.
        let account = Account::listed(AccountLimits::default(), &Ledger::new(15, 0, Arc::default()));
        let dial = || Box::pin(connect(&account, TcpSocket::new_v4, to, Duration::from_secs(10)));
        let mut dials: Vec<_> = (0..12).map(|_| dial()).collect();
        let (mut refused, mut connected) = (0, Vec::new());
        for dial in &mut dials {
            match std::future::poll_fn(|cx| Poll::Ready(dial.as_mut().poll(cx))).await {
                Poll::Ready(Err(Unconnected::Full(Full::ShareOfDescriptors(10)))) => refused += 1,
                Poll::Ready(done) => connected.push(done.unwrap()),
                Poll::Pending => {}
            }
        }
        assert_eq!((refused, account.descriptors()), (2, 10));
        drop(dials);
        assert_eq!(account.descriptors() as usize, connected.len(), "those that are there keep theirs");
        drop(connected);
        assert_eq!(account.descriptors(), 0);
    }

    #[test]
    fn a_refusals_words_arrive_as_one_line() {
        let long = "x".repeat(600);
        for (said, heard) in
            [("no rule", "no rule"), ("two\nlines: é", "two?lines: ?"), (&long, &long[..512])]
        {
            let refused = ConnectError::Refused { status: 401, headers: cause(said) };
            let error: TunnelError = TunnelError::of_pool(PoolError::Connect(refused));
            assert_eq!(error.to_string(), format!("http status: 401: {heard}"));
        }
        let foreign = ConnectError::Refused { status: 503, headers: Headers::new() };
        let error: TunnelError = TunnelError::of_pool(PoolError::Connect(foreign));
        assert_eq!(error.to_string(), "http status: 503");
    }
}
