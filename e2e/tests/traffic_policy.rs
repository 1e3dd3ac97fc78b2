//! What DestinationRules and VirtualServices say of load and failures, end to end: by `lateen up`, a waypoint of its own,
//! and two versions of a server behind it, of which one fails when it is told to.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::collections::BTreeMap;
use std::process::Command;

use e2e::report::counted;
use e2e::shop::{SHOP, WAY, logged, subsets, version, waypoint_address};
use e2e::{Mesh, lateen, manifests, run};

/// Answers with its version; 503 once asked for `/control/503` and until asked for `/control/200`. Counts what it is asked,
/// by host, and tells by `/control/count`.
const SERVER: &str = "
import collections, http.server, sys, time
status, seen = 200, collections.Counter()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do_GET(self):
        global status
        answer, code = sys.argv[1], status
        if self.path == '/healthz': answer, code = 'health', status
        elif self.path == '/control/count':
            answer, code = ' '.join(f'{host}={count}' for host, count in seen.items()), 200
        elif self.path.startswith('/control/'):
            status = code = int(self.path.rsplit('/', 1)[1])
        else:
            seen[self.headers['host']] += 1
            if self.path == '/slow': time.sleep(1)
        self.send_response(code)
        self.send_header('x-version', sys.argv[1])
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())
http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()
";

/// Asks N times, one after the other or all at once, and says how often which status and version came.
const ASK: &str = "
import collections, concurrent.futures, http.client, sys
def ask(_):
    connection = http.client.HTTPConnection('shop', timeout=20)
    connection.request('GET', sys.argv[3], headers=dict(pair.split('=', 1) for pair in sys.argv[4:]))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return f\"{answer.status} {answer.headers.get('x-version') or '-'}\", answer.headers.get('set-cookie')
with concurrent.futures.ThreadPoolExecutor(int(sys.argv[2])) as pool:
    answers = list(pool.map(ask, range(int(sys.argv[1]))))
for answer, count in collections.Counter(answer for answer, _ in answers).items():
    print(f'{answer}={count}')
for cookie in {cookie for _, cookie in answers if cookie}:
    print('cookie:', cookie)
";

fn server(version: &str) -> String {
    format!("python3, -c, {SERVER:?}, {version}")
}

/// A DestinationRule with a traffic policy, and both versions as subsets.
fn rule(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, namespace: test}}\n\
         spec: {{host: shop, trafficPolicy: {{{policy}}}, subsets: {}}}\n",
        subsets([("v1", "v1"), ("v2", "v2")])
    )
}

/// A DestinationRule with a traffic policy, and a check of the endpoints' health.
fn checked(policy: &str, check: &str) -> String {
    rule(policy).replace(
        "namespace: test}",
        &format!("namespace: test, annotations: {{lateen.dev/health-check: '{check}'}}}}"),
    )
}

/// A VirtualService with one rule.
fn route(rule: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: test}}\n\
         spec: {{hosts: [shop], http: [{{{rule}}}]}}\n"
    )
}

/// To both versions, tried once.
const ONCE: &str = "route: [{destination: {host: shop}}], retries: {attempts: 0}";

fn mesh(policy: &str, rules: &str) -> Mesh {
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::shell("client", "test", "node-1"),
        version("v1", &server("v1")),
        version("v2", &server("v2")),
        WAY.to_owned(),
        SHOP.to_owned(),
    ];
    Mesh::start(&[("app.yaml", &app.concat()), ("rule.yaml", &rule(policy)), ("route.yaml", &route(rules))])
}

/// What came of requests: how often which status of which version, and the cookies that were given.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    counts: BTreeMap<String, u32>,
    cookies: Vec<String>,
}

impl Told {
    fn of(&self, answer: &str) -> u32 {
        self.counts.get(answer).copied().unwrap_or_default()
    }
}

#[track_caller]
fn ask(mesh: &Mesh, times: u32, at_once: u32, path: &str, headers: &[&str]) -> Told {
    let (times, at_once) = (times.to_string(), at_once.to_string());
    let command = [&["python3", "-c", ASK, &times, &at_once, path][..], headers].concat();
    let told = mesh.exec("test", "client", &command);
    assert!(told.ok(), "{told}");
    let mut all = Told { counts: BTreeMap::new(), cookies: Vec::new() };
    for line in told.stdout.lines() {
        match line.strip_prefix("cookie: ") {
            Some(cookie) => all.cookies.push(cookie.to_owned()),
            None => {
                let (answer, count) = line.split_once('=').unwrap_or_else(|| panic!("{told}"));
                all.counts.insert(answer.to_owned(), count.parse().unwrap_or_else(|_| panic!("{told}")));
            }
        }
    }
    all
}

