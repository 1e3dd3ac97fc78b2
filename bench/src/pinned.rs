//! Keeps the programs that take part in memory for as long as the bench runs.
//!
//! A kernel that pages out what was not touched for a while takes, where there is no swap, the pages of files, and so the code
//! of programs: whoever comes to it again waits for the disk, and resident memory is what has been left. Pages that one process
//! has locked stay in the page cache for all who map the file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use nix::sys::mman::{MapFlags, ProtFlags, mlock, mmap};
use nix::unistd::Pid;

/// Files that are locked, by device and inode.
static LOCKED: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());
/// It is said once that nothing can be locked.
static REFUSED: Once = Once::new();
/// Bytes in which the head of a program or a library is, with the table of its segments.
const HEAD: usize = 4096;

/// Locks a program or a library, unless it is locked already; before a program is started, so that its first start is as warm
/// as all others. What is no such file is left alone.
pub(crate) fn file(path: &Path) {
    // Where there is none, its name was one to be found on the PATH: it is met again when it runs.
    let Ok(file) = File::open(path) else { return };
    let Ok(metadata) = file.metadata() else { return };
    let mut head = vec![0; HEAD];
    let Ok(read) = file.read_at(&mut head, 0) else { return };
    let Some(length) = loaded(&head[..read]) else { return };
    let new = LOCKED.lock().unwrap_or_else(PoisonError::into_inner).insert((metadata.dev(), metadata.ino()));
    if !new {
        return;
    }
    if let Err(error) = lock(&file, length) {
        REFUSED.call_once(|| {
            eprintln!(
                "bench: programs cannot be kept in memory ({}: {error}); as root, or with a higher `ulimit -l`, they can. A \
                 kernel that pages out what was not touched for a while now shows in the figures",
                path.display()
            );
        });
    }
}

/// Locks the program that a process runs, and the libraries that it has loaded.
pub(crate) fn all_of(process: Pid) {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let paths: BTreeSet<_> = maps.lines().filter_map(|line| Some(&line[line.find('/')?..])).collect();
    paths.into_iter().for_each(|path| file(Path::new(path)));
}

/// How much is loaded of a program or a library of 64 bits that begins so: up to the end of its last segment (elf(5)). What is
/// behind that is for debuggers, and may be most of it.
fn loaded(head: &[u8]) -> Option<NonZeroUsize> {
    const OF_64_BITS: &[u8] = b"\x7fELF\x02\x01";
    const LOADED: u64 = 1;
    if !head.starts_with(OF_64_BITS) {
        return None;
    }
    let number = |at: u64, size: usize| {
        let at = usize::try_from(at).ok()?;
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(head.get(at..at.checked_add(size)?)?);
        Some(u64::from_le_bytes(bytes))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut end = 0;
    for index in 0..count {
        let segment = table.checked_add(index * size)?;
        if number(segment, 4)? == LOADED {
            end = end.max(number(segment + 8, 8)?.checked_add(number(segment + 32, 8)?)?);
        }
    }
    NonZeroUsize::new(usize::try_from(end).ok()?)
}

#[allow(unsafe_code)]
fn lock(file: &File, length: NonZeroUsize) -> nix::Result<()> {
    // SAFETY: a mapping of its own, where the kernel has room for it. Nobody reads it, so that it does no harm if the file
    // changes, and it stays until this process ends.
    unsafe {
        let at = mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0)?;
        mlock(at, length.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a program with segments of this type, offset and length.
    fn head(segments: &[(u32, u64, u64)]) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(64, 0);
        head[32..40].copy_from_slice(&64_u64.to_le_bytes());
        head[54..56].copy_from_slice(&56_u16.to_le_bytes());
        head[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for (kind, offset, length) in segments {
            let mut segment = [0; 56];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&offset.to_le_bytes());
            segment[32..40].copy_from_slice(&length.to_le_bytes());
            head.extend(segment);
        }
        head
    }

    #[test]
    fn what_is_loaded_ends_with_the_last_segment() {
        let length = |head: &[u8]| loaded(head).map(NonZeroUsize::get);
        assert_eq!(length(&head(&[(6, 0, 9), (1, 0, 100), (1, 4096, 50), (2, 9000, 9)])), Some(4146));
        for none in [
            &b"#!/bin/sh\n"[..],
            b"",
            b"\x7fELF\x02\x01",
            &head(&[]),
            &head(&[(6, 0, 9)]),
            &head(&[(1, u64::MAX, 1)]),
            &head(&[(1, 0, 100)])[..80],
        ] {
            assert_eq!(length(none), None);
        }
        let mut own = vec![0; HEAD];
        let program = File::open("/proc/self/exe").unwrap();
        program.read_exact_at(&mut own, 0).unwrap();
        let all = program.metadata().unwrap().len();
        assert!(length(&own).is_some_and(|length| (1..=all).contains(&(length as u64))), "of {all}");
    }

    /// Kilobytes of this file that are mapped here, and how many of them are locked (`smaps` in proc(5)).
    fn mapped(path: &Path) -> (u64, u64) {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let name = format!(" {}", path.display());
        let mut lines = smaps.lines().skip_while(|line| !line.ends_with(&name)).skip(1);
        let mut figure = |what: &str| -> u64 {
            let line = lines.find_map(|line| line.strip_prefix(what));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
        };
        (figure("Size:"), figure("Locked:"))
    }

    #[test]
    fn what_a_program_loads_is_locked_once_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let (program, text) = (folder.path().join("program"), folder.path().join("text"));
        // What is behind the third page is loaded by nobody.
        let mut bytes = head(&[(1, 0, 4096), (1, 4096, 2 * 4096)]);
        bytes.resize(8 * 4096, 0xcc);
        fs::write(&program, bytes).unwrap();
        fs::write(&text, "nothing to be run").unwrap();
        for path in [&program, &program, &text, &folder.path().join("none")] {
            file(path);
        }
        assert_eq!(mapped(&program), (12, 12));
        assert_eq!(mapped(&text), (0, 0));
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let times = maps.lines().filter(|line| line.ends_with("/program")).count();
        assert_eq!(times, 1, "{maps}");
    }
}
