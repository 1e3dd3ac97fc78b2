//! Who turns an identity into a certificate. Implemented by [`CaClient`](crate::ca_client::CaClient) (the
//! controller, or a real istiod) and by the in-process authority of the tests.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::identity::Identity;
use thiserror::Error;

use crate::bundle::{BundleError, CertificateBundle};
use crate::key::KeyError;

/// Issues certificates. Each call makes a fresh key, which never leaves this process.
pub trait CertificateAuthority: Send + Sync {
    /// A certificate for `identity`, already checked: it proves that identity, fits its key, is valid now and is
    /// signed by the roots it came with.
    fn issue(
        &self,
        identity: &Identity,
    ) -> impl Future<Output = Result<CertificateBundle, AuthorityError>> + Send;
}

impl<A: CertificateAuthority> CertificateAuthority for Arc<A> {
    fn issue(
        &self,
        identity: &Identity,
    ) -> impl Future<Output = Result<CertificateBundle, AuthorityError>> + Send {
        A::issue(self, identity)
    }
}

/// Why no certificate was issued. Each is worth another try later.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// No key or request could be made here.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token that proves this process to the authority cannot be read.
    #[error("cannot read the token {path}: {reason}; it is mounted by Kubernetes or written by `lateen up`")]
    Token {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said, or that the file is empty.
        reason: String,
    },
    /// The authority did not answer.
    #[error("cannot reach the certificate authority: {0}; is the controller running and the address right?")]
    Unreachable(String),
    /// The authority answered with a refusal.
    #[error(
        "the certificate authority refused ({code}): {message}; for a pod that was just scheduled this passes, \
         otherwise its log names the reason"
    )]
    Refused {
        /// gRPC status code, by name.
        code: String,
        /// What it said.
        message: String,
    },
    /// The authority's answer cannot be used.
    #[error("the certificate authority's answer is unusable: {0}")]
    Answer(#[from] BundleError),
    /// The answer did not come in time.
    #[error("no answer from the certificate authority within {0:?}")]
    TimedOut(Duration),
}
