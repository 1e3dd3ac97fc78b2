//! What routings may require of their reader (design decision D14), and what of it waypoints carry out: the one place
//! that knows. What a waypoint announces, what the controller withholds from one that does not announce it, and what the
//! status of an object says follow from here.
//!
//! **Whoever builds one of these into the waypoint deletes its line in [`NOT_CARRIED`]**: nothing else has to be told.

mod lesser;

use std::fmt;

use model::route::action::{Forward, PathRewrite};
use model::route::{Action, HeaderChanges, HttpRule, Routing};
use model::traffic::{Algorithm, ClientTls, Destination, HashKey, LoadBalancer, TlsMode, TrafficPolicy};

pub use self::lesser::{lesser, without};

/// What this version's routings say and its waypoints do not do yet: one line each, to be deleted by who builds it.
const NOT_CARRIED: &[Feature] = &[Feature::EndpointTls, Feature::ProxyProtocol];

/// Something that a routing may ask for. Its [name](Self::name) is what goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Rules for HTTP.
    Http,
    /// Rules for TLS that is passed on.
    Tls,
    /// Rules for other connections.
    Tcp,
    /// `redirect`.
    Redirect,
    /// `directResponse`.
    DirectResponse,
    /// `rewrite`, but for the next.
    Rewrite,
    /// `rewrite.uriRegexRewrite`.
    RegexRewrite,
    /// `headers`.
    Headers,
    /// `fault`.
    Fault,
    /// `corsPolicy`.
    Cors,
    /// `mirror` and `mirrors`.
    Mirror,
    /// `retries`, and that there are some where nothing is said.
    Retry,
    /// Subsets and load balancing: what a DestinationRule says, but for what follows.
    TrafficPolicy,
    /// `consistentHash.httpCookie.ttl`: making the cookie where a client has none.
    HashCookie,
    /// `connectionPool`.
    ConnectionPool,
    /// `outlierDetection`.
    OutlierDetection,
    /// `lateen.dev/health-check`.
    HealthCheck,
    /// `retryBudget`.
    RetryBudget,
    /// `tls` other than the mesh's own.
    EndpointTls,
    /// `proxyProtocol`.
    ProxyProtocol,
}

impl Feature {
    /// Everything that this version can read.
    pub const ALL: [Self; 20] = [
        Self::Http,
        Self::Tls,
        Self::Tcp,
        Self::Redirect,
        Self::DirectResponse,
        Self::Rewrite,
        Self::RegexRewrite,
        Self::Headers,
        Self::Fault,
        Self::Cors,
        Self::Mirror,
        Self::Retry,
        Self::TrafficPolicy,
        Self::HashCookie,
        Self::ConnectionPool,
        Self::OutlierDetection,
        Self::HealthCheck,
        Self::RetryBudget,
        Self::EndpointTls,
        Self::ProxyProtocol,
    ];

    /// As it goes over the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "lateen.dev/routing.http",
            Self::Tls => "lateen.dev/routing.tls",
            Self::Tcp => "lateen.dev/routing.tcp",
            Self::Redirect => "lateen.dev/routing.redirect",
            Self::DirectResponse => "lateen.dev/routing.direct-response",
            Self::Rewrite => "lateen.dev/routing.rewrite",
            Self::RegexRewrite => "lateen.dev/routing.regex-rewrite",
            Self::Headers => "lateen.dev/routing.headers",
            Self::Fault => "lateen.dev/routing.fault",
            Self::Cors => "lateen.dev/routing.cors",
            Self::Mirror => "lateen.dev/routing.mirror",
            Self::Retry => "lateen.dev/routing.retry",
            Self::TrafficPolicy => "lateen.dev/routing.traffic-policy",
            Self::HashCookie => "lateen.dev/routing.hash-cookie",
            Self::ConnectionPool => "lateen.dev/routing.connection-pool",
            Self::OutlierDetection => "lateen.dev/routing.outlier-detection",
            Self::HealthCheck => "lateen.dev/routing.health-check",
            Self::RetryBudget => "lateen.dev/routing.retry-budget",
            Self::EndpointTls => "lateen.dev/routing.endpoint-tls",
            Self::ProxyProtocol => "lateen.dev/routing.proxy-protocol",
        }
    }

    /// That of a name; `None` for one of a later version.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }

    /// Whether waypoints of this version do it.
    pub fn is_carried(self) -> bool {
        !NOT_CARRIED.contains(&self)
    }

    /// What waypoints of this version do, and say that they do.
    pub fn carried() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|feature| feature.is_carried())
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a routing requires, each once, in the order of [`Feature::ALL`].
pub fn required(routing: &Routing) -> Vec<Feature> {
    let mut needed = Vec::new();
    needed.extend((!routing.http.is_empty()).then_some(Feature::Http));
    needed.extend((!routing.tls.is_empty()).then_some(Feature::Tls));
    needed.extend((!routing.tcp.is_empty()).then_some(Feature::Tcp));
    routing.default.iter().for_each(|forward| of_forward(forward, &mut needed));
    routing.http.iter().for_each(|rule| of_rule(rule, &mut needed));
    routing.destinations.values().for_each(|destination| of_destination(destination, &mut needed));
    Feature::ALL.into_iter().filter(|feature| needed.contains(feature)).collect()
}

