//! Every bound of a tunnel in one place: name, default, unit and where the figure comes from.

use std::sync::Arc;
use std::time::Duration;

mod hits;

pub use self::hits::{Hits, Limit};

use crate::windows::Windows;

/// The bounds of one tunnel. Defaults are right for a node agent and for a waypoint.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Flow-control window we grant each stream, bytes. 2 MiB: with 1 MiB a sender in full flow waited for every
    /// grant, and this bounds what a slow application can make us hold.
    pub stream_window: u32,
    /// What it may grow to, bytes, while there is something left in `windows`. As large as `stream_window`: it does not
    /// grow, where the account of who does not read bounds what it holds.
    pub largest_stream_window: u32,
    /// What windows of streams may have beyond `stream_window`, all tunnels together.
    pub windows: Arc<Windows>,
    /// Flow-control window we grant the whole tunnel, bytes. Four times the stream window, or one stalled
    /// stream would block its neighbours.
    pub connection_window: u32,
    /// Largest frame we accept, bytes (`SETTINGS_MAX_FRAME_SIZE`). DATA is streamed as it arrives, so that a
    /// large frame costs no memory. 1 MiB, as ztunnel.
    pub max_frame: u32,
    /// Streams a peer may have open at once on a tunnel we serve (`SETTINGS_MAX_CONCURRENT_STREAMS`). 200, as
    /// ztunnel.
    pub server_streams: u32,
    /// Streams we open on one tunnel; the peer's own limit counts too if lower. 100, as ztunnel's pool.
    pub client_streams: u32,
    /// Encoded bytes of one header block, HEADERS and all its CONTINUATION frames together. 32 KiB: twice what a
    /// CONNECT with the largest baggage needs; what is larger ends the tunnel (`ENHANCE_YOUR_CALM`).
    pub header_block: usize,
    /// Decoded bytes of one header block, counted as HTTP/2 does (name + value + 32 each): 64 KiB as ztunnel's
    /// server. Counted while decoding, so that a small block cannot grow large (`SETTINGS_MAX_HEADER_LIST_SIZE`).
    pub decoded_headers: usize,
    /// Fields in one header block. 100; ztunnel sends three, Envoy's waypoints some ten.
    pub header_fields: usize,
    /// CONTINUATION frames in one header block. 16: a block of 32 KiB needs two.
    pub continuations: u32,
    /// HPACK dynamic table a peer's encoder may use, bytes (`SETTINGS_HEADER_TABLE_SIZE`). 4096, HTTP/2's default.
    pub header_table: usize,
    /// RST_STREAM frames from the peer for streams we know, plus resets its errors force on us, per second.
    /// 1,000: a full tunnel of connections that all fail at once may reset five times over ("rapid reset",
    /// "MadeYouReset"). More ends the tunnel with `ENHANCE_YOUR_CALM`.
    pub resets_per_second: u32,
    /// PING frames (not acknowledgements) from the peer per second. 20; keepalive needs one in ten seconds.
    pub pings_per_second: u32,
    /// SETTINGS frames (not acknowledgements) from the peer per second. 10.
    pub settings_per_second: u32,
    /// Frames per second that carry nothing: empty DATA without END_STREAM, PRIORITY, unknown types, WINDOW_UPDATE
    /// for streams that are gone. 10,000: each costs us less than a microsecond.
    pub empty_frames_per_second: u32,
    /// Control frames that wait because the peer does not read, bytes. 256 KiB: a full tunnel's answers and resets take
    /// a tenth; more is a peer that asks without listening, and ends the tunnel.
    pub queued_control: usize,
    /// How long a peer may be silent before we ask (PING). 10 s, as ztunnel and Envoy.
    pub keepalive_interval: Duration,
    /// How long after that PING the tunnel is given up if nothing at all was heard. 20 s.
    pub keepalive_timeout: Duration,
    /// The TLS handshake, from first byte to last. 10 s, as the TCP connect before it.
    pub handshake_timeout: Duration,
    /// TLS records sealed under one key before it is changed (where records are sealed in place). 2^23: half of what
    /// RFC 8446 §5.5 allows AES-GCM.
    pub records_per_key: u64,
    /// How long a CONNECT may stay unanswered. 15 s: the far side's own connect to the application may take 10.
    pub connect_timeout: Duration,
    /// After our GOAWAY, how long the closing handshake (close_notify, unsent control frames) may take once the
    /// last stream has ended. 2 s.
    pub close_timeout: Duration,
    /// Requests a server tunnel holds for its owner to take. Equal to `server_streams`: what is open is bounded
    /// already; above it a stream is refused (`REFUSED_STREAM`).
    pub pending_requests: usize,
    /// Reads of 128 KiB a tunnel does before it lets others run. 2 (measured: `docs/decisions/0001`).
    pub reads_per_turn: u32,
    /// Bytes one stream may put into a tunnel per turn while others are open. 64 KiB: half of one send.
    pub stream_bytes_per_turn: usize,
    /// Unused pooled tunnels are released after this. 5 min, as ztunnel (`POOL_UNUSED_RELEASE_TIMEOUT`).
    pub pool_idle: Duration,
    /// The same where the key has another tunnel: what a peak of connections opened goes soon after it. 10 s.
    pub pool_surplus_idle: Duration,
    /// How long a detach may wait for the far side's answer before the connection is given up. 30 s: a peer that is silent
    /// for so long has lost its tunnel too (`keepalive_interval` and `keepalive_timeout`).
    pub detach_timeout: Duration,
    /// Bytes of a cause text on the control stream; longer ones are cut there. 512.
    pub cause_text: usize,
    /// Whether connections can be taken off a tunnel and go on through another: this end shows it and keeps to it. Not
    /// where streams are read as bytes: what nobody splices is never given back.
    pub hands_over: bool,
    /// How often which was hit.
    pub hits: Arc<Hits>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: 2 << 20,
            largest_stream_window: 2 << 20,
            windows: Windows::new(0),
            connection_window: 8 << 20,
            max_frame: 1 << 20,
            server_streams: 200,
            client_streams: 100,
            header_block: 32 << 10,
            decoded_headers: 64 << 10,
            header_fields: 100,
            continuations: 16,
            header_table: 4096,
            resets_per_second: 1000,
            pings_per_second: 20,
            settings_per_second: 10,
            empty_frames_per_second: 10_000,
            queued_control: 256 << 10,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            records_per_key: 1 << 23,
            connect_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(2),
            pending_requests: 200,
            reads_per_turn: 2,
            stream_bytes_per_turn: 64 << 10,
            pool_idle: Duration::from_secs(300),
            pool_surplus_idle: Duration::from_secs(10),
            detach_timeout: Duration::from_secs(30),
            cause_text: 512,
            hands_over: true,
            hits: Arc::default(),
        }
    }
}
