//! Asking a running mesh for every cell of the table, and comparing what comes with what is expected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::expected::{By, Expected, How, expected};
use super::manifests::{self, DOOR, LEADS_TO};
use super::policies::Case;
use super::way::{LOBBY, Waypoint};
use super::{Binding, Cell, Client, Request, Target};
use crate::Mesh;

/// Asks for each of a list, each on a connection of its own, and prints what came.
const ASK: &str = r#"
import http.client, json, socket, sys

def ask(own_port, host, port, head):
    try:
        connection = http.client.HTTPConnection(host, port, timeout=10)
        connection.sock = socket.socket()
        connection.sock.settimeout(10)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.sock.bind(('', own_port))
        connection.sock.connect((host, port))
        if head is None:
            status, body = 200, connection.sock.makefile().readline()
            if not body:
                raise ConnectionResetError('ended without a word')
        else:
            method, path, headers = head
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read().decode()
        connection.close()
        return dict(status=status, body=body)
    except (OSError, http.client.HTTPException) as error:
        return dict(status=0, body=type(error).__name__ + ': ' + str(error))

print(json.dumps([ask(*one) for one in json.load(sys.stdin)]))
"#;

/// How long a log may take to be written.
const WRITTEN: Duration = Duration::from_secs(10);

/// What came of a request.
#[derive(Debug, Clone, Deserialize)]
struct Answer {
    /// HTTP's status; 200 where a server of bytes spoke, 0 where nothing came.
    status: u16,
    body: String,
}

/// Addresses of a running mesh.
#[derive(Debug)]
pub struct World<'a> {
    mesh: &'a Mesh,
    /// Of pods, by namespace and name.
    pods: BTreeMap<(String, String), String>,
    /// All those of the clients: a node has several, and the way decides which one is seen.
    clients: BTreeMap<Client, BTreeSet<String>>,
    /// Of waypoints.
    waypoints: BTreeMap<Waypoint, BTreeSet<String>>,
    rounds: AtomicU16,
}

/// What was asked, by which number, and what came.
struct Asked {
    cell: Cell,
    /// Which no other request has.
    id: String,
    /// The client's own port, which its agent's log has. The kernel gives none out of [`PORTS`], and none is asked from
    /// twice within a round: two of them would be one connection to the translation of addresses, and one get another port.
    port: u16,
    answer: Answer,
}

/// Ports that clients ask from.
const PORTS: std::ops::Range<u16> = 17_000..32_000;
/// How many of them a round has.
const A_ROUND: u16 = 300;

impl<'a> World<'a> {
    /// Of a mesh that is ready.
    ///
    /// # Panics
    /// It does not tell of its pods.
    pub fn of(mesh: &'a Mesh) -> Self {
        let told = mesh.lateen(&["get", "pods", "-A", "-o", "json"]);
        let all: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        let mut pods = BTreeMap::new();
        let mut waypoints: BTreeMap<Waypoint, BTreeSet<String>> = BTreeMap::new();
        let known: Vec<Waypoint> = Binding::ALL
            .into_iter()
            .flat_map(|binding| Target::ALL.map(|target| super::way::way(target, binding)))
            .filter_map(|way| match way {
                super::way::Way::By(waypoint) => Some(waypoint),
                _ => None,
            })
            .chain([LOBBY])
            .collect();
        for pod in all["items"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let namespace = text(&pod["metadata"]["namespace"]);
            let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
            let ips: Vec<String> = ips.map(|ip| text(&ip["ip"])).collect();
            let gateway = &pod["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"];
            let of = known.iter().find(|known| *gateway == known.name && namespace == known.namespace);
            if let Some(waypoint) = of {
                waypoints.entry(*waypoint).or_default().extend(ips.clone());
            }
            let v4 = ips.into_iter().find(|ip| !ip.contains(':'));
            pods.extend(v4.map(|ip| ((namespace, text(&pod["metadata"]["name"])), ip)));
        }
        let clients = Client::ALL.map(|client| {
            let (namespace, pod) = pod_of(client);
            let told = mesh.exec(namespace, pod, &["hostname", "-I"]);
            (client, told.stdout.split_whitespace().map(str::to_owned).collect())
        });
        Self { mesh, pods, clients: clients.into(), waypoints, rounds: AtomicU16::default() }
    }

    fn address(&self, namespace: &str, pod: &str) -> &str {
        let known = self.pods.get(&(namespace.to_owned(), pod.to_owned()));
        known.unwrap_or_else(|| panic!("no pod {namespace}/{pod} among {:?}", self.pods))
    }

