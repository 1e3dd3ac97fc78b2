//! Network namespaces: made, named by a bind mount, entered for one synchronous piece of work on a thread that ends
//! with it (so no thread ever has to find its way back).

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// A network namespace, kept alive by this handle.
#[derive(Debug, Clone)]
pub(crate) struct Netns {
    path: PathBuf,
    file: Arc<File>,
}

impl Netns {
    /// The namespace this process is in.
    pub(crate) fn own() -> io::Result<Self> {
        let path = PathBuf::from("/proc/self/ns/net");
        let file = Arc::new(File::open(&path)?);
        Ok(Self { path, file })
    }

    /// The namespace that is named `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Arc::new(File::open(path)?) })
    }

    /// Makes a namespace and names it `path`.
    pub(crate) async fn create(path: &Path) -> io::Result<Self> {
        let path = path.to_owned();
        on_a_thread("netns-create", move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::create(&path)?;
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)?;
            let file = Arc::new(File::open(&path)?);
            Ok(Self { path, file })
        })
        .await?
    }

    /// Runs `work` inside, on a thread of its own. Sockets it makes and processes it starts stay in the namespace.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(&self.file);
        on_a_thread("netns-run", move || {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .await?
    }

    /// Connects to an address inside.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.run(move || -> io::Result<_> {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        TcpSocket::from_std_stream(socket.await??.into()).connect(address).await
    }

    /// Takes its name away; it ends with the last process, socket and handle.
    pub(crate) fn forget(&self) {
        // Both fail only if it has been done before.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Its inode, by which `/proc/PID/ns/net` of its processes is known.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }
}

async fn on_a_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // The one who waits may have been cancelled.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("a thread that entered a network namespace panicked"))
}