/// Tells a version's server something, from its own pod.
#[track_caller]
fn control(mesh: &Mesh, version: &str, what: &str) -> String {
    let url = format!("http://localhost:8080/control/{what}");
    let told = mesh.exec("test", &format!("shop-{version}"), &["curl", "-s", "-m", "5", &url]);
    assert!(told.ok(), "{told}");
    told.stdout
}

/// Waits until a change of the rules is in force: until the answer to some requests is as it says.
#[track_caller]
fn in_force(mesh: &Mesh, what: &str, check: impl Fn(&Mesh) -> bool) {
    mesh.eventually(what, |mesh| if check(mesh) { Ok(()) } else { Err(String::from("not yet")) });
}

#[test]
fn a_circuit_breaker_opens_and_closes_again() {
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, interval: 500ms, \
                  baseEjectionTime: 4s, maxEjectionPercent: 100}";
    let mesh = mesh(policy, ONCE);
    let before = ask(&mesh, 40, 1, "/", &[]);
    assert_eq!((before.of("200 v1"), before.of("200 v2")), (20, 20), "{before:?}");
    control(&mesh, "v2", "503");
    let open = ask(&mesh, 60, 1, "/", &[]);
    assert_eq!((open.of("503 v2"), open.of("200 v1")), (3, 57), "{open:?}");
    logged(&mesh, &["ejected for 4s by outlierDetection.consecutive5xxErrors", "shop-v2"]);
    control(&mesh, "v2", "200");
    logged(&mesh, &["returned, was ejected by outlierDetection.consecutive5xxErrors", "shop-v2"]);
    let closed = ask(&mesh, 40, 1, "/", &[]);
    assert_eq!((closed.of("200 v1"), closed.of("200 v2")), (20, 20), "{closed:?}");
    // All of them ejected: there is nobody to ask, and the rule is named.
    control(&mesh, "v1", "503");
    control(&mesh, "v2", "503");
    let none = ask(&mesh, 20, 1, "/", &[]);
    assert_eq!((none.of("503 v1"), none.of("503 v2"), none.of("503 -")), (3, 3, 14), "{none:?}");
    logged(&mesh, &[" 503 UH ", "DestinationRule test/shop trafficPolicy.outlierDetection"]);
    counted(
        "3 of 60 requests failed before the breaker opened, none after it closed, 14 of 20 with nobody left",
    );
}

/// Nobody asks while an endpoint fails: that it does is found out all the same, and no request meets it.
#[test]
fn who_fails_its_health_check_is_asked_no_more() {
    let policy = "loadBalancer: {simple: ROUND_ROBIN}";
    let mesh = mesh(policy, ONCE);
    let check = "{httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}";
    mesh.apply("rule.yaml", &checked(policy, check));
    let metrics = format!("http://{}:15020/metrics", waypoint_address(&mesh));
    mesh.eventually("both are checked", |mesh| {
        let told = mesh.exec("test", "client", &["curl", "-s", "-m", "5", &metrics]).stdout;
        let healthy = "lateen_health_check_endpoints{destination_service=\"shop.test.svc.cluster.local\",destination_service_namespace=\"test\",state=\"healthy\"} 2";
        if told.contains(healthy) { Ok(()) } else { Err(told) }
    });
    control(&mesh, "v2", "503");
    logged(
        &mesh,
        &["shop-v2", "is unhealthy: it has failed 2 in a row", "httpGet :8080/healthz", "http status: 503"],
    );
    let one = ask(&mesh, 40, 1, "/", &[]);
    assert_eq!(one.of("200 v1"), 40, "{one:?}");
    control(&mesh, "v2", "200");
    logged(&mesh, &["shop-v2", "is healthy again: it has passed 1 in a row"]);
    let both = ask(&mesh, 40, 1, "/", &[]);
    assert_eq!((both.of("200 v1"), both.of("200 v2")), (20, 20), "{both:?}");
    // Nobody is left, and it is said whose rule has it so.
    control(&mesh, "v1", "503");
    control(&mesh, "v2", "503");
    in_force(&mesh, "both are left out", |mesh| ask(mesh, 1, 1, "/", &[]).of("503 -") == 1);
    let why = ["DestinationRule test/shop lateen.dev/health-check (", ":8080: http status: 503)"];
    logged(&mesh, &[&[" 503 UH "], &why[..]].concat());
    let told = mesh.lateen(&["why", "-A", "--limit", "1"]);
    assert!(why.iter().all(|part| told.stdout.contains(part)), "{told}");
    // A rule that cannot be read changes nothing; without the annotation nobody is left out.
    mesh.apply("rule.yaml", &checked(policy, "{httpGet: {port: http}}"));
    let told = run(Command::new(lateen()).arg("analyze").arg(mesh.folder().join("rule.yaml")));
    let field = "metadata.annotations[\"lateen.dev/health-check\"].httpGet.port";
    for part in ["rule.yaml:", field, "a port's name cannot be looked up by a waypoint"] {
        assert!(told.to_string().contains(part), "{part}: {told}");
    }
    assert_eq!(ask(&mesh, 4, 1, "/", &[]).of("503 -"), 4);
    mesh.apply("rule.yaml", &rule(policy));
    in_force(&mesh, "nobody is checked", |mesh| ask(mesh, 2, 1, "/", &[]).of("503 -") == 0);
    counted("no request of 40 met an endpoint that fails; 20 of 40 when it was back");
}

