//! One client of the server: what it subscribed to, what it has, what it lacks, and the next response for it.
//!
//! What a wildcard client has is not listed: it is the store's content at a revision, and the store's log says what
//! changed since. Only the differences still to be sent are kept. Responses are made when there is room for them,
//! from what the store holds then: a slow client gets the newest state, not a queue.
//!
//! Types are sent in the store's order and lose resources in the opposite one, so that a policy comes before the
//! workload that names it and goes after it.

mod topic;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use model::address::Str;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use thiserror::Error;

use self::topic::{Chunk, Topic};
use super::digest;
use super::store::{Resource, Revision, Store};

/// Responses that may be on their way unacknowledged.
const MAX_UNACKED: usize = 4;
/// A response is closed once it has this many bytes: the client applies one while the next is on its way, and what
/// waits for a slow client is bounded. More at once is no faster, and each client needs several times as much memory
/// while it takes one over, which its allocator then keeps.
const RESPONSE_BYTES: usize = 1 << 18;
/// What is taken of what a client says about a response that it refuses, in bytes. Ours say at most half of it: some
/// refusals, each cut.
const MAX_ERROR: usize = 16 << 10;
/// What is taken of the name of a type that nobody knows.
const MAX_TYPE: usize = 256;
/// Names that one client may subscribe to, of one type.
const MAX_NAMES: usize = 1 << 17;

/// What a client is sent in the place of what it would not understand (design decision D14): by type and resource,
/// nothing where it understands it. What it gives has to be another version than what it stands for.
#[derive(Clone)]
pub struct Fit(Arc<Fitting>);

type Fitting = dyn Fn(&str, &Resource) -> Option<Resource> + Send + Sync;

impl Fit {
    /// By this function.
    pub fn new(fitting: impl Fn(&str, &Resource) -> Option<Resource> + Send + Sync + 'static) -> Self {
        Self(Arc::new(fitting))
    }
}

impl fmt::Debug for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fit")
    }
}

/// One client.
#[derive(Debug)]
pub struct Session {
    /// By the place of their type in the store.
    topics: Vec<Option<Topic>>,
    in_flight: VecDeque<InFlight>,
    sent: u64,
    response_bytes: usize,
    /// What a client that names resources is sent all the same: what goes with this name.
    unasked: Option<Str>,
    fit: Option<Fit>,
}

/// A response that has not been acknowledged.
#[derive(Debug)]
struct InFlight {
    nonce: String,
    place: usize,
    completes: Option<Revision>,
    /// It asks for names; its acknowledgement lists them.
    asks: bool,
    names: Vec<Str>,
}

/// What a request said about an earlier response, or about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client has taken a response over.
    Acked {
        /// The type.
        type_url: Str,
        /// What the response contained or removed.
        names: Vec<Str>,
    },
    /// The client refuses some of a response; the rest it has taken over. It is sent nothing of it again until it
    /// changes.
    Nacked {
        /// The type.
        type_url: Str,
        /// What the response contained or removed; which of it is refused, only the text says.
        names: Vec<Str>,
        /// What the client says.
        error: String,
    },
    /// There are no resources of the type the client asks for.
    UnknownType {
        /// The type.
        type_url: String,
    },
}

