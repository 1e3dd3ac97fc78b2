//! Processes inside the pods: started with a log, waited for until they listen, ended with their owner.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use testkit::netns::{Netns, NetnsError};
use thiserror::Error;

use crate::pinned;

/// How long a proxy may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a process of the bench did not do what it should.
#[derive(Debug, Error)]
pub(crate) enum ProcessError {
    /// It could not be started.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// Its files could not be written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It did not become ready.
    #[error("{name} is not ready in time; the end of its log:\n{tail}")]
    NotReady {
        /// Who.
        name: String,
        /// The last lines it wrote.
        tail: String,
    },
    /// It ended.
    #[error("{name} ended with {status}; the end of its log:\n{tail}")]
    Ended {
        /// Who.
        name: String,
        /// How.
        status: String,
        /// The last lines it wrote.
        tail: String,
    },
}

/// A running process with its log; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    begun: Instant,
    patience: Duration,
}

impl Process {
    /// Starts `command` in the namespace; what it writes goes to `folder/NAME.log`.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        namespace: &Netns,
        folder: &Path,
    ) -> Result<Self, ProcessError> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = file.map_err(|source| ProcessError::File { path: log.clone(), source })?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        pinned::file(Path::new(command.get_program()));
        let begun = Instant::now();
        let child = namespace.spawn(command)?;
        Ok(Self { name: name.to_owned(), child, log, begun, patience: PATIENCE })
    }

    /// It may take so long until it is ready.
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it is gone: its state is kept, as a zombie's, until this value is dropped.
    pub(crate) fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z'))
    }

    /// Waits until `ready` says so; how long that took since the start.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<Duration, ProcessError> {
        while !ready() {
            if let Ok(Some(status)) = self.child.try_wait() {
                let (name, status) = (self.name.clone(), status.to_string());
                return Err(ProcessError::Ended { name, status, tail: self.tail() });
            }
            if self.begun.elapsed() > self.patience {
                return Err(ProcessError::NotReady { name: self.name.clone(), tail: self.tail() });
            }
            pause(Duration::from_millis(1));
        }
        let took = self.begun.elapsed();
        // With its libraries, which are known only now.
        pinned::all_of(self.pid());
        Ok(took)
    }

    /// Waits until it accepts connections at `address`, seen from inside `namespace`.
    pub(crate) fn wait_listening(
        &mut self,
        namespace: &Netns,
        address: SocketAddr,
    ) -> Result<Duration, ProcessError> {
        namespace.run(|| self.wait_until(|| TcpStream::connect(address).is_ok()))?
    }

    /// Waits until `GET path` on the namespace's loopback is answered with 200.
    pub(crate) fn wait_ready_http(
        &mut self,
        namespace: &Netns,
        port: u16,
        path: &str,
    ) -> Result<Duration, ProcessError> {
        namespace.run(|| self.wait_until(|| answers_200(port, path).unwrap_or(false)))?
    }

    /// How many lines it has written.
    pub(crate) fn log_lines(&self) -> usize {
        fs::read(&self.log).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers_200(port: u16, path: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}

/// Waits on the wall clock: a bench measures time that passes.
#[allow(clippy::disallowed_methods)] // plain threads only, no runtime to stall
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
