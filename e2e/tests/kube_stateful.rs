//! A headless StatefulSet on a real cluster: PostgreSQL, a primary and a replica that follows it, each called by its own name.
//! Needs what `e2e/cluster/build` builds, and images: `make e2e-kubernetes`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use e2e::cluster::Cluster;
use e2e::cluster::nodes::Nodes;
use e2e::cluster::pods::{get, is_ready, namespaces, strict, tunnelled};
use e2e::report::{counted, not_possible};
use e2e::{Outcome, run};
use serde_json::Value;

const TEST: &str = "a_database_and_its_replica_are_called_by_their_names";
const IMAGE: &str = "lateen.test/postgres:1";
/// Of one table, so that it takes more than a window of a tunnel.
const ROWS: u32 = 200_000;

/// Where this machine has PostgreSQL: its programs and libraries, and what it reads.
fn installed() -> Option<(String, String)> {
    let listed = run(Command::new("sh").args(["-c", "ls -d /usr/lib/postgresql/*/ | tail -n 1"]));
    let programs = listed.stdout.trim().trim_end_matches('/').to_owned();
    let version = Path::new(&programs).file_name()?.to_str()?.to_owned();
    Path::new(&programs)
        .join("bin/postgres")
        .exists()
        .then(|| (programs, format!("/usr/share/postgresql/{version}")))
}

/// The arguments of an image of this machine's PostgreSQL, with a shell.
fn image((programs, read): &(String, String)) -> Vec<String> {
    let mut arguments = Vec::new();
    for name in ["postgres", "initdb", "psql", "pg_basebackup", "pg_isready"] {
        arguments.extend(["--program".to_owned(), format!("{programs}/bin/{name}")]);
    }
    let busybox = run(Command::new("sh").args(["-c", "command -v busybox"])).stdout;
    arguments.push(format!("/bin/busybox={}", busybox.trim()));
    arguments.extend(["sh", "sleep", "hostname", "rm"].map(|name| format!("/bin/{name}->busybox")));
    let mut folders = vec![read.clone(), format!("{programs}/lib")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("PostgreSQL is installed") {
            let path = entry.expect("a folder can be listed").path();
            let name = path.to_string_lossy().into_owned();
            // Compiling at run time needs a compiler; nobody here reads manuals.
            let needless = ["bitcode", "llvmjit", "/man", "pgxs"].iter().any(|part| name.contains(part));
            match (needless, path.is_dir()) {
                (true, _) => {}
                (false, true) => folders.push(name),
                (false, false) => arguments.push(format!("{name}={name}")),
            }
        }
    }
    arguments
}

/// The first pod has the data; the second begins with a copy of it, and follows.
fn database(programs: &str) -> String {
    let script = format!(
        "set -e; PATH={programs}/bin:$PATH; export PGDATA=/tmp/db; \
         if [ $(hostname) = db-0 ]; then \
           initdb -U shop -A trust --locale=C -E UTF8 --no-sync; \
           echo 'host all,replication all all trust' >> $PGDATA/pg_hba.conf; \
         else \
           until pg_basebackup -h db-0.db -U shop -D $PGDATA -R -X stream -c fast; do rm -rf $PGDATA/*; sleep 1; done; \
         fi; \
         exec postgres -k /tmp -c listen_addresses='*' -c fsync=off -c jit=off"
    );
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: data}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{name: tcp-postgres, port: 5432}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: data}}
spec:
  serviceName: db
  replicas: 2
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {{runAsUser: 1337}}
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: db}}}}}}
      containers:
      - name: postgres
        image: {IMAGE}
        command: [/bin/sh, -c, \"{script}\"]
        readinessProbe: {{tcpSocket: {{port: 5432}}, periodSeconds: 1}}
---
"
    )
}

/// Somebody with `psql`.
fn client(namespace: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {namespace}}}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsUser: 1337}}
  containers:
  - {{name: app, image: '{IMAGE}', command: [/bin/sh, -c, 'while :; do sleep 1; done']}}
