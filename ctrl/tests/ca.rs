//! The whole way of a certificate over real TLS on loopback: agent's client, controller's service, a handshake
//! between two workloads with what came out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ctrl::ca::authorize::TokenFolder;
use ctrl::ca::keyring::{Keyring, KeyringSettings};
use ctrl::ca::listen::{Bounds, accept_tls};
use ctrl::ca::own::{OwnNames, server_config};
use ctrl::ca::rate::Rate;
use ctrl::ca::service::{CaService, MAX_CALL};
use ctrl::limits::{Limit, Limits};
use identity::authority::{AuthorityError, CertificateAuthority};
use identity::bundle::RootBundle;
use identity::ca_client::{CaClient, CaClientSettings};
use identity::control_plane::{ControlPlane, ControlPlaneSettings};
use identity::rotation::{Certificates, RotationSettings};
use identity::tls::{Tls, TlsSettings, no_server_name};
use identity::verify::{TrustDomains, explain, peer_identity};
use model::identity::Identity;
use proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use rustls::{ClientConnection, ServerConnection};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

const TOKEN: &str = "the token of node-1, random in real life";

fn account(name: &str) -> Identity {
    Identity::new("cluster.local", "default", name)
}

fn tls() -> Tls {
    Tls::new(TlsSettings { trust_domains: TrustDomains::new(["cluster.local"]), ..TlsSettings::default() })
}

/// A controller's certificate service, and the files an agent is given.
struct Controller {
    folder: tempfile::TempDir,
    address: SocketAddr,
    /// Whether the pods are on node-1 at the moment.
    scheduled: Arc<AtomicBool>,
    limits: Limits,
    server: Server,
}

/// A running server; tonic's connections are tasks of their own, so it is stopped by its own means.
struct Server {
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

impl Controller {
    async fn start() -> Self {
        Self::bounded(Bounds::default(), Rate::default()).await
    }

    async fn bounded(bounds: Bounds, rate: Rate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        std::fs::write(tokens.join("node-1"), TOKEN).unwrap();
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheduled = Arc::new(AtomicBool::new(true));
        let limits = Limits::default();
        let of = (bounds, rate, limits.clone());
        let server = Self::serve(folder.path(), listener, Arc::clone(&scheduled), of);
        Self { folder, address, scheduled, limits, server }
    }

    fn serve(
        folder: &Path,
        listener: TcpListener,
        scheduled: Arc<AtomicBool>,
        (bounds, rate, limits): (Bounds, Rate, Limits),
    ) -> Server {
        let state = folder.join("state");
        let settings = KeyringSettings::new(&state, "cluster.local");
        let keyring = Arc::new(Keyring::open(settings, SystemTime::now()).unwrap());
        let config = server_config(&tls(), Arc::clone(&keyring), OwnNames::default()).unwrap();
        let tokens = Arc::new(TokenFolder::new(folder.join("tokens"), "cluster.local"));
        let on_node = move |node: &str, identity: &Identity| {
            scheduled.load(Ordering::SeqCst)
                && node == "node-1"
                && ["reviews", "sleep"].contains(&&**identity.service_account())
        };
        let service = CaService::new(keyring, tokens, on_node).at(rate).counting(limits.clone());
        let service = IstioCertificateServiceServer::new(service).max_decoding_message_size(MAX_CALL);
        let router = tonic::transport::Server::builder().add_service(service);
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await; // a dropped sender stops it too
            };
            let incoming = accept_tls(listener, config, bounds, limits);
            router.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        Server { stop, ended }
    }

    fn root_file(&self) -> PathBuf {
        self.folder.path().join("state/root-cert.pem")
    }

    fn control_plane(&self) -> ControlPlaneSettings {
        ControlPlaneSettings {
            server_name: Some("istiod.istio-system.svc".to_owned()),
            ..ControlPlaneSettings::new(format!("https://{}", self.address), self.root_file())
        }
    }

    fn client_with(&self, control_plane: &ControlPlaneSettings, settings: CaClientSettings) -> CaClient {
        let settings = CaClientSettings { token_file: Some(self.folder.path().join("token")), ..settings };
        CaClient::new(ControlPlane::new(&tls(), control_plane).unwrap().channel(), settings).unwrap()
    }

    fn client(&self) -> CaClient {
        self.client_with(&self.control_plane(), CaClientSettings::default())
    }
}

fn handshake(mut near: ClientConnection, mut far: ServerConnection) -> Result<(Identity, Identity), String> {
    while near.is_handshaking() || far.is_handshaking() {
        let mut bytes = Vec::new();
        while near.wants_write() {
            near.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            far.read_tls(&mut input).unwrap();
            far.process_new_packets().map_err(|error| explain(&error))?;
        }
        let mut bytes = Vec::new();
        while far.wants_write() {
            far.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            near.read_tls(&mut input).unwrap();
            near.process_new_packets().map_err(|error| explain(&error))?;
        }
    }
    let client = peer_identity(far.peer_certificates().unwrap()).unwrap();
    let server = peer_identity(near.peer_certificates().unwrap()).unwrap();
    Ok((client, server))
}

