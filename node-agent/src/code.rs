//! The program's own pages of code, most of which only a start needs, and some of which only a crowd.
//!
//! The kernel maps the pages around each that is touched, and what starts a process lies all over its program: after a start
//! two thirds of it count as resident memory of a process that goes on to use little of it.

use std::fs;
use std::ops::Range;

/// Unmaps all code. What is used again comes back from the page cache at its next use, a fault for some sixteen pages; what
/// was for a start alone, or for many connections, does not, and the kernel may have its pages when others need them.
pub(crate) fn forget() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    maps.lines().filter_map(code).for_each(unmap);
}

/// The range of a line of `/proc/PID/maps` (proc(5)) that is a file's code. Read-only data is left alone: where it was
/// relocated, its pages are this process's only copy.
fn code(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions, path) = (fields.next()?, fields.next()?, fields.nth(3)?);
    if permissions != "r-xp" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[allow(unsafe_code)]
fn unmap(range: Range<usize>) {
    // SAFETY: the range is a whole private mapping of a file that was never writable, so that the file has all that is in it:
    // a thread that is in there faults the same bytes in again. It fails only for locked memory, which then stays.
    let _ = unsafe {
        libc::madvise(range.start as *mut libc::c_void, range.end - range.start, libc::MADV_DONTNEED)
    };
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn only_code_of_files_is_unmapped() {
        let cases = [
            ("55d0a0000000-55d0a0e00000 r-xp 00400000 fe:00 1234    /usr/bin/node-agent", true),
            ("55d0a0e00000-55d0a0f00000 r--p 01200000 fe:00 1234    /usr/bin/node-agent", false),
            ("55d0a0f00000-55d0a1000000 rw-p 01300000 fe:00 1234    /usr/bin/node-agent", false),
            ("7ffd1b5f2000-7ffd1b5f4000 r-xp 00000000 00:00 0       [vdso]", false),
            ("7f0000000000-7f0000001000 rwxp 00000000 fe:00 99      /tmp/writable", false),
            ("7f0000000000-7f0000001000 r-xp 00000000 00:00 0", false),
            ("nonsense", false),
            ("", false),
        ];
        for (line, is_code) in cases {
            assert_eq!(code(line).is_some(), is_code, "{line}");
        }
        assert_eq!(code(cases[0].0), Some(0x55d0_a000_0000..0x55d0_a0e0_0000));
    }

    /// How much of this process's code is in its memory, kB (`smaps` in proc(5)).
    fn resident() -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut all, mut is_code) = (0, false);
        for line in smaps.lines() {
            match line.strip_prefix("Rss:") {
                Some(size) if is_code => all += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap(),
                Some(_) => {}
                // A range of addresses begins the next mapping; all else is of the one before.
                None if line.split_once(' ').is_some_and(|(range, _)| range.contains('-')) => {
                    is_code = code(line).is_some();
                }
                None => {}
            }
        }
        all
    }

    /// Has all code in memory, as after a start that went everywhere.
    fn touch_all() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let memory = fs::File::open("/proc/self/mem").unwrap();
        for range in maps.lines().filter_map(code) {
            let mut all = vec![0; range.end - range.start];
            memory.read_exact_at(&mut all, range.start as u64).unwrap();
        }
    }

    #[test]
    fn what_was_unmapped_leaves_memory_and_works_as_before() {
        let sum = || (1..=100_u64).map(|number| number.to_string().len() as u64).sum::<u64>();
        let before = sum();
        touch_all();
        let all = resident();
        forget();
        // The other tests run on meanwhile, and have back what they need.
        let left = resident();
        assert!(left < all / 2, "{left} kB of {all} kB are still there");
        assert_eq!(sum(), before);
    }
}
