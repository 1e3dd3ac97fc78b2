//! The objects in a real API server: etcd and kube-apiserver by the scripts of `e2e/cluster`, in a network namespace of
//! their own and without nodes. What kubelets would say of pods is written in their place.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::netns::Netns;

use super::Source;
use super::simulated::{Credentials, node};
use crate::isolate;
use crate::process::Process;
use crate::scale::failed;
use crate::scale::world::{names, pod, service};
use crate::variants::VariantError;

/// Set where the API server is.
const INSIDE: &str = "LATEEN_BENCH_CLUSTER";
/// Port of loopback where `kubectl proxy` serves the API, so that a request is no process and needs no TLS of ours.
const API: u16 = 8001;
/// Where the mesh is installed.
const SYSTEM: &str = "istio-system";
/// File of the roots.
const ROOTS: &str = "roots.pem";
/// As whom agents call.
const ACCOUNT: &str = "lateen-node-agent";

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cluster")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether this process runs beside an API server.
pub(super) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Starts an API server, runs this program beside it, and takes it down however that ends.
pub(super) fn around() -> io::Result<()> {
    let cluster = format!("bench-{}", std::process::id());
    let script = |name: &str| {
        let mut command = Command::new(scripts().join(name));
        command.env("LATEEN_CLUSTER", &cluster);
        command
    };
    // A signal is for who runs inside; this process stays to take everything down.
    isolate::hold_signals()?;
    let up = script("up").status()?;
    let measured = if up.success() {
        eprintln!("bench: an API server runs");
        script("inside").arg(env::current_exe()?).args(env::args_os().skip(1)).env(INSIDE, &cluster).status()
    } else {
        Ok(up)
    };
    let down = script("down").status()?;
    for (what, status) in [("the measurement", measured?), ("e2e/cluster/down", down)] {
        if !status.success() {
            return Err(io::Error::other(format!("{what}: {status}")));
        }
    }
    Ok(())
}

/// An API server with pods and services.
pub(super) struct ApiServer {
    folder: PathBuf,
    per_deployment: u32,
    _proxy: Process,
}

impl ApiServer {
    /// Writes so many pods, and a service and an account for each so many of them.
    pub(super) fn fill(
        folder: &Path,
        namespace: &Netns,
        pods: u32,
        per_deployment: u32,
    ) -> Result<Self, VariantError> {
        let mut command = kubectl();
        command.args(["proxy", "--port", &API.to_string()]);
        let mut proxy = Process::start("kubectl", &mut command, namespace, folder)?;
        proxy.wait_listening(namespace, (Ipv4Addr::LOCALHOST, API).into())?;
        let server = Self { folder: folder.to_owned(), per_deployment: per_deployment.max(1), _proxy: proxy };
        let definitions = root().join("deploy/helm/crds/templates");
        asked(kubectl().args(["apply", "--server-side", "-f"]).arg(definitions))?;
        let deployments = pods.div_ceil(server.per_deployment);
        let mut spaces: Vec<String> = (0..deployments).map(|deployment| names(deployment).1).collect();
        spaces.dedup();
        spaces.push(SYSTEM.to_owned());
        for space in &spaces {
            create(
                "namespaces",
                &json!({"metadata": {"name": space, "labels": {"istio.io/dataplane-mode": "ambient"}}}),
            )?;
        }
        create(&of(SYSTEM, "serviceaccounts"), &json!({"metadata": {"name": ACCOUNT}}))?;
        for deployment in 0..deployments {
            let (app, space) = names(deployment);
            create(&of(&space, "serviceaccounts"), &json!({"metadata": {"name": app}}))?;
            let mut service = service(deployment);
            // The API server has a range of its own.
            service["spec"].as_object_mut().map(|spec| spec.remove("clusterIP"));
            create(&of(&space, "services"), &service)?;
        }
        for number in 0..pods {
            let mut pod = pod(number, number / server.per_deployment, true);
            let space = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
            pod["metadata"].as_object_mut().map(|metadata| metadata.remove("uid"));
            create(&of(&space, "pods"), &pod)?;
            server.set_ready(number, true)?;
        }
        Ok(server)
    }
}

