//! Who calls, and whom it may speak for. A node agent holds the token of its node and may ask for the identities of
//! the pods on that node, no others: a stolen node costs that node's identities. A workload's own proxy (a waypoint)
//! may hold a token of its own, good for its one identity.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use model::identity::Identity;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tonic::metadata::MetadataMap;

/// How long a reading of the folder stands: a token withdrawn is refused after this at the latest.
const FRESH: Duration = Duration::from_secs(1);

/// The least time between two readings: callers with unknown tokens cannot make us read without pause.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// The shortest token, in bytes; shorter ones can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// The longest token, in bytes; a Kubernetes token is about 1,200.
const LONGEST_TOKEN: u64 = 16 * 1024;

/// The most tokens in a folder.
const MAX_TOKENS: usize = 10_000;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// A node's agent, by the node's name.
    Node(Arc<str>),
    /// A workload's own proxy.
    Workload(Identity),
}

impl Caller {
    /// How many streams of configuration it may have: on a node a proxy, the one that takes over from it, and what is
    /// left of connections that broke; of a workload every instance has one.
    pub fn streams(&self) -> usize {
        match self {
            Self::Node(_) => 8,
            Self::Workload(_) => 64,
        }
    }

    /// How many connections: another one for certificates beside each.
    pub fn connections(&self) -> usize {
        2 * self.streams()
    }
}

/// Why a call is refused. For the log: the caller learns nothing but that it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No `authorization: Bearer TOKEN`.
    #[error("the call carries no bearer token")]
    NoToken,
    /// A token that nobody holds.
    #[error("the bearer token is unknown; is it in the token folder, and is the caller of this mesh?")]
    UnknownToken,
    /// A node that does not say for whom it asks.
    #[error("the agent of {0:?} names no identity (metadata ImpersonatedIdentity)")]
    NoIdentity(Arc<str>),
    /// The named identity is not of the SPIFFE form.
    #[error("{0}")]
    NotAnIdentity(String),
    /// An identity of another mesh.
    #[error("{0} is not of this mesh's trust domain")]
    ForeignTrustDomain(Identity),
    /// No pod with that identity is on the caller's node.
    #[error("no pod on node {node:?} runs as {identity}; passes if the pod was just scheduled")]
    NotOnNode {
        /// The caller.
        node: Arc<str>,
        /// Whom it asked for.
        identity: Identity,
    },
    /// A workload that asks for another.
    #[error("{caller} asks for a certificate of {identity}")]
    NotItself {
        /// The caller.
        caller: Identity,
        /// Whom it asked for.
        identity: Identity,
    },
}

/// Tells callers by what they send. Implemented by [`TokenFolder`]; on Kubernetes by a review of service account
/// tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// Who sent this metadata.
    fn authenticate(&self, metadata: &MetadataMap) -> impl Future<Output = Result<Caller, Refusal>> + Send;
}

/// Whom a certificate is issued for: the pure decision.
///
/// `on_node` says whether a pod of that identity is on a node.
///
/// # Errors
/// [`Refusal`] if the caller may not have it.
pub fn authorize(
    caller: &Caller,
    impersonated: Option<&str>,
    trust_domain: &str,
    on_node: impl Fn(&str, &Identity) -> bool,
) -> Result<Identity, Refusal> {
    let asked = impersonated
        .map(|text| text.parse::<Identity>().map_err(|error| Refusal::NotAnIdentity(error.to_string())))
        .transpose()?;
    let identity = match (caller, asked) {
        (Caller::Node(node), None) => return Err(Refusal::NoIdentity(Arc::clone(node))),
        (Caller::Workload(own), None) => own.clone(),
        (_, Some(asked)) => asked,
    };
    if **identity.trust_domain() != *trust_domain {
        return Err(Refusal::ForeignTrustDomain(identity));
    }
    match caller {
        Caller::Node(node) if !on_node(node, &identity) => {
            Err(Refusal::NotOnNode { node: Arc::clone(node), identity })
        }
        Caller::Workload(caller) if *caller != identity => {
            Err(Refusal::NotItself { caller: caller.clone(), identity })
        }
        _ => Ok(identity),
    }
}

