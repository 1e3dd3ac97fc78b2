//! Callers told by an API server: their tokens are those of service accounts, which it has issued and can judge. A node's
//! agent is told by the node that its token is bound to, which nobody but the API server can write there.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use model::identity::Identity;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use tonic::metadata::MetadataMap;

use super::{Authenticator, Caller, Refusal, bearer};
use crate::turns::Turns;

/// How long a judgement stands: an account that is removed is refused after this at the latest.
const FRESH: Duration = Duration::from_secs(10);
/// How long one stands while the API server cannot be asked, so that proxies can come back meanwhile.
const WITHOUT_SERVER: Duration = Duration::from_secs(600);
/// How long a review may take.
const REVIEW: Duration = Duration::from_secs(5);
/// Reviews at a time.
const AT_ONCE: usize = 8;
/// Of one address: a quarter, so that it takes four of them to keep all turns.
const OF_ADDRESS: usize = 2;
/// Judgements that are kept.
const KEPT: usize = 10_000;
/// The longest token, in bytes; one of Kubernetes is about 1,200.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Where a review says to which node the token's pod is bound.
const NODE: &str = "authentication.kubernetes.io/node-name";

/// Whose tokens count, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// Audiences of tokens for this controller: one of them is enough.
    pub audiences: Vec<String>,
    /// Accounts of node agents, as `NAMESPACE/NAME`.
    pub node_agents: BTreeSet<String>,
    /// The trust domain of identities.
    pub trust_domain: String,
}

/// Tells callers by asking an API server.
pub struct TokenReviews {
    reviews: Api<TokenReview>,
    accounts: Accounts,
    /// By the token's digest.
    judged: Mutex<HashMap<[u8; 32], Judged>>,
    turns: Turns,
}

impl std::fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReviews").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Judged {
    verdict: Result<Caller, Refusal>,
    when: Instant,
}

impl TokenReviews {
    /// By this client; nothing is asked yet.
    pub fn new(client: Client, accounts: Accounts) -> Self {
        Self {
            reviews: Api::all(client),
            accounts,
            judged: Mutex::default(),
            turns: Turns::new(AT_ONCE, OF_ADDRESS),
        }
    }

