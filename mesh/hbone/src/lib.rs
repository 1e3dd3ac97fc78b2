//! HBONE: HTTP/2 CONNECT tunnels over mutual TLS, framed by ourselves.
//!
//! The life of a proxied connection, in the order of the modules:
//!
//! ```text
//! app ─ Connection ─┐                                                    ┌─ Connection ─ app
//!     (connection)  └ splice ─ tunnel ─ protocol ─ transport ══ TLS ══ … ┘
//! ```
//!
//! * [`connection`]: one proxied TCP connection as a value that can move between tunnels and threads,
//!   with its counters ([`Live`](connection::Live)) and its pod's [`account`]; [`fairness`] shares a thread
//!   between pods;
//! * [`splice`]: what joins a connection and a CONNECT stream until both directions have ended, or until it
//!   is cut or detached; [`passthrough`] does the same between two plain sockets;
//! * [`tunnel`]: one HTTP/2 connection on one thread, as client and as server; `protocol` is its
//!   state machine without I/O, `frame` and `hpack` are what it reads and writes;
//! * [`transport`]: the bytes below, TLS or plain, one large read and one large write a turn;
//! * [`pool`]: tunnels by key, per thread; [`handshakes`]: those whose peer has not shown yet who it is;
//! * [`limits`]: every bound, with its default and source; [`windows`]: what flow control lets peers send ahead.
//!
//! A tunnel belongs to one thread for life (`docs/decisions/0001-own-framing.md` says why): its handles are
//! `!Send`, its driver is a future that the owner spawns with `tokio::task::spawn_local`. Only
//! [`Connection`](connection::Connection) values and [`Live`](connection::Live) handles cross threads.

pub mod connection;

pub mod account;

pub mod fairness;

pub mod splice;

pub mod passthrough;

pub mod tunnel;

mod protocol;

mod frame;

mod waiting;

pub mod headers;

pub mod hpack;

pub mod transport;

pub mod pool;

pub mod dial;

pub mod handshakes;

pub mod limits;

pub mod windows;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
