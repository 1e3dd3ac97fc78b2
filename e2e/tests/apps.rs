//! Programs that know nothing of a mesh work through it as they do without, over IPv4 and IPv6.

use std::time::{Duration, Instant};

use e2e::report::{counted, size};
use e2e::{Mesh, example, manifests};

/// Two pods on two nodes in a namespace of the mesh: `client`, and a server.
fn mesh(server: &str) -> Mesh {
    let text =
        [manifests::namespace("test", "ambient"), manifests::shell("client", "test", "node-1")].concat();
    Mesh::start(&[("app.yaml", &format!("{text}{server}"))])
}

/// Runs a shell script in the client; it must succeed.
#[track_caller]
fn script(mesh: &Mesh, text: &str) -> String {
    let outcome = mesh.exec("test", "client", &["bash", "-c", text]);
    assert!(outcome.ok(), "{text}\n{outcome}");
    outcome.stdout
}

/// How many connections of the client's have gone through a tunnel to a service, as the node's agent logged them.
#[track_caller]
fn tunnelled(mesh: &Mesh, service: &str, at_least: usize) {
    let service = format!("dst.service=\"{service}.test.svc.cluster.local\"");
    let parts = ["connection complete", "direction=\"outbound\"", "dst.hbone_addr=", service.as_str()];
    mesh.eventually(&format!("{at_least} connections to {service} through tunnels"), |mesh| {
        let log = mesh.logs("node-agent/node-1");
        let count = e2e::lines(&log, &parts).len();
        if count >= at_least { Ok(()) } else { Err(format!("{count}\n{log}")) }
    });
}

const POSTGRES: &str = "set -e
PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH
initdb -D /tmp/db -U shop -A trust --no-sync > /tmp/initdb.log
echo 'host all all all trust' >> /tmp/db/pg_hba.conf
exec postgres -D /tmp/db -k /tmp -c listen_addresses='*' -c fsync=off
";

/// `psql` on the database, over one family.
fn psql(address: &str) -> String {
    let variables = "PATH=`ls -d /usr/lib/postgresql/*/bin | tail -n 1`:$PATH PGCONNECT_TIMEOUT=10";
    format!("{variables} psql -h {address} -U shop -d postgres -v ON_ERROR_STOP=1 -qAtX")
}

#[test]
fn postgresql_transacts_and_copies() {
    let mesh = mesh(&manifests::server("db", "test", "node-2", &manifests::bash(POSTGRES), &[5432]));
    let addresses = ["ahostsv4", "ahostsv6"].map(|family| {
        script(&mesh, &format!("getent {family} db | head -n 1 | cut -d ' ' -f 1")).trim().to_owned()
    });
    let bytes: u64 = size(8 << 20, 100 << 20);
    let begun = Instant::now();
    for address in &addresses {
        let psql = psql(address);
        script(
            &mesh,
            &format!("{psql} -c 'drop table if exists t; create table t (n bigserial, line text)'"),
        );
        // Lines that never repeat; base64 has nothing that COPY would escape.
        script(
            &mesh,
            &format!(
                "head -c $(({bytes} / 4 * 3)) /dev/urandom | base64 -w 100 > /tmp/in; rm -f /tmp/out
                {psql} -c '\\copy t (line) from /tmp/in'
                {psql} -c '\\copy (select line from t order by n) to /tmp/out'
                cmp /tmp/in /tmp/out"
            ),
        );
    }
    counted(&format!("{bytes} bytes copied in and out of PostgreSQL twice, in {:.1?}", begun.elapsed()));

    let seconds = size(3, 120);
    let [address, _] = &addresses;
    let psql = psql(address);
    let long = format!(
        "{psql} <<< \"begin; insert into t (line) values ('late'); select pg_sleep({seconds}); commit; select 'done';\""
    );
    let seen = format!("{psql} -c \"select count(*) from t where line = 'late'\"");
    let transaction = std::thread::scope(|scope| {
        let transaction = scope.spawn(|| script(&mesh, &long));
        mesh.eventually_exec(
            "test",
            "client",
            &[
                "bash",
                "-c",
                &format!("{psql} -c \"select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()\""),
            ],
            |outcome| outcome.stdout == "1\n",
        );
        assert_eq!(script(&mesh, &seen), "0\n", "what is not committed is not seen");
        transaction.join().expect("the transaction ends")
    });
    assert!(transaction.contains("done"), "{transaction}");
    assert_eq!(script(&mesh, &seen), "1\n");
    counted(&format!("a transaction of {seconds} s"));
    tunnelled(&mesh, "db", 8);
}

