//! The last state of a proxy, kept in memory by its redirector: a sealed memory file, so that neither end can
//! change or shrink it under the other's hands, and keys in it never touch a disk.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
    },
};

/// Largest state that is kept, in bytes: about 200,000 workloads.
pub const MAX_STATE: u64 = 256 << 20;

const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE)
    .union(SealFlag::F_SEAL_SEAL);

/// Why a memory file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// Too large.
    #[error(
        "the saved state has {0} bytes, at most {MAX_STATE} are kept; a restart will ask the controller for all"
    )]
    TooLarge(u64),
    /// Not sealed, or no memory file at all.
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

/// A sealed memory file.
#[derive(Debug)]
pub struct Saved {
    file: OwnedFd,
    length: u64,
}

impl Saved {
    /// Writes `state` into a new memory file and seals it.
    ///
    /// # Errors
    /// When it is too large or there is no memory.
    pub fn write(state: &[u8]) -> Result<Self, SavedError> {
        let length = state.len() as u64;
        if length > MAX_STATE {
            return Err(SavedError::TooLarge(length));
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"lateen-proxy-state", flags)?);
        file.write_all(state)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok(Self { file: file.into(), length })
    }

    /// Takes over a received memory file, after checking that it is sealed and small enough.
    ///
    /// # Errors
    /// When it is not.
    pub fn accept(file: OwnedFd) -> Result<Self, SavedError> {
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| SavedError::NotSealed)?;
        if !SealFlag::from_bits_retain(seals).contains(SEALS) {
            return Err(SavedError::NotSealed);
        }
        let length = u64::try_from(fstat(&file)?.st_size).unwrap_or(u64::MAX);
        if length > MAX_STATE {
            return Err(SavedError::TooLarge(length));
        }
        Ok(Self { file, length })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn read(&self) -> Result<Vec<u8>, SavedError> {
        let file = File::from(self.file.try_clone()?);
        let mut state = vec![0; usize::try_from(self.length).unwrap_or(0)];
        // By position: every copy of the descriptor, in either process, shares one cursor.
        file.read_exact_at(&mut state, 0)?;
        Ok(state)
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }
}
