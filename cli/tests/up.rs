//! `lateen up` for real, without agents: namespaces, pods, services, names, exec, logs, and that nothing is left.

#[path = "up/meshes.rs"]
mod meshes;

use std::process::Stdio;

use meshes::{Caller, Mesh, read_until, signal, text, wait_for};
use nix::sys::signal::Signal;

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: never/pulled
        command: [lateen, echo, --http, "80", --tcp, "9000", --version, one]
        ports: [{name: http, containerPort: 80}]
        readinessProbe: {httpGet: {path: /ready, port: http}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http}, {name: tcp, port: 9000}]
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  nodeName: node-2
  initContainers:
  - {name: first, command: [sh, -c, "echo from-init > /data/first"], volumeMounts: [{name: data, mountPath: /data}]}
  containers:
  - name: c
    command: [sh, -c, "echo started $(NODE); exec sleep infinity"]
    env:
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: conf, mountPath: /etc/lateen-test/conf}
  volumes:
  - {name: data, emptyDir: {}}
  - {name: conf, configMap: {name: conf}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {a.txt: one}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {k: hidden}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: j, command: [echo, done]}]}
"#;

const IDLE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: idle}
spec: {containers: [{name: c, command: [sleep, infinity]}]}
"#;

#[test]
fn pods_find_and_reach_one_another() {
    for caller in Caller::all() {
        let mesh = Mesh::up(caller, SHOP);
        for (script, expected) in [
            // By name, both families, over nodes; the service spreads over its pods.
            ("curl -sf 'http://web.shop:8080/?format=text' | grep ^path", "path: /?format=text\n"),
            ("curl -sf4 'http://web.shop:8080/?format=text' | grep -c '^peer: 10.244.2.'", "1\n"),
            ("curl -sf6 'http://web.shop:8080/?format=text' | grep -c '^peer: .fd00:10:244:2:'", "1\n"),
            (
                "for i in $(seq 30); do curl -sf 'http://web.shop:8080/?format=text' | grep ^name; done | sort -u | wc -l",
                "2\n",
            ),
            ("getent ahostsv4 headless.shop.svc.cluster.local | awk '{print $1}' | sort -u | wc -l", "2\n"),
            // Nothing outside, nothing unknown, and quickly so.
            ("getent hosts example.com || echo none", "none\n"),
            ("curl -s --max-time 5 http://192.0.2.1/; echo $?", "7\n"),
            ("curl -s --max-time 5 http://web.shop:81/; echo $?", "7\n"),
            ("curl -s --max-time 5 http://10.96.99.99/; echo $?", "7\n"),
            // What the manifest says about the container.
            (
                "cat /data/first /etc/lateen-test/conf/a.txt; echo; echo $NODE $FROM_SECRET",
                "from-init\none\nnode-2 hidden\n",
            ),
            ("hostname; tail -1 /etc/resolv.conf", "client\noptions ndots:5\n"),
            // Its own /tmp, but for what it was given.
            ("touch /tmp/x && ls /run | grep -c lateen", "0\n"),
        ] {
            let script = format!("{script} || true");
            assert_eq!(mesh.shell("client", &script), expected, "{caller:?}: {script}");
        }
        // A pod behind a service reaches itself through it.
        let itself = "for i in $(seq 12); do curl -sf --max-time 5 -o /dev/null http://web:8080/ || exit 1; done; echo ok";
        let output = mesh.run(&["exec", "-n", "shop", "deploy/web", "--", "sh", "-c", itself]);
        assert_eq!(text(&output.stdout), "ok\n", "{caller:?}");
    }
}

