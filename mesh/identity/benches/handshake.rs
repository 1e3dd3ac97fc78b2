//! What a fresh tunnel costs in cryptography: both sides of a mutual handshake on one thread, by key exchange, and
//! the configuration that a client makes per tunnel. `docs/decisions/0002-key-exchange.md` holds the figures.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use identity::tls::{Credentials, KeyExchange, Tls, TlsSettings, no_server_name};
use identity::verify::TrustDomains;
use model::identity::Identity;
use rustls::{ClientConnection, ServerConnection};
use testkit::certificates::TestAuthority;

fn credentials(authority: &TestAuthority, identity: &Identity, key_exchange: KeyExchange) -> Credentials {
    let tls = Tls::new(TlsSettings {
        key_exchange,
        trust_domains: TrustDomains::new(["cluster.local"]),
        ..TlsSettings::default()
    });
    let bundle = authority.bundle(identity);
    let trust = tls.trust(bundle.roots().clone()).expect("a good root");
    tls.credentials(bundle, &trust).expect("a good bundle")
}

fn shake(client: &Credentials, server: &Credentials, expected: &Arc<[Identity]>) -> usize {
    let config = client.client_config(Arc::clone(expected));
    let mut near = ClientConnection::new(config, no_server_name()).expect("a good configuration");
    let mut far = ServerConnection::new(server.server_config()).expect("a good configuration");
    let mut bytes = Vec::with_capacity(8192);
    let mut sent = 0;
    while near.is_handshaking() || far.is_handshaking() {
        while near.wants_write() {
            near.write_tls(&mut bytes).expect("a Vec takes all");
        }
        sent += bytes.len();
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            far.read_tls(&mut input).expect("a slice gives all");
            far.process_new_packets().expect("the handshake goes through");
        }
        bytes.clear();
        while far.wants_write() {
            far.write_tls(&mut bytes).expect("a Vec takes all");
        }
        sent += bytes.len();
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            near.read_tls(&mut input).expect("a slice gives all");
            near.process_new_packets().expect("the handshake goes through");
        }
        bytes.clear();
    }
    sent
}

fn handshakes(criterion: &mut Criterion) {
    let authority = TestAuthority::default();
    let identity = Identity::new("cluster.local", "default", "reviews");
    let expected: Arc<[Identity]> = Arc::new([identity.clone()]);
    let mut group = criterion.benchmark_group("handshake, both sides");
    for key_exchange in [KeyExchange::X25519, KeyExchange::Hybrid, KeyExchange::HybridOnly] {
        let both = credentials(&authority, &identity, key_exchange);
        eprintln!("{key_exchange:?}: {} bytes on the wire", shake(&both, &both, &expected));
        group.bench_function(format!("{key_exchange:?}"), |bencher| {
            bencher.iter(|| black_box(shake(&both, &both, &expected)));
        });
    }
    group.finish();

    let both = credentials(&authority, &identity, KeyExchange::X25519);
    criterion.bench_function("client configuration for one tunnel", |bencher| {
        bencher.iter(|| black_box(both.client_config(Arc::clone(&expected))));
    });
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