const NGINX: &str = "cat > /tmp/nginx.conf <<END
daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path /tmp/a;
  proxy_temp_path /tmp/b;
  fastcgi_temp_path /tmp/c;
  uwsgi_temp_path /tmp/d;
  scgi_temp_path /tmp/e;
  server {
    listen 8080;
    listen [::]:8080;
    location / { return 200 nginx; }
  }
}
END
exec /usr/sbin/nginx -p /tmp -c /tmp/nginx.conf
";

#[test]
fn nginx_serves_64_kept_connections() {
    let mesh = mesh(&manifests::server("web", "test", "node-2", &manifests::bash(NGINX), &[8080]));
    let seconds = size(2, 30);
    for family in ["ahostsv4", "ahostsv6"] {
        let address = script(&mesh, &format!("getent {family} web | head -n 1 | cut -d ' ' -f 1"));
        let address = address.trim();
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let said = script(&mesh, &format!("wrk -t 2 -c 64 -d {seconds}s --latency http://{address}:8080/"));
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
        let total =
            said.lines().find(|line| line.contains("requests in")).unwrap_or_else(|| panic!("{said}"));
        counted(&format!("wrk, 64 kept connections to nginx by {address}: {}", total.trim()));
    }
    tunnelled(&mesh, "web", 128);
}

#[test]
fn iperf3_in_both_directions() {
    let mesh = mesh(&manifests::server("bulk", "test", "node-2", "iperf3, -s, -p, \"5201\"", &[5201]));
    let seconds = size(1, 10);
    for (family, direction) in [("-4", ""), ("-4", "-R"), ("-6", ""), ("-6", "-R")] {
        let said = script(&mesh, &format!("iperf3 -c bulk {family} -t {seconds} -J {direction}"));
        let value: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let rate = value["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default();
        assert!(rate > 1e7, "{said}");
        counted(&format!("iperf3 {family} {direction}: {:.2} Gb/s", rate / 1e9));
    }
    tunnelled(&mesh, "bulk", 8);
}

#[test]
fn grpc_calls_status_in_trailers_and_streams() {
    let command = format!("{}, serve, \"50051\"", example("grpc"));
    let mesh = mesh(&manifests::server("grpc", "test", "node-2", &command, &[50051]));
    let v4 = mesh.address("test", "grpc", false);
    let v6 = mesh.address("test", "grpc", true);
    for target in ["grpc:50051".to_owned(), format!("{v4}:50051"), format!("[{v6}]:50051")] {
        let said = script(&mesh, &format!("{} call {target}", example("grpc")));
        assert_eq!(said, "status: refused, as asked\nmessages: 500\n", "{target}");
    }
    counted("3 gRPC channels, 500 messages each way on each");
}

#[test]
fn a_half_may_end_before_the_other() {
    let command = format!("{}, serve-half, \"7000\"", example("peer"));
    let mesh = mesh(&manifests::server("half", "test", "node-2", &command, &[7000]));
    let bytes: u64 = size(4 << 20, 256 << 20);
    let targets = ["half:7000".to_owned(), format!("[{}]:7000", mesh.address("test", "half", true))];
    for target in &targets {
        let said = script(&mesh, &format!("{} half {target} {bytes}", example("peer")));
        assert_eq!(said, "whole\n", "{target}");
    }
    mesh.eventually("the server had everything too", |mesh| {
        let log = mesh.pod_logs("test", "half");
        let whole = |first: char| log.matches(&format!("first={first} taken={bytes}\n")).count();
        if whole('c') == 2 && whole('s') == 2 { Ok(()) } else { Err(log) }
    });
    counted(&format!("{bytes} bytes each way in both orders of ending, twice"));
}

#[test]
fn an_idle_connection_stays() {
    let text = manifests::server(
        "echo",
        "test",
        "node-2",
        "lateen, echo, --http, \"8080\", --tcp, \"9000\"",
        &[8080, 9000],
    );
    let mesh = mesh(&text);
    let seconds = size(12, 300);
    let v6 = format!("[{}]:9000", mesh.address("test", "echo", true));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for target in ["echo:9000", &v6] {
            let (mesh, text) = (&mesh, format!("{} idle {target} {seconds}", example("peer")));
            scope.spawn(move || assert_eq!(script(mesh, &text), "whole\n", "{target}"));
        }
    });
    assert!(begun.elapsed() >= Duration::from_secs(seconds));
    counted(&format!("2 connections idle for {seconds} s"));
}