/// The token after `authorization: Bearer`.
pub fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// A folder of tokens, one a file: the file's name is the node's, its content the token. A name of the form
/// `NAMESPACE_ACCOUNT` (no node's name has an underscore) is a workload's. Read again as files change.
#[derive(Debug)]
pub struct TokenFolder {
    folder: PathBuf,
    trust_domain: Arc<str>,
    known: Mutex<Known>,
}

/// What was read last. Tokens are kept as digests only: all of one length, and of no use to who sees them.
#[derive(Debug, Default)]
struct Known {
    digests: BTreeMap<Caller, [u8; 32]>,
    read: Option<Instant>,
}

impl TokenFolder {
    /// The folder is read at the first call, and need not exist before.
    pub fn new(folder: impl Into<PathBuf>, trust_domain: impl Into<Arc<str>>) -> Self {
        Self { folder: folder.into(), trust_domain: trust_domain.into(), known: Mutex::default() }
    }

    /// Whose token it is.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut known, FRESH);
        known.find(&digest).or_else(|| {
            // Perhaps written this moment.
            self.refresh(&mut known, LEAST_PAUSE);
            known.find(&digest)
        })
    }

    fn refresh(&self, known: &mut Known, age: Duration) {
        if known.read.is_some_and(|read| read.elapsed() < age) {
            return;
        }
        known.read = Some(Instant::now());
        match read_folder(&self.folder, &self.trust_domain) {
            Ok(digests) => known.digests = digests,
            // What cannot be read vouches for nobody.
            Err(error) => {
                tracing::error!(folder = %self.folder.display(), %error, "cannot read the token folder; all callers are refused");
                known.digests.clear();
            }
        }
    }
}

impl Authenticator for TokenFolder {
    fn authenticate(&self, metadata: &MetadataMap) -> impl Future<Output = Result<Caller, Refusal>> + Send {
        let caller = match bearer(metadata) {
            None => Err(Refusal::NoToken),
            Some(token) => self.caller(token).ok_or(Refusal::UnknownToken),
        };
        ready(caller)
    }
}

impl Known {
    /// Compares with every digest, each in constant time: how long it takes says nothing of how near a guess is.
    fn find(&self, digest: &[u8; 32]) -> Option<Caller> {
        let mut found = None;
        for (caller, known) in &self.digests {
            if verify_slices_are_equal(known, digest).is_ok() {
                found = Some(caller);
            }
        }
        found.cloned()
    }
}

fn read_folder(folder: &Path, trust_domain: &str) -> io::Result<BTreeMap<Caller, [u8; 32]>> {
    let mut digests = BTreeMap::new();
    for entry in fs::read_dir(folder)?.take(MAX_TOKENS) {
        let entry = entry?;
        let name = entry.file_name();
        // Kubernetes' mounts keep their versions in names with a dot in front.
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let path = entry.path();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !metadata.is_file() {
            continue;
        }
        if metadata.len() > LONGEST_TOKEN {
            tracing::warn!(path = %path.display(), "not a token: larger than 16 KiB; ignored");
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let token = text.trim();
        if token.len() < SHORTEST_TOKEN {
            tracing::warn!(path = %path.display(), "a token of fewer than 16 characters can be guessed; ignored");
            continue;
        }
        digests.insert(caller_named(name, trust_domain), Sha256::digest(token.as_bytes()).into());
    }
    Ok(digests)
}

fn caller_named(name: &str, trust_domain: &str) -> Caller {
    match name.split_once('_') {
        Some((namespace, account)) => Caller::Workload(Identity::new(trust_domain, namespace, account)),
        None => Caller::Node(name.into()),
    }
}

#[cfg(test)]
mod tests;
