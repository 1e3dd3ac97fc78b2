//! Agentgateway as a waypoint: services, endpoint and routes from a file, as its own configuration has them, and the certificate
//! from our controller, which signs for it as Istio's would.

use std::net::SocketAddr;
use std::process::Command;
use std::{fs, iter};

use serde_json::{Map, Value, json};

use super::ground::{Ground, HBONE, SERVER, WAYPOINT};
use super::mesh::{self, Mesh};
use super::ours::{self, failed};
use super::{Hosts, Setting};
use crate::process::Process;
use crate::variants::VariantError;

/// Who it is where no control plane says so: a service is served only if this is its waypoint.
const ITSELF: &str = "default/default.default.svc.cluster.local";

/// It and who signs for it.
pub(super) struct Agentgateway {
    pub process: Process,
    _ctrl: Process,
}

/// Starts both, and waits until tunnels are accepted.
pub(super) fn start(
    ground: &Ground,
    setting: &Setting,
    hosts: Hosts<'_>,
) -> Result<Agentgateway, VariantError> {
    let binary = setting.agentgateway.as_deref().ok_or(VariantError::NotGiven("--agentgateway PATH"))?;
    let folder = &ground.folder;
    let mesh = Mesh::write(folder).map_err(failed("writing the mesh"))?;
    let ctrl = ours::controller(ground, &setting.programs()?.ctrl, &mesh)?;
    let path = folder.join("agentgateway.json");
    fs::write(&path, config(hosts).to_string()).map_err(failed("writing agentgateway.json"))?;
    let mut command = Command::new(binary);
    command.arg("--file").arg(&path).env_clear();
    command
        .env("CA_ADDRESS", format!("https://{}", ours::CTRL))
        .env("CA_ROOT_CA", folder.join("ca/root-cert.pem"))
        .env("CA_AUTH_TOKEN", folder.join("tokens/bench_waypoint"))
        .env("NAMESPACE", "bench")
        .env("SERVICE_ACCOUNT", "waypoint")
        .env("WORKER_THREADS", setting.threads.to_string())
        .env("RUST_LOG", if setting.access_log { "info" } else { "warn" });
    let process = Process::start("agentgateway", &mut command, &ground.waypoint, folder)?;
    let mut process = process.patient(ours::LOADING);
    process.wait_listening(&ground.waypoint, SocketAddr::new(WAYPOINT, HBONE))?;
    Ok(Agentgateway { process, _ctrl: ctrl })
}

/// Its file. The service's requests go by its own default route; other hosts have routes as ours and Envoy's have them.
fn config(hosts: Hosts<'_>) -> Value {
    let ports = |app: fn(&str) -> Value| -> Map<String, Value> {
        mesh::PORTS.iter().map(|(name, port)| (port.to_string(), app(name))).collect()
    };
    let target = |_: &str| json!(mesh::PORT);
    let app = service("app", &mesh::SERVICE.to_string(), &ports(target), &ports(spoken));
    let more = hosts.iter().enumerate().map(|(number, (name, _))| {
        let target = Map::from_iter([("80".to_owned(), json!(mesh::PORT))]);
        service(name, &mesh::address(number), &target, &Map::new())
    });
    json!({
        "binds": [{
            "port": HBONE, "tunnelProtocol": "hboneWaypoint",
            "listeners": [{"name": "mesh", "protocol": "HBONE", "routes": routes(hosts)}],
        }],
        "services": iter::once(app).chain(more).collect::<Vec<_>>(),
        "workloads": [{
            "uid": "server", "name": "server", "namespace": "bench", "serviceAccount": "server",
            "trustDomain": "cluster.local", "workloadIps": [SERVER], "protocol": "HBONE",
            "services": {format!("bench/{}", mesh::HOST): ports(target)},
        }],
    })
}

/// What is spoken at a port of this name.
fn spoken(port: &str) -> Value {
    match port {
        "http2" => json!("Http2"),
        "grpc" => json!("Grpc"),
        _ => json!("Http11"),
    }
}

fn service(name: &str, address: &str, ports: &Map<String, Value>, spoken: &Map<String, Value>) -> Value {
    json!({
        "name": name, "namespace": "bench", "hostname": mesh::host(name), "vips": [format!("/{address}")],
        "ports": ports, "appProtocols": spoken,
        "waypoint": {"destination": ITSELF, "hboneMtlsPort": HBONE},
    })
}

/// The routes of all hosts that have any, and after them one for all else.
fn routes(hosts: Hosts<'_>) -> Vec<Value> {
    let of_host = |(name, count): &(String, usize)| {
        let one = |prefix: &str| {
            json!({
                "hostnames": [mesh::host(name)],
                "matches": [{"path": {"pathPrefix": prefix}}],
                "backends": [{"service": {"name": format!("bench/{}", mesh::HOST), "port": 80}}],
            })
        };
        (0..*count).map(|number| one(&mesh::prefix(number))).chain([one("/")]).collect::<Vec<_>>()
    };
    hosts.iter().filter(|(_, count)| *count > 0).flat_map(of_host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_leads_to_the_endpoint_and_every_host_has_its_routes() {
        let file = config(&[("host-0".to_owned(), 2), ("host-1".to_owned(), 0)]);
        let app = &file["services"][0];
        let endpoint = &file["workloads"][0];
        let ports = json!({"80": 8080, "81": 8080, "82": 8080});
        assert_eq!(app["ports"], ports);
        assert_eq!(app["appProtocols"], json!({"80": "Http11", "81": "Http2", "82": "Grpc"}));
        assert_eq!(endpoint["services"]["bench/app.bench.svc.cluster.local"], ports);
        assert_eq!(endpoint["workloadIps"], json!(["10.9.1.2"]));
        assert_eq!(file["services"].as_array().unwrap().len(), 3);
        let routes = file["binds"][0]["listeners"][0]["routes"].as_array().unwrap();
        let paths: Vec<_> = routes.iter().map(|route| &route["matches"][0]["path"]["pathPrefix"]).collect();
        assert_eq!(paths, ["/r/0/", "/r/1/", "/"]);
        assert_eq!(routes[0]["hostnames"], json!(["host-0.bench.svc.cluster.local"]));
    }
}
