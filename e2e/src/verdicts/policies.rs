//! The policies, and what each makes of a request.

use super::way::{Account, Enforcer, Judge, LOBBY, Waypoint};
use super::{Binding, Request};

/// What a policy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Only what a rule allows passes.
    Allow,
    /// What a rule matches does not pass.
    Deny,
    /// What would be denied is only told of (`istio.io/dry-run`).
    DryRun,
    /// What a rule matches is told of.
    Audit,
}

/// What of a request a rule is about, beside who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `methods: [GET], paths: [/open]`
    GetOpen,
    /// `paths: [/closed]`
    Closed,
}

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The servers, by a selector.
    Servers,
    /// The servers' namespaces: no selector.
    Namespace,
    /// The mesh: no selector, in the root namespace.
    Mesh,
    /// The namespaces of waypoints that servers of other namespaces are behind: no selector.
    OtherNamespaces,
    /// The servers' services, by targetRefs.
    Services,
    /// The servers' waypoints, by targetRefs.
    Gateways,
}

/// A policy with one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Its name, in each of its namespaces.
    pub name: &'static str,
    /// What it is for.
    pub scope: Scope,
    /// What it asks for.
    pub action: Action,
    /// Whom the rule is about; everybody where nobody is named.
    pub from: Option<Account>,
    /// What the rule is about; everything where nothing is named.
    pub to: Option<Operation>,
}

/// Policies that are there together.
#[derive(Debug, Clone)]
pub struct Case {
    /// In words.
    pub title: &'static str,
    /// The policies.
    pub policies: Vec<Policy>,
    /// Whether a PeerAuthentication of the whole mesh is STRICT.
    pub strict: bool,
    /// Whether it belongs to the short form of the test.
    pub short: bool,
}

/// Three values: of what an enforcer does not see it cannot say whether it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// It is not so.
    No,
    /// Not to be seen here.
    Unknown,
    /// It is so.
    Yes,
}

const FRIEND: Option<Account> = Some(Account::Friend);
const STRANGER: Option<Account> = Some(Account::Stranger);
const GET_OPEN: Option<Operation> = Some(Operation::GetOpen);
const CLOSED: Option<Operation> = Some(Operation::Closed);

/// The namespaces that servers are in.
pub const SERVERS: [&str; 3] = ["test", "services", "everything"];

/// The namespaces that only waypoints, and what is asked of them, are in.
pub const OTHERS: [&str; 2] = ["infra", "hall"];

/// Istio's root namespace.
pub const ROOT: &str = "istio-system";

