//! Requests mean to a waypoint what they mean to Envoy: the same, by chance, to both, each with the same backends behind
//! it; the same route, the same request as the backend sees it, the same verdict, the same answer. What differs on purpose
//! is listed (docs/decisions/0013), and is looked for as listed.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use e2e::chaos::Random;
use e2e::client::Client;
use e2e::fidelity::configurations::{ALL, Configuration, On};
use e2e::fidelity::envoy::{bootstrap, port};
use e2e::fidelity::reading::{Reading, reading};
use e2e::fidelity::requests::request;
use e2e::fidelity::seen::{Seen, seen};
use e2e::report::{counted, size};
use e2e::shop::WAY;
use e2e::wire::{NAMESPACE, Running};
use e2e::{Mesh, example, manifests};
use serde_json::{Value, json};

fn version(name: &str) -> String {
    let origin = example("origin");
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: test, labels: {{app: origin, version: {name}}}}}\n\
         spec:\n  nodeName: node-2\n  containers:\n  - {{name: origin, image: none, command: [{origin}, \"8080\", {name}], \
         readinessProbe: {{tcpSocket: {{port: 8080}}}}}}\n"
    )
}

/// A service of a configuration's name, and the versions of what is behind it.
fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: test, labels: {{istio.io/use-waypoint: way}}}}\n\
         spec: {{selector: {{app: origin}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: test}}\n\
         spec: {{host: {name}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}\n"
    )
}

fn mesh() -> Mesh {
    let mut app = [
        manifests::namespace("test", "ambient"),
        manifests::namespace(NAMESPACE, ""),
        manifests::shell("client", "test", "node-1"),
        manifests::shell("near", NAMESPACE, "node-1"),
        version("v1"),
        version("v2"),
        WAY.to_owned(),
    ]
    .concat();
    for configuration in &ALL {
        app.push_str(&service(configuration.name));
    }
    let rules: Vec<(String, &str)> =
        ALL.iter().map(|one| (format!("{}.yaml", one.name), one.istio)).collect();
    let mut files = vec![("app.yaml", app.as_str())];
    files.extend(rules.iter().map(|(file, rules)| (file.as_str(), *rules)));
    Mesh::start(&files)
}

/// Both, as a client of both.
struct Both<'a> {
    client: Client,
    configuration: &'a Configuration,
    ours: String,
    theirs: String,
    random: Random,
    count: usize,
}

/// What came of requests to both.
#[derive(Default)]
struct Compared {
    different: Vec<String>,
    refused: usize,
    again: usize,
    /// How often each answer came, without what is each request's own: of ours, and of Envoy.
    lots: BTreeMap<String, [f64; 2]>,
}

impl Both<'_> {
    fn ask(&mut self, ours: bool, request: &str) -> Seen {
        let to = if ours { &self.ours } else { &self.theirs };
        let told = self.client.ask(&json!({ "to": to, "send": request }).to_string());
        seen(request, &serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}")))
    }

    /// The same request to both, each under a name of its own: the origin counts the tries of each.
    fn one(&mut self, seed: u64) -> (String, Seen, Option<Seen>) {
        self.count += 1;
        let id = |of: char| format!("{of}-{}-{}", self.configuration.name, self.count);
        let text = |of| {
            let name = self.configuration.name;
            request(&self.configuration.vocabulary, name, &mut Random::new(seed), &id(of))
        };
        let (sent, theirs) = (text('a'), reading(&text('b')));
        let (a, b) = (id('a'), id('b'));
        let mut ours = self.ask(true, &sent);
        let theirs = match theirs {
            Reading::Refused => None,
            Reading::As(text) => {
                let mut seen = self.ask(false, &text);
                let same = seen.same.to_string().replace(&b, &a);
                seen.same = serde_json::from_str(&same).unwrap_or(Value::Null);
                code_of_refusals(&mut seen);
                say_no_reason(&mut ours.same, &mut seen.same);
                cors_before_faults(&sent, &mut ours, &seen);
                Some(seen)
            }
        };
        (sent, ours, theirs)
    }

    fn compare(&mut self, times: usize) -> Compared {
        let mut compared = Compared::default();
        for _ in 0..times {
            let seed = self.random.within(0, u64::MAX);
            let (sent, mut ours, mut theirs) = self.one(seed);
            told_who_asks(&sent, &ours);
            if self.configuration.on == On::Lot {
                let own = format!("a-{}-{}", self.configuration.name, self.count);
                for (which, seen) in [Some(ours), theirs].into_iter().flatten().enumerate() {
                    compared.lots.entry(lot(&sent, &seen, &own)).or_default()[which] += 1.0;
                }
                continue;
            }
            for _ in 0..2 {
                if self.configuration.on != On::Time || same(&ours, theirs.as_ref()) {
                    break;
                }
                compared.again += 1;
                (_, ours, theirs) = self.one(seed);
            }
            compared.refused += usize::from(theirs.is_none());
            if !same(&ours, theirs.as_ref()) {
                let theirs = theirs.map_or(String::from("(two readings)"), |seen| seen.same.to_string());
                let sent = sent.replace("\r\n", " | ");
                compared.different.push(format!("{sent}\n  ours  {}\n  Envoy {theirs}", ours.same));
            }
        }
        compared
    }
}