    fn judged(&self) -> MutexGuard<'_, HashMap<[u8; 32], Judged>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, digest: &[u8; 32]) -> Option<Result<Caller, Refusal>> {
        let judged = self.judged().get(digest).cloned()?;
        (judged.when.elapsed() < FRESH).then_some(judged.verdict)
    }

    async fn caller(&self, token: &str, from: Option<IpAddr>) -> Result<Caller, Refusal> {
        if token.len() > LONGEST_TOKEN {
            return Err(Refusal::NotAuthentic("it is longer than any".to_owned()));
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(verdict) = self.fresh(&digest) {
            return verdict;
        }
        let turn = self.turns.take(from).await;
        // Perhaps the same caller, who asked before.
        let verdict = match self.fresh(&digest) {
            Some(verdict) => verdict,
            None => self.judge(token, digest).await,
        };
        if verdict.is_ok() {
            turn.well_used();
        }
        verdict
    }

    async fn judge(&self, token: &str, digest: [u8; 32]) -> Result<Caller, Refusal> {
        match self.review(token).await {
            Ok(status) => {
                let verdict = caller_of(&status, &self.accounts);
                self.keep(digest, verdict.clone());
                verdict
            }
            Err(reason) => match self.judged().get(&digest) {
                Some(Judged { verdict: Ok(caller), when }) if when.elapsed() < WITHOUT_SERVER => {
                    Ok(caller.clone())
                }
                _ => Err(Refusal::NotReviewed(reason)),
            },
        }
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
        let spec = TokenReviewSpec {
            audiences: Some(self.accounts.audiences.clone()),
            token: Some(token.to_owned()),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        match timeout(REVIEW, self.reviews.create(&parameters, &review)).await {
            Ok(Ok(review)) => Ok(review.status.unwrap_or_default()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {REVIEW:?}")),
        }
    }

    fn keep(&self, digest: [u8; 32], verdict: Result<Caller, Refusal>) {
        let mut judged = self.judged();
        if judged.len() >= KEPT {
            judged.retain(|_, judged| judged.verdict.is_ok() && judged.when.elapsed() < WITHOUT_SERVER);
        }
        if judged.len() < KEPT {
            judged.insert(digest, Judged { verdict, when: Instant::now() });
        }
    }
}

impl Authenticator for TokenReviews {
    async fn authenticate(&self, metadata: &MetadataMap, from: Option<IpAddr>) -> Result<Caller, Refusal> {
        self.caller(bearer(metadata).ok_or(Refusal::NoToken)?, from).await
    }
}

/// Whom a review names: the pure decision.
fn caller_of(review: &TokenReviewStatus, accounts: &Accounts) -> Result<Caller, Refusal> {
    let refuse = |reason: String| Err(Refusal::NotAuthentic(reason));
    if review.authenticated != Some(true) {
        return refuse(review.error.clone().unwrap_or_else(|| "the API server does not know it".to_owned()));
    }
    // A server that knows no audiences names none, and has not looked at them.
    let audiences = review.audiences.iter().flatten();
    if !audiences.clone().any(|audience| accounts.audiences.contains(audience)) {
        return refuse(format!("it is not for {}", accounts.audiences.join(" or ")));
    }
    let user = review.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let Some((namespace, account)) = account else {
        return refuse(format!("{name:?} is not a service account"));
    };
    let full = format!("{namespace}/{account}");
    if !accounts.node_agents.contains(&full) {
        return Ok(Caller::Workload(Identity::new(&*accounts.trust_domain, namespace, account)));
    }
    let node = user.extra.unwrap_or_default().remove(NODE).and_then(|nodes| nodes.into_iter().next());
    node.filter(|node| !node.is_empty()).map(|node| Caller::Node(node.into())).ok_or(Refusal::NoNode(full))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_review_says_who_calls() {
        let accounts = Accounts {
            audiences: vec!["istio-ca".to_owned()],
            node_agents: BTreeSet::from(["istio-system/ztunnel".to_owned()]),
            trust_domain: "cluster.local".to_owned(),
        };
        let review = |user: &str, audience: &str, extra: serde_json::Value| {
            let status = json!({
                "authenticated": true, "audiences": [audience], "user": {"username": user, "extra": extra},
            });
            serde_json::from_value::<TokenReviewStatus>(status).expect("a status")
        };
        let agent = "system:serviceaccount:istio-system:ztunnel";
        let waypoint = "system:serviceaccount:shop:waypoint";
        let node = json!({NODE: ["node-1"]});
        let refused = |part: &'static str| Err(part);
        for (review, wanted) in [
            (review(agent, "istio-ca", node.clone()), Ok(Caller::Node("node-1".into()))),
            (review(agent, "istio-ca", json!({})), refused("bound to no node")),
            (review(agent, "istio-ca", json!({NODE: [""]})), refused("bound to no node")),
            (review(agent, "https://kubernetes.default.svc", node.clone()), refused("not for istio-ca")),
            // Who is not a node's agent is not one by the node that it runs on.
            (
                review(waypoint, "istio-ca", node),
                Ok(Caller::Workload(Identity::new("cluster.local", "shop", "waypoint"))),
            ),
            (review("system:node:node-1", "istio-ca", json!({})), refused("not a service account")),
            (TokenReviewStatus::default(), refused("does not know it")),
            (
                TokenReviewStatus { error: Some("expired".to_owned()), ..TokenReviewStatus::default() },
                refused("expired"),
            ),
        ] {
            match (caller_of(&review, &accounts), wanted) {
                (Ok(caller), Ok(wanted)) => assert_eq!(caller, wanted),
                (Err(refusal), Err(part)) => assert!(refusal.to_string().contains(part), "{refusal}"),
                (verdict, wanted) => panic!("{verdict:?}, not {wanted:?}: {review:?}"),
            }
        }
    }
}
