//! What could be read in two ways, as HTTP/1.1 and as HTTP/2, through a waypoint to nginx, Node, Go and a server that takes
//! everything: refused, or the same one request to all of them, however each of them reads.

#![allow(clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use e2e::client::Client;
use e2e::payloads::{self, Payload, Sent};
use e2e::report::counted;
use e2e::shop::WAY;
use e2e::{Mesh, example, manifests, wire};
use serde_json::{Value, json};

/// It reads a body whole before it passes a request on to itself, so that only what came whole is in its list.
const NGINX: &str = r#"
daemon off; pid /tmp/nginx.pid; error_log stderr; worker_processes 1;
events { worker_connections 256; }
http {
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  log_format seen escape=json '["$request_method","$request_uri","$request_body"]';
  map $status $whole { ~^2 1; default 0; }
  merge_slashes off; client_body_in_single_buffer on;
  server { listen 0.0.0.0:8080; access_log /tmp/seen seen if=$whole; location / { proxy_pass http://127.0.0.1:8081; } }
  server { listen 127.0.0.1:8081; access_log off; location / { return 200 nginx; } }
}
"#;

const NODE: &str = "
require('http').createServer((request, response) => {
  let body = '';
  request.setEncoding('latin1').on('data', data => body += data).on('end', () => {
    console.log(JSON.stringify([request.method, request.url, body]));
    response.end('node');
  });
}).listen(8080, '::');
";

const BACKENDS: [&str; 4] = ["nginx", "node", "go", "origin"];

/// What a pod runs; each writes what it was asked to /tmp/seen, a line of JSON a request.
fn command(of: &str) -> String {
    let script = match of {
        "nginx" => format!(
            "cat > /tmp/nginx.conf <<'END'\n{NGINX}\nEND\nPATH=$PATH:/usr/sbin exec nginx -e stderr -c /tmp/nginx.conf"
        ),
        "node" => format!("cat > /tmp/node.js <<'END'\n{NODE}\nEND\nexec node /tmp/node.js > /tmp/seen"),
        "go" => format!("exec {} > /tmp/seen", wire::go_backend()),
        _ => format!("exec {} 8080 v1 > /tmp/seen", example("origin")),
    };
    manifests::bash(&script)
}

fn mesh() -> Mesh {
    let mut app =
        [manifests::namespace("test", "ambient"), manifests::shell("client", "test", "node-1"), WAY.into()]
            .concat();
    for of in BACKENDS {
        let server = manifests::server(of, "test", "node-2", &command(of), &[8080]);
        let named = format!("  name: {of}\n  namespace: test\n");
        app.push_str(&server.replacen(
            &format!("kind: Service\nmetadata:\n{named}"),
            &format!("kind: Service\nmetadata:\n{named}  labels: {{istio.io/use-waypoint: way}}\n"),
            1,
        ));
    }
    Mesh::start(&[("app.yaml", &app)])
}

/// Sends all to one backend and returns what came back for each.
fn send(mesh: &Mesh, to: &str, payloads: &[Payload]) -> Vec<String> {
    let mut client = Client::start_example("raw", mesh, "test", "client", &[]);
    let to = format!("{to}:8080");
    let line = |payload: &Payload| match &payload.sent {
        Sent::One(text) => json!({ "to": to, "send": text, "alone": true }),
        Sent::Two(fields, body, trailers) => json!({ "to": to, "h2": [fields, body, trailers] }),
    };
    payloads.iter().map(|payload| client.ask(&line(payload).to_string())).collect()
}

/// The requests that a backend saw, as method, target and body.
fn seen(mesh: &Mesh, of: &str) -> Vec<[String; 3]> {
    let told = mesh.exec("test", of, &["cat", "/tmp/seen"]);
    assert!(told.ok(), "{told}");
    let read = |line: &str| -> [String; 3] {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        [0, 1, 2].map(|at| line[at].as_str().unwrap_or_default().to_owned())
    };
    told.stdout.lines().map(read).collect()
}

/// What each backend saw of one payload must be the same, or nothing where it refuses by itself; `Err` says what is wrong.
fn judge(payload: &Payload, number: usize, seen: &[Vec<[String; 3]>]) -> Result<bool, String> {
    let own = format!("p{number:03}");
    let of_it = |all: &Vec<[String; 3]>| -> Vec<[String; 3]> {
        all.iter().filter(|request| request[1].contains(&own)).cloned().collect()
    };
    let lists: Vec<Vec<[String; 3]>> = seen.iter().map(of_it).collect();
    let different: BTreeSet<&Vec<[String; 3]>> = lists.iter().filter(|list| !list.is_empty()).collect();
    match different.into_iter().collect::<Vec<_>>().as_slice() {
        [] => Ok(false),
        [one] if one.len() == payload.requests => Ok(true),
        _ => Err(format!("{number} {} {:?}: {lists:?}", payload.name, payload.sent)),
    }
}

#[test]
fn what_has_two_readings_is_refused_or_is_one_request_to_all() {
    let mesh = mesh();
    let payloads = payloads::all();
    let answers: Vec<Vec<String>> = std::thread::scope(|scope| {
        let (mesh, payloads) = (&mesh, &payloads);
        let sending = BACKENDS.map(|of| scope.spawn(move || send(mesh, of, payloads)));
        sending.into_iter().map(|one| one.join().expect("all is sent")).collect()
    });
    // What was sent last has been logged once this has.
    let seen: Vec<Vec<[String; 3]>> = BACKENDS
        .iter()
        .map(|of| {
            let asked =
                mesh.exec("test", "client", &["curl", "-s", "-m", "10", &format!("http://{of}:8080/last")]);
            assert!(asked.ok(), "{of}: {asked}");
            mesh.eventually("the last request is logged", |mesh| {
                let all = seen(mesh, of);
                if all.iter().any(|request| request[1] == "/last") { Ok(()) } else { Err(format!("{all:?}")) }
            });
            seen(&mesh, of)
        })
        .collect();
    let mut wrong = String::new();
    for (of, seen) in BACKENDS.iter().zip(&seen) {
        // Of none of the payloads, as such: out of one, then.
        let own = |target: &str| target.starts_with("/p0") || target.starts_with("/p1") || target == "/last";
        for request in seen.iter().filter(|[_, target, _]| target.contains("hidden") || !own(target)) {
            let _ = writeln!(wrong, "{of} saw {request:?}");
        }
    }
    let mut passed = 0;
    for (number, payload) in payloads.iter().enumerate() {
        match judge(payload, number, &seen) {
            Ok(through) => passed += usize::from(through),
            Err(why) => {
                let _ =
                    writeln!(wrong, "{why} {:?}", answers.iter().map(|of| &of[number]).collect::<Vec<_>>());
            }
        }
        // What nobody should refuse came through.
        let ordinary = payload.name == "an ordinary request" || payload.requests > 1;
        if ordinary && judge(payload, number, &seen) != Ok(true) {
            let _ = writeln!(wrong, "{number} {} did not arrive", payload.name);
        }
    }
    counted(&format!(
        "{} payloads to each of {} servers: {passed} passed on as one request, {} refused",
        payloads.len(),
        BACKENDS.len(),
        payloads.len() - passed
    ));
    assert!(wrong.is_empty(), "{wrong}");
}
