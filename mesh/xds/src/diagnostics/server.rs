//! The controller's end: which proxies attend, and what they answer. As with configuration, a stream is a task of nobody:
//! the transport drives it.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream as streams};
use model::address::Str;
use prost::Message;
use proto::diagnostics::diagnostics_server::{Diagnostics, DiagnosticsServer};
use proto::diagnostics::{Answer, Decision, DecisionQuery, Question, answer, question};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::{MOST_RECORDS, most};
use crate::node::NodeInfo;
use crate::server::MAX_NODE;

/// A proxy that has not said who it is by then has nothing to say.
const INTRODUCTION: Duration = Duration::from_secs(15);
/// How long a proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long all of them may take together: less than a command waits for the controller (10 s).
const TOGETHER: Duration = Duration::from_secs(8);
/// Proxies that are asked at a time: their answers may be there at once, each of up to [`MAX_ANSWER`].
const AT_ONCE: usize = 64;
/// Questions that may wait for a proxy.
const QUESTIONS: usize = 4;
/// Streams at once; as many as of configuration.
const STREAMS: usize = 10_000;
/// The largest answer: [`MOST_RECORDS`] of 4 KiB.
const MAX_ANSWER: usize = MOST_RECORDS << 12;

/// Who may attend.
pub trait Admission: Send + Sync + 'static {
    /// Authenticates a proxy by the headers of its call.
    fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> impl Future<Output = Result<Admitted, Status>> + Send;
}

/// A proxy that was let in.
pub struct Admitted {
    /// Who it has proved to be: streams are counted by that.
    pub caller: Str,
    /// How many streams that one may have; its oldest ends for a further one.
    pub streams: usize,
    /// Says whether what the proxy says of itself agrees with who it has proved to be.
    pub agrees: Agrees,
}

/// Whether what a proxy says of itself is so.
pub type Agrees = Box<dyn FnOnce(&NodeInfo) -> Result<(), Status> + Send>;

/// A question on its way, and where its answer goes.
type Asked = (DecisionQuery, oneshot::Sender<Result<Vec<Decision>, String>>);

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    by_number: BTreeMap<u64, Attendant>,
}

/// One of them.
#[derive(Debug)]
struct Attendant {
    caller: Str,
    node: NodeInfo,
    questions: mpsc::Sender<Asked>,
}

/// The proxies that attend. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Attending(Arc<Mutex<Streams>>);

/// What a proxy said, or why it said nothing.
#[derive(Debug)]
pub struct Said {
    /// The proxy.
    pub node: NodeInfo,
    /// Its records.
    pub records: Result<Vec<Decision>, String>,
}

impl Attending {
    /// Asks all of them, 64 at a time, and gives what each says as it comes: what thousands remember is never there at
    /// once. Each has three seconds, all together eight.
    pub fn decisions(&self, query: &DecisionQuery) -> impl Stream<Item = Said> + Send + use<> {
        let all: Vec<_> = {
            let streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            streams.by_number.values().map(|one| (one.node.clone(), one.questions.clone())).collect()
        };
        let (query, end) = (query.clone(), Instant::now() + TOGETHER);
        let ask = move |(node, questions)| ask(node, questions, query.clone(), end);
        streams::iter(all).map(ask).buffer_unordered(AT_ONCE)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_number.len()
    }

    fn enter(
        &self,
        caller: Str,
        most: usize,
        node: NodeInfo,
    ) -> Result<(Place, mpsc::Receiver<Asked>), Status> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that connects again takes the place of what is left of its last connection; nobody takes another's.
        streams.by_number.retain(|_, other| other.caller != caller || other.node.id() != node.id());
        let own: Vec<u64> = streams
            .by_number
            .iter()
            .filter(|(_, one)| one.caller == caller)
            .map(|(number, _)| *number)
            .collect();
        if let Some(oldest) = own.first().filter(|_| own.len() >= most.max(1)) {
            streams.by_number.remove(oldest);
        }
        if streams.by_number.len() >= STREAMS {
            return Err(Status::resource_exhausted("too many streams of diagnostics; add a replica"));
        }
        streams.next += 1;
        let number = streams.next;
        let (questions, asked) = mpsc::channel(QUESTIONS);
        streams.by_number.insert(number, Attendant { caller, node, questions });
        Ok((Place { attending: self.clone(), number }, asked))
    }
}

