//! The TCP side of `lateen echo`: one line that names the peer, then every byte back. When the client has said its
//! last, the server sends what is left and says its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Identity, accept, plain};

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, identity: Arc<Identity>) {
    loop {
        let (stream, peer) = accept(&listener).await;
        let identity = Arc::clone(&identity);
        tokio::spawn(async move {
            let _ = echo(stream, plain(peer), &identity).await;
        });
    }
}

async fn echo(mut stream: TcpStream, peer: SocketAddr, identity: &Identity) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let line = format!("{} {} sees {peer}\n", identity.name, identity.version);
    stream.write_all(line.as_bytes()).await?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}