#[test]
fn tcp_is_echoed_until_both_sides_have_said_their_last() {
    let mesh = Mesh::up(Caller::Me, SHOP);
    let script = "python3 -c 'import socket
s = socket.create_connection((\"web.shop\", 9000))
s.sendall(b\"hello\"); s.shutdown(socket.SHUT_WR)
data = b\"\".join(iter(lambda: s.recv(9), b\"\"))
print(data.split(b\"\\n\")[1])'";
    assert_eq!(mesh.shell("client", script), "b'hello'\n");
}

#[test]
fn containers_run_as_whom_they_should() {
    let manifests = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec: {containers: [{name: c, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec: {securityContext: {runAsUser: 4711}, containers: [{name: c, command: [sleep, infinity]}]}
"#;
    for caller in Caller::all() {
        let mesh = Mesh::up(caller, manifests);
        let own = if caller.is_root() {
            "0\n".to_owned()
        } else {
            format!("{}\n", if caller == Caller::Me { nix::unistd::geteuid().as_raw() } else { 54_321 })
        };
        assert_eq!(mesh.shell("plain", "id -u"), own, "{caller:?}");
        assert_eq!(
            mesh.shell("other", "id -u; touch /tmp/mine && stat -c %u /tmp/mine"),
            "4711\n4711\n",
            "{caller:?}"
        );
        // None of them may change rules, or mark packets to get around them.
        for pod in ["plain", "other"] {
            assert_eq!(
                mesh.shell(pod, "ip link set lo down 2>/dev/null || echo no"),
                "no\n",
                "{caller:?} {pod}"
            );
        }
        let privileged = mesh.run(&["exec", "plain", "--privileged", "--", "ip", "link", "set", "lo", "up"]);
        assert!(privileged.status.success(), "{caller:?}: {}", text(&privileged.stderr));
    }
}

#[test]
fn every_kind_of_workload_runs() {
    let manifests = r#"
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  nodeName: node-1
  hostNetwork: true
  containers: [{name: c, command: [lateen, echo, --http, "8080"], readinessProbe: {httpGet: {port: 8080}}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      initContainers:
      - {name: stays, restartPolicy: Always, command: [sleep, infinity]}
      - {name: first, command: [sh, -c, "hostname > /data/name"], volumeMounts: [{name: data, mountPath: /data}]}
      containers:
      - name: c
        command: [lateen, echo, --http, "80"]
        readinessProbe: {exec: {command: [curl, -sf, "http://localhost/"]}}
        livenessProbe: {tcpSocket: {port: 80}}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: every}
spec:
  selector: {matchLabels: {app: every}}
  template:
    metadata: {labels: {app: every}}
    spec: {containers: [{name: c, command: [sleep, infinity]}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: twice}
spec:
  completions: 2
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, containers: [{name: c, command: [curl, -sf, -o, /dev/null, "http://db-1.db/"]}]}
"#;
    for caller in Caller::all() {
        let mesh = Mesh::up(caller, manifests);
        let pods = || text(&mesh.run(&["get", "pods"]).stdout);
        wait_for("the Job to have succeeded twice", || {
            pods().lines().filter(|line| line.starts_with("twice-") && line.contains("Completed")).count()
                == 2
        });
        assert_eq!(pods().lines().filter(|line| line.starts_with("every-")).count(), 2, "{}", pods());
        assert_eq!(
            mesh.shell("ds/every", "curl -sf 'http://db-0.db/?format=text' | head -1"),
            "name: db-0\n"
        );
        assert_eq!(mesh.shell("db-1", "cat /data/name"), "db-1\n", "a claim for each pod");
        let host = "curl -sf 'http://172.31.0.11:8080/?format=text' | grep -c '^name'";
        assert_eq!(mesh.shell("db-1", host), "1\n", "{caller:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_fails_a_detached_start() {
    let mesh = Mesh::new(Caller::Me, IDLE);
    mesh.write("broken.yaml", "kind: [");
    let output = mesh.run_up(&["--detach"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("broken.yaml:1:7"), "{}", text(&output.stderr));
    mesh.write("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: node-9, containers: [{name: c, command: [x]}]}\n");
    let output = mesh.run_up(&["--detach"]);
    assert!(text(&output.stderr).contains("no node \"node-9\""), "{}", text(&output.stderr));
}

#[test]
fn exec_is_like_running_the_command_here() {
    for caller in Caller::all() {
        let mesh = Mesh::up(caller, IDLE);
        for (command, code) in [
            (vec!["true"], 0),
            (vec!["sh", "-c", "exit 42"], 42),
            (vec!["sh", "-c", "kill -TERM $$"], 143),
            (vec!["no-such-command"], 127),
            (vec!["/etc/passwd"], 126),
        ] {
            let mut args = vec!["exec", "idle", "--"];
            args.extend(&command);
            assert_eq!(mesh.exit_code(&args), code, "{caller:?} {command:?}");
        }
        assert_eq!(mesh.exit_code(&["exec", "nobody", "--", "true"]), 1);
        assert_eq!(mesh.exit_code(&["exec", "idle", "true"]), 64, "a command needs --");
        let output = mesh.run(&["exec", "id", "--", "sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
        let mut child = mesh.command(&["exec", "idle", "--", "cat"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("exec starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"through\n").expect("written");
        assert_eq!(text(&child.wait_with_output().expect("ends").stdout), "through\n");
    }
}

#[test]
fn exec_passes_signals_on_and_ends_with_its_caller() {
    let mesh = Mesh::up(Caller::Me, IDLE);
    let script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = mesh.command(&["exec", "idle", "--", "sh", "-c", script]);
    let mut child = child.stdout(Stdio::piped()).spawn().expect("exec starts");
    assert_eq!(read_until(&mut child, "ready"), ["ready"]);
    signal(child.id(), Signal::SIGINT);
    assert_eq!(child.wait().expect("ends").code(), Some(9));
    // A caller that is killed takes its command with it.
    let mut child = mesh.command(&["exec", "idle", "--", "sh", "-c", "echo ready; exec sleep 4242"]);
    let mut child = child.stdout(Stdio::piped()).spawn().expect("exec starts");
    read_until(&mut child, "ready");
    signal(child.id(), Signal::SIGKILL);
    child.wait().expect("ends");
    wait_for("the command to end", || mesh.shell("idle", "pgrep -f '[s]leep 4242' | wc -l") == "0\n");
}

#[test]
fn a_changed_file_takes_effect_and_a_broken_one_does_not() {
    let mesh = Mesh::up(Caller::Me, SHOP);
    let version =
        || mesh.shell("client", "curl -sf 'http://web.shop:8080/?format=text' | grep ^version || true");
    assert_eq!(version(), "version: one\n");
    mesh.write(
        "mesh.yaml",
        &SHOP.replace("--version, one", "--version, two").replace("a.txt: one", "a.txt: two"),
    );
    wait_for("the new version", || version() == "version: two\n");
    wait_for("the old pods to go", || {
        text(&mesh.run(&["get", "pods", "-n", "shop", "-o", "name"]).stdout).lines().count() == 2
    });
    wait_for("the file in the volume", || mesh.shell("client", "cat /etc/lateen-test/conf/a.txt") == "two");
    mesh.write("mesh.yaml", "kind: [");
    mesh.write("more.yaml", IDLE);
    wait_for("the new pod", || mesh.exit_code(&["exec", "idle", "--", "true"]) == 0);
    assert_eq!(version(), "version: two\n", "what was in force stays in force");
    let log = std::fs::read_to_string(mesh.state().join("logs/mesh.log")).expect("log");
    assert!(log.contains("mesh.yaml:1:7"), "{log}");
}

#[test]
fn logs_are_kept_and_the_last_run_too() {
    let manifests = r#"
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  containers:
  - {name: c, command: [sh, -c, "echo run; test -e /data/x && exec sleep infinity; touch /data/x; echo gone; exit 3"], volumeMounts: [{name: d, mountPath: /data}]}
  volumes: [{name: d, emptyDir: {}}]
"#;
    let mesh = Mesh::up(Caller::Me, manifests);
    wait_for("the second run", || {
        text(&mesh.run(&["get", "pod", "again", "-o", "json"]).stdout).contains("\"restartCount\": 1")
    });
    let logs = |args: &[&str]| text(&mesh.run(&[&["logs", "again"], args].concat()).stdout);
    assert_eq!(logs(&[]), "run\n");
    assert_eq!(logs(&["--previous"]), "run\ngone\n");
    assert_eq!(logs(&["--previous", "--tail", "1"]), "gone\n");
    assert_eq!(mesh.exit_code(&["logs", "nobody"]), 1);
    let mut follower =
        mesh.command(&["logs", "again", "-f"]).stdout(Stdio::piped()).spawn().expect("logs starts");
    assert_eq!(read_until(&mut follower, "run"), ["run"]);
    follower.kill().expect("killed");
    follower.wait().expect("ends");
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let manifests = IDLE.replace("[sleep, infinity]", "[no-such-command]");
    let mesh = Mesh::new(Caller::Me, &manifests);
    let output = mesh.run_up(&["--detach"]);
    assert_eq!(output.status.code(), Some(1));
    let reason = text(&output.stderr);
    for part in ["default/idle", "container c", "no-such-command"] {
        assert!(reason.contains(part), "{part} is not in {reason}");
    }
    mesh.assert_gone("a start that failed");
    let mesh = Mesh::new(
        Caller::Me,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: nginx}]}\n",
    );
    let output = mesh.run_up(&["--detach"]);
    assert!(text(&output.stderr).contains("images are not pulled"), "{}", text(&output.stderr));
}

#[test]
fn ctrl_c_at_any_moment_leaves_nothing() {
    for caller in Caller::all() {
        // Before the first word, after the first pod, when all is ready.
        for moment in ["", "ready", "is up"] {
            for number in [Signal::SIGINT, Signal::SIGTERM] {
                let mesh = Mesh::new(caller, SHOP);
                let mut child = mesh.spawn_up();
                if !moment.is_empty() {
                    read_until(&mut child, moment);
                } else {
                    wait_for("the folder", || mesh.state().exists());
                }
                signal(child.id(), number);
                let code = child.wait().expect("ends").code();
                assert_eq!(code, Some(128 + number as i32), "{caller:?} {moment:?}");
                mesh.assert_gone(&format!("{caller:?} {number} at {moment:?}"));
            }
        }
    }
}

#[test]
fn a_killed_command_or_keeper_takes_everything_along() {
    for caller in Caller::all() {
        let mesh = Mesh::new(caller, IDLE);
        let mut child = mesh.spawn_up();
        read_until(&mut child, "is up");
        signal(child.id(), Signal::SIGKILL);
        child.wait().expect("ends");
        mesh.assert_gone("lateen up was killed");

        let mesh = Mesh::up(caller, IDLE);
        let file = std::fs::read(mesh.state().join("mesh.json")).expect("mesh.json");
        let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
        let keeper = file["keeper"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("a keeper");
        signal(keeper, Signal::SIGKILL);
        wait_for("the processes to end", || mesh.processes().is_empty());
        // Its folder is what a crash leaves; it is no mesh, and down removes it.
        assert_eq!(mesh.exit_code(&["exec", "idle", "--", "true"]), 1);
        assert_eq!(mesh.exit_code(&["down"]), 0);
        assert_eq!(mesh.exit_code(&["down"]), 0, "down can be repeated");
        mesh.assert_gone("down after a crash");
    }
}

#[test]
fn meshes_stand_side_by_side() {
    let (one, two) = (Mesh::up(Caller::Me, IDLE), Mesh::up(Caller::Me, IDLE));
    one.shell("idle", "echo one > /tmp/who");
    assert_eq!(two.shell("idle", "cat /tmp/who 2>/dev/null || echo nobody"), "nobody\n");
    let again = one.run_up(&["--detach"]);
    assert!(text(&again.stderr).contains("already running"), "{}", text(&again.stderr));
    assert_eq!(one.shell("idle", "cat /tmp/who"), "one\n", "the first goes on");
}
