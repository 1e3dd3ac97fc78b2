//! mTLS below: handshakes that succeed and fail, certificates, bulk in both directions, KeyUpdate, closing.

use std::io::{Read, Write};
use std::sync::Arc;

use hbone::account::{Account, AccountLimits, Full};
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::splice::End;
use hbone::transport::{HandshakeError, Tls};
use hbone::tunnel::{self, Client, Gone, Server};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair::join;
use crate::support::{account, expect_end, expect_pattern, pattern, run, send_pattern, sockets};

struct Configs {
    client: Arc<ClientConfig>,
    /// The same without a certificate.
    anonymous: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn configs(in_place: bool) -> Configs {
    configs_of(in_place, rustls::crypto::aws_lc_rs::default_provider(), 0)
}

/// Certificates that are as large as if they had `padding` bytes more of key and names, with six of them in a chain.
fn configs_of(in_place: bool, provider: rustls::crypto::CryptoProvider, padding: usize) -> Configs {
    let provider = Arc::new(provider);
    let padded = |mut params: CertificateParams| {
        if padding > 0 {
            let extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 1], vec![0; padding]);
            params.custom_extensions.push(extension);
        }
        params
    };
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = padded(CertificateParams::new(vec!["peer.test".to_owned()]).unwrap());
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let mut chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone(), ca.der().clone()];
    let others = if padding > 0 { 6 } else { 0 };
    chain.extend((0..others).map(|_| {
        let mut params = padded(CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }));
    let key = || PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key())
        .unwrap();
    server.enable_secret_extraction = in_place;
    let client = || {
        ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let mut with_certificate = client().with_client_auth_cert(chain, key()).unwrap();
    with_certificate.enable_secret_extraction = in_place;
    Configs {
        client: Arc::new(with_certificate),
        anonymous: Arc::new(client().with_no_client_auth()),
        server: Arc::new(server),
    }
}

fn name() -> ServerName<'static> {
    "peer.test".try_into().unwrap()
}

async fn tunnels(configs: &Configs) -> (Client, Server, [tokio::task::JoinHandle<Gone>; 2]) {
    let (limits, charged) = (Limits::default(), account());
    let (near, far) = sockets().await;
    let (near, far) = tokio::join!(
        Tls::connect(near, configs.client.clone(), name(), &limits, &charged),
        Tls::accept(far, configs.server.clone(), &limits, &charged)
    );
    let (client, near) = tunnel::client(near.unwrap(), limits.clone());
    let (server, far) = tunnel::server(far.unwrap(), limits);
    (client, server, [tokio::task::spawn_local(near), tokio::task::spawn_local(far)])
}

#[test]
fn bulk_and_small_cross_and_the_tunnel_closes_in_order() {
    for in_place in [false, true] {
        run(async move {
            let (client, mut server, drivers) = tunnels(&configs(in_place)).await;
            assert_eq!(client.peer_certificates(), server.peer_certificates());
            assert_eq!(client.peer_certificates().len(), 2);
            let account = account();
            let mut all = Vec::new();
            for seed in 1..=10 {
                let joined = join(&client, &mut server, &account).await;
                let len = if seed == 1 { 20_000_000 } else { 5_000 };
                for (socket, out, back) in [(joined.near, seed, seed + 50), (joined.far, seed + 50, seed)] {
                    let (mut read, mut write) = socket.into_split();
                    all.push(tokio::task::spawn_local(async move {
                        send_pattern(&mut write, out, 0, len).await;
                        write.shutdown().await.unwrap();
                        drop(write);
                    }));
                    all.push(tokio::task::spawn_local(async move {
                        expect_pattern(&mut read, back, 0, len).await;
                        expect_end(&mut read).await;
                    }));
                }
                for splice in [joined.near_splice, joined.far_splice] {
                    all.push(tokio::task::spawn_local(async move {
                        assert!(matches!(splice.await.unwrap().end, End::Complete));
                    }));
                }
            }
            for task in all {
                task.await.unwrap();
            }
            drop(client);
            assert!(server.accept().await.is_none());
            let [near, far] = drivers;
            assert_eq!(near.await.unwrap(), Gone::Closed);
            assert!(matches!(far.await.unwrap(), Gone::Closed | Gone::ByPeer(0)));
        });
    }
}

