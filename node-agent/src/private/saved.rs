//! What a proxy leaves to its successor, kept in memory by its redirector: memory files, so that keys in them never
//! touch a disk.
//!
//! The proxy goes on writing at the end of its last file as long as it lives, without a word to its redirector. The
//! redirector seals all of them before it hands them over: from then on neither end can change them under the
//! other's hands, and a predecessor that still lives cannot go on in what its successor has read.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
    },
};

/// Largest state that is kept, in bytes, all files together: about 500,000 workloads.
pub const MAX_STATE: u64 = 256 << 20;
/// Most files that a state consists of.
pub const MAX_FILES: usize = 8;

/// Seals of a file that grows: what has been written stays.
const GROWING: SealFlag = SealFlag::F_SEAL_SHRINK;
/// Seals of a file that is handed over.
const SEALED: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE)
    .union(SealFlag::F_SEAL_SEAL);

/// Why a memory file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// Too large.
    #[error(
        "the saved state has {0} bytes, at most {MAX_STATE} are kept; a restart will ask the controller for all"
    )]
    TooLarge(u64),
    /// Too many files.
    #[error("the saved state comes in {0} files, at most {MAX_FILES} are kept")]
    TooMany(usize),
    /// It can shrink, or change, or is no memory file at all.
    #[error("the saved state is not a sealed memory file")]
    NotSealed,
    /// The system refused.
    #[error("the saved state could not be written or read: {0}")]
    System(#[from] io::Error),
}

impl From<nix::errno::Errno> for SavedError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::System(errno.into())
    }
}

/// A memory file.
#[derive(Debug)]
pub struct Saved {
    file: File,
}

impl Saved {
    /// A new, empty one that grows.
    ///
    /// # Errors
    /// When there is no memory, or no room in the table of open files.
    pub fn new() -> Result<Self, SavedError> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"lateen-proxy-state", flags)?);
        fcntl(&file, FcntlArg::F_ADD_SEALS(GROWING))?;
        Ok(Self { file })
    }

    /// Takes over a received file that grows, or has grown.
    ///
    /// # Errors
    /// When what is in it could be taken away again.
    pub fn accept_growing(file: OwnedFd) -> Result<Self, SavedError> {
        Self { file: file.into() }.having(GROWING)
    }

    /// Takes over a received file that nobody can change any more.
    ///
    /// # Errors
    /// When somebody can.
    pub fn accept_sealed(file: OwnedFd) -> Result<Self, SavedError> {
        Self { file: file.into() }.having(SEALED)
    }

    /// One that is whatever the test made it.
    #[cfg(test)]
    pub(crate) fn unchecked(file: OwnedFd) -> Self {
        Self { file: file.into() }
    }

    fn having(self, expected: SealFlag) -> Result<Self, SavedError> {
        let seals = fcntl(&self.file, FcntlArg::F_GET_SEALS).map_err(|_| SavedError::NotSealed)?;
        if !SealFlag::from_bits_retain(seals).contains(expected) {
            return Err(SavedError::NotSealed);
        }
        Ok(self)
    }

    /// Sees to it that nobody writes to it any more: a write under way is finished first, the next one is refused.
    ///
    /// # Errors
    /// When somebody has it mapped into its memory.
    pub fn seal(&self) -> Result<(), SavedError> {
        let seals = SealFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SEALED) {
            fcntl(&self.file, FcntlArg::F_ADD_SEALS(SEALED))?;
        }
        Ok(())
    }

    /// Its length in bytes now.
    ///
    /// # Errors
    /// The system does not say.
    pub fn length(&self) -> Result<u64, SavedError> {
        Ok(u64::try_from(fstat(&self.file)?.st_size).unwrap_or(u64::MAX))
    }

    /// Reads a part of it, by position: every copy of the descriptor, in either process, shares one cursor.
    ///
    /// # Errors
    /// When it ends before.
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }

    /// Writes into it, by position.
    ///
    /// # Errors
    /// When it is sealed (`PermissionDenied`) or there is no memory; a part may have been written.
    pub fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }
}

impl AsFd for Saved {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether so many files of so many bytes together are within the bounds.
///
/// # Errors
/// When they are not.
pub fn check_bounds(files: &[Saved]) -> Result<(), SavedError> {
    if files.len() > MAX_FILES {
        return Err(SavedError::TooMany(files.len()));
    }
    let lengths = files.iter().map(Saved::length).collect::<Result<Vec<_>, _>>()?;
    let total = lengths.into_iter().fold(0_u64, u64::saturating_add);
    if total > MAX_STATE { Err(SavedError::TooLarge(total)) } else { Ok(()) }
}
