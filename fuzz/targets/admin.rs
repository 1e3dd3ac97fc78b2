//! What anybody on the node, and for metrics anybody in the cluster, sends to the admin ports.
//!
//! Input: one connection's bytes.
#![no_main]

use std::cell::RefCell;

use daemon::http::{Answer, Call, Routes, serve_stream};
use http::Method;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime"),
    );
}

fn routes() -> Routes {
    let echo = |call: Call| async move {
        let values: Vec<_> =
            ["level", "reset", "a"].map(|name| call.parameter(name)).into_iter().flatten().collect();
        // Decoding never adds: what is no UTF-8 becomes three octets for one.
        assert!(values.iter().all(|value| value.len() <= 3 * call.query.len()));
        Answer::text(200, values.concat())
    };
    Routes::default().on(Method::GET, "/metrics", echo).on(Method::POST, "/logging", echo).on(
        Method::GET,
        "/objects/",
        echo,
    )
}

fuzz_target!(|data: &[u8]| {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let serving = tokio::spawn(serve_stream(server, routes()));
            let (data, mut answer) = (&data[..data.len().min(1 << 15)], Vec::new());
            client.write_all(data).await.ok();
            client.shutdown().await.ok();
            client.read_to_end(&mut answer).await.ok();
            serving.await.expect("the server does not fall over");
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
        });
    });
});
