//! What a rule does with what it takes: forward, redirect or answer.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::headers::HeaderChanges;
use super::mirror::Mirror;
use super::redirect::Redirect;
use super::regex::Substitution;
use super::retry::RetryPolicy;
use crate::address::{NamespacedHostname, Str};
use crate::select::Draw;

/// What a rule does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `route`: sends the request on.
    Forward(Box<Forward>),
    /// `redirect`: sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// `directResponse`: answers.
    Respond(Box<DirectResponse>),
}

/// Where a request goes and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forward {
    /// Where to.
    pub destinations: Destinations,
    /// References of this rule that do not resolve, such as `DestinationRule subset default/reviews v3`: named in the
    /// answer when no destination is left.
    pub missing: Box<[Str]>,
    /// `rewrite.uri` or `rewrite.uriRegexRewrite`.
    pub rewrite_path: Option<PathRewrite>,
    /// `rewrite.authority`.
    pub rewrite_authority: Option<Str>,
    /// `timeout`: for all tries together, from when the whole request has come; `None` (or 0 in the API) is no limit,
    /// Istio's default.
    pub timeout: Option<Duration>,
    /// `retries`; `None` (`attempts: 0`) is never.
    pub retry: Option<Arc<RetryPolicy>>,
    /// `mirror` and `mirrors`.
    pub mirrors: Box<[Mirror]>,
}

/// The destinations of a rule. Whether one or several were written matters beyond the choice: see
/// [`head`](super::head).
#[derive(Debug, Clone, PartialEq)]
pub enum Destinations {
    /// The only one, whatever weight it was given.
    One(Destination),
    /// One of several. Those that do not resolve have been left out, and so there may be none.
    Split(Box<[Weighted]>),
}

/// A destination and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// Its share is this by the sum of all weights; 0 is none.
    pub weight: u32,
    /// The destination.
    pub destination: Destination,
}

/// A service, or some of its endpoints (`Destination` with the `headers` beside it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The service.
    pub service: NamespacedHostname,
    /// `subset`, as the service's DestinationRule calls it.
    pub subset: Option<Str>,
    /// `port.number`; `None` is the port that the client wanted. The controller has already put in the port of a
    /// service that has one only.
    pub port: Option<u16>,
    /// `headers`: what is changed for this destination alone.
    pub headers: HeaderChanges,
}

/// `rewrite` of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// In place of the prefix that matched, or of the whole path where it matched exactly or by a regex. Text, not
    /// segments: `/` for `/api` makes `//x` of `/api/x`, as in Istio.
    Replace(Str),
    /// In place of everything that matches.
    Regex(Substitution),
}

/// `directResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status.
    pub status: StatusCode,
    /// The body, at most a megabyte; without one the answer is empty.
    pub body: Option<Arc<[u8]>>,
}

impl Default for Destinations {
    fn default() -> Self {
        Self::Split(Box::default())
    }
}

impl Destination {
    /// All of a service, on the port that the client wanted.
    pub fn of(service: NamespacedHostname) -> Self {
        Self { service, subset: None, port: None, headers: HeaderChanges::default() }
    }
}

impl Forward {
    /// The default routing of a service: to its endpoints, with Istio's default retries and no time limit.
    pub fn to_service(service: NamespacedHostname) -> Self {
        Self {
            destinations: Destinations::One(Destination::of(service)),
            retry: Some(RetryPolicy::shared_default()),
            ..Self::default()
        }
    }
}

impl Destinations {
    /// One of them, each as likely as its weight is large; `None` if there are none with a weight.
    pub fn choose(&self, draw: Draw<'_>) -> Option<&Destination> {
        match self {
            Self::One(destination) => Some(destination),
            Self::Split(all) => {
                let total = all.iter().fold(0_u32, |sum, one| sum.saturating_add(one.weight));
                let mut drawn = if total == 0 { return None } else { draw(total) };
                let chosen = all.iter().find(|one| {
                    let chosen = drawn < one.weight;
                    drawn = drawn.saturating_sub(one.weight);
                    chosen
                });
                chosen.map(|one| &one.destination)
            }
        }
    }

    /// All of them, also those without a share.
    pub fn all(&self) -> impl Iterator<Item = &Destination> {
        let (one, split) = match self {
            Self::One(one) => (Some(one), [].as_slice()),
            Self::Split(all) => (None, &all[..]),
        };
        one.into_iter().chain(split.iter().map(|weighted| &weighted.destination))
    }
}