/// Why a session cannot go on; the client is to connect again and say what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The client was so slow that the changes since are no longer known.
    #[error("this client fell too far behind; it has to connect again")]
    Behind,
    /// The client asks for too many names.
    #[error("more than {MAX_NAMES} names subscribed; subscribe to all instead")]
    TooManyNames,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A client that has said nothing yet.
    pub fn new() -> Self {
        Self::with_response_bytes(RESPONSE_BYTES)
    }

    /// The same, with responses of about so many bytes.
    pub(crate) fn with_response_bytes(response_bytes: usize) -> Self {
        Self {
            topics: Vec::new(),
            in_flight: VecDeque::new(),
            sent: 0,
            response_bytes,
            unasked: None,
            fit: None,
        }
    }

    /// The same for a client that does not understand everything.
    #[must_use]
    pub fn fitted(mut self, fit: Option<Fit>) -> Self {
        self.fit = fit;
        self
    }

    /// The same for a client that, where it names resources, is sent what goes with this name without asking.
    #[must_use]
    pub fn sent_unasked(mut self, name: Option<Str>) -> Self {
        self.unasked = name;
        self
    }

    /// Takes in a request.
    ///
    /// # Errors
    /// The stream has to end.
    pub fn request(
        &mut self,
        store: &Store,
        request: DeltaDiscoveryRequest,
    ) -> Result<Option<Event>, SessionError> {
        let shelves = store.shelves();
        let Some(place) = shelves.iter().position(|shelf| *shelf.type_url == request.type_url) else {
            return Ok(Some(Event::UnknownType { type_url: head(&request.type_url, MAX_TYPE).to_owned() }));
        };
        let answered = self.acknowledged(&request);
        if self.topics.len() <= place {
            self.topics.resize_with(place + 1, || None);
        }
        match &mut self.topics[place] {
            Some(topic) => {
                if answered.as_ref().is_some_and(|response| response.asks && response.place == place) {
                    topic.read_log(&shelves[place], store.revision()).ok_or(SessionError::Behind)?;
                    topic.listed(&shelves[place], &request.initial_resource_versions);
                }
                topic.subscribe(
                    &shelves[place],
                    &request.resource_names_subscribe,
                    &request.resource_names_unsubscribe,
                );
            }
            empty => {
                let unasked = self.unasked.clone();
                let fit = self.fit.clone();
                *empty = Some(Topic::open(&shelves[place], store.revision(), &request, unasked, fit));
            }
        }
        let event = answered.and_then(|response| response.event(&shelves[place].type_url, request));
        let names = self.topics[place].as_ref().map_or(0, Topic::names);
        if names > MAX_NAMES { Err(SessionError::TooManyNames) } else { Ok(event) }
    }

    fn acknowledged(&mut self, request: &DeltaDiscoveryRequest) -> Option<InFlight> {
        let place = self.in_flight.iter().position(|response| response.nonce == request.response_nonce)?;
        let response = self.in_flight.remove(place)?;
        let earlier = self.in_flight.iter().take(place).any(|earlier| earlier.place == response.place);
        if let Some(topic) = self.topics.get_mut(response.place).and_then(Option::as_mut)
            && let Some(revision) = response.completes
            && !earlier
        {
            topic.acked(revision);
        }
        Some(response)
    }

    /// The next response, if the client lacks anything and has acknowledged enough of what it was sent.
    ///
    /// # Errors
    /// The stream has to end.
    pub fn next(&mut self, store: &Store) -> Result<Option<DeltaDiscoveryResponse>, SessionError> {
        self.read_log(store)?;
        if self.in_flight.len() >= MAX_UNACKED {
            return Ok(None);
        }
        if let Some(response) = (0..self.topics.len()).find_map(|place| self.ask(store, place)) {
            return Ok(Some(response));
        }
        // Until it is known what the client has of one type, the order of types could not be kept.
        if self.topics.iter().flatten().any(Topic::is_waiting) {
            return Ok(None);
        }
        for place in 0..self.topics.len() {
            // What a type loses goes after what the types that name it lose.
            let removals = !self.topics[place + 1..].iter().flatten().any(Topic::has_work);
            if let Some(response) = self.respond(store, place, removals) {
                return Ok(Some(response));
            }
        }
        Ok((0..self.topics.len()).rev().find_map(|place| self.respond(store, place, true)))
    }

    /// Notes what has changed in the store.
    fn read_log(&mut self, store: &Store) -> Result<(), SessionError> {
        for (topic, shelf) in self.topics.iter_mut().zip(store.shelves()) {
            if let Some(topic) = topic {
                topic.read_log(shelf, store.revision()).ok_or(SessionError::Behind)?;
            }
        }
        Ok(())
    }

    /// Asks for the names in the buckets whose digests differ.
    fn ask(&mut self, store: &Store, place: usize) -> Option<DeltaDiscoveryResponse> {
        let chunk = self.topics[place].as_mut()?.ask()?;
        Some(self.send(store, place, chunk, true))
    }

    fn respond(&mut self, store: &Store, place: usize, removals: bool) -> Option<DeltaDiscoveryResponse> {
        let shelf = &store.shelves()[place];
        let chunk = self.topics[place].as_mut()?.take(shelf, removals, self.response_bytes)?;
        Some(self.send(store, place, chunk, false))
    }

    fn send(&mut self, store: &Store, place: usize, chunk: Chunk, asks: bool) -> DeltaDiscoveryResponse {
        self.sent += 1;
        let completes = self.topics[place].as_mut().and_then(Topic::sent);
        let nonce = digest::nonce(self.sent, completes.is_none());
        let names = chunk.names();
        self.in_flight.push_back(InFlight { nonce: nonce.clone(), place, completes, asks, names });
        chunk.into_response(&store.shelves()[place], store.revision(), nonce)
    }

    /// Up to which revision the client is known to have everything of a type; nothing if it has not subscribed.
    pub fn in_force(&self, store: &Store, type_url: &str) -> Option<Revision> {
        let place = store.shelves().iter().position(|shelf| &*shelf.type_url == type_url)?;
        let in_flight = self.in_flight.iter().any(|response| response.place == place);
        Some(self.topics.get(place)?.as_ref()?.in_force(in_flight))
    }

    /// The types that the client has subscribed to.
    pub fn types<'a>(&'a self, store: &'a Store) -> impl Iterator<Item = &'a Str> {
        let topics = self.topics.iter().zip(store.shelves());
        topics.filter(|(topic, _)| topic.is_some()).map(|(_, shelf)| &shelf.type_url)
    }
}

impl InFlight {
    /// What an answer to it says; nothing of interest if it only asked.
    fn event(self, type_url: &Str, request: DeltaDiscoveryRequest) -> Option<Event> {
        if self.asks {
            return None;
        }
        let (type_url, names) = (type_url.clone(), self.names);
        Some(match request.error_detail {
            None => Event::Acked { type_url, names },
            Some(detail) => {
                Event::Nacked { type_url, names, error: head(&detail.message, MAX_ERROR).to_owned() }
            }
        })
    }
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn head(text: &str, most: usize) -> &str {
    let cut = (0..=most.min(text.len())).rev().find(|cut| text.is_char_boundary(*cut));
    &text[..cut.unwrap_or(0)]
}
