//! What a request is to meet, by who asks, whom, how that is bound to a waypoint, and which policies there are: written from
//! what is decided (`docs/ARCHITECTURE.md`, decisions 3 and 14), without a look at the code that decides. The test that asks
//! a running mesh is `e2e/tests/verdicts.rs`; [`table`] prints it for people.
//!
//! It comes in two steps. [`way`] says which proxies are met, and as whom: each of them judges. [`policies`] has the
//! policies and what each of them makes of a request, of which an enforcer sees more or less.

pub mod asking;
pub mod expected;
pub mod manifests;
pub mod policies;
pub mod table;
pub mod way;

use self::way::Account;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// A pod of the mesh, whose account the policies speak of.
    Friend,
    /// Another one, whom they do not allow.
    Stranger,
    /// A pod that is not of the mesh.
    Plaintext,
    /// A pod in the network of the node that the servers are on.
    HostNear,
    /// One in the network of another node.
    HostFar,
    /// Another waypoint: the friend asks for a service behind it, and its rules lead to the server.
    Waypoint,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The service, by its name.
    Service,
    /// The pod, by its address.
    Pod,
    /// The service without an address of its own, by its name: that is its pod's address.
    Headless,
}

/// How a server is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Nobody asks for a waypoint.
    None,
    /// Its services do by a label, its pod does not.
    Service,
    /// A Gateway is for its account.
    Account,
    /// Its services by a label to one waypoint, its account to another.
    Both,
    /// The namespace's label, to a waypoint for services.
    NamespaceServices,
    /// The namespace's label, to a waypoint for everything.
    NamespaceAll,
    /// Labels of its services and its pod, to a waypoint of another namespace.
    Elsewhere,
    /// The same, to one whose replicas are gone.
    Down,
    /// The same, to one that has never had a replica.
    NeverReady,
}

/// What is asked. The policies are about methods and paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// `GET /open`
    Open,
    /// `GET /closed`
    Closed,
    /// `POST /open`
    Write,
    /// `GET /closed` to a port of which nothing says that it is HTTP.
    Undeclared,
    /// A connection that is no HTTP, to a port that says so.
    Bytes,
}

impl Client {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Friend, Self::Stranger, Self::Plaintext, Self::HostNear, Self::HostFar, Self::Waypoint];

    /// Whose certificate it shows.
    pub fn account(self) -> Option<Account> {
        match self {
            Self::Friend | Self::Waypoint => Some(Account::Friend),
            Self::Stranger => Some(Account::Stranger),
            Self::Plaintext | Self::HostNear | Self::HostFar => None,
        }
    }

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Friend => "friend",
            Self::Stranger => "stranger",
            Self::Plaintext => "plaintext",
            Self::HostNear => "hostNetwork, same node",
            Self::HostFar => "hostNetwork, other node",
            Self::Waypoint => "another waypoint",
        }
    }
}

impl Target {
    /// All.
    pub const ALL: [Self; 3] = [Self::Service, Self::Pod, Self::Headless];

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Pod => "pod address",
            Self::Headless => "headless",
        }
    }
}

impl Binding {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Service,
        Self::Account,
        Self::Both,
        Self::NamespaceServices,
        Self::NamespaceAll,
        Self::Elsewhere,
        Self::Down,
        Self::NeverReady,
    ];

    /// The name of its server.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Service => "service",
            Self::Account => "account",
            Self::Both => "both",
            Self::NamespaceServices | Self::NamespaceAll => "namespace",
            Self::Elsewhere => "elsewhere",
            Self::Down => "down",
            Self::NeverReady => "never",
        }
    }

    /// The namespace of its server.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::NamespaceServices => "services",
            Self::NamespaceAll => "everything",
            _ => "test",
        }
    }

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Service => "service",
            Self::Account => "account",
            Self::Both => "service to one, account to another",
            Self::NamespaceServices => "namespace, for services",
            Self::NamespaceAll => "namespace, for all",
            Self::Elsewhere => "another namespace's waypoint",
            Self::Down => "waypoint down",
            Self::NeverReady => "declared, never ready",
        }
    }
}

impl Request {
    /// All.
    pub const ALL: [Self; 5] = [Self::Open, Self::Closed, Self::Write, Self::Undeclared, Self::Bytes];

    /// Its method and path, where it is HTTP.
    pub fn head(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Open => Some(("GET", "/open")),
            Self::Closed | Self::Undeclared => Some(("GET", "/closed")),
            Self::Write => Some(("POST", "/open")),
            Self::Bytes => None,
        }
    }

    /// The port of the server that it goes to.
    pub fn port(self) -> u16 {
        match self {
            Self::Open | Self::Closed | Self::Write => 8080,
            Self::Undeclared => 8081,
            Self::Bytes => 9000,
        }
    }
}

/// One cell: who asks whom what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Who asks.
    pub client: Client,
    /// What is asked for.
    pub target: Target,
    /// How that is bound.
    pub binding: Binding,
    /// What is asked.
    pub request: Request,
}

impl Cell {
    /// Every combination that makes sense: a waypoint's rules lead to services, and to their port of HTTP only.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for client in Client::ALL {
            for binding in Binding::ALL {
                for target in Target::ALL {
                    for request in Request::ALL {
                        let cell = Self { client, target, binding, request };
                        all.extend(cell.makes_sense().then_some(cell));
                    }
                }
            }
        }
        all
    }

    fn makes_sense(self) -> bool {
        self.client != Client::Waypoint || (self.target != Target::Pod && self.request.port() == 8080)
    }
}
