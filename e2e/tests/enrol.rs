//! Many running pods join and leave the mesh, again and again, while they talk to each other and to the outside: no connection
//! breaks, no new one fails.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::client::Client;
use e2e::report::{counted, size};
use e2e::streams::server;
use e2e::traffic::{Seen, Traffic, Work};
use e2e::{Mesh, lateen, manifests, run};
use serde_json::Value;

/// Where all of them are.
const NAMESPACE: &str = "herd";

/// A pod that answers, without a service of its own.
fn pod(name: &str, node: &str) -> String {
    let with_service = manifests::server(name, NAMESPACE, node, &server(9000), &[9000]);
    let parts = with_service.split("---\n").filter(|part| !part.contains("kind: Service\n"));
    // Asked ten times as seldom: there are many.
    let parts: Vec<String> =
        parts.map(|part| part.replace("periodSeconds: 1\n", "periodSeconds: 10\n")).collect();
    parts.join("---\n")
}

/// The pods, on both nodes in turn.
fn herd(count: usize) -> String {
    (0..count).map(|number| pod(&name(number), if number % 2 == 0 { "node-1" } else { "node-2" })).collect()
}

fn name(number: usize) -> String {
    format!("pod-{number:03}")
}

/// Somebody outside, on both nodes: to and from there nothing is ever tunnelled.
fn outside() -> String {
    let server = |name, node| manifests::server(name, "outside", node, &server(9000), &[9000]);
    manifests::namespace("outside", "") + &server("out-1", "node-1") + &server("out-2", "node-2")
}

/// All pods of the namespace as `lateen get` tells of them.
fn pods(mesh: &Mesh) -> Vec<Value> {
    let told = mesh.lateen(&["get", "pods", "-n", NAMESPACE, "-o", "json"]);
    assert!(told.ok(), "{told}");
    let list: Value = serde_json::from_str(&told.stdout).expect("lateen get prints JSON");
    list["items"].as_array().cloned().unwrap_or_default()
}

/// `ADDRESS:PORT` of every pod, IPv4 and IPv6.
fn targets(mesh: &Mesh, count: usize) -> Vec<[String; 2]> {
    let pods = pods(mesh);
    let of = |number: usize| {
        let name = name(number);
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str()).expect("the pod is there");
        let ips = pod["status"]["podIPs"].as_array().expect("a pod that runs has addresses");
        let ip = |v6: bool| {
            let mut ips = ips.iter().filter_map(|ip| ip["ip"].as_str()).filter(|ip| ip.contains(':') == v6);
            ips.next().expect("of both families").to_owned()
        };
        [format!("{}:9000", ip(false)), format!("[{}]:9000", ip(true))]
    };
    (0..count).map(of).collect()
}

/// Starts traffic from every pod, to others on its own node and the other and to the outside, and from outside to all.
fn talk(mesh: &Mesh, count: usize) -> Vec<Traffic> {
    let all = targets(mesh, count);
    let outside = ["out-1", "out-2"].map(|pod| format!("[{}]:9000", mesh.address("outside", pod, true)));
    let work = Work { streams: 4, every: 1000, requests: 1, marked: false };
    let mut traffic: Vec<Traffic> = (0..count)
        .map(|number| {
            let at = |step: usize| &all[(number + step) % count];
            let own = [
                at(1)[0].clone(),
                at(2)[1].clone(),
                at(count / 2 + 1)[number % 2].clone(),
                if number % 4 == 0 { "out-1.outside:9000".to_owned() } else { outside[number % 2].clone() },
            ];
            Traffic::begin(mesh, NAMESPACE, &name(number), work, &own)
        })
        .collect();
    let every: Vec<String> = all.iter().flatten().cloned().collect();
    let work = Work { streams: every.len(), every: 2000, requests: 20, marked: false };
    traffic.push(Traffic::begin(mesh, "outside", "out-1", work, &every));
    for one in &traffic {
        one.opened();
    }
    traffic
}

