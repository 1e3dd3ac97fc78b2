//! What the machine must have, looked at before anything is started.

use std::fs;
use std::path::{Path, PathBuf};

/// Exit code when the machine lacks something (as `automake` tests skip: 77).
pub(crate) const UNSUITABLE: u8 = 77;

/// Folders of system tools that an ordinary user's PATH often lacks.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What is missing, and how to get it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error(
        "nft is not installed; get it with: apt-get install nftables (or dnf install nftables, apk add nftables)"
    )]
    Nft,
    #[error("{0} is not beside {1}; build it with: cargo build --release --workspace --bins")]
    Binary(String, PathBuf),
    #[error("{0}")]
    UserNamespaces(String),
    #[error("{path}: {error}")]
    Source { path: PathBuf, error: std::io::Error },
}

/// PATH as the mesh uses it: the caller's, with the folders of system tools it lacks.
pub(crate) fn search_path(path: &str) -> String {
    let mut folders: Vec<&str> = path.split(':').filter(|f| !f.is_empty()).collect();
    if folders.is_empty() {
        folders.extend(["/usr/local/bin", "/usr/bin", "/bin"]);
    }
    for folder in SYSTEM_FOLDERS {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders.join(":")
}

/// The first file called `name` in `path`.
pub(crate) fn find_program(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// Refuses a machine without nft or the binaries named.
pub(crate) fn check_programs(path: &str, binaries: &Path, needed: &[&str]) -> Result<(), Missing> {
    find_program("nft", path).ok_or(Missing::Nft)?;
    check_binaries(binaries, needed)
}

/// Refuses a folder without the binaries named.
pub(crate) fn check_binaries(binaries: &Path, needed: &[&str]) -> Result<(), Missing> {
    for name in needed {
        if !binaries.join(name).is_file() {
            return Err(Missing::Binary((*name).to_owned(), binaries.to_owned()));
        }
    }
    Ok(())
}

/// Whether this process may make namespaces and rules without a user namespace: it has the capabilities of root.
pub(crate) fn is_privileged() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    effective & (NET_ADMIN | SYS_ADMIN) == NET_ADMIN | SYS_ADMIN
}

/// Refuses what is known to forbid user namespaces, before one is tried.
pub(crate) fn check_user_namespaces() -> Result<(), Missing> {
    let forbidden = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    let reason = if forbidden("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "kernel.unprivileged_userns_clone is 0"
    } else if forbidden("/proc/sys/user/max_user_namespaces", "0") {
        "user.max_user_namespaces is 0"
    } else if forbidden("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "kernel.apparmor_restrict_unprivileged_userns is 1"
    } else {
        return Ok(());
    };
    Err(Missing::UserNamespaces(user_namespace_advice(reason)))
}

/// What to do when an ordinary user may not make user namespaces.
pub(crate) fn user_namespace_advice(what: &str) -> String {
    format!(
        "an ordinary user may not make user namespaces here ({what}); run lateen as root, or allow them:\n  \
         sysctl -w user.max_user_namespaces=15000\n  \
         sysctl -w kernel.unprivileged_userns_clone=1                 (Debian, where it exists)\n  \
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0     (Ubuntu 23.10 and later)"
    )
}

#[cfg(test)]
mod tests {
    use super::search_path;

    #[test]
    fn the_folders_of_system_tools_are_added_once() {
        assert_eq!(search_path("/bin:/sbin"), "/bin:/sbin:/usr/local/sbin:/usr/sbin");
        assert!(search_path("").starts_with("/usr/local/bin:/usr/bin:/bin:"));
    }
}
