//! What waypoints of this version do not carry out of what can be written: told by its name in the status of who wrote it,
//! so that nobody relies on it.

use manifest::istio::{
    ConnectionPool, DestinationRule, LoadBalancer, OutlierDetection, RetryBudget, VirtualService,
};

/// Of a VirtualService, by field.
pub(super) fn of_virtual_service(spec: &VirtualService) -> Vec<String> {
    let mirrored = spec.http.iter().enumerate().flat_map(|(index, route)| {
        written([("mirror", route.mirror.is_some()), ("mirrors", !route.mirrors.is_empty())])
            .map(move |field| format!("http[{index}].{field}"))
    });
    let streams = written([("tcp", !spec.tcp.is_empty()), ("tls", !spec.tls.is_empty())]);
    mirrored.chain(streams.map(str::to_owned)).collect()
}

/// Of a DestinationRule, by field.
pub(super) fn of_destination_rule(spec: &DestinationRule) -> Vec<String> {
    let own = ("trafficPolicy".to_owned(), spec.traffic_policy.as_ref());
    let subsets = spec.subsets.iter().enumerate();
    let subsets = subsets
        .map(|(index, subset)| (format!("subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()));
    let mut fields = Vec::new();
    for (path, policy) in std::iter::once(own).chain(subsets) {
        let Some(policy) = policy else { continue };
        let sections = Sections {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            retry_budget: policy.retry_budget.as_ref(),
        };
        fields.extend(sections.fields(&path));
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            let sections = Sections {
                load_balancer: port.load_balancer.as_ref(),
                connection_pool: port.connection_pool.as_ref(),
                outlier_detection: port.outlier_detection.as_ref(),
                retry_budget: None,
            };
            fields.extend(sections.fields(&format!("{path}.portLevelSettings[{index}]")));
        }
    }
    fields
}

/// What can stand both for all ports and for one.
struct Sections<'a> {
    load_balancer: Option<&'a LoadBalancer>,
    connection_pool: Option<&'a ConnectionPool>,
    outlier_detection: Option<&'a OutlierDetection>,
    retry_budget: Option<&'a RetryBudget>,
}

impl Sections<'_> {
    fn fields(&self, path: &str) -> impl Iterator<Item = String> {
        let hash = self.load_balancer.and_then(|balancer| balancer.consistent_hash.as_ref());
        let cookie = hash.is_some_and(|hash| hash.http_cookie.is_some());
        written([
            ("loadBalancer.consistentHash.httpCookie", cookie),
            ("connectionPool", self.connection_pool.is_some()),
            ("outlierDetection", self.outlier_detection.is_some()),
            ("retryBudget", self.retry_budget.is_some()),
        ])
        .map(move |field| format!("{path}.{field}"))
    }
}

/// The names of those that were written.
fn written<const N: usize>(fields: [(&'static str, bool); N]) -> impl Iterator<Item = &'static str> {
    fields.into_iter().filter(|(_, written)| *written).map(|(field, _)| field)
}