async fn ask(node: NodeInfo, questions: mpsc::Sender<Asked>, query: DecisionQuery, end: Instant) -> Said {
    let now = Instant::now();
    if now >= end {
        let reason =
            "it was not asked, others took too long to answer; ask again for fewer of them, or later";
        return Said { node, records: Err(String::from(reason)) };
    }
    let most = most(&query);
    let (answer, answered) = oneshot::channel();
    let outcome = async {
        questions.send((query, answer)).await.map_err(|_| String::from("it has gone"))?;
        let mut records = answered.await.map_err(|_| String::from("it has gone"))??;
        // It is to send no more; whether it does is up to it.
        records.truncate(most);
        Ok(records)
    };
    let patience = PATIENCE.min(end - now);
    let late = |_| Err(format!("no answer within {} s", patience.as_secs_f32().ceil()));
    let records = timeout_at(now + patience, outcome).await.unwrap_or_else(late);
    Said { node, records }
}

/// A proxy's place; it is given back with the stream.
#[derive(Debug)]
struct Place {
    attending: Attending,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.attending.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.by_number.remove(&self.number);
    }
}

/// The service.
#[derive(Debug)]
pub struct Desk<A> {
    admission: A,
    attending: Attending,
}

impl<A: Admission> Desk<A> {
    /// Lets in whom `admission` does.
    pub fn new(admission: A, attending: Attending) -> Self {
        Self { admission, attending }
    }

    /// As a service to add to a [`tonic::transport::Server`].
    pub fn into_service(self) -> DiagnosticsServer<impl Diagnostics> {
        DiagnosticsServer::new(self).max_decoding_message_size(MAX_ANSWER)
    }
}

/// What the transport takes from.
type Taken = Pin<Box<dyn Stream<Item = Result<Question, Status>> + Send>>;

#[tonic::async_trait]
impl<A: Admission> Diagnostics for Desk<A> {
    type AttendStream = Taken;