---
"
    )
}

/// A question to one of the two, from somebody.
fn ask(cluster: &Cluster, programs: &str, from: &str, host: &str, sql: &str) -> Outcome {
    let psql = format!("{programs}/bin/psql");
    let to = format!("host={host} user=shop dbname=postgres connect_timeout=10");
    let command = [&psql, to.as_str(), "-v", "ON_ERROR_STOP=1", "-qAtX", "-c", sql];
    cluster.kubectl(&[&["exec", "-n", from, "client", "--"], &command[..]].concat())
}

#[test]
fn a_database_and_its_replica_are_called_by_their_names() {
    let Some(installed) = installed() else {
        return not_possible(TEST, "PostgreSQL is not installed; apt-get install postgresql");
    };
    let Some(cluster) = Cluster::start(TEST) else { return };
    let nodes = Nodes::start(&cluster);
    nodes.install();
    nodes.image(IMAGE, &image(&installed));
    namespaces(&cluster, &nodes, &[("data", "ambient"), ("outside", "none")]);
    let programs = installed.0.as_str();
    cluster.apply(&[strict("data"), database(programs), client("data"), client("outside")].concat());
    let pod = |name: &str| get(&cluster, &["pod", "-n", "data", name]);
    let begun = Instant::now();
    for name in ["client", "db-0", "db-1"] {
        nodes.eventually(name, || is_ready(&pod(name)));
    }
    counted(&format!("a primary and its replica ready: {:.1?}", begun.elapsed()));

    let ours = |host: &str, sql: &str| ask(&cluster, programs, "data", host, sql);
    let write = format!(
        "create table orders (n int, line text); insert into orders select n, md5(n::text) from generate_series(1, {ROWS}) n"
    );
    let written = ours("db-0.db", &write);
    assert!(written.ok(), "{written}");
    // Each name is one pod: what is written there is read here, and nothing can be written here.
    let counts = |host: &str| match ours(host, "select count(*) from orders") {
        answer if answer.stdout.trim() == ROWS.to_string() => Ok(()),
        answer => Err(answer.to_string()),
    };
    nodes.eventually("the replica", || counts("db-1.db"));
    let refused = ours("db-1.db.data.svc.cluster.local", "delete from orders");
    assert!(refused.stderr.contains("read-only transaction"), "{refused}");
    let copied = ours("db-1.db", "copy orders to stdout");
    assert_eq!(copied.stdout.lines().count(), ROWS as usize, "{}", copied.stderr);
    for name in ["db-0", "db-1"] {
        let served = tunnelled(&nodes, node_of(&pod(name)), "destination", "destination_workload", "db");
        assert!(served > 0, "{name}");
    }
    // That of the replica itself: its stream of changes.
    assert!(tunnelled(&nodes, node_of(&pod("db-1")), "source", "source_workload", "db") > 0);
    let stranger = ask(&cluster, programs, "outside", "db-0.db.data", "select 1");
    assert!(!stranger.ok(), "somebody outside the mesh passed STRICT: {stranger}");

    // Made again it has another address, and the name goes there.
    let before = pod("db-1");
    let deleted = cluster.kubectl(&["delete", "pod", "-n", "data", "db-1", "--wait=false"]);
    assert!(deleted.ok(), "{deleted}");
    let begun = Instant::now();
    nodes.eventually("the replica again", || {
        let now = pod("db-1");
        if now["metadata"]["uid"] == before["metadata"]["uid"] {
            return Err("it is still the one of before".to_owned());
        }
        is_ready(&now)?;
        counts("db-1.db")
    });
    counted(&format!("the replica made again and read from: {:.1?}", begun.elapsed()));
}

/// The number of the node that a pod is on.
fn node_of(pod: &Value) -> u8 {
    let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    name.trim_start_matches("node-").parse().expect("a node of ours")
}
