//! Who a workload is: a SPIFFE identity (`spiffe://<trust domain>/ns/<namespace>/sa/<service account>`).
//!
//! Certificates carry it as a URI SAN, policies match it, pools are keyed by it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A SPIFFE identity in the form that Istio issues: exactly a trust domain, a namespace and a service account.
///
/// Cheap to clone. Ordered and hashed by its parts, so it can key pools and caches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Identity {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a string is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a workload identity: expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
pub struct InvalidIdentity(pub String);

impl Identity {
    /// An identity of its three parts. Parts must be non-empty and free of `/`; names that come from Kubernetes are.
    pub fn new(
        trust_domain: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        service_account: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// The trust domain, `cluster.local` unless the mesh says otherwise.
    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &Arc<str> {
        &self.service_account
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidIdentity(text.chars().take(256).collect());
        // A NUL or another control character in a SAN is how certificates have been made to say two things at once.
        if text.len() > MAX_URI_LENGTH || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(invalid());
        }
        let path = text.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            [trust_domain, "ns", namespace, "sa", service_account]
                if ![trust_domain, namespace, service_account].iter().any(|part| part.is_empty()) =>
            {
                Ok(Self::new(trust_domain, namespace, service_account))
            }
            _ => Err(invalid()),
        }
    }
}

/// The longest SPIFFE ID, in bytes (SPIFFE-ID standard, section 2.3).
const MAX_URI_LENGTH: usize = 2048;

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

impl TryFrom<String> for Identity {
    type Error = InvalidIdentity;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn reads_what_it_writes() {
        let identity = Identity::new("cluster.local", "default", "reviews");
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/default/sa/reviews");
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }

    #[test]
    fn is_a_string_where_it_is_stored() {
        let identity = Identity::new("cluster.local", "default", "reviews");
        let text = String::from(identity.clone());
        assert_eq!(text, "spiffe://cluster.local/ns/default/sa/reviews");
        assert_eq!(Identity::try_from(text), Ok(identity));
        assert!(Identity::try_from("reviews".to_owned()).is_err());
    }

    #[test]
    fn is_as_long_as_the_standard_allows() {
        let of_length = |length: usize| {
            let head = "spiffe://td/ns/a/sa/";
            format!("{head}{}", "b".repeat(length - head.len()))
        };
        for (length, accepted) in [(2047, true), (2048, true), (2049, false), (5000, false)] {
            assert_eq!(of_length(length).parse::<Identity>().is_ok(), accepted, "{length} bytes");
        }
        let refused = of_length(100_000).parse::<Identity>().unwrap_err();
        assert_eq!(refused.0, of_length(256), "a message shows the beginning only");
    }

    #[test]
    fn refuses_other_forms() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/namespace/a/sa/b",
            "https://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b\0",
            "spiffe://td/ns/a/sa/b c",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?} was accepted");
        }
    }
}