/// Changes the label of their namespace; how long until all have followed, in milliseconds.
fn label(mesh: &Mesh, mode: &str, count: usize) -> u128 {
    mesh.apply("mode.yaml", &manifests::namespace(NAMESPACE, mode));
    let wanted = if mode == "ambient" { count } else { 0 };
    let begun = Instant::now();
    mesh.within(Duration::from_secs(120), &format!("all are {mode}"), |mesh| {
        let captured =
            |pod: &Value| pod["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled";
        match pods(mesh).iter().filter(|pod| captured(pod)).count() {
            now if now == wanted => Ok(()),
            now => Err(format!("{now} of {count} are captured")),
        }
    });
    begun.elapsed().as_millis()
}

/// Tunnelled connections that the agents of both nodes have seen beginning.
fn tunnelled(mesh: &Mesh) -> u64 {
    let of = |node: u32| {
        let agent = format!("node-agent/node-{node}");
        let ask = ["curl", "-sS", "-m", "10", "http://127.0.0.1:15020/metrics"];
        let page = mesh.exec("kube-system", &agent, &ask);
        let wanted = |line: &&str| {
            line.starts_with("istio_tcp_connections_opened_total") && line.contains("\"mutual_tls\"")
        };
        page.stdout
            .lines()
            .filter(wanted)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>()
    };
    of(1) + of(2)
}

/// Looks at all of them; what went wrong so far fails the test.
fn check(traffic: &mut [Traffic], when: &str) -> Vec<Seen> {
    let all: Vec<Seen> = traffic.iter_mut().map(|traffic| traffic.report().clone()).collect();
    let wrong: Vec<String> = traffic
        .iter()
        .zip(&all)
        .flat_map(|(from, seen)| {
            seen.broken.iter().chain(&seen.failed).map(|trouble| format!("{} {trouble}", from.pod))
        })
        .collect();
    assert!(wrong.is_empty(), "{when}: {} went wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    all
}

/// Waits until every pod has made some more requests.
fn go_on(mesh: &Mesh, traffic: &mut [Traffic], when: &str) {
    let before = check(traffic, when);
    mesh.eventually(when, |_| {
        let now = check(traffic, when);
        let waits =
            now.iter().zip(&before).filter(|(now, before)| now.requests < before.requests + 2).count();
        if waits == 0 { Ok(()) } else { Err(format!("{waits} have no answer yet")) }
    });
}

#[test]
fn a_hundred_pods_join_and_leave_under_traffic() {
    let (count, rounds) = (size(20, 100), size(3, 20));
    let mesh = Mesh::start(&[
        ("mode.yaml", &manifests::namespace(NAMESPACE, "none")),
        ("herd.yaml", &herd(count)),
        ("outside.yaml", &outside()),
    ]);
    let mut traffic = talk(&mesh, count);
    let mut took = [Vec::new(), Vec::new()];
    let mut through = 0;
    for round in 0..rounds {
        for (index, mode) in ["ambient", "none"].into_iter().enumerate() {
            let before = tunnelled(&mesh);
            took[index].push(label(&mesh, mode, count));
            go_on(&mesh, &mut traffic, &format!("round {round}, {mode}"));
            if mode == "ambient" {
                let now = tunnelled(&mesh);
                assert!(now > before, "round {round}: nothing is tunnelled");
                through += now - before;
            }
        }
    }
    let pods: Vec<String> = traffic.iter().map(|traffic| traffic.pod.clone()).collect();
    let all: Vec<Seen> = traffic.into_iter().map(Traffic::finish).collect();
    let sum = |of: fn(&Seen) -> u64| all.iter().map(of).sum::<u64>();
    let most = |of: fn(&Seen) -> u64| all.iter().map(of).max().unwrap_or_default();
    let mut slow = Vec::new();
    for (pod, seen) in pods.iter().zip(&all) {
        assert!(seen.broken.is_empty() && seen.failed.is_empty(), "{pod}: {seen:#?}");
        assert_eq!(seen.untold + seen.skipped, 0, "{pod}: {seen:#?}");
        slow.extend(seen.slow.iter().map(|slow| format!("{pod} {slow} ({} ms)", slow.ended - slow.begun)));
    }
    counted(&format!(
        "{count} pods joined and left {rounds} times (all followed within {} and {} ms): {} connections, {} messages ({} MB), 0 broken; \
         {} requests on fresh connections, 0 failed; {through} tunnels' connections seen right after joining; slowest message {} ms, request {} ms; \
         over a second: {} {:?}",
        took[0].iter().max().unwrap_or(&0),
        took[1].iter().max().unwrap_or(&0),
        sum(|seen| seen.opened),
        sum(|seen| seen.messages),
        sum(|seen| seen.bytes) >> 20,
        sum(|seen| seen.requests),
        most(|seen| seen.slowest_message),
        most(|seen| seen.slowest_request),
        slow.len(),
        &slow[..slow.len().min(10)],
    ));
}

/// Says from which ports a pod's connections may come.
fn ports(mesh: &Mesh, pod: &str, range: &str) {
    let said = format!("echo {range} > /proc/sys/net/ipv4/ip_local_port_range");
    let mut command = Command::new(lateen());
    command.args([
        "exec",
        "--mesh",
        mesh.name(),
        "--privileged",
        "-n",
        "test",
        pod,
        "--",
        "bash",
        "-c",
        &said,
    ]);
    let done = run(&mut command);
    assert!(done.ok(), "{done}");
}

#[test]
fn a_port_that_the_client_uses_past_the_mesh_is_no_obstacle() {
    let app = |mode| manifests::client_and_server(mode);
    let mesh = Mesh::start(&[("app.yaml", &app("none"))]);
    let target = format!("{}:9000", mesh.address("test", "server", false));
    let hold = || {
        let client = Client::start(&mesh, "test", "client", &["hold", &target]);
        let (at, _) = client.wait_for("open", e2e::PATIENCE);
        (client, at)
    };
    // From before it joined, from ports side by side that the server's agent is about to choose too: it has six.
    ports(&mesh, "client", "40000 40003");
    let mut held: Vec<_> = (0..3).map(|_| hold().0).collect();
    ports(&mesh, "client", "50000 50999");
    mesh.apply("app.yaml", &app("ambient"));
    let before = tunnelled(&mesh);
    mesh.eventually("new connections are tunnelled", |mesh| {
        drop(hold());
        if tunnelled(mesh) > before { Ok(()) } else { Err("none is".to_owned()) }
    });
    ports(&mesh, "server", "40000 40005");
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let begun = Instant::now();
        let (client, opened) = hold();
        longest = longest.max(opened - begun);
        held.push(client);
    }
    for client in held {
        let last = client.finish();
        assert!(last.starts_with("whole"), "{last}");
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    counted(&format!(
        "3 connections beside 3 from the same ports, the slowest open after {} ms",
        longest.as_millis()
    ));
}
