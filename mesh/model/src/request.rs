//! What a layer-7 decision sees of a request. It is made once a request, from the canonical path, and routing and policy
//! read the same value, so that they cannot see different things.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::{HeaderMap, Method};

use crate::address::Str;
use crate::identity::Identity;

/// A request, and who it comes from.
#[derive(Debug, Clone, Copy)]
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