    async fn attend(&self, request: Request<Streaming<Answer>>) -> Result<Response<Taken>, Status> {
        let Admitted { caller, streams: most, agrees } =
            self.admission.admit(request.metadata(), request.extensions()).await?;
        let mut answers = request.into_inner();
        let first = timeout(INTRODUCTION, answers.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no introduction came"))??;
        let Some(answer::Of::Node(node)) = first.and_then(|first| first.of) else {
            return Err(Status::invalid_argument("the first message is to be a node"));
        };
        // It is kept as long as the proxy is there.
        if node.encoded_len() > MAX_NODE {
            return Err(Status::invalid_argument(format!(
                "the node says more of itself than {MAX_NODE} bytes"
            )));
        }
        let node = NodeInfo::from_wire(&node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        agrees(&node)?;
        let (place, asked) = self.attending.enter(caller, most, node)?;
        let conversation = Conversation { _place: place, asked, answers, open: HashMap::new(), next: 0 };
        Ok(Response::new(Box::pin(streams::unfold(conversation, |mut conversation| async {
            let question = conversation.next().await?;
            Some((Ok(question), conversation))
        }))))
    }
}

/// One proxy's stream.
struct Conversation {
    _place: Place,
    asked: mpsc::Receiver<Asked>,
    answers: Streaming<Answer>,
    /// Questions that were asked and not answered yet.
    open: HashMap<u64, oneshot::Sender<Result<Vec<Decision>, String>>>,
    next: u64,
}

impl Conversation {
    /// The next question; nothing once the proxy has gone.
    async fn next(&mut self) -> Option<Question> {
        loop {
            tokio::select! {
                asked = self.asked.recv() => {
                    let (query, answer) = asked?;
                    // Who has asked may have gone meanwhile.
                    self.open.retain(|_, answer| !answer.is_closed());
                    self.next += 1;
                    self.open.insert(self.next, answer);
                    return Some(Question { id: self.next, of: Some(question::Of::Decisions(query)) });
                }
                answer = self.answers.message() => self.take(answer.ok()??),
            }
        }
    }

    fn take(&mut self, Answer { id, of }: Answer) {
        let Some(waiting) = self.open.remove(&id) else { return };
        let _ = waiting.send(match of {
            Some(answer::Of::Decisions(decisions)) => Ok(decisions.records),
            Some(answer::Of::Refused(why)) => Err(why),
            Some(answer::Of::Node(_)) | None => Err(String::from("it answered something else")),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::sleep;

    use super::*;

    fn ids(attending: &Attending) -> Vec<String> {
        let streams = attending.0.lock().unwrap();
        streams.by_number.values().map(|one| format!("{}:{}", one.caller, one.node.pod)).collect()
    }

    #[test]
    fn a_caller_has_so_many_places_and_takes_none_of_another() {
        let attending = Attending::default();
        let mut places = Vec::new();
        for (caller, pod) in [("a", "w"), ("b", "w"), ("b", "x"), ("b", "w"), ("b", "y"), ("b", "z")] {
            let node = NodeInfo::new("waypoint", None, pod, "shop");
            places.push(attending.enter(caller.into(), 3, node).unwrap());
        }
        assert_eq!(ids(&attending), ["a:w", "b:w", "b:y", "b:z"]);
        // Who made room hears of it.
        assert!(places[2].1.is_closed());
        drop(places);
        assert_eq!(attending.count(), 0);
    }

    /// So many proxies, of which each takes a second to answer with more than it is asked for, or never does; and how often
    /// any was asked.
    fn proxies(count: usize, silent: bool) -> (Attending, Arc<AtomicUsize>) {
        let (attending, asked) = (Attending::default(), Arc::new(AtomicUsize::new(0)));
        for number in 0..count {
            let node = NodeInfo::new("waypoint", None, &format!("w-{number}"), "shop");
            let (place, mut questions) = attending.enter(format!("{number}").into(), 1, node).unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let _place = place;
                let mut unanswered = Vec::new();
                while let Some((_, answer)) = questions.recv().await {
                    asked.fetch_add(1, Ordering::Relaxed);
                    if silent {
                        unanswered.push(answer);
                        continue;
                    }
                    sleep(Duration::from_secs(1)).await;
                    let _ = answer.send(Ok(vec![Decision::default(); 5]));
                }
            });
        }
        (attending, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn what_many_say_is_never_there_at_once() {
        let (attending, asked) = proxies(200, false);
        let mut said = pin!(attending.decisions(&DecisionQuery { limit: 2, ..DecisionQuery::default() }));
        let (mut taken, mut most) = (0, 0);
        while let Some(Said { node, records }) = said.next().await {
            most = most.max(asked.load(Ordering::Relaxed) - taken);
            taken += 1;
            assert_eq!(records.map(|records| records.len()), Ok(2), "{}", node.pod);
            // Who reads slowly holds the next ones up.
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((taken, most), (200, AT_ONCE));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_does_not_keep_the_others_waiting_for_ever() {
        let (attending, asked) = proxies(300, true);
        let begun = Instant::now();
        let said: Vec<_> = attending
            .decisions(&DecisionQuery::default())
            .map(|said| said.records.unwrap_err())
            .collect()
            .await;
        assert_eq!(begun.elapsed().as_secs(), TOGETHER.as_secs());
        assert_eq!(asked.load(Ordering::Relaxed), 3 * AT_ONCE, "within 3, 6 and 8 seconds");
        let count = |text: &str| said.iter().filter(|reason| reason.contains(text)).count();
        assert_eq!(
            [count("within 3 s"), count("within 2 s"), count("was not asked")],
            [2 * AT_ONCE, AT_ONCE, 300 - 3 * AT_ONCE]
        );
    }
}
