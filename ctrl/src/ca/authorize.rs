//! Who calls, and whom it may speak for. A node agent holds the token of its node and may ask for the identities of
//! the pods on that node, no others: a stolen node costs that node's identities. A workload's own proxy (a waypoint)
//! may hold a token of its own, good for its one identity.
//!
//! Which pods are on a node is what the objects say, and the objects are believed: who may write them may put a pod of
//! any account onto its node. So this holds against a stolen token and against an agent that can read only. Under
//! `lateen up` everything is one user, agents write their notes into the same folder, and an agent that is taken over
//! there is stopped by nothing here.

mod reviews;
mod tokens;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use model::identity::Identity;
use thiserror::Error;
use tonic::metadata::MetadataMap;

pub use self::reviews::{Accounts, TokenReviews};
pub use self::tokens::TokenFolder;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// A node's agent, by the node's name.
    Node(Arc<str>),
    /// A workload's own proxy.
    Workload(Identity),
}

/// As the log words it: `node NAME`, or the identity.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Workload(identity) => identity.fmt(f),
        }
    }
}

impl Caller {
    /// How many streams of configuration it may have: on a node a proxy, those that are still ending after another has
    /// taken over (eight of one redirector), and what is left of connections that broke; of a workload every instance has
    /// one.
    pub fn streams(&self) -> usize {
        match self {
            Self::Node(_) => 24,
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
    #[error("the call carries no bearer token; is the caller's TOKEN_FILE set, and is a token in it?")]
    NoToken,
    /// A token that nobody holds.
    #[error("the bearer token is unknown; is it in the token folder, and is the caller of this mesh?")]
    UnknownToken,
    /// A token that the API server does not vouch for.
    #[error("the API server does not vouch for the bearer token: {0}")]
    NotAuthentic(String),
    /// A token that nobody could judge.
    #[error("the API server could not be asked about the bearer token: {0}; passes once it can be")]
    NotReviewed(String),
    /// A node agent's token that is not one of a pod.
    #[error("the token of {0} is bound to no node; it has to be one of a pod, from Kubernetes 1.32 or later")]
    NoNode(String),
    /// A node that does not say for whom it asks.
    #[error("the agent of {0:?} names no identity (metadata ImpersonatedIdentity)")]
    NoIdentity(Arc<str>),
    /// The named identity is not of the SPIFFE form.
    #[error("{0}")]
    NotAnIdentity(String),
    /// An identity of another mesh.
    #[error(
        "{0} is not of this mesh's trust domain, and certificates are issued for that alone, not for TRUST_DOMAIN_ALIASES; \
         is the caller's own TRUST_DOMAIN the controller's, and is it told of its workloads by this one?"
    )]
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
    #[error(
        "{caller} asks for a certificate of {identity}, and a workload's token is good for its own identity alone; is the \
         token in its TOKEN_FILE that of the account that it runs as?"
    )]
    NotItself {
        /// The caller.
        caller: Identity,
        /// Whom it asked for.
        identity: Identity,
    },
}

/// Tells callers by what they send. Implemented by [`TokenFolder`]; on Kubernetes by [`TokenReviews`].
pub trait Authenticator: Send + Sync + 'static {
    /// Who sent this metadata, from this address.
    fn authenticate(
        &self,
        metadata: &MetadataMap,
        from: Option<IpAddr>,
    ) -> impl Future<Output = Result<Caller, Refusal>> + Send;
}

/// Either of the two.
#[derive(Debug)]
pub enum Callers {
    /// Those whose tokens are in a folder.
    Folder(TokenFolder),
    /// Those whom an API server vouches for.
    Reviewed(Box<TokenReviews>),
}

impl Authenticator for Callers {
    async fn authenticate(&self, metadata: &MetadataMap, from: Option<IpAddr>) -> Result<Caller, Refusal> {
        match self {
            Self::Folder(folder) => folder.authenticate(metadata, from).await,
            Self::Reviewed(reviews) => reviews.authenticate(metadata, from).await,
        }
    }
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

#[cfg(test)]
mod tests;
