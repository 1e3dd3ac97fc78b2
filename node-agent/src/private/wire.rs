//! The messages of the private socket. Fields are only ever added.

use prost::{Message, Oneof};

/// Proxy to redirector.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FromProxy {
    #[prost(oneof = "Said", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(crate) said: Option<Said>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Said {
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// The redirector's message of this sequence number has been taken in.
    #[prost(uint64, tag = "2")]
    Received(u64),
    /// Keep the memory files that come with this, in place of all that were kept; the number is how many they are.
    #[prost(uint64, tag = "3")]
    Store(u64),
    /// The last captured connection of this draining pod has ended.
    #[prost(string, tag = "4")]
    Drained(String),
    /// Instead of a hello: this is no proxy but another redirector, which is to take this one's place.
    #[prost(message, tag = "5")]
    TakeOver(Hello),
    /// It has everything.
    #[prost(bool, tag = "6")]
    Taken(bool),
    /// It was told to end: another is to take its place, and its connections.
    #[prost(bool, tag = "7")]
    Leaving(bool),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) oldest: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) newest: u32,
}

/// Redirector to proxy.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToProxy {
    /// To be answered with `Received`; 0 in the hand-over, which is not answered message by message.
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(oneof = "News", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub(crate) news: Option<News>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum News {
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    #[prost(string, tag = "3")]
    Refused(String),
    #[prost(message, tag = "4")]
    Pod(PodMessage),
    #[prost(bool, tag = "5")]
    Complete(bool),
    #[prost(string, tag = "6")]
    Draining(String),
    #[prost(string, tag = "7")]
    Resumed(String),
    #[prost(string, tag = "8")]
    Removed(String),
    /// From version 2 on with a descriptor: one end of a socket, at whose other end the successor waits for what can be
    /// handed over.
    #[prost(bool, tag = "9")]
    Superseded(bool),
    /// From version 2 on: a proxy is there that this one takes the place of. The descriptor is the other end of its
    /// socket.
    #[prost(bool, tag = "10")]
    Predecessor(bool),
    /// To another redirector: a connected proxy, the oldest first. The descriptor is our end of its socket.
    #[prost(message, tag = "11")]
    Proxy(ProxyMessage),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Welcome {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// Whether memory files come with this.
    #[prost(bool, tag = "2")]
    pub(crate) state: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProxyMessage {
    /// The version spoken with it.
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// The last sequence number it was sent.
    #[prost(uint64, tag = "2")]
    pub(crate) sequence: u64,
    /// Whether a newer one has taken its place.
    #[prost(bool, tag = "3")]
    pub(crate) superseded: bool,
}

/// The descriptors: the namespace, then one a slot.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodMessage {
    #[prost(string, tag = "1")]
    pub(crate) uid: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(string, tag = "4")]
    pub(crate) service_account: String,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) slots: Vec<i32>,
    #[prost(bool, tag = "6")]
    pub(crate) draining: bool,
    /// Mark of what the proxy opens to the application; 0 as everything else it sends.
    #[prost(uint32, tag = "7")]
    pub(crate) app_mark: u32,
}
