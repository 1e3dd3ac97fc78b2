//! Connections that break: neither end takes what has come for all there was.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use hbone::tunnel::Stream;
use model::mesh::Update;
use model::workload::TunnelProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::fixtures::edit;
use super::world::{HTTP, TCP, UNDECLARED, World, run};

thread_local! {
    /// Upon this the application resets its connection.
    static BREAK: RefCell<Rc<Notify>> = RefCell::default();
    /// Whether what the last client said has ended in order.
    static IN_ORDER: Cell<Option<bool>> = const { Cell::new(None) };
}

/// An answer that ends where its connection does.
const CLOSE_DELIMITED: &str = "GET / HTTP/1.0\r\nhost: h\r\n\r\n";

const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\n";

/// Says half of what it has to say, and then either breaks or hears its client out.
async fn application(mut socket: TcpStream, port: u16) {
    let mut head = Vec::new();
    while port == 8080 && !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else { return };
        head.push(byte);
    }
    let answer = match port {
        8080 if String::from_utf8_lossy(&head).contains("upgrade: shout") => {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\n"
        }
        8080 => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        _ => "",
    };
    socket.write_all(format!("{answer}half").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let told = BREAK.with_borrow(Rc::clone);
    tokio::select! {
        () = told.notified() => socket.set_zero_linger().unwrap(),
        ended = socket.read_to_end(&mut heard) => IN_ORDER.set(Some(ended.is_ok())),
    }
}

/// A connection to a port on which this was said and half an answer has come.
async fn half_way(world: &World, port: u16, said: &str) -> Stream {
    let mut stream = world.connect(port).await;
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"half") {
        heard.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[test]
fn what_breaks_is_no_end_to_the_other_end() {
    run(async {
        let world = World::new(application).await;
        for tunnel in [TunnelProtocol::Hbone, TunnelProtocol::Tcp] {
            let server = edit(world.pod.clone(), |server| server.protocol = tunnel);
            world.waypoint.take(vec![Update::Workload(server)]);
            for (port, said) in [
                (TCP, "more"),
                (UNDECLARED, ""),
                (UNDECLARED, "\0"),
                (HTTP, CLOSE_DELIMITED),
                (HTTP, UPGRADE),
            ] {
                let what = format!("{tunnel:?} {port} {said:?}");
                let mut stream = half_way(&world, port, said).await;
                BREAK.with_borrow(|told| told.notify_one());
                match stream.read_u8().await {
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
                    other => panic!("{what}: {other:?}"),
                }
                if said == CLOSE_DELIMITED {
                    continue;
                }
                for breaks in [true, false] {
                    let mut stream = half_way(&world, port, said).await;
                    if breaks {
                        stream.break_off();
                    } else {
                        stream.shutdown().await.unwrap();
                    }
                    let in_order = loop {
                        match IN_ORDER.take() {
                            Some(in_order) => break in_order,
                            None => tokio::time::sleep(Duration::from_millis(1)).await,
                        }
                    };
                    assert_eq!(in_order, !breaks, "{what}");
                }
            }
        }
    });
}
