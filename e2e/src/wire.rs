//! Proxies that are not ours at the other end of a tunnel: what they are, how they get the mesh's certificates, and
//! what can be seen of the tunnels they share with an agent.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::envoy::Credentials;

use crate::{Mesh, Outcome, built, example, manifests};

/// Where the controller of a mesh listens, for pods too.
const CONTROLLER: &str = "https://172.31.0.1:15012";

/// The namespace of the pods in which the other proxies run; not enrolled, so that nothing of ours is in their way.
pub const NAMESPACE: &str = "peers";

/// Envoy.
///
/// # Panics
/// It is not there; the text says how to get it.
pub fn envoy() -> String {
    let binary = testkit::envoy::binary().expect("Envoy is there; scripts/peers gets it");
    binary.to_string_lossy().into_owned()
}

/// The program around Istio's own HBONE package (`e2e/peers/istio-hbone`).
///
/// # Panics
/// It is not there; the text says how to get it.
pub fn istio_hbone() -> String {
    built("peers/istio-hbone", "scripts/peers").to_string_lossy().into_owned()
}

/// The conformance tests of HTTP/2 (`e2e/peers/h2spec`).
///
/// # Panics
/// They are not there; the text says how to get them.
pub fn h2spec() -> String {
    built("peers/h2spec", "scripts/peers").to_string_lossy().into_owned()
}

/// A server of Go's net/http (`e2e/peers/backend`).
///
/// # Panics
/// It is not there; the text says how to get it.
pub fn go_backend() -> String {
    built("peers/backend", "scripts/peers").to_string_lossy().into_owned()
}

/// A mesh of enrolled pods `client` (node-1) and `server` (node-2), and of pods for other proxies: `near` beside the
/// client; `far` beside the server, which takes tunnels itself (label `networking.istio.io/tunnel`), and `impostor`,
/// which says that it does. Server and far run the same applications.
pub fn mesh() -> Mesh {
    let takes_tunnels = |pod: String| {
        pod.replace("    version: v1\n", "    version: v1\n    networking.istio.io/tunnel: http\n")
    };
    let peer = example("peer");
    let applications = manifests::bash(&format!(
        "{peer} serve-half 7000 > /tmp/half.log & exec lateen echo --http 8080 --tcp 9000"
    ));
    let server = |name, namespace| manifests::server(name, namespace, "node-2", &applications, &[8080, 9000]);
    let text = [
        manifests::namespace("test", "ambient"),
        manifests::namespace(NAMESPACE, ""),
        manifests::shell("client", "test", "node-1"),
        server("server", "test"),
        manifests::shell("near", NAMESPACE, "node-1"),
        takes_tunnels(server("far", NAMESPACE)),
        takes_tunnels(server("impostor", NAMESPACE)),
    ];
    Mesh::start(&[("app.yaml", &text.concat())])
}

/// The identity of an account.
pub fn identity(namespace: &str, account: &str) -> String {
    format!("spiffe://cluster.local/ns/{namespace}/sa/{account}")
}

/// `ADDRESS:PORT`, as an authority or a target.
pub fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Has the mesh's controller issue the certificate of a pod of [`NAMESPACE`], as that pod would: from inside it, with a
/// token of its account's own.
///
/// # Panics
/// It is refused.
pub fn certificate(mesh: &Mesh, pod: &str) -> Credentials {
    let token = random();
    std::fs::write(mesh.state().join("tokens").join(format!("{NAMESPACE}_{pod}")), &token)
        .expect("the mesh's folder of tokens takes one");
    let roots =
        std::fs::read_to_string(mesh.state().join("ctrl/root-cert.pem")).expect("the mesh has a root");
    let given = json!({ "address": CONTROLLER, "roots": roots, "token": token });
    let program = example("certificate");
    let command = mesh.command(NAMESPACE, pod, &[&program, &identity(NAMESPACE, pod)]);
    let issued = run_with(command, &given.to_string());
    assert!(issued.ok(), "a certificate for {pod}: {issued}");
    let issued: Value = serde_json::from_str(&issued.stdout).expect("the program prints JSON");
    let text = |name: &str| issued[name].as_str().expect("all of chain, key and roots").to_owned();
    Credentials { chain: text("chain"), key: text("key"), roots: text("roots"), peers: Vec::new() }
}