    /// Asks for every cell where these policies are in force; returns what differs, a line each. Where `causes` are
    /// wanted, the logs are asked for them too.
    pub fn compare(&self, case: &Case, causes: bool) -> Vec<String> {
        let asked = self.ask();
        let mut differences = Vec::new();
        for one in &asked {
            let wanted = expected(case, one.cell);
            if let Err(what) = self.is_as(one, &wanted) {
                differences.push(format!("{:?}: {what}, expected {wanted:?}", one.cell));
            }
        }
        if causes && differences.is_empty() {
            differences.extend(self.causes(case, &asked));
        }
        differences
    }

    /// How many cells there are.
    pub fn size(&self) -> usize {
        Cell::all().len()
    }

    fn ask(&self) -> Vec<Asked> {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        let of_client = |client: Client| {
            let first = PORTS.start + A_ROUND * (round % (PORTS.end - PORTS.start).div_euclid(A_ROUND));
            // Both ask from the same pod.
            let first = if client == Client::Waypoint { first + A_ROUND / 2 } else { first };
            let cells: Vec<(Cell, String, u16)> = Cell::all()
                .into_iter()
                .filter(|cell| cell.client == client)
                .zip(first..first + A_ROUND / 2)
                .map(|(cell, port)| (cell, format!("{round}-{}-{port}-", client as usize), port))
                .collect();
            let wanted: Vec<Value> =
                cells.iter().map(|(cell, id, port)| self.wish(*cell, id, *port)).collect();
            let answers = self.ask_as(client, &json!(wanted).to_string());
            assert_eq!(answers.len(), wanted.len(), "{client:?}");
            let asked = cells.into_iter().zip(answers);
            asked.map(|((cell, id, port), answer)| Asked { cell, id, port, answer }).collect::<Vec<_>>()
        };
        let of_client = &of_client;
        std::thread::scope(|scope| {
            let asking = Client::ALL.map(|client| scope.spawn(move || of_client(client)));
            asking
                .map(|thread| thread.join().expect("a client's thread ends"))
                .into_iter()
                .flatten()
                .collect()
        })
    }

    /// What the script is told to ask.
    fn wish(&self, cell: Cell, id: &str, own_port: u16) -> Value {
        let (namespace, name) = (cell.binding.namespace(), cell.binding.name());
        let service = format!("{}.{namespace}", manifests::service(cell.binding, cell.target));
        let head = |headers: Value| {
            cell.request.head().map(|(method, path)| json!([method, format!("{path}?id={id}"), headers]))
        };
        if cell.client == Client::Waypoint {
            let (host, port) = DOOR.split_once(':').expect("a host and a port");
            return json!([
                own_port,
                host,
                port.parse::<u16>().expect("a port"),
                head(json!({LEADS_TO: service}))
            ]);
        }
        let host = match cell.target {
            Target::Service | Target::Headless => service,
            Target::Pod => self.address(namespace, name).to_owned(),
        };
        json!([own_port, host, cell.request.port(), head(json!({}))])
    }

