//! Which fields of what was written ask which [`Feature`] of waypoints: so that the status of an object names the fields
//! that its waypoints do not carry out, and nobody relies on them. What is carried out `xds::convert::routing::features`
//! alone knows.

use std::collections::{BTreeMap, BTreeSet};

use manifest::istio::{
    ClientTls, ClientTlsMode, ConnectionPool, DestinationRule, HttpRoute, LoadBalancer, OutlierDetection,
    VirtualService,
};
use model::traffic::health::ANNOTATION;
use xds::convert::routing::features::Feature;

/// Fields, as written, by what they ask.
pub type Asked = BTreeMap<Feature, BTreeSet<String>>;

/// Of a VirtualService.
pub(super) fn of_virtual_service(spec: &VirtualService) -> Asked {
    let mut asked = Asked::new();
    for (index, route) in spec.http.iter().enumerate() {
        let at = format!("http[{index}]");
        note(&mut asked, Feature::Http, true, at.clone());
        for (feature, field, written) in of_http(route) {
            note(&mut asked, feature, written, format!("{at}.{field}"));
        }
    }
    note(&mut asked, Feature::Tls, !spec.tls.is_empty(), "tls".to_owned());
    note(&mut asked, Feature::Tcp, !spec.tcp.is_empty(), "tcp".to_owned());
    asked
}

fn of_http(route: &HttpRoute) -> [(Feature, &'static str, bool); 12] {
    let regex = route.rewrite.as_ref().and_then(|rewrite| rewrite.uri_regex_rewrite.as_ref());
    let other = route
        .rewrite
        .as_ref()
        .is_some_and(|rewrite| !rewrite.authority.is_empty() || (regex.is_none() && !rewrite.uri.is_empty()));
    let of_destination = route.route.iter().any(|one| one.headers.is_some());
    [
        (Feature::Redirect, "redirect", route.redirect.is_some()),
        (Feature::DirectResponse, "directResponse", route.direct_response.is_some()),
        (Feature::Rewrite, "rewrite", other),
        (Feature::RegexRewrite, "rewrite.uriRegexRewrite", regex.is_some()),
        (Feature::Headers, "headers", route.headers.is_some()),
        (Feature::Headers, "route.headers", of_destination),
        (Feature::Fault, "fault", route.fault.is_some()),
        (Feature::Cors, "corsPolicy", route.cors_policy.is_some()),
        (Feature::Mirror, "mirror", route.mirror.is_some()),
        (Feature::Mirror, "mirrors", !route.mirrors.is_empty()),
        (Feature::Retry, "retries", route.retries.as_ref().is_some_and(|retries| retries.attempts > 0)),
        (Feature::Http, "delegate", route.delegate.is_some()),
    ]
}

/// Of a DestinationRule.
pub(super) fn of_destination_rule(spec: &DestinationRule) -> Asked {
    let mut asked = Asked::new();
    let own = ("trafficPolicy".to_owned(), spec.traffic_policy.as_ref());
    let subsets = spec.subsets.iter().enumerate();
    let subsets = subsets
        .map(|(index, subset)| (format!("subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()));
    note(&mut asked, Feature::TrafficPolicy, !spec.subsets.is_empty(), "subsets".to_owned());
    note(&mut asked, Feature::HealthCheck, spec.health_check.is_some(), ANNOTATION.to_owned());
    for (path, policy) in std::iter::once(own).chain(subsets) {
        let Some(policy) = policy else { continue };
        let sections = Sections {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
        };
        sections.note(&mut asked, &path);
        note(&mut asked, Feature::RetryBudget, policy.retry_budget.is_some(), format!("{path}.retryBudget"));
        let proxy_protocol = policy.proxy_protocol.is_some();
        note(&mut asked, Feature::ProxyProtocol, proxy_protocol, format!("{path}.proxyProtocol"));
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            let sections = Sections {
                load_balancer: port.load_balancer.as_ref(),
                connection_pool: port.connection_pool.as_ref(),
                outlier_detection: port.outlier_detection.as_ref(),
                tls: port.tls.as_ref(),
            };
            sections.note(&mut asked, &format!("{path}.portLevelSettings[{index}]"));
        }
    }
    asked
}

/// What can stand both for all ports and for one.
struct Sections<'a> {
    load_balancer: Option<&'a LoadBalancer>,
    connection_pool: Option<&'a ConnectionPool>,
    outlier_detection: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTls>,
}

impl Sections<'_> {
    fn note(&self, asked: &mut Asked, path: &str) {
        let hash = self.load_balancer.and_then(|balancer| balancer.consistent_hash.as_ref());
        let cookie =
            hash.and_then(|hash| hash.http_cookie.as_ref()).is_some_and(|cookie| cookie.ttl.is_some());
        let tls = self.tls.is_some_and(|tls| tls.mode != ClientTlsMode::IstioMutual);
        for (feature, field, written) in [
            (Feature::TrafficPolicy, "loadBalancer", self.load_balancer.is_some()),
            (Feature::HashCookie, "loadBalancer.consistentHash.httpCookie.ttl", cookie),
            (Feature::ConnectionPool, "connectionPool", self.connection_pool.is_some()),
            (Feature::OutlierDetection, "outlierDetection", self.outlier_detection.is_some()),
            (Feature::EndpointTls, "tls", tls),
        ] {
            note(asked, feature, written, format!("{path}.{field}"));
        }
    }
}

fn note(asked: &mut Asked, feature: Feature, written: bool, field: String) {
    if written {
        asked.entry(feature).or_default().insert(field);
    }
}