#[tokio::test]
async fn from_request_to_tunnel() {
    let controller = Controller::start().await;
    let certificates = Certificates::new(tls(), RotationSettings::default());
    let driver = tokio::spawn(certificates.drive(controller.client()));
    let (sleep, reviews) = (account("sleep"), account("reviews"));
    let client = certificates.get(&sleep).await.unwrap();
    let server = certificates.get(&reviews).await.unwrap();

    let shake = |expected: &Identity| {
        let near = ClientConnection::new(client.client_config([expected.clone()]), no_server_name()).unwrap();
        handshake(near, ServerConnection::new(server.server_config()).unwrap())
    };
    assert_eq!(shake(&reviews), Ok((sleep.clone(), reviews.clone())));
    let refused = shake(&account("ratings")).unwrap_err();
    assert!(refused.contains("expected was spiffe://cluster.local/ns/default/sa/ratings"), "{refused}");

    let validity = client.bundle().validity();
    let life = validity.not_after.duration_since(validity.not_before).unwrap();
    assert_eq!(life, Duration::from_secs(24 * 3600 + 120));

    // The controller is gone: what is held stays, over a restart of the proxy too.
    controller.server.stop().await;
    driver.abort();
    let restarted = Certificates::new(tls(), RotationSettings::default());
    assert_eq!(restarted.import(&certificates.export()).unwrap(), 2);
    let server = restarted.current(&reviews).unwrap();
    let near = ClientConnection::new(client.client_config([reviews.clone()]), no_server_name()).unwrap();
    let far = ServerConnection::new(server.server_config()).unwrap();
    assert_eq!(handshake(near, far), Ok((sleep, reviews)));
}