fn random() -> String {
    let mut bytes = [0; 24];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .expect("randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run_with(mut command: Command, stdin: &str) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lateen exec starts");
    // A program that ends without reading says why on its own.
    let _ = child.stdin.take().expect("stdin is a pipe").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Writes a file in a pod.
///
/// # Panics
/// It cannot be written.
#[track_caller]
pub fn put(mesh: &Mesh, pod: &str, path: &str, content: &str) {
    let written =
        run_with(mesh.command(NAMESPACE, pod, &["bash", "-c", &format!("umask 077; cat > {path}")]), content);
    assert!(written.ok(), "{path} in {pod}: {written}");
}

/// Another proxy, running in a pod of [`NAMESPACE`] until it is dropped or the mesh ends.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a command in a pod and waits until something listens on a port there.
    ///
    /// # Panics
    /// It does not come to listen; the text is what it wrote.
    #[track_caller]
    pub fn start(mesh: &Mesh, pod: &str, command: &str, port: u16) -> Self {
        let log = format!("/tmp/{port}.log");
        // It ends when we do: with the end of stdin.
        let script = format!("{command} > {log} 2>&1 & cat; kill $! && wait");
        let child = mesh
            .command(NAMESPACE, pod, &["bash", "-c", &script])
            .stdin(Stdio::piped())
            .spawn()
            .expect("lateen exec starts");
        mesh.eventually(&format!("{command} in {pod} listens on {port}"), |mesh| {
            match sockets(mesh, NAMESPACE, pod, &Socket { local: Some(port), remote: None, state: LISTENS }) {
                0 => Err(mesh.exec(NAMESPACE, pod, &["cat", &log]).to_string()),
                _ => Ok(()),
            }
        });
        Self(child)
    }

    /// Starts an Envoy with this bootstrap file.
    ///
    /// # Panics
    /// It does not come to listen.
    #[track_caller]
    pub fn envoy(mesh: &Mesh, pod: &str, bootstrap: &str, port: u16) -> Self {
        // It goes by the ending.
        let ending = if bootstrap.starts_with('{') { "json" } else { "yaml" };
        let file = format!("/tmp/envoy-{port}.{ending}");
        put(mesh, pod, &file, bootstrap);
        let options = "--concurrency 1 --use-dynamic-base-id --disable-hot-restart --log-level warning";
        Self::start(mesh, pod, &format!("{} --config-path {file} {options}", envoy()), port)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It may have ended by itself, and goes with the mesh at the latest.
        let _ = self.0.wait();
    }
}

/// As the kernel numbers them.
const ESTABLISHED: &str = "01";
const LISTENS: &str = "0A";

/// Sockets to be counted.
struct Socket {
    local: Option<u16>,
    remote: Option<u16>,
    state: &'static str,
}

/// How many tunnels other proxies have to a pod.
pub fn tunnels_to(mesh: &Mesh, namespace: &str, pod: &str) -> usize {
    sockets(mesh, namespace, pod, &Socket { local: Some(15008), remote: None, state: ESTABLISHED })
}

/// How many tunnels a pod's agent has from it to others.
pub fn tunnels_from(mesh: &Mesh, namespace: &str, pod: &str) -> usize {
    sockets(mesh, namespace, pod, &Socket { local: None, remote: Some(15008), state: ESTABLISHED })
}

fn sockets(mesh: &Mesh, namespace: &str, pod: &str, wanted: &Socket) -> usize {
    let tables = mesh.exec(namespace, pod, &["cat", "/proc/net/tcp", "/proc/net/tcp6"]);
    assert!(tables.ok(), "{tables}");
    tables.stdout.lines().filter(|line| is(line, wanted) == Some(true)).count()
}

/// Whether a line of `/proc/net/tcp` is such a socket; `None` where it is none at all.
fn is(line: &str, wanted: &Socket) -> Option<bool> {
    let mut words = line.split_whitespace().skip(1);
    let mut port = || u16::from_str_radix(words.next()?.rsplit_once(':')?.1, 16).ok();
    let (local, remote) = (port()?, port()?);
    let fits = |wanted: Option<u16>, port| wanted.is_none_or(|wanted| wanted == port);
    Some(fits(wanted.local, local) && fits(wanted.remote, remote) && words.next()? == wanted.state)
}

#[cfg(test)]
mod tests {
    use super::{ESTABLISHED, LISTENS, Socket, is};

    #[test]
    fn a_line_of_the_kernel_s_table_is_read() {
        let line = "   1: 0200F40A:3AA0 0302F40A:C001 01 00000000:00000000 00:00000000 00000000     0";
        let socket = |local, remote, state| Socket { local, remote, state };
        assert_eq!(is(line, &socket(Some(15008), None, ESTABLISHED)), Some(true));
        assert_eq!(is(line, &socket(None, Some(49153), ESTABLISHED)), Some(true));
        assert_eq!(is(line, &socket(None, Some(15008), ESTABLISHED)), Some(false));
        assert_eq!(is(line, &socket(Some(15008), None, LISTENS)), Some(false));
        assert_eq!(is("  sl  local_address rem_address   st", &socket(None, None, LISTENS)), None);
    }
}
