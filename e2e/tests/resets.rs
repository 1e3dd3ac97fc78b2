//! A connection that breaks in mid-transfer is no end to the application at the other end, by a waypoint as without one.

use e2e::shop::WAY;
use e2e::{Mesh, manifests};

/// Asked for `half`, sends a part and resets; so it answers a request of HTTP, without a length. Told to `take`, reads until
/// the end, and says when it is asked for the `last` whether that was one.
const SERVER: &str = "
import socket, socketserver, struct, time
last = 'nothing'
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        global last
        line = self.rfile.readline()
        if line == b'take\\n':
            try:
                while self.rfile.read1(65536): pass
                last = 'end'
            except ConnectionResetError:
                last = 'reset'
        elif line == b'last\\n':
            self.wfile.write(last.encode())
        elif line:
            if line.startswith(b'GET'):
                while self.rfile.readline().strip(): pass
                self.wfile.write(b'HTTP/1.1 200 OK\\r\\nconnection: close\\r\\n\\r\\n')
            self.wfile.write(b'x' * 100000)
            time.sleep(0.5)
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.request.close()
    def finish(self):
        try: super().finish()
        except OSError: pass
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    def shutdown_request(self, request):
        try: request.shutdown(socket.SHUT_WR)
        except OSError: pass
        request.close()
Server(('', 9000), Handler).serve_forever()
";

/// Says a line, perhaps as its last one, and tells how the answer ends; or says more behind it and resets the connection.
const CLIENT: &str = "
import socket, struct, sys, time
host, port, line, breaks = sys.argv[1:]
peer = socket.create_connection((host, int(port)), 10)
peer.sendall(line.encode().decode('unicode_escape').encode())
if breaks == 'yes':
    peer.sendall(b'y' * 100000)
    time.sleep(0.5)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    sys.exit()
if breaks == 'ends': peer.shutdown(socket.SHUT_WR)
heard, how = b'', 'end'
try:
    while more := peer.recv(65536): heard += more
except ConnectionResetError:
    how = 'reset'
print(how, heard.count(b'x'), heard.decode() if len(heard) < 20 else '')
";

/// A service in front of the server, with or without a waypoint.
fn service(name: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: test, labels: {{{labels}}}}}\n\
         spec: {{selector: {{app: server}}, ports: [{{name: tcp, port: 9000}}, {{name: http, port: 80, targetPort: 9000}}]}}\n"
    )
}

fn ask(mesh: &Mesh, host: &str, port: &str, line: &str, breaks: &str) -> String {
    let told = mesh.exec("test", "client", &["python3", "-c", CLIENT, host, port, line, breaks]);
    assert!(told.ok(), "{host}:{port} {line}: {told}");
    told.stdout.trim().to_owned()
}

#[test]
fn a_reset_in_mid_transfer_arrives_as_one() {
    let command = format!("python3, -c, {SERVER:?}");
    let app = [
        manifests::namespace("test", "ambient"),
        manifests::shell("client", "test", "node-1"),
        manifests::server("server", "test", "node-2", &command, &[9000]),
        WAY.to_owned(),
        service("by-waypoint", "istio.io/use-waypoint: way"),
        service("direct", ""),
    ];
    let mesh = Mesh::start(&[("app.yaml", &app.concat())]);
    mesh.eventually("the waypoint serves", |mesh| {
        let told = ask(mesh, "by-waypoint", "9000", "last\\n", "no");
        if told.starts_with("end 0 ") { Ok(()) } else { Err(told) }
    });
    for host in ["direct", "by-waypoint"] {
        assert_eq!(ask(&mesh, host, "9000", "half\\n", "no"), "reset 100000", "{host}");
        let request = "GET / HTTP/1.0\\r\\nhost: h\\r\\n\\r\\n";
        assert_eq!(ask(&mesh, host, "80", request, "no"), "reset 100000", "{host}");
        assert_eq!(ask(&mesh, host, "9000", "take\\n", "yes"), "", "{host}");
        mesh.eventually("the server hears of the reset", |mesh| {
            match ask(mesh, host, "9000", "last\\n", "no").as_str() {
                "end 0 reset" => Ok(()),
                other => Err(format!("{host}: {other}")),
            }
        });
        // Nothing of the next round is this one's.
        assert_eq!(ask(&mesh, host, "9000", "take\\n", "ends"), "end 0", "{host}");
    }
}
