//! The proxy's end: says who it is, answers, and comes again when the stream ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use proto::diagnostics::diagnostics_client::DiagnosticsClient;
use proto::diagnostics::{Answer, Question, answer, question};
use proto::discovery::Node;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::client::ClientConfig;
use crate::client::add_headers;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(5);
/// Answers that may wait to be sent; then no more is taken.
const ANSWERS: usize = 4;

/// What a proxy can be asked.
pub trait Answers: Send + Sync {
    /// Its records of decisions that a query means, the newest first.
    fn decisions(&self, query: &proto::diagnostics::DecisionQuery) -> Vec<proto::diagnostics::Decision>;
}

/// Attends as long as the connection is there. A controller that does not know of this is left alone.
pub(crate) async fn attend(
    config: &ClientConfig,
    channel: Channel,
    node: Node,
    answers: Arc<dyn Answers>,
) -> Infallible {
    loop {
        match stream(config, channel.clone(), node.clone(), &*answers).await {
            Err(status) if status.code() == Code::Unimplemented => return std::future::pending().await,
            Err(status) => tracing::debug!(error = status.message(), "the stream of diagnostics ended"),
            Ok(()) => {}
        }
        sleep(PAUSE).await;
    }
}

async fn stream(
    config: &ClientConfig,
    channel: Channel,
    node: Node,
    answers: &dyn Answers,
) -> Result<(), Status> {
    let (said, outbound) = mpsc::channel(ANSWERS);
    let closed = |_| Status::cancelled("the stream is closed");
    said.send(Answer { id: 0, of: Some(answer::Of::Node(node)) }).await.map_err(closed)?;
    let mut request = Request::new(ReceiverStream::new(outbound));
    add_headers(config, &mut request).await.map_err(|error| Status::unauthenticated(error.to_string()))?;
    let mut questions = DiagnosticsClient::new(channel).attend(request).await?.into_inner();
    while let Some(Question { id, of }) = questions.message().await? {
        let of = match of {
            Some(question::Of::Decisions(query)) => {
                let records = answers.decisions(&query);
                answer::Of::Decisions(proto::diagnostics::Decisions { records })
            }
            None => answer::Of::Refused(String::from("this version does not know the question")),
        };
        said.send(Answer { id, of: Some(of) }).await.map_err(closed)?;
    }
    Ok(())
}
