//! As whom a container's process runs, in the process itself, right before its command: capabilities and, where asked
//! for, a user namespace in which the mesh's user has another number.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};

use super::spec::User;
use crate::local::sys;

/// Capabilities a container has unless it asks for others: those of every container runtime, but for NET_RAW. With it a
/// process may set the mark of its packets (since Linux 5.17), and with the proxy's mark they pass the capture. `ping`
/// needs none (`net.ipv4.ping_group_range`).
const DEFAULT: [(&str, u32); 13] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("SYS_CHROOT", 18),
    ("MKNOD", 27),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];

/// Capabilities a manifest may add.
const OTHERS: [(&str, u32); 9] = [
    ("NET_BROADCAST", 11),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("IPC_LOCK", 14),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("SYS_NICE", 23),
    ("SYS_RESOURCE", 24),
    ("SYS_TIME", 25),
];

/// Highest capability number looked at; the kernel knows 41 today.
const HIGHEST: u32 = 63;

/// The capabilities of a container that adds and drops some; `None` means all. Unknown names are ignored.
pub(crate) fn capabilities(add: &[String], drop: &[String]) -> Option<Vec<u32>> {
    let named = |list: &[String], name: &str| {
        list.iter().any(|item| item.strip_prefix("CAP_").unwrap_or(item).eq_ignore_ascii_case(name))
    };
    if named(add, "ALL") {
        return None;
    }
    let by_default = DEFAULT.iter().filter(|(name, _)| !named(drop, "ALL") && !named(drop, name));
    let added = DEFAULT.iter().chain(&OTHERS).filter(|(name, _)| named(add, name));
    let mut numbers: Vec<u32> = by_default.chain(added).map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

/// Gives up what the container shall not have. Called last, single-threaded.
pub(super) fn become_user(user: &User) -> io::Result<()> {
    if let Some((uid, gid)) = user.mapped {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} 0 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} 0 1"))?;
    }
    limit_capabilities(user)
}

/// Takes from the bounding set all but the capabilities kept; the command's start makes it so for the others.
pub(super) fn limit_capabilities(user: &User) -> io::Result<()> {
    let Some(kept) = &user.capabilities else { return Ok(()) };
    for number in (0..=HIGHEST).filter(|number| !kept.contains(number)) {
        match sys::drop_capability(number) {
            // The kernel knows none from here on.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::capabilities;

    #[test]
    fn containers_start_without_the_capabilities_that_would_let_them_around_the_mesh() {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let plain = capabilities(&[], &[]).expect("limited");
        assert!(plain.contains(&10) && !plain.contains(&12) && !plain.contains(&21));
        assert!(!plain.contains(&13), "with CAP_NET_RAW packets may have the proxy's mark");
        let added = capabilities(&strings(&["NET_ADMIN"]), &strings(&["ALL"])).expect("limited");
        assert_eq!(added, [12]);
        let raw = capabilities(&strings(&["NET_RAW"]), &[]).expect("limited");
        assert!(raw.contains(&13) && raw.contains(&10), "a manifest may ask for it");
        assert_eq!(capabilities(&strings(&["CAP_ALL"]), &[]), None);
    }
}