#[test]
fn refused_handshakes_say_why() {
    run(async {
        let (ours, theirs) = (configs(true), configs(true));
        let (limits, charged) = (Limits::default(), account());
        // A client that another CA vouches for, and one without a certificate.
        for client in [&theirs.client, &ours.anonymous] {
            let (near, far) = sockets().await;
            let (client, server) = tokio::join!(
                Tls::connect(near, client.clone(), name(), &limits, &charged),
                Tls::accept(far, ours.server.clone(), &limits, &charged)
            );
            assert!(matches!(server.unwrap_err(), HandshakeError::Tls(_) | HandshakeError::Io(_)));
            // TLS 1.3 lets the client finish first; it learns of it with its first read.
            if let Ok(tls) = client {
                let (_client, driver) = tunnel::client(tls, limits.clone());
                assert!(matches!(driver.await, Gone::Io(text) if text.contains("ert")));
            }
        }
        // A peer that hangs up, and one that speaks no TLS.
        let (near, far) = sockets().await;
        drop(far);
        let err = Tls::connect(near, ours.client.clone(), name(), &limits, &charged).await.unwrap_err();
        assert!(matches!(err, HandshakeError::Io(_)), "{err}");
        let (near, mut far) = sockets().await;
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let err = Tls::connect(near, ours.client.clone(), name(), &limits, &charged).await.unwrap_err();
        assert!(matches!(err, HandshakeError::Tls(_)), "{err}");
        let (near, _far) = sockets().await;
        let short = Limits { handshake_timeout: std::time::Duration::from_millis(50), ..limits };
        let err = Tls::connect(near, ours.client.clone(), name(), &short, &charged).await.unwrap_err();
        assert!(matches!(err, HandshakeError::Timeout(_)), "{err}");
        assert_eq!(short.hits.of(hbone::limits::Limit::HandshakeTime), 1);
    });
}

#[test]
fn a_peer_that_never_shows_who_it_is_is_charged_and_bounded() {
    run(async {
        let (configs, charged) = (configs(true), account());
        let limits = Limits::default();
        let (mut near, far) = sockets().await;
        let (server, of_it, config) = (limits.clone(), charged.clone(), configs.server.clone());
        let served =
            tokio::task::spawn_local(
                async move { Tls::accept(far, config, &server, &of_it).await.map(drop) },
            );
        // A ClientHello of 60,000 bytes, in records of the largest size; of the first one 10,000 bytes come.
        let mut first = vec![22, 3, 1, 0x40, 0, 1, 0, 0xea, 0x60];
        first.resize(10_000, 3);
        near.write_all(&first).await.unwrap();
        while charged.buffered() < 10_000 {
            tokio::task::yield_now().await;
        }
        assert!(charged.memory() > 10_000 + 16_000, "with what a session costs: {}", charged.memory());
        let mut rest = vec![3; 5 + 16_384 - 10_000];
        rest.extend_from_slice(&[22, 3, 1, 0x40, 0]);
        rest.resize(60_000, 3);
        // It may have hung up before all of it.
        let _ = near.write_all(&rest).await;
        let error = served.await.unwrap().unwrap_err();
        assert!(matches!(error, HandshakeError::TooLarge(most) if most < 17_000), "{error}");
        assert_eq!(limits.hits.of(hbone::limits::Limit::HandshakeBytes), 1);
        assert_eq!((charged.tunnels(), charged.buffered()), (0, 0));
    });
}

#[test]
fn a_handshake_without_room_on_the_account_ends() {
    run(async {
        let configs = configs(true);
        let charged = Account::new(AccountLimits { buffered: 100, ..AccountLimits::default() });
        let limits = Limits::default();
        let (near, far) = sockets().await;
        let ours = account();
        let (_, server) = tokio::join!(
            Tls::connect(near, configs.client.clone(), name(), &limits, &ours),
            Tls::accept(far, configs.server.clone(), &limits, &charged)
        );
        assert!(matches!(server.unwrap_err(), HandshakeError::Account(Full::Buffered(0))));
    });
}

/// The largest that anybody uses: RSA keys of 4,096 bits (certificates of some 1.9 KB), four levels of authorities with
/// old and new certificates in the bundle, key exchange after ML-KEM.
#[test]
fn the_longest_honest_handshake_fits() {
    run(async {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768];
        let (configs, charged) = (configs_of(true, provider, 1500), account());
        let limits = Limits::default();
        let (near, far) = sockets().await;
        let (client, server) = tokio::join!(
            Tls::connect(near, configs.client.clone(), name(), &limits, &charged),
            Tls::accept(far, configs.server.clone(), &limits, &charged)
        );
        let (client, _driver) = tunnel::client(client.unwrap(), limits.clone());
        let (server, _driver) = tunnel::server(server.unwrap(), limits);
        for chain in [client.peer_certificates(), server.peer_certificates()] {
            let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
            assert!((13_000..16_000).contains(&bytes), "{bytes} bytes in {} certificates", chain.len());
        }
        assert_eq!((charged.tunnels(), charged.buffered()), (0, 0), "not a tunnel of the account's yet");
    });
}

