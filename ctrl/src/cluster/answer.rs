//! How long an answer of the API server is waited for: its client waits for ever, which a watch needs and nobody else.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

/// The longest. A leader that is in doubt writes no more, and what it had begun to write is over before somebody else
/// leads (`leader.rs`).
pub(super) const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
#[error("no answer within {LONGEST:?}")]
struct NoAnswer;

/// What the API server answers.
///
/// # Errors
/// What it says, or that it says nothing in time; it may have done what it was asked for all the same.
pub(super) async fn answered<T>(
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    timeout(LONGEST, asked).await.unwrap_or_else(|_| Err(kube::Error::Service(NoAnswer.into())))
}
