//! What a layer-7 decision sees of a request. It is made once a request, from the canonical path, and routing and policy
//! read the same value, so that they cannot see different things.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, Method};

use crate::address::Str;
use crate::identity::Identity;

/// A request, and who it comes from.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The method, as sent.
    pub method: &'a Method,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
    /// Host and, where it was sent, port: `:authority` or `Host`, in lower case.
    pub authority: &'a str,
    /// The path in its one canonical form, without the query; begins with `/` (`*` for `OPTIONS *`).
    pub path: &'a str,
    /// What follows the `?`, as sent.
    pub query: Option<&'a str>,
    /// The headers, as sent: repeated ones stay apart.
    pub headers: &'a HeaderMap,
    /// The original client.
    pub client: Client<'a>,
    /// Where the client wanted to: the service's address and port, or the pod's.
    pub destination: SocketAddr,
    /// What `X-Forwarded-For` says, once somebody has asked: empty in a request that is made.
    pub forwarded: Forwarded,
}

impl Request<'_> {
    /// The addresses that `X-Forwarded-For` names; nothing where one of them is none, or where there are more than
    /// [`MAX_FORWARDED`].
    pub(crate) fn forwarded(&self) -> Option<&[IpAddr]> {
        self.forwarded.0.get_or_init(|| read_forwarded(self.headers)).as_deref()
    }
}

/// The addresses of `X-Forwarded-For`, read once a request: its rules may have thousands of ranges.
#[derive(Debug, Clone, Default)]
pub struct Forwarded(OnceCell<Option<Vec<IpAddr>>>);

/// As many addresses of `X-Forwarded-For` are believed at most: no request goes through so many proxies, and each range of
/// each rule is compared with all of them.
pub const MAX_FORWARDED: usize = 32;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

fn read_forwarded(headers: &HeaderMap) -> Option<Vec<IpAddr>> {
    let address = |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse().ok();
    let values = headers.get_all(FORWARDED_FOR).iter();
    let addresses = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let read: Option<Vec<IpAddr>> = addresses.take(MAX_FORWARDED + 1).map(address).collect();
    read.filter(|read| read.len() <= MAX_FORWARDED)
}

/// The original client of a request.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// Who it is, by the tunnel's certificate; `None` for plaintext.
    pub identity: Option<&'a Identity>,
    /// The labels of its workload, if the mesh knows it.
    pub labels: Option<&'a BTreeMap<Str, Str>>,
}
