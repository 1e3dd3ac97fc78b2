//! `bench sink`: what the control attacks in a proxy's place. It takes whatever comes, with TLS and without, over TCP,
//! UDP and sockets of the names that an agent's have, and answers nothing, so that what the attacker costs its neighbours by being on the same machine shows.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::{credentials, sockets};
use crate::load::raise_descriptor_limit;

/// Where, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Where to listen, for TCP and UDP.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where the credentials are (chain.pem, key.pem).
    #[arg(long, value_name = "FOLDER")]
    credentials: PathBuf,
    /// Where to make sockets like an agent's own.
    #[arg(long, value_name = "FOLDER")]
    sockets: Option<PathBuf>,
}

/// Serves until killed.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    raise_descriptor_limit();
    if let Some(folder) = &options.sockets {
        sockets::swallow(folder)?;
    }
    let acceptor = TlsAcceptor::from(credentials::server(&options.credentials)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let datagrams = UdpSocket::bind(options.listen).await?;
        let listener = TcpListener::bind(options.listen).await?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            // An attacker that has gone shows as an error of the next receive.
            loop {
                let _ = datagrams.recv(&mut buffer).await;
            }
        });
        loop {
            // Out of descriptors, or gone before its turn: the others go on.
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(swallow(acceptor.clone(), stream));
            }
        }
    })
}

async fn swallow(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
