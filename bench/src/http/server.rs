//! The server: takes tunnels from a waypoint, ends each stream itself, and answers every request with as many bytes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use clap::Args;
use hbone::account::{Account, AccountLimits};
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::transport::Tls;
use hbone::tunnel::{self, Stream};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::credentials;
use super::exchange::message;
use super::two::{Replier, Replies};
use crate::load::raise_descriptor_limit;

/// What it serves.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Where tunnels arrive.
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Folder of certificates.
    #[arg(long, value_name = "FOLDER")]
    pub credentials: PathBuf,
    /// Bytes of each answer's body.
    #[arg(long, default_value_t = 1024)]
    pub size: usize,
}

/// Serves until killed.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    raise_descriptor_limit();
    super::runtime()?.block_on(listen(options.listen, &options.credentials, options.size))
}

/// What is answered, made once.
struct Answers {
    one: Vec<u8>,
    two: Replies,
}

async fn listen(at: SocketAddr, folder: &Path, size: usize) -> io::Result<()> {
    let own = credentials::read(folder, "server")?;
    let mut one = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n");
    one.extend(std::iter::repeat_n('x', size));
    let two = Replies { body: Bytes::from(vec![b'x'; size]), message: message(size) };
    let answers = Rc::new(Answers { one: one.into_bytes(), two });
    let listener = TcpListener::bind(at).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::task::spawn_local(serve(socket, own.server_config(), answers.clone()));
    }
}

async fn serve(socket: TcpStream, config: Arc<ServerConfig>, answers: Rc<Answers>) {
    let account = Account::new(AccountLimits::default());
    let _ = socket.set_nodelay(true);
    let transport = match Tls::accept(socket, config, &Limits::default(), &account).await {
        Ok(transport) => transport,
        // Whoever waits for the port to be open says nothing.
        Err(_) => return,
    };
    let (mut server, driver) = tunnel::server(transport, Limits::default());
    tokio::task::spawn_local(async move {
        let _ = driver.await;
    });
    while let Some(request) = server.accept().await {
        let (stream, answers) = (request.accept(&Headers::new()), answers.clone());
        tokio::task::spawn_local(async move {
            // What breaks off, the load has seen.
            let _ = answer(stream, &answers).await;
        });
    }
}

async fn answer(mut stream: Stream, answers: &Rc<Answers>) -> io::Result<()> {
    let mut read = BytesMut::with_capacity(4096);
    if stream.read_buf(&mut read).await? == 0 {
        return Ok(());
    }
    if read.starts_with(b"PRI") {
        let (rest, write) = tokio::io::split(stream);
        let whole = tokio::io::join(io::Cursor::new(read).chain(rest), write);
        Replier::serve(whole, answers.two.clone()).await;
        return Ok(());
    }
    loop {
        while let Some(length) = whole_request(&read)? {
            let _ = read.split_to(length);
            stream.write_all(&answers.one).await?;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return stream.shutdown().await;
        }
    }
}

/// The length of a request, once it is all there.
fn whole_request(read: &[u8]) -> io::Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(read).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok()).unwrap_or(0);
    Ok((read.len() >= head + length).then_some(head + length))
}
