//! Pipes for splice(2): a direction has one only while something is in it, and a thread keeps a few empty ones. Meanwhile
//! its two descriptors are on the pod's account; the empty ones are too few to be on anybody's.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use crate::account::{Account, Descriptors};

/// What a pipe is asked to hold, bytes. The kernel may give less to who holds many; it works with any size.
const CAPACITY: i32 = 256 << 10;
/// Empty pipes a thread keeps.
const SPARES: usize = 8;

/// A pipe and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    _charge: Descriptors,
}

thread_local! {
    static SPARE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
}

impl Pipe {
    /// `None` where the pod has its share of descriptors, or the process has none left: copy then.
    pub(super) fn take(account: &Arc<Account>) -> Option<Self> {
        let charge = account.descriptors_to_spare(2)?;
        let spare = SPARE.with_borrow_mut(Vec::pop);
        let (read, write) = spare.or_else(|| make().ok())?;
        Some(Self { read, write, held: 0, _charge: charge })
    }

    /// Gives an empty pipe back; one that holds something is closed, and what it holds is gone.
    pub(super) fn put(self) {
        SPARE.with_borrow_mut(|spare| {
            if self.held == 0 && spare.len() < SPARES {
                spare.push((self.read, self.write));
            }
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves what `from` has into the pipe; 0 at its end. Only for an empty pipe: with a full one "would block" would
    /// not say which side it speaks of.
    pub(super) fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let len = splice(from.as_fd(), self.write.as_fd(), CAPACITY as usize)?;
        self.held += len;
        Ok(len)
    }

    /// Moves what the pipe holds to `to`.
    pub(super) fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let len = splice(self.read.as_fd(), to.as_fd(), self.held)?;
        self.held -= len;
        Ok(len)
    }

    /// What it holds, taken into memory: for a pair that goes to another process.
    pub(super) fn into_bytes(self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        File::from(self.read).read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[allow(unsafe_code)]
fn make() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors the call writes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so both are open descriptors that nobody else owns.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: a plain fcntl on an open descriptor. Refusal leaves the default size, which works too.
    let _ = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, CAPACITY) };
    Ok((read, write))
}

#[allow(unsafe_code)]
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let nowhere = std::ptr::null_mut();
    // SAFETY: both descriptors are open for the length of the call; null offsets mean "as it stands", which is all that
    // sockets and pipes allow.
    let moved = unsafe { libc::splice(from.as_raw_fd(), nowhere, to.as_raw_fd(), nowhere, len, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
