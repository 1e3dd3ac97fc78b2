//! Which proxies a request meets on its way, and as whom.

use super::{Binding, Client, Target};

/// Who shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Whom the policies allow.
    Friend,
    /// Whom they do not.
    Stranger,
    /// The waypoint that is a client.
    Lobby,
}

impl Account {
    /// As policies name it.
    pub fn principal(self) -> &'static str {
        match self {
            Self::Friend => "cluster.local/ns/clients/sa/friend",
            Self::Stranger => "cluster.local/ns/clients/sa/stranger",
            Self::Lobby => "cluster.local/ns/hall/sa/lobby",
        }
    }
}

/// A waypoint of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waypoint {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
}

/// The waypoint that stands in front of what [`Client::Waypoint`] asks for.
pub const LOBBY: Waypoint = Waypoint { namespace: "hall", name: "lobby" };

/// How a client that goes by waypoints gets from where it is to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Straight to the pod, whose agent judges.
    Straight,
    /// By a waypoint, which judges; the pod's agent leaves it to it.
    By(Waypoint),
    /// By a waypoint that has no replica now.
    NoReplica(Waypoint),
}

/// Who stands in front of what is addressed so, for clients that go by waypoints.
///
/// What is addressed to a service goes by the service's waypoint: its own label, else its pods' account, else its
/// namespace. What is addressed to a pod goes by the pod's; and the name of a headless service stands for its pods' addresses. A
/// label alone binds nothing: only a waypoint that has been ready once does, and from then on nothing goes around it.
pub fn way(target: Target, binding: Binding) -> Way {
    let to_service = target == Target::Service;
    let in_test = |name| Waypoint { namespace: "test", name };
    match binding {
        Binding::None | Binding::NeverReady => Way::Straight,
        Binding::Service if to_service => Way::By(in_test("front")),
        Binding::Service => Way::Straight,
        Binding::Account => Way::By(in_test("guard")),
        Binding::Both if to_service => Way::By(in_test("front")),
        Binding::Both => Way::By(in_test("sentry")),
        Binding::NamespaceServices if to_service => Way::By(Waypoint { namespace: "services", name: "way" }),
        Binding::NamespaceServices => Way::Straight,
        Binding::NamespaceAll => Way::By(Waypoint { namespace: "everything", name: "way" }),
        Binding::Elsewhere => Way::By(Waypoint { namespace: "infra", name: "shared" }),
        Binding::Down => Way::NoReplica(in_test("gone")),
    }
}

/// Who judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcer {
    /// The agent at the pod: it sees connections.
    Agent,
    /// A waypoint: it sees requests.
    Waypoint(Waypoint),
}

/// One judgement on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judge {
    /// Who judges.
    pub enforcer: Enforcer,
    /// By whom it is asked, as far as that is proved.
    pub peer: Option<Account>,
    /// Whether it has the server's pod before it, which policies select; a waypoint that sends on to another has not.
    pub at_server: bool,
    /// Whether it is asked for the server's service by the service's address: policies attached to services are about that.
    pub at_service: bool,
}

/// Who judges on the way of a client to a server, one after the other, and whether there is a way at all.
pub fn judges(client: Client, target: Target, binding: Binding) -> (Vec<Judge>, Way) {
    // What does not go through an agent at its beginning knows no waypoints.
    let way = match client {
        Client::Plaintext | Client::HostNear | Client::HostFar => Way::Straight,
        Client::Friend | Client::Stranger | Client::Waypoint => way(target, binding),
    };
    let mut judges = Vec::new();
    let mut peer = client.account();
    if client == Client::Waypoint {
        // It judges who asks for what is behind it. What it then asks for, it asks for as itself: it is in nobody's
        // set of trusted waypoints but its own servers'.
        let at_server = way == Way::Straight;
        let enforcer = Enforcer::Waypoint(LOBBY);
        judges.push(Judge { enforcer, peer, at_server, at_service: false });
        peer = Some(Account::Lobby);
    }
    match way {
        Way::Straight => {
            judges.push(Judge { enforcer: Enforcer::Agent, peer, at_server: true, at_service: false });
        }
        Way::By(waypoint) => {
            let enforcer = Enforcer::Waypoint(waypoint);
            let at_service = target == Target::Service;
            judges.push(Judge { enforcer, peer, at_server: true, at_service });
        }
        Way::NoReplica(_) => {}
    }
    (judges, way)
}
