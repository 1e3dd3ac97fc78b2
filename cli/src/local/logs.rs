//! What containers and components write, kept in bounded files: at 16 MiB the file becomes `.1` and a new one begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Size at which a file is put aside; twice this is kept.
const LARGEST: u64 = 16 << 20;

/// A log file that several pipes may write to.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl LogFile {
    /// A log at `path`, made when the first byte comes.
    pub(crate) fn new(path: &Path) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { path: path.to_owned(), file: None, size: 0 })) }
    }

    /// Puts what is there aside as the log of the previous run.
    pub(crate) fn start_again(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.file = None;
        let _ = fs::rename(&inner.path, previous(&inner.path));
        let _ = fs::remove_file(older(&inner.path));
    }

    /// Appends bytes. A log that cannot be written is not worth stopping a container for.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(_error) = inner.write(bytes) {
            inner.file = None;
        }
    }

    /// Collects what a pipe brings, until all its writers have gone.
    pub(crate) fn collect(self, mut pipe: pipe::Receiver) {
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
                self.write(&buffer[..length]);
            }
        });
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.size + bytes.len() as u64 > LARGEST {
            self.file = None;
            fs::rename(&self.path, older(&self.path))?;
        }
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
            self.size += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Where the older part of a log stands.
pub(crate) fn older(path: &Path) -> PathBuf {
    beside(path, ".1")
}

/// Where the log of the run before stands.
pub(crate) fn previous(path: &Path) -> PathBuf {
    beside(path, ".previous")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::{LARGEST, LogFile, older, previous};

    #[test]
    fn a_log_is_bounded_and_the_last_run_is_kept() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.log");
        let log = LogFile::new(&path);
        let block = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            log.write(&block);
        }
        let size = |path: &std::path::Path| std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
        assert!(size(&path) <= LARGEST && size(&older(&path)) <= LARGEST);
        assert!(size(&older(&path)) > 0);
        log.start_again();
        log.write(b"new");
        assert_eq!(size(&path), 3);
        assert!(size(&previous(&path)) > 0);
    }
}
