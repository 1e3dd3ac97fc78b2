//! The root a container sees: the machine's own, with folders of its own (/tmp, /run) and mounts over it. Built as a
//! new tree of bind mounts, so that a mount point that does not exist on the machine can be made without touching it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::spec::{ContainerSpec, Mount};

const NONE: Option<&str> = None;

/// A folder with more entries than this is not rebuilt entry by entry for one missing mount point.
const MOST_ENTRIES: usize = 2000;

/// A source of a mount, opened while it can still be reached by its path.
struct Opened {
    file: File,
    target: PathBuf,
    read_only: bool,
    is_folder: bool,
}

/// Builds the root in the mount namespace this process has just made its own, and moves into it.
pub(super) fn enter(spec: &ContainerSpec) -> Result<(), String> {
    let says = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    // What the daemon unmounts (namespaces of other pods) goes from here too; nothing goes the other way.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).map_err(|e| format!("mounts: {e}"))?;
    let hidden =
        |path: &&PathBuf| spec.private.iter().any(|folder| path.starts_with(folder) && path.exists());
    let visible = spec.visible.iter().filter(hidden);
    let visible = visible.map(|path| Mount { source: path.clone(), target: path.clone(), read_only: true });
    let open_all = |mounts: &mut dyn Iterator<Item = Mount>| -> Result<Vec<Opened>, String> {
        let open = |mount: Mount| {
            let what = format!("{} for {}", mount.source.display(), mount.target.display());
            open(&mount).map_err(says(&what))
        };
        mounts.map(open).collect()
    };
    let visible = open_all(&mut visible.into_iter())?;
    let mounts = open_all(&mut spec.mounts.iter().cloned())?;
    let mut tree = Tree { root: &spec.root, own: Vec::new() };
    tree.copy_top(&spec.private).map_err(says("the container's root"))?;
    let mut bind =
        |source: &Opened| tree.bind(source).map_err(says(&format!("mount on {}", source.target.display())));
    visible.iter().try_for_each(&mut bind)?;
    cover(&spec.root, &spec.secret).map_err(says("the folder of meshes"))?;
    mounts.iter().try_for_each(&mut bind)?;
    move_in(&spec.root).map_err(says("the container's root"))
}

/// Puts an empty folder over one that the container shall not look into, if it is there.
fn cover(root: &Path, folder: &Path) -> io::Result<()> {
    let folder = inside(root, &resolve(root, folder)?);
    if folder.is_dir() {
        mount(
            Some("lateen"),
            &folder,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_RDONLY,
            Some("mode=755"),
        )?;
    }
    Ok(())
}

fn open(mount: &Mount) -> io::Result<Opened> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&mount.source)?;
    let is_folder = file.metadata()?.is_dir();
    Ok(Opened { file, target: mount.target.clone(), read_only: mount.read_only, is_folder })
}

/// The new root while it is built.
struct Tree<'a> {
    root: &'a Path,
    /// Devices of the file systems made for this container, where entries may be made.
    own: Vec<u64>,
}

impl Tree<'_> {
    /// A file system of the container's own.
    fn mount_own(&mut self, target: &Path, flags: MsFlags, mode: u32) -> io::Result<()> {
        let mode = format!("mode={mode:o}");
        mount(Some("lateen"), target, Some("tmpfs"), MsFlags::MS_NOSUID | flags, Some(mode.as_str()))?;
        self.own.push(fs::metadata(target)?.dev());
        Ok(())
    }

    /// A new root with everything of `/` but the private folders, which are empty.
    fn copy_top(&mut self, private: &[PathBuf]) -> io::Result<()> {
        self.mount_own(self.root, MsFlags::empty(), 0o755)?;
        for entry in fs::read_dir("/")? {
            let entry = entry?;
            let from = entry.path();
            if !private.contains(&from) {
                mirror(&from, &self.root.join(entry.file_name()))?;
            }
        }
        for folder in private {
            let target = inside(self.root, folder);
            fs::create_dir_all(&target)?;
            self.mount_own(&target, MsFlags::MS_NODEV, 0o1777)?;
        }
        // Programs take locks there, and /var/lock usually leads to it.
        let locks = inside(self.root, Path::new("/run/lock"));
        if fs::create_dir(&locks).is_ok() {
            fs::set_permissions(&locks, fs::Permissions::from_mode(0o1777))?;
        }
        Ok(())
    }

    fn bind(&mut self, source: &Opened) -> io::Result<()> {
        let target = resolve(self.root, &source.target)?;
        let target = self.make_target(&target, source.is_folder)?;
        let from = format!("/proc/self/fd/{}", source.file.as_raw_fd());
        mount(Some(from.as_str()), &target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        if source.read_only { make_read_only(&target) } else { Ok(()) }
    }

    /// Makes sure that the mount point exists, and answers its path below the new root.
    fn make_target(&mut self, path: &Path, is_folder: bool) -> io::Result<PathBuf> {
        let target = inside(self.root, path);
        if target.exists() {
            return Ok(target);
        }
        let missing_in =
            target.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(self.root).to_owned();
        if !self.own.contains(&fs::metadata(&missing_in)?.dev()) {
            self.rebuild(&missing_in)?;
        }
        fs::create_dir_all(target.parent().unwrap_or(self.root))?;
        if is_folder {
            fs::create_dir(&target)?;
        } else {
            File::create(&target)?;
        }
        Ok(target)
    }

    /// Replaces a folder of the machine by one of our own with the same entries, where new ones can be made.
    fn rebuild(&mut self, folder: &Path) -> io::Result<()> {
        let entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        if entries.len() > MOST_ENTRIES {
            let text = format!(
                "{} has too many entries to add a mount point to; choose another path",
                folder.display()
            );
            return Err(io::Error::other(text));
        }
        let mode = fs::metadata(folder)?.mode() & 0o7777;
        // The entries are reached through this handle once the folder is covered.
        let handle =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
        self.mount_own(folder, MsFlags::empty(), mode)?;
        for entry in entries {
            let from = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())).join(entry.file_name());
            mirror(&from, &folder.join(entry.file_name()))?;
        }
        Ok(())
    }
}

/// Makes a bind mount read-only. One of a less privileged namespace must keep the flags it came with.
fn make_read_only(target: &Path) -> io::Result<()> {
    let flags = statvfs(target)?.flags();
    let mut keep = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (had, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ] {
        if flags.contains(had) {
            keep |= flag;
        }
    }
    mount(NONE, target, NONE, keep, NONE)?;
    Ok(())
}

/// Makes `to` look like `from`: the same link, or a bind mount.
fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if metadata.is_dir() {
        fs::create_dir(to)?;
    } else {
        File::create(to)?;
    }
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    Ok(())
}

/// The path below `root` of an absolute path of the container.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Follows the links of a container's path as the container will see them (/etc/resolv.conf often is one, and so is
/// /var/run). Answers a path of the container, without links.
fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    const MOST_LINKS: usize = 40;
    let mut resolved = PathBuf::from("/");
    let mut left: Vec<PathBuf> = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == Path::new("..") {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&part);
        let Ok(target) = fs::read_link(inside(root, &next)) else {
            resolved = next;
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        left.extend(parts(&target));
    }
    Ok(resolved)
}

/// The names of a path, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let keep = |part: Component<'_>| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().filter_map(keep).collect::<Vec<_>>().into_iter().rev().collect()
}

/// Makes the new tree the root and lets the old one go.
fn move_in(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}
