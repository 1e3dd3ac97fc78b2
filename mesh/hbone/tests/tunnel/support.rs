//! What the tests share: runtimes, sockets, pairs of tunnels, patterns of bytes that show any loss.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hbone::account::{Account, AccountLimits};
use hbone::connection::{Connection, ConnectionId};
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::transport::Plain;
use hbone::tunnel::{self, Client, ConnectError, Opened, Server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

/// No test takes longer, on the real clock.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on a thread's own runtime, as tunnels run.
pub(crate) fn run(test: impl Future<Output = ()> + 'static) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// The same with a clock that jumps whenever everything waits: only for what has no sockets.
pub(crate) fn run_paused(test: impl Future<Output = ()> + 'static) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(test);
}

pub(crate) fn account() -> Arc<Account> {
    Account::new(AccountLimits::default())
}

/// A pipe; small, so that everything arrives in pieces.
pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(5000)
}

/// Two ends of ours over a pipe, their drivers running.
pub(crate) fn pair(limits: &Limits) -> (Client, Server) {
    let (near, far) = tokio::io::duplex(100_000);
    let (client, driver) = tunnel::client(Plain::new(near), limits.clone());
    tokio::task::spawn_local(driver);
    let (server, driver) = tunnel::server(Plain::new(far), limits.clone());
    tokio::task::spawn_local(driver);
    (client, server)
}

/// Two ends of one TCP connection.
pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far)
}

/// A CONNECT without headers.
pub(crate) async fn connect(client: &Client) -> Result<Opened, ConnectError> {
    client.connect("a:1", &Headers::new()).await
}

/// An application's socket and the connection that the mesh has to it.
pub(crate) async fn application(account: &Arc<Account>) -> (TcpStream, Connection) {
    application_as(account, ConnectionId::random()).await
}

pub(crate) async fn application_as(account: &Arc<Account>, id: ConnectionId) -> (TcpStream, Connection) {
    let (app, mesh) = sockets().await;
    (app, Connection::new(id, mesh, account).unwrap())
}

/// Byte `at` of a stream named by `seed`.
pub(crate) fn pattern(seed: u64, at: u64) -> u8 {
    let mixed = (at / 8 + 1).wrapping_mul(seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (8 * (at % 8))) as u8
}

/// Sends `len` bytes of the pattern from `from` on, in odd pieces.
pub(crate) async fn send_pattern(io: &mut (impl AsyncWrite + Unpin), seed: u64, from: u64, len: u64) {
    let mut at = from;
    while at < from + len {
        let piece = (from + len - at).min(1 + (at * 7919) % 70_001);
        let bytes: Vec<u8> = (at..at + piece).map(|at| pattern(seed, at)).collect();
        io.write_all(&bytes).await.unwrap();
        at += piece;
    }
}

/// Reads `len` bytes and checks each.
pub(crate) async fn expect_pattern(io: &mut (impl AsyncRead + Unpin), seed: u64, from: u64, len: u64) {
    let mut buffer = vec![0; 64 << 10];
    let mut at = from;
    while at < from + len {
        let most = buffer.len().min((from + len - at) as usize);
        let read = io.read(&mut buffer[..most]).await.unwrap();
        assert!(read > 0, "ended at {at} of {}", from + len);
        for (offset, byte) in buffer[..read].iter().enumerate() {
            assert_eq!(*byte, pattern(seed, at + offset as u64), "byte {}", at + offset as u64);
        }
        at += read as u64;
    }
}

/// Expects the end of the stream.
pub(crate) async fn expect_end(io: &mut (impl AsyncRead + Unpin)) {
    let mut byte = [0];
    assert_eq!(io.read(&mut byte).await.unwrap(), 0, "more came than was sent");
}

/// Waits until `done` holds.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let patience = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), patience).await.is_ok(), "never: {what}");
}
