//! Callers told by files of tokens. Who is known waits for a look at the one file that holds his token, once a second;
//! the whole folder is read only for tokens that nobody is known by, and those who bring them wait for that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use model::identity::Identity;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex as Turn;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tonic::metadata::MetadataMap;

use super::{Authenticator, Caller, Refusal, bearer};

/// How long a look at a token's file stands: a token withdrawn is refused after this at the latest.
const FRESH: Duration = Duration::from_secs(1);

/// Between two readings of the whole folder: callers with unknown tokens, however many, cause one a second.
const PAUSE: Duration = Duration::from_secs(1);

/// The shortest token, in bytes; shorter ones can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// The longest token, in bytes; a Kubernetes token is about 1,200.
const LONGEST_TOKEN: u64 = 16 * 1024;

/// The most tokens in a folder.
const MAX_TOKENS: usize = 10_000;

/// Tokens are kept as digests only: all of one length, and of no use to who sees them.
type TokenDigest = [u8; 32];

/// A folder of tokens, one a file: the file's name is the node's, its content the token. A name of the form
/// `NAMESPACE_ACCOUNT` (no node's name has an underscore) is a workload's. Read again as files change.
#[derive(Debug)]
pub struct TokenFolder(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    trust_domain: Arc<str>,
    /// What was read last.
    known: Mutex<BTreeMap<Caller, Known>>,
    /// When the last reading of all began. Who reads holds it; who needs a reading waits for it.
    reading: Arc<Turn<Option<Instant>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    digest: TokenDigest,
    /// When the file was looked at.
    seen: Instant,
}

impl TokenFolder {
    /// The folder is read at the first call, and need not exist before.
    pub fn new(folder: impl Into<PathBuf>, trust_domain: impl Into<Arc<str>>) -> Self {
        let (path, trust_domain) = (folder.into(), trust_domain.into());
        Self(Arc::new(Folder { path, trust_domain, known: Mutex::default(), reading: Arc::default() }))
    }

    /// Whose token it is.
    pub async fn caller(&self, token: &str) -> Option<Caller> {
        let digest: TokenDigest = Sha256::digest(token.as_bytes()).into();
        let arrived = Instant::now();
        if let Some((caller, known)) = self.0.find(&digest) {
            if known.seen.elapsed() < FRESH {
                return Some(caller);
            }
            if self.0.clone().look(&caller).await == Some(digest) {
                return Some(caller);
            }
        }
        // Perhaps written this moment, or under another name.
        self.0.clone().read_since(arrived).await;
        self.0.find(&digest).map(|(caller, _)| caller)
    }
}

impl Authenticator for TokenFolder {
    async fn authenticate(&self, metadata: &MetadataMap, _: Option<IpAddr>) -> Result<Caller, Refusal> {
        let token = bearer(metadata).ok_or(Refusal::NoToken)?;
        self.caller(token).await.ok_or(Refusal::UnknownToken)
    }
}

impl Folder {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Caller, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares with every digest, each in constant time: how long it takes says nothing of how near a guess is.
    fn find(&self, digest: &TokenDigest) -> Option<(Caller, Known)> {
        let all = self.known();
        let mut found = None;
        for (caller, known) in &*all {
            if verify_slices_are_equal(&known.digest, digest).is_ok() {
                found = Some((caller, known));
            }
        }
        found.map(|(caller, known)| (caller.clone(), *known))
    }

    /// Looks at one caller's file again.
    async fn look(self: Arc<Self>, caller: &Caller) -> Option<TokenDigest> {
        let (seen, path) = (Instant::now(), self.path.join(file_of(caller)));
        // A reader that panics has read nothing.
        let digest = spawn_blocking(move || read_token(&path)).await.ok().flatten();
        let mut known = self.known();
        match digest {
            Some(digest) => known.insert(caller.clone(), Known { digest, seen }),
            None => known.remove(caller),
        };
        digest
    }

    /// Waits until the whole folder was read, by a reading that began after this moment. It goes on though who waits for
    /// it leaves: a caller that comes and goes causes no more of them.
    async fn read_since(self: Arc<Self>, moment: Instant) {
        let mut last = self.reading.clone().lock_owned().await;
        if last.is_some_and(|began| began >= moment) {
            return;
        }
        let reading = tokio::spawn(async move {
            if let Some(began) = *last {
                sleep_until(began + PAUSE).await;
            }
            let began = Instant::now();
            *last = Some(began);
            let folder = self.clone();
            let read = spawn_blocking(move || read_folder(&folder.path, &folder.trust_domain)).await;
            *self.known() = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(digests) => digests
                    .into_iter()
                    .map(|(caller, digest)| (caller, Known { digest, seen: began }))
                    .collect(),
                // What cannot be read vouches for nobody.
                Err(error) => {
                    tracing::error!(folder = %self.path.display(), %error, "cannot read the token folder; all callers are refused");
                    BTreeMap::new()
                }
            };
        });
        // It ends by itself.
        let _ = reading.await;
    }
}

fn read_folder(folder: &Path, trust_domain: &str) -> io::Result<BTreeMap<Caller, TokenDigest>> {
    let mut digests = BTreeMap::new();
    for entry in fs::read_dir(folder)?.take(MAX_TOKENS) {
        let entry = entry?;
        let name = entry.file_name();
        // Kubernetes' mounts keep their versions in names with a dot in front.
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        if let Some(digest) = read_token(&entry.path()) {
            digests.insert(caller_named(name, trust_domain), digest);
        }
    }
    Ok(digests)
}

