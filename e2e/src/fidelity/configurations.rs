//! The configurations that are compared: each the manifests as people write them, the same for Envoy as its documentation
//! has it, and the words of requests to it.

use super::requests::{PLAIN, Vocabulary};

/// What answers may depend on besides the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Nothing.
    Nothing,
    /// The lot: counts are compared.
    Lot,
    /// Time: on a machine that is late an answer may be, so that what differs is asked once more.
    Time,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Configuration {
    /// Its name, and that of its service.
    pub name: &'static str,
    /// What is applied to the mesh.
    pub istio: &'static str,
    /// Filters and routes of Envoy.
    pub envoy: &'static str,
    /// What it is asked.
    pub vocabulary: Vocabulary,
    /// What its answers depend on besides the request.
    pub on: On,
}

macro_rules! configuration {
    ($name:literal, $on:ident, $vocabulary:expr) => {
        Configuration {
            name: $name,
            istio: include_str!(concat!("../../fidelity/", $name, ".istio.yaml")),
            envoy: include_str!(concat!("../../fidelity/", $name, ".envoy.yaml")),
            vocabulary: $vocabulary,
            on: On::$on,
        }
    };
}

/// All of them.
pub const ALL: [Configuration; 12] = [
    configuration!(
        "paths",
        Nothing,
        Vocabulary {
            paths: &[
                "/exact",
                "/Exact",
                "/Case/Of",
                "/case/of",
                "/ANY/thing",
                "/any",
                "/prefix",
                "/pre",
                "/PRE",
                "/re/12",
                "/re/",
                "/re/1a",
                "/part",
                "/apart",
                "/a.png",
                "/one",
                "/two",
                "/two/",
                "/none"
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "conditions",
        Nothing,
        Vocabulary {
            methods: &["GET", "GET", "GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"],
            hosts: &[
                "conditions:80",
                "CONDITIONS",
                "other.example",
                "another.example",
                "conditions.test.svc.cluster.local"
            ],
            paths: &["/", "/named", "/plain", "/port", "/all"],
            queries: &[
                "",
                "q=1",
                "q=",
                "q",
                "q=prefixed",
                "q=abc",
                "q=abd",
                "p",
                "p=1",
                "r=r",
                "q=2&q=1",
                "q=1&q=2",
                "x=q=1",
                "Q=1",
                "q=%31",
                "r=r&p="
            ],
            headers: &[
                ("x-a", &["one", "One", "pre", "prefix", "apre", "v1", "v12", "v", "av1", ""]),
                ("x-b", &["", "b"]),
                ("x-c", &["c", "cc"]),
                ("x-d", &["d"]),
                ("x-e", &["e", "f", ""]),
                ("x-f", &["f", "g", "gg"]),
                ("x-g", &["g", "G"])
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "weights",
        Lot,
        Vocabulary {
            methods: &["GET"],
            paths: &["/", "/half-broken", "/marked", "/none"],
            tails: &[""],
            queries: &[""],
            headers: &[("x-dark", &["yes", "no"])],
            ..PLAIN
        }
    ),
    configuration!(
        "rewrites",
        Nothing,
        Vocabulary {
            hosts: &["rewrites:80", "there.example"],
            paths: &[
                "/old",
                "/older",
                "/cut/",
                "/cut",
                "/only",
                "/only/",
                "/CaSe",
                "/case",
                "/r/abc",
                "/r/abc/",
                "/r/ABC",
                "/groups/a/b",
                "/groups/a",
                "/groups/a/b/c",
                "/every",
                "/every/banana",
                "/host",
                "/both/",
                "/both",
                "/else"
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "answers",
        Nothing,
        Vocabulary {
            hosts: &["answers:80", "answers:8080", "[::1]:80", "there.example"],
            paths: &[
                "/host", "/path", "/both", "/query", "/secure", "/port", "/all", "/text", "/bare", "/bytes",
                "/marked", "/nothing", "/other"
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "operations",
        Nothing,
        Vocabulary {
            paths: &["/set", "/both", "/host", "/empty", "/command", "/other"],
            headers: &[
                ("x-script", &["reset", "200", "500"]),
                ("x-a", &["1", "two words"]),
                ("x-b", &["1", ""]),
                ("x-c", &["1"]),
                ("x-d", &["1"]),
                ("X-Upper", &["Case"]),
                ("x-answer", &["x-r=1", "x-r=1;x-s=2;x-t=3", "x-t=1;x-t=2", "X-R=a;x-r=b"])
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "retries",
        Time,
        Vocabulary {
            methods: &["GET", "POST", "PUT"],
            paths: &["/5xx", "/gateway", "/reset", "/codes", "/conflict", "/none", "/default", "/per-try"],
            tails: &[""],
            headers: &[
                (
                    "x-script",
                    &[
                        "503,200",
                        "500,200",
                        "502,503,200",
                        "503,503,503,200",
                        "reset,200",
                        "reset,reset,200",
                        "reset,reset,reset,reset,200",
                        "429,200",
                        "409,200",
                        "404,200",
                        "504,429,200",
                        "409,409,200",
                        "reset,503,200",
                        "slow,200"
                    ]
                ),
                ("x-script-none", &["1"])
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "timeouts",
        Time,
        Vocabulary {
            methods: &["GET", "POST"],
            paths: &["/short", "/long", "/again", "/other"],
            tails: &[""],
            headers: &[
                ("x-script", &["503,200", "reset,200", "200", "slow,200", "slow", "503,slow,200"]),
                ("x-other", &["a"])
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "faults",
        Nothing,
        Vocabulary {
            methods: &["GET", "POST", "OPTIONS", "HEAD"],
            paths: &["/abort", "/never", "/grpc", "/delay", "/slow-abort", "/cors", "/marked", "/other"],
            headers: &[
                ("origin", &["http://a.example", "http://b.example"]),
                ("access-control-request-method", &["GET", "POST"]),
                ("content-type", &["application/grpc", "text/plain"])
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "cors",
        Nothing,
        Vocabulary {
            methods: &["GET", "POST", "OPTIONS", "OPTIONS"],
            paths: &["/full", "/any", "/ignore", "/bare", "/other"],
            tails: &["", "/x"],
            headers: &[
                (
                    "origin",
                    &[
                        "https://a.example",
                        "https://b.example",
                        "https://c.example",
                        "https://cxexample",
                        "http://a.example",
                        "null",
                        ""
                    ]
                ),
                ("access-control-request-method", &["GET", "POST", "DELETE", ""]),
                ("access-control-request-headers", &["x-a", "x-a, x-z"]),
                ("access-control-request-private-network", &["true"]),
                (
                    "x-answer",
                    &[
                        "access-control-allow-origin=https://z.example",
                        "x-r=1;x-s=2",
                        "access-control-allow-methods=PUT;vary=accept"
                    ]
                )
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "policies",
        Nothing,
        Vocabulary {
            methods: &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"],
            hosts: &["policies:80"],
            paths: &[
                "/",
                "/admin",
                "/ADMIN",
                "/administrator",
                "/write",
                "/mine/",
                "/mine",
                "/staff",
                "/a/secret",
                "/secret",
                "/secrets",
                "/users/me/keys",
                "/users/me/you/keys",
                "/users//keys",
                "/deep/a/b/end",
                "/deep/end",
                "/deep//end"
            ],
            tails: &["", "/", "/x", "/secret", "/end", "/keys", "?x", "/%73ecret", "/../admin"],
            headers: &[
                ("x-role", &["guest", "test-1", "staff", "Guest", ""]),
                ("x-role", &["admin"]),
                ("x-old", &["", "1"])
            ],
            ..PLAIN
        }
    ),
    configuration!(
        "normal",
        Nothing,
        Vocabulary {
            methods: &["GET"],
            paths: &[
                "/admin",
                "/a/b",
                "/closed",
                "/x",
                "/",
                "//",
                "/%61dmin",
                "/a/./b",
                "/a/../closed",
                "/a//b",
                "/%2e%2e/closed",
                "/.",
                "/..",
                "/a%2Fb",
                "/a%2fb",
                "/a%5Cb",
                "/a\\b",
                "/%63losed",
                "/closed%2Fx",
                "/a;x=1/b",
                "/..;/closed",
                "/a/b;/",
                "/a%00",
                "/%zz",
                "/a%",
                "/{x}",
                "/a|b",
                "/caf\u{c3}\u{a9}",
                "/caf\u{e9}",
                "/a%c3%a9",
                "/a b",
                "/#x",
                "/a%23b",
                "/%3Fx",
                "/%7Ex",
                "/%2D",
                "/a//../b",
                "*",
                "http://normal/a/b",
                "http://other/closed",
                "https://normal/admin",
                "/a\tb",
                "/%252e%252e/closed",
                ""
            ],
            tails: &["", "/", "/.", "/..", "//", "/x", "/../closed", "/./x", "/%2e", "?q=/../x", "?q=#x"],
            queries: &["", "", "a=%2F..", "a=b c", "%zz"],
            headers: &[],
            ..PLAIN
        }
    ),
];
