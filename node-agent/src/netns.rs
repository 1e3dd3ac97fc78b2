//! Network namespaces of pods: a handle with an identity, and the one way to work inside one. Everything that
//! makes a socket, a rule or a route for a pod goes through [`in_namespace`].

use std::{
    cell::{Cell, OnceCell},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::stat::fstat,
};

/// Which namespace a handle stands for: the device and inode of its `nsfs` file. Two handles of one namespace
/// compare equal; a pod that was started again under the same uid has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of the `nsfs` file system.
    pub device: u64,
    /// Inode of the namespace.
    pub inode: u64,
}

/// An open network namespace; it lives as long as any clone of the handle does.
#[derive(Clone, Debug)]
pub struct NetnsFd {
    fd: Arc<OwnedFd>,
    id: NetnsId,
}

impl NetnsFd {
    /// Opens the namespace at `path` (`/var/run/netns/…`, `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// When the path cannot be opened. That it is a network namespace is checked by the first entry.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_fd(File::open(path)?.into())
    }

    /// Takes over a descriptor, for instance one received over ZDS.
    ///
    /// # Errors
    /// When the descriptor cannot be examined.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        Ok(Self { fd: Arc::new(fd), id: NetnsId { device: stat.st_dev, inode: stat.st_ino } })
    }

    /// The namespace this thread is in.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Which namespace this is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }
}

impl AsFd for NetnsFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

thread_local! {
    /// Where this thread belongs: opened at its first visit elsewhere.
    static HOME: OnceCell<NetnsFd> = const { OnceCell::new() };
    static AWAY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on this thread inside `namespace` and comes back. `work` is synchronous on purpose: an await, or a
/// thread started inside, would leave a stranger's network in use unseen. Sockets and child processes made by
/// `work` stay in the namespace.
///
/// If the way back fails the process aborts: a worker thread in a pod's namespace would send the next pod's
/// traffic from the wrong place.
///
/// # Errors
/// When the namespace cannot be entered (not a network namespace; missing `CAP_SYS_ADMIN`), when this thread's
/// own could not be entered again (inside a user namespace, run with a network of one's own: `unshare -Urn`), or
/// when called from inside another visit.
pub fn in_namespace<T>(namespace: &NetnsFd, work: impl FnOnce() -> T) -> io::Result<T> {
    HOME.with(|home| {
        if home.get().is_none() {
            let current = NetnsFd::current()?;
            // A user namespace that does not own this network cannot come back to it: better not to leave.
            setns(&current, CloneFlags::CLONE_NEWNET)?;
            let _ = home.set(current);
        }
        if AWAY.replace(true) {
            return Err(io::Error::other("already inside a pod's network namespace; visits do not nest"));
        }
        let entered = setns(namespace, CloneFlags::CLONE_NEWNET);
        if let Err(error) = entered {
            AWAY.set(false);
            return Err(error.into());
        }
        let _back = WayBack(home);
        Ok(work())
    })
}

/// Returns the thread home, also when the work panics.
struct WayBack<'a>(&'a OnceCell<NetnsFd>);

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        let returned = self.0.get().map(|home| setns(home, CloneFlags::CLONE_NEWNET));
        if !matches!(returned, Some(Ok(()))) {
            eprintln!("cannot return from a pod's network namespace ({returned:?}): aborting");
            std::process::abort();
        }
        AWAY.set(false);
    }
}
