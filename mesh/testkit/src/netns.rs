//! Network namespaces for tests and benches: made without a name, held by a descriptor, gone with it.
//!
//! Nothing is left behind however the process ends (a panic, Ctrl-C, SIGKILL): the kernel removes a
//! namespace when its last descriptor and its last process are gone, and with it its interfaces, routes
//! and rules. Needs root, or a user namespace of one's own (`unshare -Ur`); and `ip` and `nft`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use thiserror::Error;

/// Why a namespace could not be made, entered or furnished.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The kernel refused a new namespace.
    #[error("cannot make network namespace {name}: {source}; run as root, or inside `unshare -Ur`")]
    Create {
        /// The label the namespace was to have.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused to enter the namespace.
    #[error("cannot enter network namespace {name}: {source}")]
    Enter {
        /// The namespace's label.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program run inside the namespace could not be started or failed.
    #[error("`{command}` in network namespace {name}: {reason}")]
    Command {
        /// The namespace's label.
        name: String,
        /// The command line.
        command: String,
        /// Its standard error, or why it did not start.
        reason: String,
    },
}

/// A network namespace with its loopback up. Dropping it removes it, once the processes inside have ended.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Makes an empty namespace; `name` is only a label for messages, nothing is put under /run/netns.
    pub fn new(name: &str) -> Result<Self, NetnsError> {
        // A thread of its own: unshare moves only the calling thread, which then ends.
        let made = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.map_err(|source| NetnsError::Create { name: name.to_owned(), source })?;
        let namespace = Self { name: name.to_owned(), file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The one that the caller is in.
    ///
    /// # Errors
    /// The kernel does not show it.
    pub fn here() -> io::Result<Self> {
        Ok(Self { name: String::from("of this process"), file: File::open("/proc/thread-self/ns/net")? })
    }

    /// The label given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor, to be passed to whoever shall enter (ZDS carries one).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A path to the namespace, good as long as this value lives: for `nsenter --net=` and `ip link … netns`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets made there stay there.
    ///
    /// # Panics
    /// When `work` panics, with its payload.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_own_thread(|| {
            setns(self.fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|error| NetnsError::Enter { name: self.name.clone(), source: error.into() })?;
            Ok(work())
        })
    }

    /// Starts a process inside the namespace. The caller ends it: a process keeps the namespace alive.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, NetnsError> {
        let shown = show(command);
        self.run(|| command.spawn())?.map_err(|error| self.failed(shown, error.to_string()))
    }

    /// Runs a program inside the namespace to its end; its standard output, or an error with its standard error.
    pub fn exec(&self, command: &mut Command) -> Result<String, NetnsError> {
        self.feed(command, "")
    }

    /// `ip ARGS` inside the namespace; arguments are split at spaces.
    pub fn ip(&self, args: &str) -> Result<(), NetnsError> {
        self.exec(Command::new("ip").args(args.split_whitespace())).map(drop)
    }

    /// Loads an nftables script inside the namespace, as one transaction.
    pub fn nft(&self, script: &str) -> Result<(), NetnsError> {
        self.feed(Command::new("nft").args(["-f", "-"]), script).map(drop)
    }

    /// Sets a network sysctl of this namespace, e.g. `("ipv4/tcp_tw_reuse", "1")`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), NetnsError> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| fs::write(&path, value))?
            .map_err(|error| self.failed(format!("echo {value} > {path}"), error.to_string()))
    }

    /// Runs a program with `input` on its standard input.
    fn feed(&self, command: &mut Command, input: &str) -> Result<String, NetnsError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = show(command);
        let mut child = self.spawn(command)?;
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output =
            child.wait_with_output().map_err(|error| self.failed(shown.clone(), error.to_string()))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(self.failed(shown, format!("{}: {reason}", output.status)));
        }
        fed.map_err(|error| self.failed(shown, format!("did not read its input: {error}")))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn failed(&self, command: String, reason: String) -> NetnsError {
        NetnsError::Command { name: self.name.clone(), command, reason }
    }
}

/// One end of a virtual cable: the namespace, the interface's name there, its addresses with prefix length.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where the interface shall be.
    pub namespace: &'a Netns,
    /// What it is called there; at most 15 characters.
    pub interface: &'a str,
    /// Its addresses, each with its prefix length.
    pub addresses: &'a [(IpAddr, u8)],
}

/// Joins two namespaces by a veth pair, sets both ends' addresses and brings both up.
pub fn join(a: End<'_>, b: End<'_>) -> Result<(), NetnsError> {
    a.namespace.ip(&format!(
        "link add {} type veth peer name {} netns {}",
        a.interface,
        b.interface,
        b.namespace.path()
    ))?;
    for end in [a, b] {
        for (address, prefix) in end.addresses {
            // Without nodad a v6 address cannot be bound for its first second.
            let nodad = if address.is_ipv6() { "nodad" } else { "" };
            end.namespace.ip(&format!("addr add {address}/{prefix} dev {} {nodad}", end.interface))?;
        }
        end.namespace.ip(&format!("link set {} up", end.interface))?;
    }
    Ok(())
}

/// Runs `work` on a fresh thread: what it does to its own namespaces ends with it.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(payload) => std::panic::resume_unwind(payload),
    })
}

fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    const A: &str = "10.77.0.1";
    const B: &str = "10.77.0.2";

    #[test]
    fn two_joined_namespaces_talk_and_are_isolated() {
        let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
        let addresses_a = [(A.parse().unwrap(), 24), ("fd77::1".parse().unwrap(), 64)];
        let addresses_b = [(B.parse().unwrap(), 24), ("fd77::2".parse().unwrap(), 64)];
        join(
            End { namespace: &a, interface: "eth0", addresses: &addresses_a },
            End { namespace: &b, interface: "eth0", addresses: &addresses_b },
        )
        .unwrap();

        for address in [B, "fd77::2"] {
            let ip: IpAddr = address.parse().unwrap();
            let listener = b.run(|| TcpListener::bind((ip, 80)).unwrap()).unwrap();
            let mut client = a.run(|| TcpStream::connect((ip, 80)).unwrap()).unwrap();
            client.write_all(b"x").unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let mut byte = [0];
            accepted.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
        }
        let stranger = Netns::new("c").unwrap();
        let refused = stranger.run(|| TcpStream::connect((B, 80)).is_err()).unwrap();
        assert!(refused, "a third namespace has no way in");
    }

    #[test]
    fn a_failing_command_names_itself_and_its_reason() {
        let namespace = Netns::new("lone").unwrap();
        let error = namespace.nft("add rule inet nowhere nochain accept").unwrap_err().to_string();
        assert!(
            error.contains("nft -f -") && error.contains("lone") && error.contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_sysctl_reaches_only_its_own_namespace() {
        let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
        a.sysctl("ipv4/tcp_tw_reuse", "1").unwrap();
        let read = || fs::read_to_string("/proc/sys/net/ipv4/tcp_tw_reuse").unwrap().trim().to_owned();
        assert_eq!(a.run(read).unwrap(), "1");
        assert_ne!(b.run(read).unwrap(), "1");
    }
}
