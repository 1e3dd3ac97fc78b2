//! The fields of the annotation `lateen.dev/health-check`, for the page: what is refused `check` knows.

use super::{Message, Test, refused, yes};

const CARRIED: &str = "waypoint/src/tests/health.rs";
const READ: Test = ("ctrl/src/translate/routing/tests/traffic.rs", "health_checks");

const PROBES: &[Test] = &[READ, (CARRIED, "what_passes_and_what_does_not")];
const WAY: &[Test] = &[READ, (CARRIED, "checks_go_by_the_way_of_requests")];
const TIMES: &[Test] = &[READ, (CARRIED, "a_change_of_what_is_asked_takes_effect_at_once_and_ends_with_it")];
const THRESHOLDS: &[Test] = &[
    READ,
    ("mesh/model/src/traffic/health/tests.rs", "thresholds_are_exact"),
    (CARRIED, "who_fails_its_checks_is_asked_no_more_until_it_passes_them_again"),
];

/// The annotation.
pub(super) const HEALTH_CHECK: Message = Message {
    name: "`lateen.dev/health-check` on a DestinationRule",
    fields: &[
        yes("httpGet", PROBES).of(&HTTP_GET),
        yes("tcpSocket", PROBES).of(&TCP_SOCKET),
        yes("grpc", PROBES).of(&GRPC).note("gRPC's health protocol: `SERVING` passes"),
        refused("exec", "a waypoint runs nothing in pods"),
        yes("periodSeconds", TIMES).note("10 unless said; a tenth longer or shorter at random"),
        yes("timeoutSeconds", PROBES)
            .note("1 unless said; at most 10, and no longer than the period; connecting counts"),
        yes("failureThreshold", THRESHOLDS).note("3 unless said"),
        yes("successThreshold", THRESHOLDS).note("1 unless said"),
        refused("initialDelaySeconds", "an endpoint is checked from when it is ready"),
        refused("terminationGracePeriodSeconds", "nothing is ended by a check"),
    ],
};

const HTTP_GET: Message = Message {
    name: "httpGet",
    fields: &[
        yes("path", PROBES).note("`/` unless said; a status from 200 to 399 passes"),
        yes("port", PROBES).note("the pod's, by its number"),
        yes("httpHeaders", WAY).note("`Host` stands in the place of the endpoint's address"),
        yes("scheme", &[READ]).note("`HTTP` only"),
        refused("host", "it is the endpoint that is asked"),
    ],
};

const TCP_SOCKET: Message = Message {
    name: "tcpSocket",
    fields: &[
        yes("port", PROBES).note("the pod's, by its number"),
        refused("host", "it is the endpoint that is asked"),
    ],
};

const GRPC: Message = Message {
    name: "grpc",
    fields: &[
        yes("port", PROBES).note("the pod's, by its number"),
        yes("service", PROBES).note("the server as a whole unless said"),
    ],
};
