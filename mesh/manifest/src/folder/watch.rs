//! Looking again when files change: the kernel says when, a short quiet tells that writing has ended, and a
//! look every few seconds finds what the kernel did not tell (network file systems, a folder replaced whole). That look
//! gives way to what the kernel tells.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};

use super::{
    Batch, Folder,
    sweep::{Sweep, Swept},
};

/// How long nothing may happen before files are read.
const QUIET: Duration = Duration::from_millis(5);
/// How long a file that is open for writing is waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often files are looked at when the kernel says nothing,
const RESCAN: Duration = Duration::from_secs(2);
/// but no more often than takes this part of a processor's time.
const SHARE: u32 = 20;
/// Between two steps of such a look.
const PAUSE: Duration = Duration::from_millis(1);
/// How many changed files are remembered by name between two looks; beyond, stamps have to tell.
const MAX_TOUCHED: usize = 1024;

/// A folder being watched, until dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Watch {
    /// Watches `folder` from a thread of its own. `on_batch` gets everything that is there as the first batch
    /// (also when that is nothing), then what changes; it returns false to end the watch, and may block.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        mut folder: Folder,
        mut on_batch: impl FnMut(Batch) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Self { stop: stop.clone(), wake: wake.clone() };
        thread::Builder::new().name("manifests".to_owned()).spawn(move || {
            let events = Arc::new(Mutex::new(Events::default()));
            // Before the first look, so that nothing happens unseen in between.
            let mut kernel = Kernel::start(&events, wake);
            kernel.watch_roots(&folder);
            if !on_batch(folder.scan()) {
                return;
            }
            let mut regular = Regular::new();
            while wait(&woken, &events, regular.due()) && !stop.load(Ordering::Acquire) {
                kernel.watch_roots(&folder);
                let (touched, lost) = lock(&events).take();
                if lost || !touched.is_empty() {
                    let some = if lost { None } else { folder.scan_some(&touched) };
                    let batch = some.unwrap_or_else(|| regular.whole(&mut folder, &touched));
                    if !batch.is_empty() && !on_batch(batch) {
                        return;
                    }
                }
                if regular.due().is_zero() {
                    let batch = regular.step(&mut folder);
                    if !batch.is_empty() && !on_batch(batch) {
                        return;
                    }
                }
            }
        })?;
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Full means that the thread is about to look anyway.
        let _ = self.wake.try_send(());
    }
}

/// The look that comes every few seconds.
#[derive(Debug)]
struct Regular {
    /// It has begun.
    sweep: Option<Sweep>,
    /// When its next step is due, or the next look.
    next: Instant,
    /// How long its steps took so far.
    took: Duration,
}

impl Regular {
    /// One that has just been.
    fn new() -> Self {
        Self { sweep: None, next: Instant::now() + RESCAN, took: Duration::ZERO }
    }

    /// In how long there is something to do.
    fn due(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Looks at a few files, and reads what has changed once all have been looked at.
    fn step(&mut self, folder: &mut Folder) -> Batch {
        let begun = Instant::now();
        let swept = self.sweep.take().unwrap_or_else(|| Sweep::of(folder)).step(folder);
        self.took += begun.elapsed();
        match swept {
            Swept::Begun(sweep) => {
                self.sweep = Some(sweep);
                self.next = Instant::now() + PAUSE;
                Batch::default()
            }
            Swept::All(found) if found.is_empty() => {
                self.done();
                Batch::default()
            }
            Swept::All(found) => match folder.scan_some(&found) {
                Some(batch) => {
                    self.done();
                    batch
                }
                None => self.whole(folder, &found),
            },
            Swept::Unclear => self.whole(folder, &HashSet::new()),
        }
    }

    /// Looks at everything at once.
    fn whole(&mut self, folder: &mut Folder, touched: &HashSet<PathBuf>) -> Batch {
        let begun = Instant::now();
        let batch = folder.scan_touched(touched);
        self.took += begun.elapsed();
        self.done();
        batch
    }

    fn done(&mut self) {
        self.sweep = None;
        self.next = Instant::now() + RESCAN.max(std::mem::take(&mut self.took) * SHARE);
    }
}

/// What the kernel told since the last look.
#[derive(Debug, Default)]
struct Events {
    touched: HashSet<PathBuf>,
    /// Files that somebody has begun to write and not closed yet.
    open: HashSet<PathBuf>,
    /// More than these were touched.
    lost: bool,
}

impl Events {
    /// What was touched, and whether more was.
    fn take(&mut self) -> (HashSet<PathBuf>, bool) {
        (std::mem::take(&mut self.touched), std::mem::take(&mut self.lost))
    }

    fn note(&mut self, event: Event) {
        self.lost |= event.need_rescan();
        let begins = matches!(
            event.kind,
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_))
        );
        let ends = matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(_))
                | EventKind::Remove(_)
        );
        for path in event.paths {
            if begins && self.open.len() < MAX_TOUCHED {
                self.open.insert(path.clone());
            } else if ends {
                self.open.remove(&path);
            }
            if self.touched.len() < MAX_TOUCHED {
                self.touched.insert(path);
            } else {
                self.lost = true;
            }
        }
    }
}

/// The kernel's notifications, where they can be had.
struct Kernel {
    watcher: Option<RecommendedWatcher>,
    /// Which folder, by device and inode, is watched for a root: one that was replaced is watched anew.
    watched: HashMap<PathBuf, (u64, u64)>,
}

impl Kernel {
    fn start(events: &Arc<Mutex<Events>>, wake: SyncSender<()>) -> Self {
        let events = events.clone();
        let on_event = move |event: notify::Result<Event>| {
            match event {
                // Reading (our own, too) changes nothing.
                Ok(event) if is_reading(event.kind) => return,
                Ok(event) => lock(&events).note(event),
                // Events were lost: stamps have to tell.
                Err(_) => lock(&events).lost = true,
            }
            // Full means that a look is already asked for.
            let _ = wake.try_send(());
        };
        Self { watcher: notify::recommended_watcher(on_event).ok(), watched: HashMap::new() }
    }

    fn watch_roots(&mut self, folder: &Folder) {
        for root in folder.roots.iter().chain(&folder.state) {
            let is_folder = root.is_dir();
            // A file is replaced by renaming another over it, which only its folder sees.
            let (target, mode) = match is_folder {
                true => (root.clone(), RecursiveMode::Recursive),
                false => (parent(root), RecursiveMode::NonRecursive),
            };
            let Ok(metadata) = fs::metadata(&target) else { continue };
            let identity = (metadata.dev(), metadata.ino());
            if self.watched.get(&target) == Some(&identity) {
                continue;
            }
            if let Some(watcher) = &mut self.watcher {
                // Not watched yet, or the one watched is gone: either way there is nothing to undo.
                let _ = watcher.unwatch(&target);
                if watcher.watch(&target, mode).is_ok() {
                    self.watched.insert(target, identity);
                }
            }
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

/// Waits until it is time to look. False when nobody is left who could say so.
fn wait(woken: &Receiver<()>, events: &Mutex<Events>, rescan: Duration) -> bool {
    match woken.recv_timeout(rescan) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => return true,
        Err(RecvTimeoutError::Disconnected) => return false,
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match woken.recv_timeout(QUIET) {
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) if lock(events).open.is_empty() => return true,
            _ if Instant::now() >= deadline => {
                lock(events).open.clear();
                return true;
            }
            _ => {}
        }
    }
}

/// A thread that died while noting an event leaves at worst one event out, which the next look finds.
fn lock(events: &Mutex<Events>) -> std::sync::MutexGuard<'_, Events> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}