/// The digest of the token in a file, if there is one.
fn read_token(path: &Path) -> Option<TokenDigest> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    if metadata.len() > LONGEST_TOKEN {
        tracing::warn!(path = %path.display(), "not a token: larger than 16 KiB; ignored");
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN {
        tracing::warn!(path = %path.display(), "a token of fewer than 16 characters can be guessed; ignored");
        return None;
    }
    Some(Sha256::digest(token.as_bytes()).into())
}

fn caller_named(name: &str, trust_domain: &str) -> Caller {
    match name.split_once('_') {
        Some((namespace, account)) => Caller::Workload(Identity::new(trust_domain, namespace, account)),
        None => Caller::Node(name.into()),
    }
}

/// The file of a caller's token.
fn file_of(caller: &Caller) -> String {
    match caller {
        Caller::Node(node) => node.to_string(),
        Caller::Workload(identity) => format!("{}_{}", identity.namespace(), identity.service_account()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    /// Polls until the condition holds; fails after ten seconds.
    async fn eventually(about: &str, condition: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition().await {
            assert!(Instant::now() < deadline, "{about}: not within ten seconds");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn tokens_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let tokens = TokenFolder::new(&path, "cluster.local");
        assert_eq!(tokens.caller(TOKEN).await, None, "no folder, no callers");

        // What is written before a caller comes is known to him, though others were refused this moment.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("node-1"), format!("{TOKEN}\n")).unwrap();
        let node = Caller::Node("node-1".into());
        assert_eq!(tokens.caller(TOKEN).await, Some(node.clone()));
        assert_eq!(tokens.caller(&TOKEN[1..]).await, None);
        assert_eq!(tokens.caller("").await, None);

        let other = TOKEN.replace('0', "x");
        fs::write(path.join("shop_waypoint"), &other).unwrap();
        let waypoint = Caller::Workload(Identity::new("cluster.local", "shop", "waypoint"));
        assert_eq!(tokens.caller(&other).await, Some(waypoint));

        let newer = TOKEN.replace('0', "y");
        fs::write(path.join("node-1"), &newer).unwrap();
        assert_eq!(tokens.caller(&newer).await, Some(node.clone()), "a replaced token");
        assert_eq!(tokens.caller(TOKEN).await, None, "and the one before");
        fs::remove_file(path.join("shop_waypoint")).unwrap();
        eventually("a withdrawn token", async || tokens.caller(&other).await.is_none()).await;
        // One that moves to another name is that one's.
        fs::rename(path.join("node-1"), path.join("node-2")).unwrap();
        let two = Some(Caller::Node("node-2".into()));
        eventually("a moved token", async || tokens.caller(&newer).await == two).await;
    }

    #[test]
    fn some_files_are_no_tokens() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("node-short", "secret".to_owned()),
            ("node-empty", String::new()),
            (".hidden", TOKEN.to_owned()),
            ("node-huge", "x".repeat(20_000)),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        fs::create_dir(folder.path().join("node-folder")).unwrap();
        assert!(read_folder(folder.path(), "cluster.local").unwrap().is_empty());
        for name in ["node-1", "shop_waypoint"] {
            assert_eq!(file_of(&caller_named(name, "cluster.local")), name);
        }
    }

    /// However many there are and whether they stay: one reading a second, and who is known waits for none.
    #[tokio::test(start_paused = true)]
    async fn unknown_tokens_delay_nobody_and_cause_a_reading_a_second() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("node-1"), TOKEN).unwrap();
        let tokens = Arc::new(TokenFolder::new(folder.path(), "cluster.local"));
        let node = Some(Caller::Node("node-1".into()));
        assert_eq!(tokens.caller(TOKEN).await, node);
        let first = tokens.0.reading.lock().await.expect("it was read");
        tokio::time::advance(Duration::from_millis(1)).await;
        let strangers: Vec<_> = (0..200)
            .map(|number| {
                let tokens = tokens.clone();
                tokio::spawn(async move { tokens.caller(&format!("a stranger's token {number}")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        // Half of them do not wait for their answer, the first among them.
        strangers.iter().step_by(2).for_each(tokio::task::JoinHandle::abort);
        assert!(tokens.0.reading.try_lock().is_err(), "somebody waits for the reading");
        assert_eq!(tokens.caller(TOKEN).await, node);
        assert!(tokens.0.reading.try_lock().is_err(), "who is known did not");
        // Though it is time to look at his file again.
        tokens.0.known().values_mut().for_each(|known| known.seen -= FRESH);
        assert_eq!(tokens.caller(TOKEN).await, node);
        assert!(tokens.0.reading.try_lock().is_err(), "who is known did not");
        for (number, stranger) in strangers.into_iter().enumerate() {
            let answer = stranger.await.ok();
            assert_eq!(answer, (number % 2 == 1).then_some(None), "{number}");
        }
        let second = tokens.0.reading.lock().await.expect("it was read");
        // By a clock that passes only while nothing is to be done.
        assert!((PAUSE..2 * PAUSE).contains(&(second - first)), "one for all of them");
    }
}
