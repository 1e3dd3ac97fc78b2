//! Keeps the CNI plugin on the node: its binary where the runtime looks for plugins, and its entry at the end of whatever
//! configuration connects pods. Others write that configuration too; what they take out is put in again.

mod conflist;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::{error, info, warn};

use super::catalog::Catalog;

/// The plugin's name: of its binary, and of its entries' `type`.
pub const PLUGIN: &str = "lateen-cni";
/// Between two looks, if the kernel tells of no change.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// After a change, so that who writes several files has written them all.
const SETTLE: Duration = Duration::from_millis(20);

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The plugin as the agent brings it along.
    pub binary: PathBuf,
    /// Folder of the runtime's plugins.
    pub bin: PathBuf,
    /// Folder of the runtime's configurations.
    pub configurations: PathBuf,
    /// The agent's socket, as the node sees it.
    pub socket: PathBuf,
    /// Namespaces whose pods start also without an agent.
    pub exempt: Vec<String>,
}

/// Why the plugin is not in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file.
    #[error("{path}: {source}; the agent needs the node's folder mounted there for writing", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No configuration yet.
    #[error("{path} has no configuration of a network; pods of this node are not connected yet", path = .0.display())]
    Nothing(PathBuf),
    /// A configuration that cannot be extended.
    #[error("{path} is no list of plugins (*.conflist): none can be chained to it; write it as a list", path = .0.display())]
    NoList(PathBuf),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File { path, source }
}

/// The plugin's presence on the node. Clones share it.
#[derive(Clone, Debug)]
pub struct Installation {
    places: Places,
    /// Why it is not in force, if it is not.
    failing: Arc<Mutex<Option<String>>>,
}

impl Installation {
    /// Nothing is written yet.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self { places, failing: Arc::new(Mutex::new(Some("it has not been installed yet".into()))) }
    }

    /// Why new pods start without asking the agent; `None`: they ask.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what is missing; whether anything was.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn ensure(&self) -> Result<bool, InstallError> {
        let outcome = self.places.install_binary().and_then(|copied| Ok(self.places.chain()? || copied));
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        *failing = outcome.as_ref().err().map(ToString::to_string);
        outcome
    }

    /// Keeps it in force; also tells the plugin, for times without an agent, which namespaces are none of the mesh's.
    pub(super) async fn run(self, mut catalog: watch::Receiver<Arc<Catalog>>) {
        let changed = Arc::new(Notify::new());
        let mut _watcher = self.watch(&changed);
        let mut apart = None;
        let mut before = None;
        loop {
            match self.ensure() {
                Ok(written) => {
                    if written {
                        info!(folder = %self.places.configurations.display(), "the CNI plugin is in force");
                    }
                    before = None;
                }
                Err(error) => {
                    let text = error.to_string();
                    if before.as_ref() != Some(&text) {
                        error!(%error, "the CNI plugin is not in force; pods that start are captured only afterwards");
                    }
                    before = Some(text);
                }
            }
            if _watcher.is_none() {
                _watcher = self.watch(&changed);
            }
            self.tell_apart(&catalog.borrow_and_update().clone(), &mut apart);
            tokio::select! {
                () = changed.notified() => sleep(SETTLE).await,
                () = sleep(LOOK_AGAIN) => {}
                changed = catalog.changed() => if changed.is_err() { return },
            }
        }
    }

    fn watch(&self, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
        let told = changed.clone();
        let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change: our own would wake us for ever.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                told.notify_one();
            }
        });
        let watching = watching.and_then(|mut watcher| {
            for folder in [&self.places.configurations, &self.places.bin] {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        watching.map_err(|error| warn!(%error, "changes of the CNI configuration are seen late")).ok()
    }

    fn tell_apart(&self, catalog: &Catalog, told: &mut Option<BTreeSet<String>>) {
        let apart = catalog.namespaces_apart();
        if told.as_ref() == Some(&apart) {
            return;
        }
        let path = self.places.socket.with_file_name("namespaces-apart.json");
        match write(&path, json!(apart).to_string().as_bytes(), 0o644) {
            Ok(()) => *told = Some(apart),
            Err(error) => warn!(%error, "the CNI plugin is not told which namespaces are none of the mesh's"),
        }
    }

    /// Takes it off the node: the entry first, since a runtime fails every pod whose configuration names a plugin that is
    /// not there.
    ///
    /// # Errors
    /// See [`InstallError`]; the binary stays if the entry does.
    pub fn remove(&self) -> Result<(), InstallError> {
        let places = &self.places;
        for path in configurations(&places.configurations)? {
            if let Some((without, mode)) = places.edit(&path, conflist::without)? {
                write(&path, without.as_bytes(), mode)?;
            }
        }
        let binary = places.bin.join(PLUGIN);
        match fs::remove_file(&binary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(&binary)(error)),
            _ => Ok(()),
        }
    }
}

impl Places {
    fn entry(&self) -> Value {
        json!({"type": PLUGIN, "socket": self.socket, "exempt": self.exempt})
    }

    fn install_binary(&self) -> Result<bool, InstallError> {
        let wanted = fs::read(&self.binary).map_err(file(&self.binary))?;
        let target = self.bin.join(PLUGIN);
        if fs::read(&target).is_ok_and(|there| there == wanted) {
            return Ok(false);
        }
        write(&target, &wanted, 0o755)?;
        Ok(true)
    }

    fn chain(&self) -> Result<bool, InstallError> {
        let path = self.in_force()?;
        if path.extension().is_none_or(|extension| extension != "conflist") {
            return Err(InstallError::NoList(path));
        }
        let entry = self.entry();
        let Some((with, mode)) = self.edit(&path, |list| conflist::with(list, &entry))? else {
            return Ok(false);
        };
        write(&path, with.as_bytes(), mode)?;
        Ok(true)
    }

    /// The configuration that a runtime takes: the first one, by name, that is one.
    fn in_force(&self) -> Result<PathBuf, InstallError> {
        let is_one = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| conflist::is_network(&text));
        let found = configurations(&self.configurations)?.into_iter().find(is_one);
        found.ok_or_else(|| InstallError::Nothing(self.configurations.clone()))
    }

    /// The file's text after `change`, with its mode; `None`: there is nothing to change.
    fn edit(
        &self,
        path: &Path,
        change: impl FnOnce(&Value) -> Option<Value>,
    ) -> Result<Option<(String, u32)>, InstallError> {
        let text = fs::read_to_string(path).map_err(file(path))?;
        let mode = fs::metadata(path).map_err(file(path))?.permissions().mode() & 0o777;
        let Ok(list) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        Ok(change(&list).map(|list| (format!("{list:#}\n"), mode)))
    }
}

/// What a runtime looks at, in its order.
fn configurations(folder: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let entries = fs::read_dir(folder).map_err(file(folder))?;
    let known = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known))
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(known).collect();
    paths.sort();
    Ok(paths)
}

/// Replaces a file as a whole: whoever reads it meanwhile finds the old one or the new one.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Not an ending that a runtime reads.
    let beside = path.with_file_name(format!(".{name}.lateen"));
    let writing = || {
        let mut options = fs::OpenOptions::new();
        let mut new = options.write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        new.write_all(content)?;
        new.sync_all()?;
        fs::rename(&beside, path)
    };
    writing().map_err(file(path))
}

#[cfg(test)]
mod tests;