impl Source for ApiServer {
    const CHANGE: &str = "one status of a pod written to the API server";

    fn configure(&self, _: &Path, controller: &mut Command) {
        controller.env("CONFIG_SOURCE", "kubernetes").env("POD_NAME", "ctrl-1");
        controller.env("KUBECONFIG", env::var_os("KUBECONFIG").unwrap_or_default());
    }

    /// An agent is told by the node of the pod that its token is bound to.
    fn credentials(&self, folder: &Path, agents: u32) -> Result<Credentials, VariantError> {
        let token = |number: u32| {
            let name = format!("{ACCOUNT}-{number}");
            let spec = json!({
                "nodeName": node(number), "serviceAccountName": ACCOUNT, "hostNetwork": true,
                "containers": [{"name": "node-agent", "image": "registry.example/node-agent:1"}],
            });
            let pod = create(&of(SYSTEM, "pods"), &json!({"metadata": {"name": name}, "spec": spec}))?;
            let bound =
                json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": pod["metadata"]["uid"]});
            let asked = json!({"spec": {"audiences": ["istio-ca"], "boundObjectRef": bound}});
            let given = create(&format!("{}/{ACCOUNT}/token", of(SYSTEM, "serviceaccounts")), &asked)?;
            Ok(given["status"]["token"].as_str().unwrap_or_default().to_owned())
        };
        let tokens = (0..agents).map(token).collect::<Result<_, VariantError>>()?;
        Ok(Credentials { tokens, roots: folder.join(ROOTS) })
    }

    /// Writes the roots that it has given the namespace.
    fn ready(&self) -> Result<(), VariantError> {
        let map = ["get", "configmap", "-n", SYSTEM, "istio-ca-root-cert", "-o", "json"];
        let map = serde_json::from_str::<Value>(&asked(kubectl().args(map))?);
        let map = map.map_err(io::Error::other).map_err(failed("reading the roots"))?;
        let roots = map["data"]["root-cert.pem"].as_str().unwrap_or_default();
        fs::write(self.folder.join(ROOTS), roots).map_err(failed("writing the roots"))
    }

    fn set_ready(&self, number: u32, ready: bool) -> Result<(), VariantError> {
        let pod = pod(number, number / self.per_deployment, ready);
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let path = format!("{}/{}/status", of(text("namespace"), "pods"), text("name"));
        request("PATCH", &path, "application/merge-patch+json", &json!({"status": pod["status"]})).map(drop)
    }
}

fn kubectl() -> Command {
    let mut command = Command::new(scripts().join("kubectl"));
    command.env("LATEEN_CLUSTER", env::var_os(INSIDE).unwrap_or_default());
    command
}

fn asked(command: &mut Command) -> Result<String, VariantError> {
    let said = command.stderr(Stdio::inherit()).output().map_err(failed("running kubectl"))?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        false => Err(failed("running kubectl")(io::Error::other(said.status.to_string()))),
    }
}

fn of(namespace: &str, resource: &str) -> String {
    format!("namespaces/{namespace}/{resource}")
}

fn create(path: &str, object: &Value) -> Result<Value, VariantError> {
    request("POST", path, "application/json", object)
}

/// One request of the core API, and what it answers.
fn request(method: &str, path: &str, kind: &str, body: &Value) -> Result<Value, VariantError> {
    let exchange = || -> io::Result<Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, API))?;
        let body = body.to_string();
        // Of HTTP/1.0 the answer comes in one piece, and its end is that of the connection.
        write!(
            stream,
            "{method} /api/v1/{path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        match answer.split_once("\r\n\r\n") {
            Some((_, body)) if status.starts_with('2') => {
                serde_json::from_str(body).map_err(io::Error::other)
            }
            _ => Err(io::Error::other(format!("{method} {path}: {answer}"))),
        }
    };
    exchange().map_err(failed("asking the API server"))
}