/// Envoy puts 0 for the status of an answer that is its own.
fn code_of_refusals(theirs: &mut Seen) {
    let status = theirs.status.to_string();
    if let Some(code) = theirs.same["headers"].get_mut("x-code").filter(|code| **code == "0") {
        *code = json!(status);
    }
}

/// Envoy tells the client why the endpoint's connection ended; ours has it in the access log alone.
fn say_no_reason(ours: &mut Value, theirs: &mut Value) {
    let text = "upstream connect error or disconnect/reset before headers";
    if theirs["body"].as_str().is_some_and(|body| body.starts_with(text)) {
        for one in [ours, theirs] {
            if one["body"].as_str().is_some_and(|body| body.starts_with(text)) {
                one["body"] = json!(text);
            }
            if let Some(headers) = one["headers"].as_object_mut() {
                headers.remove("content-length");
            }
        }
    }
}

/// Ours does what CORS asks for before it injects faults, so that a browser lets its script see them; Istio has Envoy inject them
/// before.
fn cors_before_faults(sent: &str, ours: &mut Seen, theirs: &Seen) {
    let path = sent.split(' ').nth(1).unwrap_or_default();
    // To a call of gRPC a fault is said in its own status.
    let is_fault = theirs.status == 500 || theirs.same["headers"]["grpc-status"] == "2";
    if !path.starts_with("/cors") || !is_fault {
        return;
    }
    let allowed = "access-control-allow-origin";
    let Some(headers) = ours.same["headers"].as_object_mut() else { return };
    let was_allowed = headers.remove(allowed).is_some_and(|origin| origin == "http://a.example");
    if was_allowed && sent.starts_with("OPTIONS") && ours.status == 200 {
        *ours = theirs.clone();
    }
}

/// Whether both answered the same. Nothing is expected of Envoy where there are two readings.
fn same(ours: &Seen, theirs: Option<&Seen>) -> bool {
    match theirs {
        None => ours.status == 400,
        // What neither takes is refused in words of its own.
        Some(theirs) => ours.same == theirs.same || (ours.status == 400 && theirs.status == 400),
    }
}

/// A waypoint tells every origin who asks; Envoy, without a tunnel, knows nobody.
#[track_caller]
fn told_who_asks(sent: &str, seen: &Seen) {
    let Some([address, certificate]) = &seen.client else { return };
    assert!(
        !address.is_empty() && certificate.contains("URI=spiffe://cluster.local/ns/test/sa/"),
        "{sent}: {seen:?}"
    );
}

/// What is drawn: the path that was asked for, which version answered, or how it was answered.
fn lot(sent: &str, seen: &Seen, own: &str) -> String {
    let path = sent.split(' ').nth(1).unwrap_or_default();
    let dark = sent.contains("x-dark: yes");
    format!("{path} {dark} {}", seen.same.to_string().replace(own, "id"))
}

/// Of so many draws, those whose counts are further apart than five times what chance makes of them.
fn unlike(lots: &BTreeMap<String, [f64; 2]>) -> Vec<String> {
    let far =
        |counts: &[f64; 2]| (counts[0] - counts[1]).abs() > 5.0 * (counts[0] + counts[1]).sqrt().max(1.0);
    lots.iter().filter(|(_, counts)| far(counts)).map(|(lot, counts)| format!("{counts:?} {lot}")).collect()
}

#[test]
fn requests_mean_what_they_mean_to_envoy() {
    let mesh = mesh();
    let versions = [mesh.address("test", "v1", false), mesh.address("test", "v2", false)];
    let file = bootstrap(&ALL, [&versions[0], &versions[1]]);
    let _envoy = Running::envoy(&mesh, "near", &file, port(0));
    let envoy = mesh.address(NAMESPACE, "near", false);
    let times = size(200, 2000);
    let run = |(number, configuration): (usize, &Configuration)| {
        let mut both = Both {
            client: Client::start_example("raw", &mesh, "test", "client", &[]),
            configuration,
            ours: format!("{}:80", configuration.name),
            theirs: format!("{envoy}:{}", port(number)),
            random: Random::new(number as u64 + 1),
            count: 0,
        };
        both.compare(times)
    };
    let run = &run;
    let compared: Vec<Compared> = std::thread::scope(|scope| {
        let running: Vec<_> = ALL.iter().enumerate().map(|one| scope.spawn(move || run(one))).collect();
        running.into_iter().map(|one| one.join().expect("the comparison ends")).collect()
    });
    let mut told = String::new();
    for (configuration, compared) in ALL.iter().zip(compared) {
        let mut different = compared.different;
        different.extend(unlike(&compared.lots));
        counted(&format!(
            "{}: {times} requests, of which {} have two readings and are refused; {} differed by time alone; {} different",
            configuration.name,
            compared.refused,
            compared.again,
            different.len()
        ));
        for one in different.iter().take(20) {
            let _ = writeln!(told, "{}: {one}", configuration.name);
        }
    }
    assert!(told.is_empty(), "{told}");
}