/// The refusal an agent sees, by its code and text.
async fn refusal(client: &CaClient, identity: &Identity) -> (String, String) {
    match client.issue(identity).await {
        Err(AuthorityError::Refused { code, message }) => (code, message),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn refusals_are_opaque_and_pass_when_the_reason_does() {
    let controller = Controller::start().await;
    let client = controller.client();
    let opaque = ("Unauthenticated".to_owned(), "request authenticate failure".to_owned());
    let reviews = account("reviews");
    client.issue(&reviews).await.unwrap();

    // An account without a pod on this node, another mesh, a caller that names nobody.
    assert_eq!(refusal(&client, &account("ratings")).await, opaque);
    assert_eq!(refusal(&client, &Identity::new("evil.example", "default", "reviews")).await, opaque);
    let settings = CaClientSettings { impersonate: false, ..CaClientSettings::default() };
    let selfish = controller.client_with(&controller.control_plane(), settings);
    assert_eq!(refusal(&selfish, &reviews).await, opaque);

    // A pod that is not scheduled yet.
    controller.scheduled.store(false, Ordering::SeqCst);
    assert_eq!(refusal(&client, &reviews).await, opaque);
    controller.scheduled.store(true, Ordering::SeqCst);
    client.issue(&reviews).await.unwrap();

    // The token is read again for every request, here and there.
    let token = controller.folder.path().join("token");
    std::fs::write(&token, "a token that nobody was given").unwrap();
    assert_eq!(refusal(&client, &reviews).await, opaque);
    std::fs::write(&token, " \n").unwrap();
    let error = client.issue(&reviews).await.unwrap_err();
    assert!(matches!(&error, AuthorityError::Token { path, .. } if *path == token), "{error}");
    std::fs::remove_file(&token).unwrap();
    let error = client.issue(&reviews).await.unwrap_err();
    assert!(matches!(error, AuthorityError::Token { .. }), "{error}");
    std::fs::write(&token, TOKEN).unwrap();
    client.issue(&reviews).await.unwrap();
}

#[tokio::test]
async fn a_workload_with_a_token_of_its_own_gets_its_own_identity() {
    let controller = Controller::start().await;
    let waypoint = Identity::new("cluster.local", "shop", "waypoint");
    let token = "the token of the waypoint of the shop";
    std::fs::write(controller.folder.path().join("tokens/shop_waypoint"), token).unwrap();
    std::fs::write(controller.folder.path().join("token"), token).unwrap();
    let settings = CaClientSettings { impersonate: false, ..CaClientSettings::default() };
    let client = controller.client_with(&controller.control_plane(), settings);
    assert_eq!(client.issue(&waypoint).await.unwrap().identity(), &waypoint);
    // Asked for another identity, it is given its own, which the client does not take for the other.
    let error = client.issue(&account("reviews")).await.unwrap_err();
    assert!(error.to_string().contains("the certificate is for spiffe://cluster.local/ns/shop"), "{error}");
    let impersonating = controller.client();
    assert_eq!(refusal(&impersonating, &account("reviews")).await.0, "Unauthenticated");
}

#[tokio::test]
async fn the_controller_is_verified() {
    let controller = Controller::start().await;
    let reviews = account("reviews");
    let stranger = tempfile::tempdir().unwrap();
    Keyring::open(KeyringSettings::new(stranger.path(), "cluster.local"), SystemTime::now()).unwrap();
    let good = controller.control_plane();
    for (about, settings, expected) in [
        ("by its address", ControlPlaneSettings { server_name: None, ..good.clone() }, None),
        (
            "another name",
            ControlPlaneSettings { server_name: Some("istiod.other.svc".to_owned()), ..good.clone() },
            Some("not valid for name"),
        ),
        (
            "another root",
            ControlPlaneSettings { root_file: stranger.path().join("root-cert.pem"), ..good.clone() },
            Some("signed by no root of this mesh"),
        ),
        (
            "no root file",
            ControlPlaneSettings { root_file: "/nonexistent/root-cert.pem".into(), ..good.clone() },
            Some("/nonexistent/root-cert.pem"),
        ),
    ] {
        let client = controller.client_with(&settings, CaClientSettings::default());
        match (client.issue(&reviews).await, expected) {
            (Ok(_), None) => {}
            (Err(AuthorityError::Unreachable(text)), Some(part)) => {
                assert!(text.contains(part), "{about}: {part:?} is missing in {text:?}");
            }
            (outcome, _) => panic!("{about}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_root_file_that_is_mended_counts_at_the_next_connect() {
    let controller = Controller::start().await;
    let root = controller.folder.path().join("mounted-root.pem");
    std::fs::write(&root, "not there yet").unwrap();
    let settings = ControlPlaneSettings { root_file: root.clone(), ..controller.control_plane() };
    let client = controller.client_with(&settings, CaClientSettings::default());
    client.issue(&account("reviews")).await.unwrap_err();
    std::fs::copy(controller.root_file(), &root).unwrap();
    client.issue(&account("reviews")).await.unwrap();
}

#[tokio::test]
async fn a_controller_that_comes_back_is_found_again() {
    let controller = Controller::start().await;
    let client = controller.client();
    let reviews = account("reviews");
    let before = client.issue(&reviews).await.unwrap();
    controller.server.stop().await;
    let error = client.issue(&reviews).await.unwrap_err();
    assert!(matches!(error, AuthorityError::Unreachable(_) | AuthorityError::Refused { .. }), "{error}");

    let listener = TcpListener::bind(controller.address).await.unwrap();
    let scheduled = Arc::clone(&controller.scheduled);
    let of = (Bounds::default(), Rate::default(), Limits::default());
    let _server = Controller::serve(controller.folder.path(), listener, scheduled, of);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let after = loop {
        match client.issue(&reviews).await {
            Ok(bundle) => break bundle,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(before.roots(), after.roots(), "the root outlives the controller");
}

#[tokio::test]
async fn callers_that_dawdle_delay_nobody() {
    let controller = Controller::start().await;
    let mut silent = Vec::new();
    for number in 0..400 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // An address alone gets few places.
        socket.bind(format!("127.0.0.{}:0", 2 + number % 20).parse().unwrap()).unwrap();
        silent.push(socket.connect(controller.address).await.unwrap());
    }
    let (client, reviews) = (controller.client(), account("reviews"));
    let issued = tokio::time::timeout(Duration::from_secs(5), client.issue(&reviews)).await;
    issued.expect("a good caller is served at once").unwrap();
}

#[tokio::test]
async fn a_connection_on_which_nobody_proves_who_he_is_ends() {
    let patience = Duration::from_millis(300);
    let controller = Controller::bounded(Bounds { patience, ..Bounds::default() }, Rate::default()).await;
    let (client, reviews) = (controller.client(), account("reviews"));
    client.issue(&reviews).await.unwrap();

    let roots = std::fs::read_to_string(controller.root_file()).unwrap();
    let config = tls().token_client(&RootBundle::from_pem(&roots).unwrap()).unwrap();
    let stream = TcpStream::connect(controller.address).await.unwrap();
    let name = "istiod.istio-system.svc".try_into().unwrap();
    let mut silent = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(8), silent.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "it was closed");
    // Sooner than that one's, the client's time has passed too.
    assert_eq!(controller.limits.of(Limit::Unproven), 1);
    client.issue(&reviews).await.unwrap();
}

#[tokio::test]
async fn who_asks_too_fast_is_told_to_wait_and_an_agent_does() {
    let controller = Controller::bounded(Bounds::default(), Rate { burst: 1, each_second: 1 }).await;
    let client = controller.client();
    // As fast as it goes.
    let refused = loop {
        if let Err(refused) = client.issue(&account("reviews")).await {
            break refused.to_string();
        }
    };
    assert!(refused.contains("ResourceExhausted") && refused.contains("ask again in"), "{refused}");
    assert!(controller.limits.of(Limit::CertificatesOfCaller) > 0);
    // Two at once, of which one is turned away: it is asked for again.
    let certificates = Certificates::new(tls(), RotationSettings::default());
    let mut wanted = [account("sleep"), account("reviews")].map(|identity| certificates.prefetch(&identity));
    let driver = tokio::spawn(certificates.drive(controller.client()));
    for watch in &mut wanted {
        let there = async { while watch.current().is_none() && watch.changed().await {} };
        tokio::time::timeout(Duration::from_secs(20), there).await.unwrap();
        assert!(watch.current().is_some());
    }
    driver.abort();
}
