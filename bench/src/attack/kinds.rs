//! The attacks: what each does, how fast, over which door, and which of our limits it runs into.

use std::time::Duration;

use clap::ValueEnum;

/// An attack's name, as on the command line and in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Streams that are opened and reset at once.
    RapidReset,
    /// A header block that is continued for ever.
    Continuation,
    /// A header block of 4 KiB that decodes to 16 MiB.
    HpackBomb,
    /// Streams that the server is made to reset: a window update of 0, one too large, DATA after the end.
    MadeYouReset,
    /// DATA frames of one byte.
    SmallData,
    /// DATA frames of none.
    EmptyData,
    /// PINGs, each to be answered.
    Ping,
    /// SETTINGS, each to be answered.
    Settings,
    /// Streams whose application sends as much as it can, to a reader that never grants anything.
    ZeroWindow,
    /// Connections that send a ClientHello byte by byte, or nothing at all.
    SlowHandshake,
    /// Connections to the tunnel's port that are reset at once.
    ConnectFlood,
    /// Connections that an enrolled pod opens and closes at once.
    OutboundFlood,
    /// DNS queries that are garbage, of the largest size, or names that point to themselves.
    DnsGarbage,
    /// DNS queries for names that differ each time.
    DnsNames,
    /// A process of the node's root that speaks nonsense on the agent's own sockets, with descriptors.
    Sockets,
    /// A controller that sends garbage, resources that are too large, and messages that are longer than they may be.
    Controller,
    /// A controller that lets streams begin and says nothing more.
    SilentController,
}

/// How the attacker comes to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Over tunnels of its own, with a certificate of the mesh.
    Tunnel,
    /// TCP to the tunnel's port, with no certificate.
    Tcp,
    /// From a pod that the client's proxy serves too.
    Pod,
    /// DNS from such a pod.
    Dns,
    /// The sockets of the agent itself.
    Sockets,
    /// In the place of the controller.
    Controller,
}

/// Whose memory and time an attack is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The proxy of the pod that the bystander calls.
    Server,
    /// The bystander's own.
    Client,
}

/// What is known of an attack beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub door: Door,
    pub aim: Aim,
    /// Steps a second, over all connections of the attacker.
    pub rate: u32,
    /// What a step is.
    pub step: &'static str,
    /// Before the bystander is looked at: what builds up has built up.
    pub lead: Duration,
    /// Our limit that is hit, by the label of its counter; of several with `|` between them, any.
    pub limit: Option<&'static str>,
}

impl Attack {
    /// As in the table.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it does, how fast, and which limit is there for it.
    pub(crate) fn plan(self) -> Plan {
        let tunnel = |rate, step, limit| Plan {
            door: Door::Tunnel,
            aim: Aim::Server,
            rate,
            step,
            lead: SHORT,
            limit: Some(limit),
        };
        let none = |door, aim, rate, step| Plan { door, aim, rate, step, lead: SHORT, limit: None };
        match self {
            Self::RapidReset => tunnel(10_000, "streams", "tunnel_resets"),
            Self::Continuation => tunnel(10_000, "frames of 1 KB", "tunnel_header_block"),
            Self::HpackBomb => tunnel(500, "blocks", "tunnel_decoded_headers"),
            Self::MadeYouReset => tunnel(10_000, "streams", "tunnel_resets"),
            Self::SmallData => Plan { limit: None, ..tunnel(50_000, "frames", "") },
            Self::EmptyData => tunnel(50_000, "frames", "tunnel_empty_frames"),
            Self::Ping => tunnel(20_000, "frames", "tunnel_pings"),
            // Each tunnel is ended (`tunnel_settings`), and who had some ended is kept out.
            Self::Settings => tunnel(20_000, "frames", "pod_offenders"),
            // Nothing is refused: a stream that nobody reads is simply not read from.
            Self::ZeroWindow => Plan { limit: None, lead: LONG, ..tunnel(2_000, "streams, up to 800", "") },
            Self::SlowHandshake => Plan {
                lead: LONG,
                // Whichever is less: those that are not finished, or all.
                limit: Some("pod_handshakes_of_peer|pod_tunnels_of_peer"),
                ..none(Door::Tcp, Aim::Server, 2_000, "connections, up to 3,000")
            },
            Self::ConnectFlood => none(Door::Tcp, Aim::Server, 2_000, "connections"),
            Self::OutboundFlood => none(Door::Pod, Aim::Client, 1_000, "connections"),
            Self::DnsGarbage => none(Door::Dns, Aim::Client, 5_000, "datagrams"),
            Self::DnsNames => none(Door::Dns, Aim::Client, 5_000, "queries"),
            Self::Sockets => none(Door::Sockets, Aim::Server, 200, "connections"),
            Self::Controller | Self::SilentController => {
                Plan { lead: LONG, ..none(Door::Controller, Aim::Server, 0, "its own pace") }
            }
        }
    }

    /// Whether a peer has what is attacked.
    pub(crate) fn concerns_peers(self) -> bool {
        !matches!(self.plan().door, Door::Dns | Door::Sockets | Door::Controller)
    }
}

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(2);