    fn ask_as(&self, client: Client, wishes: &str) -> Vec<Answer> {
        use std::io::Write;
        use std::process::Stdio;
        let (namespace, pod) = pod_of(client);
        let mut command = self.mesh.command(namespace, pod, &["python3", "-c", ASK]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("lateen exec starts");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        stdin.write_all(wishes.as_bytes()).expect("the script reads");
        drop(stdin);
        let output = child.wait_with_output().expect("the script ends");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            panic!("{client:?}: {error}: {out}{err}")
        })
    }

    /// Whether an answer is the one expected: its status, its body, and whom the server saw.
    fn is_as(&self, asked: &Asked, wanted: &Expected) -> Result<(), String> {
        let Answer { status, body, .. } = &asked.answer;
        let differs = || format!("{status} {}", body.trim_end());
        match wanted {
            Expected::Answer(by) if *status == 200 => {
                let seen = seen_by_server(asked.cell.request, body).ok_or_else(differs)?;
                let own = || self.clients[&asked.cell.client].contains(seen);
                let right = by.map_or_else(own, |waypoint| self.waypoints[&waypoint].contains(seen));
                if right { Ok(()) } else { Err(format!("the server saw {seen}")) }
            }
            Expected::Refusal { how: How::Forbidden, .. } if *status == 403 => match body.as_str() {
                "RBAC: access denied" => Ok(()),
                _ => Err(differs()),
            },
            Expected::Refusal { how: How::Unavailable, .. } if *status == 503 => Ok(()),
            // Nothing comes: neither a status nor a byte.
            Expected::Refusal { how: How::Reset, .. } if *status == 0 => {
                let ended = ["ConnectionReset", "RemoteDisconnected", "BrokenPipe"]
                    .iter()
                    .any(|kind| body.starts_with(kind));
                if ended { Ok(()) } else { Err(differs()) }
            }
            _ => Err(differs()),
        }
    }

    /// Which refusals no log gives the expected cause of. Logs are written by and by.
    fn causes(&self, case: &Case, asked: &[Asked]) -> Vec<String> {
        let deadline = Instant::now() + WRITTEN;
        loop {
            let missing = self.missing_causes(case, asked);
            if missing.is_empty() || Instant::now() >= deadline {
                return missing;
            }
            crate::pause();
        }
    }

    fn missing_causes(&self, case: &Case, asked: &[Asked]) -> Vec<String> {
        let mut logs = Logs::new(self.mesh);
        let mut missing = Vec::new();
        for one in asked {
            let wanted = expected(case, one.cell);
            let Expected::Refusal { how, by, cause } = &wanted else { continue };
            let (of, keys) = self.told_where(one, *how, *by);
            let said = logs.said(&of, &keys);
            if !said.iter().any(|line| line.contains(cause.as_str())) {
                missing.push(format!("{:?}: {of} says of {keys:?}: {said:?}, expected {cause}", one.cell));
            }
        }
        missing
    }

    /// Whose log names the cause of a refusal, and by what its line is found, one of these.
    fn told_where(&self, asked: &Asked, how: How, by: By) -> (String, Vec<String>) {
        let request = vec![format!("id={}", asked.id)];
        let log = |waypoint: Waypoint| format!("{}/waypoint/{}", waypoint.namespace, waypoint.name);
        match (how, by) {
            (How::Unavailable, _) => (log(LOBBY), request),
            (How::Forbidden, By::Waypoint(waypoint)) => (log(waypoint), request),
            // The cause comes back to the agent of who asked; of who has none, the server's knows.
            _ => {
                let addresses = self.clients[&asked.cell.client].iter();
                let from = |address: &String| format!("src.addr={address}:{}", asked.port);
                (String::from("agents"), addresses.map(from).collect())
            }
        }
    }
}

/// The namespace and the name of a client's pod.
fn pod_of(client: Client) -> (&'static str, &'static str) {
    match client {
        Client::Friend | Client::Waypoint => ("clients", "friend"),
        Client::Stranger => ("clients", "stranger"),
        Client::Plaintext => ("outside", "plaintext"),
        Client::HostNear => ("outside", "host-near"),
        Client::HostFar => ("outside", "host-far"),
    }
}

/// The address that a server says it was asked from.
fn seen_by_server(request: Request, body: &str) -> Option<&str> {
    let peer = match request {
        Request::Bytes => body.trim_end().rsplit_once(" sees ")?.1,
        _ => body.split_once("\"peer\": \"")?.1.split_once('"')?.0,
    };
    Some(peer.rsplit_once(':')?.0)
}

/// Logs, read once, by what their lines are found by.
struct Logs<'a> {
    mesh: &'a Mesh,
    known: HashMap<String, HashMap<String, Vec<String>>>,
}

impl<'a> Logs<'a> {
    fn new(mesh: &'a Mesh) -> Self {
        Self { mesh, known: HashMap::new() }
    }

    /// The lines of a log (`agents`, or `NAMESPACE/waypoint/NAME`) that have one of these keys in them.
    fn said(&mut self, of: &str, keys: &[String]) -> Vec<String> {
        let mesh = self.mesh;
        let lines = self.known.entry(of.to_owned()).or_insert_with(|| match of.split_once('/') {
            Some((namespace, of)) => by_key(&mesh.lateen(&["logs", "-n", namespace, of]).stdout),
            None => by_key(&mesh.agent_logs()),
        });
        keys.iter().filter_map(|key| lines.get(key)).flatten().cloned().collect()
    }
}

fn by_key(log: &str) -> HashMap<String, Vec<String>> {
    let mut all: HashMap<String, Vec<String>> = HashMap::new();
    for line in log.lines() {
        for word in line.split([' ', '\t', '?', '"']) {
            if word.starts_with("id=") || word.starts_with("src.addr=") {
                all.entry(word.to_owned()).or_default().push(line.to_owned());
            }
        }
    }
    all
}