fn of_rule(rule: &HttpRule, needed: &mut Vec<Feature>) {
    match &rule.action {
        Action::Forward(forward) => of_forward(forward, needed),
        Action::Redirect(_) => needed.push(Feature::Redirect),
        Action::Respond(_) => needed.push(Feature::DirectResponse),
    }
    needed.extend((rule.headers != HeaderChanges::default()).then_some(Feature::Headers));
    needed.extend(rule.fault.is_some().then_some(Feature::Fault));
    needed.extend(rule.cors.is_some().then_some(Feature::Cors));
}

fn of_forward(forward: &Forward, needed: &mut Vec<Feature>) {
    match &forward.rewrite_path {
        Some(PathRewrite::Replace(_)) => needed.push(Feature::Rewrite),
        Some(PathRewrite::Regex(_)) => needed.push(Feature::RegexRewrite),
        None => {}
    }
    needed.extend(forward.rewrite_authority.is_some().then_some(Feature::Rewrite));
    needed.extend(forward.retry.is_some().then_some(Feature::Retry));
    needed.extend((!forward.mirrors.is_empty()).then_some(Feature::Mirror));
    let changed = |one: &model::route::Destination| one.headers != HeaderChanges::default();
    needed.extend(forward.destinations.all().any(changed).then_some(Feature::Headers));
}

fn of_destination(destination: &Destination, needed: &mut Vec<Feature>) {
    needed.push(Feature::TrafficPolicy);
    needed.extend(destination.health_check.is_some().then_some(Feature::HealthCheck));
    of_policy(&destination.policy, needed);
    let subsets = destination.subsets.iter().filter_map(|subset| subset.policy.as_ref());
    subsets.for_each(|policy| of_policy(policy, needed));
}

/// What a traffic policy requires beside subsets and load balancing.
fn of_policy(policy: &TrafficPolicy, needed: &mut Vec<Feature>) {
    let TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        retry_budget,
        proxy_protocol,
        ports,
    } = policy;
    let of = |balancer: Option<&LoadBalancer>, pool: bool, outliers: bool, tls: Option<&ClientTls>| {
        let said = [
            (balancer.is_some_and(makes_cookies), Feature::HashCookie),
            (pool, Feature::ConnectionPool),
            (outliers, Feature::OutlierDetection),
            (tls.is_some_and(is_another_tls), Feature::EndpointTls),
        ];
        said.into_iter().filter_map(|(said, feature)| said.then_some(feature))
    };
    let (pool, outliers) = (connection_pool.is_some(), outlier_detection.is_some());
    needed.extend(of(load_balancer.as_ref(), pool, outliers, tls.as_ref()));
    needed.extend(retry_budget.is_some().then_some(Feature::RetryBudget));
    needed.extend(proxy_protocol.is_some().then_some(Feature::ProxyProtocol));
    for port in ports {
        let (pool, outliers) = (port.connection_pool.is_some(), port.outlier_detection.is_some());
        needed.extend(of(port.load_balancer.as_ref(), pool, outliers, port.tls.as_ref()));
    }
}

/// Whether a balancer makes a cookie for who has none.
fn makes_cookies(balancer: &LoadBalancer) -> bool {
    let Algorithm::ConsistentHash(hash) = &balancer.algorithm else { return false };
    matches!(&hash.key, HashKey::Cookie(cookie) if cookie.ttl.is_some())
}

/// Whether it is not simply the mesh's.
fn is_another_tls(tls: &ClientTls) -> bool {
    tls.mode != TlsMode::IstioMutual
}

#[cfg(test)]
mod tests;
