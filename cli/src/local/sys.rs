//! The boundary to the kernel where the standard library and nix have no safe call: the only file of this crate that
//! may contain `unsafe`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Reads up to `buffer.len()` bytes and the descriptors that came with them (at most four).
pub(super) fn receive(stream: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut slices = [io::IoSliceMut::new(buffer)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(own));
        }
    }
    Ok((message.bytes, descriptors))
}

#[allow(unsafe_code)]
fn own(raw: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us in recvmsg, and nothing else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Takes a capability (its number in `linux/capability.h`) out of the set that any later program of this process can
/// have. Numbers the kernel does not know are refused with EINVAL.
#[allow(unsafe_code)]
pub(super) fn drop_capability(number: u32) -> io::Result<()> {
    // SAFETY: PR_CAPBSET_DROP takes one integer and touches no memory of ours.
    let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
