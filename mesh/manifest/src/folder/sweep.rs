//! A look at all files in small steps: what the kernel did not tell of is found, and a change that it does tell of need not
//! wait until ten thousand files have been looked at. It finds out which files are to be read and reads none.
//!
//! First the folders are listed, for files that nobody knows of; then what is known is looked at, for what is another file
//! now, or gone.

use std::{
    collections::HashSet,
    fs::{self, DirEntry, ReadDir},
    ops::Bound,
    path::{Path, PathBuf},
};

use super::{FileKey, Folder, Stamp, walk};

/// Entries and files that one step looks at: a fraction of a millisecond.
const STEP: usize = 64;
/// Files that may be found to have changed; more are better looked at all together.
const MAX_FOUND: usize = 1024;

/// A look that has begun.
#[derive(Debug)]
pub(super) struct Sweep {
    stage: Stage,
    found: HashSet<PathBuf>,
}

#[derive(Debug)]
enum Stage {
    Listing {
        /// Folders that are still to be listed, with the source they are of and how deep they are in it.
        folders: Vec<(usize, PathBuf, usize)>,
        open: Option<(usize, ReadDir, usize)>,
    },
    Looking {
        after: Option<FileKey>,
    },
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Swept {
    /// There is more to look at.
    Begun(Sweep),
    /// These files are to be read, and no others.
    All(HashSet<PathBuf>),
    /// Only a look at everything tells.
    Unclear,
}

/// Something is out of the ordinary.
struct Odd;

impl Sweep {
    /// Of all sources of a folder.
    pub(super) fn of(folder: &Folder) -> Self {
        let state = folder.state.iter().map(|root| (0, root.clone(), 0));
        let roots = folder.roots.iter().enumerate().map(|(index, root)| (index + 1, root.clone(), 0));
        let stage = Stage::Listing { folders: state.chain(roots).collect(), open: None };
        Self { stage, found: HashSet::new() }
    }

    /// The next few.
    pub(super) fn step(mut self, folder: &Folder) -> Swept {
        let done = match &mut self.stage {
            Stage::Listing { folders, open } => list(folder, folders, open, &mut self.found),
            Stage::Looking { after } => look(folder, after, &mut self.found),
        };
        match (done, &self.stage) {
            (Err(Odd), _) => Swept::Unclear,
            _ if folder.linked || self.found.len() > MAX_FOUND => Swept::Unclear,
            (Ok(true), Stage::Looking { .. }) => Swept::All(self.found),
            (Ok(true), Stage::Listing { .. }) => {
                self.stage = Stage::Looking { after: None };
                Swept::Begun(self)
            }
            (Ok(false), _) => Swept::Begun(self),
        }
    }
}

/// Lists some; whether that is all.
fn list(
    folder: &Folder,
    folders: &mut Vec<(usize, PathBuf, usize)>,
    open: &mut Option<(usize, ReadDir, usize)>,
    found: &mut HashSet<PathBuf>,
) -> Result<bool, Odd> {
    for _ in 0..STEP {
        let Some((order, entries, depth)) = open else {
            let Some((order, path, depth)) = folders.pop() else { return Ok(true) };
            *open = enter(order, &path, depth)?.map(|entries| (order, entries, depth));
            continue;
        };
        match entries.next() {
            None => *open = None,
            Some(entry) => match sort(&entry.map_err(|_| Odd)?)? {
                Entry::Folder(path) => folders.push((*order, path, *depth + 1)),
                Entry::Manifest(path) => {
                    let key = (*order, path);
                    if !folder.files.contains_key(&key) {
                        found.insert(key.1);
                    }
                }
                Entry::Other => {}
            },
        }
    }
    Ok(false)
}

/// Opens a folder; nothing where it is a file, which is looked at with the others.
fn enter(order: usize, path: &Path, depth: usize) -> Result<Option<ReadDir>, Odd> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() && depth <= walk::MAX_DEPTH => {
            fs::read_dir(path).map(Some).map_err(|_| Odd)
        }
        Ok(metadata) if metadata.is_file() && depth == 0 => Ok(None),
        // Nobody asked for the mesh's own folder by name; other folders may go while others are listed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && (order == 0 || depth > 0) => Ok(None),
        Ok(_) | Err(_) => Err(Odd),
    }
}

enum Entry {
    Folder(PathBuf),
    Manifest(PathBuf),
    Other,
}

fn sort(entry: &DirEntry) -> Result<Entry, Odd> {
    let path = entry.path();
    if walk::is_hidden(&path) {
        return Ok(Entry::Other);
    }
    let kind = entry.file_type().map_err(|_| Odd)?;
    if kind.is_dir() {
        return Ok(Entry::Folder(path));
    }
    if kind.is_symlink() {
        let leads = fs::metadata(&path);
        let counts = leads.is_ok_and(|to| to.is_dir() || walk::is_manifest(&path));
        return if counts { Err(Odd) } else { Ok(Entry::Other) };
    }
    Ok(if kind.is_file() && walk::is_manifest(&path) { Entry::Manifest(path) } else { Entry::Other })
}

/// Looks at some of the known files; whether that is all.
fn look(folder: &Folder, after: &mut Option<FileKey>, found: &mut HashSet<PathBuf>) -> Result<bool, Odd> {
    let from = after.take().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = folder.files.range((from, Bound::Unbounded));
    for (key, contents) in rest.by_ref().take(STEP) {
        match fs::symlink_metadata(&key.1) {
            Ok(metadata) if contents.stamp == Some(Stamp::of(&metadata)) => {}
            Ok(_) => drop(found.insert(key.1.clone())),
            // With all of its folder: that may be a mount that went away.
            Err(_) if !key.1.parent().is_some_and(Path::is_dir) => return Err(Odd),
            Err(_) => drop(found.insert(key.1.clone())),
        }
        *after = Some(key.clone());
    }
    Ok(rest.next().is_none())
}

#[cfg(test)]
mod tests;
