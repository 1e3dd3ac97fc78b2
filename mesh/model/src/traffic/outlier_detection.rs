//! Who is left out for failing, as written (`OutlierDetection`).

use std::time::Duration;

/// Who is left out for failing (`trafficPolicy.outlierDetection`).
///
/// The deprecated `consecutiveErrors` is not here. Ejection by success rate, which Envoy also has, is off in Istio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// So many errors in a row eject (`consecutive5xxErrors`): 5 unless said; 0 is never.
    pub consecutive_5xx: u32,
    /// So many of 502, 503 and 504 in a row eject (`consecutiveGatewayErrors`): 0, never, unless said.
    pub consecutive_gateway: u32,
    /// So many failures to reach the endpoint in a row eject (`consecutiveLocalOriginFailures`): 5 unless said. Counts only
    /// with [`split_local_origin`](Self::split_local_origin). Istio takes 0 for not said, so 0 is 5 too.
    pub consecutive_local_origin: u32,
    /// Whether failures to reach the endpoint are counted for themselves (`splitExternalLocalOriginErrors`), not as 5xx: no
    /// unless said.
    pub split_local_origin: bool,
    /// How often it is looked whose time is over (`interval`): 10 s unless said.
    pub interval: Duration,
    /// How long an endpoint is left out the first time (`baseEjectionTime`): 30 s unless said; so much longer each further
    /// time, up to 300 s (or this, if it is more).
    pub base_ejection_time: Duration,
    /// So many percent of the endpoints may be left out (`maxEjectionPercent`): 10 unless said (0 is not said).
    pub max_ejection_percent: u32,
    /// Whether one endpoint may be left out however small that share is. No field of Istio's: Envoy's
    /// `always_eject_one_host`. Envoy always did so before it had that field; Istio does not set it.
    pub always_eject_one: bool,
    /// If fewer percent of the endpoints are healthy, all are used, healthy or not (`minHealthPercent`): 0, never, unless
    /// said.
    pub min_health_percent: u32,
    /// Which responses are errors in place of 5xx (`outlierDetectionHttpErrorCodes`).
    pub http_error_codes: Box<[u16]>,
}

impl OutlierDetection {
    /// No endpoint is left out for longer, unless its base time is (Envoy's `max_ejection_time`, which Istio does not set).
    pub const LONGEST_EJECTION: Duration = Duration::from_secs(300);
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            consecutive_local_origin: 5,
            split_local_origin: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            always_eject_one: true,
            min_health_percent: 0,
            http_error_codes: Box::default(),
        }
    }
}