fn policy(
    name: &'static str,
    scope: Scope,
    action: Action,
    from: Option<Account>,
    to: Option<Operation>,
) -> Policy {
    Policy { name, scope, action, from, to }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    use Action::{Allow, Audit, Deny, DryRun};
    use Scope::{Gateways, Mesh, Namespace, OtherNamespaces, Servers, Services};
    let case =
        |short, title, policies: &[Policy]| Case { title, policies: policies.to_vec(), strict: false, short };
    let allow4 = policy("allow-friend", Servers, Allow, FRIEND, None);
    let deny7 = policy("deny-closed", Servers, Deny, None, CLOSED);
    vec![
        case(true, "no policy", &[]),
        Case { strict: true, ..case(false, "PeerAuthentication STRICT for the mesh", &[]) },
        case(true, "layer 4 ALLOW, by selector", &[allow4]),
        case(false, "layer 4 DENY, by selector", &[policy("deny-stranger", Servers, Deny, STRANGER, None)]),
        case(
            true,
            "layer 7 ALLOW, by selector",
            &[policy("allow-get-open", Servers, Allow, FRIEND, GET_OPEN)],
        ),
        case(true, "layer 7 DENY, by selector", &[deny7]),
        case(
            false,
            "layer 7 DENY of one identity, by selector",
            &[policy("deny-stranger-closed", Servers, Deny, STRANGER, CLOSED)],
        ),
        case(false, "layer 4 ALLOW and layer 7 DENY, by selector", &[deny7, allow4]),
        case(false, "layer 7 DENY in dry run", &[policy("try-closed", Servers, DryRun, None, CLOSED)]),
        case(true, "layer 7 AUDIT", &[policy("watch-closed", Servers, Audit, None, CLOSED)]),
        case(
            false,
            "layer 4 AUDIT and layer 4 ALLOW, by selector",
            &[policy("watch-stranger", Servers, Audit, STRANGER, None), allow4],
        ),
        case(
            false,
            "layer 4 ALLOW, namespace-wide",
            &[policy("allow-friend", Namespace, Allow, FRIEND, None)],
        ),
        case(
            false,
            "layer 7 ALLOW, namespace-wide",
            &[policy("allow-get-open", Namespace, Allow, FRIEND, GET_OPEN)],
        ),
        case(true, "layer 7 DENY, namespace-wide", &[policy("deny-closed", Namespace, Deny, None, CLOSED)]),
        case(false, "layer 4 ALLOW, mesh-wide", &[policy("allow-friend", Mesh, Allow, FRIEND, None)]),
        case(true, "layer 7 ALLOW, mesh-wide", &[policy("allow-get-open", Mesh, Allow, FRIEND, GET_OPEN)]),
        case(false, "layer 7 DENY, mesh-wide", &[policy("deny-closed", Mesh, Deny, None, CLOSED)]),
        case(
            false,
            "DENY of everything, wide in the namespaces of waypoints that servers of others are behind",
            &[policy("deny-all", OtherNamespaces, Deny, None, None)],
        ),
        case(
            true,
            "layer 7 DENY, attached to the services",
            &[policy("deny-closed", Services, Deny, None, CLOSED)],
        ),
        case(
            false,
            "layer 7 ALLOW, attached to the waypoints",
            &[policy("allow-get-open", Gateways, Allow, FRIEND, GET_OPEN)],
        ),
    ]
}

impl Policy {
    /// The namespace of that of its objects which is for a judge of a server, if it is for it at all.
    pub fn applies(&self, judge: &Judge, binding: Binding) -> Option<&'static str> {
        let waypoint = match judge.enforcer {
            Enforcer::Agent => None,
            Enforcer::Waypoint(waypoint) => Some(waypoint),
        };
        let is_lobby = waypoint == Some(LOBBY);
        match self.scope {
            Scope::Mesh => Some(ROOT),
            Scope::Servers | Scope::Namespace => judge.at_server.then_some(binding.namespace()),
            // Where no endpoint is chosen, what is asked for is of the namespace of its service: that before the lobby is
            // in the lobby's. The namespace of a waypoint says nothing of what is behind it.
            Scope::OtherNamespaces => (is_lobby && !judge.at_server).then_some(LOBBY.namespace),
            // Agents are not told of what is attached. What goes around the waypoint is not judged by it.
            Scope::Services => (judge.at_service && !is_lobby).then_some(binding.namespace()),
            Scope::Gateways => waypoint.filter(|_| !is_lobby).map(|Waypoint { namespace, .. }| namespace),
        }
    }

    /// Whether the rule is about a request, as far as the judge sees it.
    pub fn matches(&self, judge: &Judge, request: Request) -> Truth {
        let from = match self.from {
            Some(account) if judge.peer != Some(account) => Truth::No,
            _ => Truth::Yes,
        };
        let sees_requests = matches!(judge.enforcer, Enforcer::Waypoint(_));
        let to = match (self.to, request.head().filter(|_| sees_requests)) {
            (None, _) => Truth::Yes,
            (Some(_), None) => Truth::Unknown,
            (Some(operation), Some((method, path))) => match operation {
                Operation::GetOpen if method == "GET" && path == "/open" => Truth::Yes,
                Operation::Closed if path == "/closed" => Truth::Yes,
                _ => Truth::No,
            },
        };
        from.min(to)
    }
}
