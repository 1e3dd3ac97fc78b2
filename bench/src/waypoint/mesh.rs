//! What our controller is told: a waypoint, the service behind it, and as many services and routes more as are wanted. All as
//! files: what a mesh without Kubernetes writes itself, and what people write.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ground::{CLIENT, SERVER, WAYPOINT};

/// The service's address.
pub(crate) const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// The service's host.
pub(crate) const HOST: &str = "app.bench.svc.cluster.local";
/// Where its pod listens.
pub(crate) const PORT: u16 = 8080;
/// The service's ports, by what is spoken there.
pub(crate) const PORTS: [(&str, u16); 3] = [("http", 80), ("http2", 81), ("grpc", 82)];
/// Label of what belongs to a Gateway.
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";

/// The port of the service at which this is spoken.
pub(crate) fn service(protocol: crate::http::Protocol) -> SocketAddr {
    let port = PORTS[protocol as usize].1;
    SocketAddr::new(SERVICE, port)
}

/// The full name of a service.
pub(crate) fn host(service: &str) -> String {
    format!("{service}.bench.svc.cluster.local")
}

/// The address of one of the services more.
pub(crate) fn address(number: usize) -> String {
    format!("10.{}.{}.{}", 100 + (number >> 16), (number >> 8) & 255, number & 255)
}

/// The files.
#[derive(Debug)]
pub(crate) struct Mesh {
    objects: PathBuf,
    written: PathBuf,
    temporary: PathBuf,
}

impl Mesh {
    /// Writes the waypoint, its client, the service and its pod.
    pub(crate) fn write(folder: &Path) -> io::Result<Self> {
        let mesh = Self {
            objects: folder.join("objects"),
            written: folder.join("written"),
            temporary: folder.join("next"),
        };
        fs::create_dir_all(&mesh.objects)?;
        fs::create_dir_all(&mesh.written)?;
        mesh.put("namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: bench, labels: {istio.io/dataplane-mode: ambient}}\n")?;
        mesh.put(
            "waypoint",
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: waypoint, namespace: bench}\n\
             spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n",
        )?;
        let none = json!({GATEWAY: "waypoint", "istio.io/dataplane-mode": "none"});
        mesh.object(&pod("waypoint", WAYPOINT, &none))?;
        mesh.object(&pod("client", CLIENT, &json!({"app": "client"})))?;
        mesh.object(&pod("server", SERVER, &json!({"app": "server"})))?;
        let ports = json!([{"name": "mesh", "port": 15008, "targetPort": 15008, "appProtocol": "hbone"}]);
        mesh.object(&kind_of_service(
            "waypoint",
            "10.96.0.2",
            &json!({}),
            Some(json!({GATEWAY: "waypoint"})),
            &ports,
        ))?;
        let ports: Vec<_> = PORTS
            .iter()
            .map(|(name, port)| json!({"name": name, "port": port, "targetPort": PORT}))
            .collect();
        let bound = json!({"istio.io/use-waypoint": "waypoint"});
        let selector = Some(json!({"app": "server"}));
        mesh.object(&kind_of_service("app", &SERVICE.to_string(), &bound, selector, &json!(ports)))?;
        Ok(mesh)
    }

    /// Folder of what the mesh itself writes.
    pub(crate) fn objects(&self) -> &Path {
        &self.objects
    }

    /// Folder of what people write.
    pub(crate) fn written(&self) -> &Path {
        &self.written
    }

    /// Services more, bound to the waypoint, without pods: `host-0` and so on.
    pub(crate) fn services(&self, count: usize) -> io::Result<()> {
        let bound = json!({"istio.io/use-waypoint": "waypoint"});
        let ports = json!([{"name": "http", "port": 80, "targetPort": PORT}]);
        for number in 0..count {
            let (name, address) = (format!("host-{number}"), address(number));
            self.object(&kind_of_service(&name, &address, &bound, None, &ports))?;
        }
        Ok(())
    }

    /// The routes of a service: so many, one for each prefix `/r/0/` and so on, of which the last says this version.
    pub(crate) fn routes(&self, service: &str, count: usize, version: u64) -> io::Result<()> {
        self.put(&format!("routes-{service}"), &virtual_service(service, count, version))
    }

    /// Writes a file of what people write: whole or not at all.
    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        // One each: several may write at once.
        let temporary = self.temporary.with_extension(name);
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.written.join(format!("{name}.yaml")))
    }

    fn object(&self, object: &Value) -> io::Result<()> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let folder = self.objects.join(text("/kind")).join(text("/metadata/namespace"));
        fs::create_dir_all(&folder)?;
        fs::write(&self.temporary, object.to_string())?;
        fs::rename(&self.temporary, folder.join(format!("{}.json", text("/metadata/name"))))
    }
}

/// The path that the last of so many routes is for.
pub(crate) fn last_path(count: usize) -> String {
    format!("/r/{}/x", count.saturating_sub(1))
}

/// The prefix of a route.
pub(crate) fn prefix(number: usize) -> String {
    format!("/r/{number}/")
}

fn virtual_service(service: &str, count: usize, version: u64) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {service}, namespace: bench}}\n\
         spec:\n  hosts: [{service}]\n  http:\n"
    );
    for number in 0..count {
        let headers = match number + 1 == count {
            true => format!("headers: {{response: {{set: {{x-version: \"{version}\"}}}}}}, "),
            false => String::new(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  - {{match: [{{uri: {{prefix: {}}}}}], {headers}route: [{{destination: {{host: app}}}}]}}",
            prefix(number)
        );
    }
    // All else, as Envoy's last route.
    text.push_str("  - {route: [{destination: {host: app}}]}\n");
    text
}

fn kind_of_service(
    name: &str,
    address: &str,
    labels: &Value,
    selector: Option<Value>,
    ports: &Value,
) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "bench", "labels": labels},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": ports},
    });
    if let Some(selector) = selector {
        service["spec"]["selector"] = selector;
    }
    service
}

fn pod(name: &str, address: IpAddr, labels: &Value) -> Value {
    let ready =
        |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "bench", "uid": format!("uid-{name}"), "labels": labels,
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {
            "nodeName": name, "serviceAccountName": name,
            "containers": [{"name": "main", "image": "none", "ports": [{"containerPort": PORT}]}],
        },
        "status": {
            "phase": "Running", "podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}],
            "conditions": [ready("Ready"), ready("ContainersReady"), ready("PodScheduled")],
        },
    })
}