#[test]
fn a_pool_that_is_full_refuses_and_says_whose_limit_it_was() {
    let mesh = mesh("connectionPool: {http: {http2MaxRequests: 3}}", ONCE);
    let told = ask(&mesh, 12, 12, "/slow", &[]);
    let (served, refused) = (told.of("200 v1") + told.of("200 v2"), told.of("503 -"));
    assert_eq!((served, refused), (3, 9), "{told:?}");
    logged(
        &mesh,
        &[
            "\"GET /slow HTTP/1.1\" 503 UO upstream_reset_before_response_started{overflow}",
            "DestinationRule test/shop trafficPolicy.connectionPool.http.http2MaxRequests",
        ],
    );
    let after = ask(&mesh, 3, 3, "/slow", &[]);
    assert_eq!(after.of("503 -"), 0, "{after:?}");
    counted("of 12 requests at once 3 served and 9 refused with UO");
}

#[test]
fn a_hash_sticks_to_its_endpoint() {
    let mesh = mesh("loadBalancer: {consistentHash: {httpHeaderName: x-user}}", ONCE);
    let mut versions = BTreeMap::new();
    for user in 0..12 {
        let told = ask(&mesh, 8, 4, "/", &[&format!("x-user={user}")]);
        assert_eq!(told.counts.len(), 1, "user {user}: {told:?}");
        *versions.entry(told.counts.keys().next().cloned().unwrap_or_default()).or_insert(0) += 1;
    }
    assert_eq!(versions.len(), 2, "both are somebody's: {versions:?}");
    mesh.apply("rule.yaml", &rule("loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 60s}}}"));
    in_force(&mesh, "cookies are given", |mesh| !ask(mesh, 1, 1, "/", &[]).cookies.is_empty());
    for _ in 0..4 {
        let first = ask(&mesh, 1, 1, "/", &[]);
        let [cookie] = &first.cookies[..] else { panic!("{first:?}") };
        assert!(cookie.contains("; Max-Age=60; ") && cookie.ends_with("HttpOnly"), "{cookie}");
        let value = cookie.split(';').next().unwrap_or_default();
        let again = ask(&mesh, 10, 5, "/", &[&format!("cookie={value}")]);
        let (stuck, all) = (first.counts.keys().next().cloned().unwrap_or_default(), again.of("503 -"));
        assert_eq!((again.of(&stuck), all, again.cookies.len()), (10, 0, 0), "{first:?} {again:?}");
    }
    counted(&format!("12 users by header, 4 by cookie, each at one of {versions:?}"));
}

#[test]
fn retries_pass_over_an_endpoint_that_fails() {
    let rules = "route: [{destination: {host: shop}}], retries: {attempts: 2, retryOn: \"503\"}";
    let mesh = mesh("loadBalancer: {simple: ROUND_ROBIN}", rules);
    control(&mesh, "v2", "503");
    let told = ask(&mesh, 100, 4, "/", &[]);
    assert_eq!(told.of("200 v1"), 100, "{told:?}");
    let failed = control(&mesh, "v2", "count");
    assert_ne!(failed, "", "it was asked, too");
    counted(&format!("100 of 100 requests answered; the failing one was asked {failed}"));
}

#[test]
fn a_mirror_gets_copies_and_delays_nobody() {
    let rules = "route: [{destination: {host: shop, subset: v1}}], mirror: {host: shop, subset: v2}";
    let mesh = mesh("loadBalancer: {simple: RANDOM}", rules);
    let told = ask(&mesh, 50, 5, "/", &[]);
    assert_eq!(told.of("200 v1"), 50, "{told:?}");
    mesh.eventually("all copies have arrived", |mesh| {
        let copies = control(mesh, "v2", "count");
        if copies == "shop-shadow=50" { Ok(()) } else { Err(copies) }
    });
    // That the mirror fails is nobody's trouble.
    control(&mesh, "v2", "503");
    let told = ask(&mesh, 20, 5, "/", &[]);
    assert_eq!(told.of("200 v1"), 20, "{told:?}");
    assert_eq!(control(&mesh, "v1", "count"), "shop=70");
    counted("50 of 50 copies arrived, 70 of 70 requests answered");
}