/// A peer on a thread of its own, over rustls' ordinary API: an HTTP/2 client with one stream that changes its keys
/// again and again, also while records are under way.
fn updating_peer(mut socket: std::net::TcpStream, config: Arc<ClientConfig>, rounds: u64) {
    let mut tls = rustls::ClientConnection::new(config, name()).unwrap();
    let mut io = rustls::Stream::new(&mut tls, &mut socket);
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    // :method CONNECT, :authority a:1, literals without indexing.
    let block = b"\x02\x07CONNECT\x01\x03a:1";
    io.write_all(&[&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1][..], block].concat()).unwrap();
    for round in 0..rounds {
        io.conn.refresh_traffic_keys().unwrap();
        let bytes: Vec<u8> = (0..10_000).map(|at| pattern(1, round * 10_000 + at)).collect();
        let end = u8::from(round + 1 == rounds);
        io.write_all(&[&[0, 0x27, 0x10, 0, end, 0, 0, 0, 1][..], &bytes].concat()).unwrap();
    }
    io.flush().unwrap();
    // Until our END_STREAM: an empty DATA frame on stream 1.
    let mut said = Vec::new();
    let mut part = [0; 4096];
    while !said.windows(9).any(|frame| frame == [0, 0, 0, 0, 1, 0, 0, 0, 1]) {
        let read = io.read(&mut part).unwrap();
        said.extend_from_slice(&part[..read]);
    }
}

#[test]
fn keys_may_change_under_way() {
    change_keys(true);
}

#[test]
fn keys_may_change_under_way_of_rustls_own_records() {
    change_keys(false);
}

fn change_keys(in_place: bool) {
    {
        run(async move {
            let configs = configs(in_place);
            let (near, far) = sockets().await;
            let near = near.into_std().unwrap();
            near.set_nonblocking(false).unwrap();
            let config = configs.client.clone();
            let peer = std::thread::spawn(move || updating_peer(near, config, 50));
            let (limits, charged) = (Limits::default(), account());
            let tls = Tls::accept(far, configs.server.clone(), &limits, &charged).await.unwrap();
            let (mut server, driver) = tunnel::server(tls, limits);
            tokio::task::spawn_local(driver);
            let mut stream = server.accept().await.unwrap().accept(&Headers::new());
            expect_pattern(&mut stream, 1, 0, 500_000).await;
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            stream.shutdown().await.unwrap();
            tokio::task::spawn_blocking(move || peer.join().unwrap()).await.unwrap();
        });
    }
}

#[test]
fn we_change_our_own_keys_in_time() {
    // One end seals in place and changes its key every few records; the other end is rustls' own.
    run(async {
        let ours = configs(true);
        let (limits, charged) = (Limits { records_per_key: 7, ..Limits::default() }, account());
        let (near, far) = sockets().await;
        let (near, far) = tokio::join!(
            Tls::connect(near, ours.client.clone(), name(), &limits, &charged),
            Tls::accept(far, same_ca_without_extraction(&ours), &limits, &charged)
        );
        let (client, driver) = tunnel::client(near.unwrap(), limits.clone());
        tokio::task::spawn_local(driver);
        let (mut server, driver) = tunnel::server(far.unwrap(), limits);
        tokio::task::spawn_local(driver);
        let mut joined = join(&client, &mut server, &account()).await;
        let sender = tokio::task::spawn_local(async move {
            send_pattern(&mut joined.near, 1, 0, 5_000_000).await;
            joined.near
        });
        expect_pattern(&mut joined.far, 1, 0, 5_000_000).await;
        let mut near = sender.await.unwrap();
        send_pattern(&mut joined.far, 2, 0, 100_000).await;
        expect_pattern(&mut near, 2, 0, 100_000).await;
    });
}

fn same_ca_without_extraction(configs: &Configs) -> Arc<ServerConfig> {
    let mut server = (*configs.server).clone();
    server.enable_secret_extraction = false;
    Arc::new(server)
}
