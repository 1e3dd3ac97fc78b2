//! Client and server over real gRPC on loopback: what the state machines are not asked in their own tests (TLS,
//! tokens, streams that break, servers that go away).

#[path = "loopback/mesh.rs"]
mod mesh;

use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};
use tokio::time::timeout;
use xds::client::Ending;
use xds::delta::store::{Edit, Resource};

use self::mesh::{Mesh, PATIENCE, Proxy, policy, settings, workload};

/// Waits for a condition on what a proxy knows.
macro_rules! eventually {
    ($proxy:expr, $condition:expr) => {
        timeout(PATIENCE, $proxy.known.wait_for($condition)).await.expect("in time").expect("a running proxy")
    };
}

#[tokio::test]
async fn what_is_published_is_in_force_everywhere_soon() {
    let mesh = Mesh::start().await;
    mesh.publish(settings("example.org"));
    mesh.publish(policy("allow", true));
    mesh.publish(workload("one", &["default/allow"]));
    let mut proxies = [Proxy::start(&mesh, "a"), Proxy::start(&mesh, "b")];
    for proxy in &mut proxies {
        timeout(PATIENCE, proxy.handle.ready()).await.expect("in time").expect("running");
        let known = proxy.known.borrow();
        let one = known.workloads.get("one").expect("the workload");
        // The trust domain was elided and came with the settings, which come first.
        assert_eq!(&**one.identity().trust_domain(), "example.org");
        assert_eq!(known.policies.len(), 1);
    }
    let revision = mesh.publish(policy("allow", false));
    let behind = mesh.clients().in_force(AUTHORIZATION, revision, |_| true, PATIENCE).await;
    assert_eq!(behind, Vec::<u64>::new());
    for proxy in &mut proxies {
        assert!(proxy.known.borrow().policies.values().all(|policy| policy.rules.is_empty()));
    }
    assert_eq!(mesh.clients().all().len(), 2);
}

#[tokio::test]
async fn a_refused_policy_is_reported_and_denied_until_it_is_mended() {
    let mesh = Mesh::start().await;
    let mut proxy = Proxy::start(&mesh, "a");
    let mut edit = Edit::new();
    edit.put(AUTHORIZATION, Resource::new("default/broken", b"\x2a\x02\x18\x01".as_slice().into()));
    let revision = mesh.publisher.apply(edit).expect("a change");
    eventually!(proxy, |known| known.policies.values().any(|policy| policy.invalid.is_some()));
    mesh.clients().in_force(AUTHORIZATION, revision, |_| true, PATIENCE).await;
    let clients = mesh.clients().all();
    let refused: Vec<_> = clients[0].refused.iter().collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(&*refused[0].0.1, "default/broken");
    assert!(refused[0].1.starts_with("rules[0]: field 3 has no meaning"), "{}", refused[0].1);

    let revision = mesh.publish(policy("broken", true));
    eventually!(proxy, |known| known.policies.values().all(|policy| policy.invalid.is_none()));
    mesh.clients().in_force(AUTHORIZATION, revision, |_| true, PATIENCE).await;
    assert!(mesh.clients().all()[0].refused.is_empty());
}

#[tokio::test]
async fn another_replica_sends_nothing_that_is_there() {
    let mut mesh = Mesh::start().await;
    for number in 0..50 {
        mesh.publish(workload(&format!("pod-{number}"), &[]));
    }
    let mut proxy = Proxy::start(&mesh, "a");
    timeout(PATIENCE, proxy.handle.ready()).await.expect("in time").expect("running");
    eventually!(proxy, |known| known.workloads.len() == 50);
    let before = proxy.known.borrow().updates;

    // The other one has seen another history, and one change more.
    mesh.replace_server().await;
    mesh.publish(workload("pod-50", &[]));
    for number in (0..50).rev() {
        mesh.publish(workload(&format!("pod-{number}"), &[]));
    }
    mesh.listen().await;
    eventually!(proxy, |known| known.workloads.len() == 51);
    assert_eq!(proxy.known.borrow().updates, before + 1);
}

#[tokio::test]
async fn the_token_is_read_again_for_every_connection() {
    let mesh = Mesh::start().await;
    let mut proxy = Proxy::with_token(&mesh, "a", "expired");
    timeout(PATIENCE, proxy.endings.wait_for(|endings| endings.contains(&Ending::Refused)))
        .await
        .expect("in time")
        .expect("a running proxy");
    assert!(!proxy.handle.link().ready);
    proxy.write_token("secret");
    timeout(PATIENCE, proxy.handle.ready()).await.expect("in time").expect("running");
}

#[tokio::test]
async fn a_server_with_a_certificate_of_others_is_not_believed() {
    let mesh = Mesh::start().await;
    let other = Mesh::start().await;
    let mut proxy = Proxy::trusting(&mesh, &other.roots);
    timeout(PATIENCE, proxy.endings.wait_for(|endings| endings.contains(&Ending::NoConnection)))
        .await
        .expect("in time")
        .expect("a running proxy");
    assert_eq!(mesh.seen_tokens(), Vec::<String>::new());
}

#[tokio::test]
async fn a_closed_view_ends_the_stream_and_the_client_returns() {
    let mut mesh = Mesh::start().await;
    let mut proxy = Proxy::start(&mesh, "a");
    timeout(PATIENCE, proxy.handle.ready()).await.expect("in time").expect("running");
    mesh.replace_server().await;
    let mut link = proxy.handle.watch();
    timeout(PATIENCE, link.wait_for(|link| !link.connected)).await.expect("in time").expect("running");
    assert!(proxy.handle.link().ready, "what is there stays in force");
    mesh.publish(workload("new", &[]));
    mesh.listen().await;
    eventually!(proxy, |known| known.workloads.contains_key("new"));
}

#[tokio::test]
async fn what_is_asked_for_before_the_controller_answers_goes_with_the_stream() {
    use xds::delta::subscriber::Wish;

    let mesh = Mesh::start().await;
    mesh.open(false);
    let mut proxy = Proxy::on_demand(&mesh);
    mesh.publish(workload("one", &[]));
    // More than what may wait to be told.
    let names = (0..500).map(|number| format!("none-{number}")).chain(["one".to_owned()]);
    let asked = async {
        for name in names {
            let wish = Wish { ask: [name.as_str().into()].into(), ..Wish::default() };
            proxy.handle.wish(ADDRESS, wish).await.expect("running");
        }
    };
    timeout(PATIENCE / 4, asked).await.expect("who asks does not wait for the controller");
    assert!(!proxy.handle.link().connected);
    mesh.open(true);
    eventually!(proxy, |known| known.workloads.contains_key("one"));
    eventually!(proxy, |known| known.removed.len() == 500);
}

#[tokio::test]
async fn names_are_asked_for_on_demand() {
    use xds::delta::subscriber::Wish;

    let ask =
        |names: &[&str]| Wish { ask: names.iter().map(|name| (*name).into()).collect(), ..Wish::default() };
    let mesh = Mesh::start().await;
    let mut proxy = Proxy::on_demand(&mesh);
    mesh.publish(workload("one", &[]));
    mesh.publish(workload("other", &[]));
    timeout(PATIENCE, proxy.handle.ready()).await.expect("in time").expect("running");
    proxy.handle.wish(ADDRESS, ask(&["one", "nobody"])).await.expect("running");
    eventually!(proxy, |known| known.workloads.contains_key("one"));
    eventually!(proxy, |known| known.removed.contains("nobody"));
    assert_eq!(proxy.known.borrow().workloads.len(), 1);
    proxy
        .handle
        .wish(ADDRESS, Wish { release: ["one".into()].into(), ..Wish::default() })
        .await
        .expect("running");
    eventually!(proxy, |known| known.workloads.is_empty());
}

#[tokio::test]
async fn without_a_node_or_beyond_the_limit_there_is_no_view() {
    use proto::discovery::DeltaDiscoveryRequest;
    use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

    let mesh = Mesh::plaintext().await;
    let call = |request: DeltaDiscoveryRequest| {
        let address = mesh.address();
        async move {
            let client = AggregatedDiscoveryServiceClient::connect(address).await.expect("a server");
            let mut client = client.max_encoding_message_size(64 << 20);
            let requests = tokio_stream::iter([request]);
            let mut request = tonic::Request::new(requests);
            request.metadata_mut().insert("authorization", "Bearer secret".parse().expect("ascii"));
            let mut responses =
                client.delta_aggregated_resources(request).await.expect("a stream").into_inner();
            responses.message().await.map(|response| response.map(|response| response.type_url))
        }
    };
    let nameless = call(DeltaDiscoveryRequest { type_url: ADDRESS.into(), ..Default::default() }).await;
    assert_eq!(nameless.expect_err("no view").code(), tonic::Code::InvalidArgument);
    let mut chatty = xds::node::NodeInfo::new("ztunnel", None, "a", "default");
    let node = Some(chatty.to_wire());
    chatty.metadata.insert("WORDS".to_owned(), "x".repeat(100_000));
    let chatty = call(DeltaDiscoveryRequest {
        type_url: ADDRESS.into(),
        node: Some(chatty.to_wire()),
        ..Default::default()
    });
    let refused = chatty.await.expect_err("too much to keep");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    let endless = vec!["x".repeat(40 << 20)];
    let endless = DeltaDiscoveryRequest { resource_names_subscribe: endless, ..Default::default() };
    let refused = call(endless).await.expect_err("too large to read");
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    let request = DeltaDiscoveryRequest { type_url: MESH_SETTINGS.into(), node, ..Default::default() };
    assert_eq!(call(request).await.expect("a view"), Some(MESH_SETTINGS.into()));
}

/// A caller that opens streams without end, none of which reads, takes no place from others, and holds few itself.
#[tokio::test]
async fn one_token_takes_few_places() {
    use proto::discovery::DeltaDiscoveryRequest;
    use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

    let mesh = Mesh::start().await;
    let roots = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(roots.path(), &mesh.roots).expect("written");
    let controller = mesh.controller(roots.path());
    let mut proxy = Proxy::with_token(&mesh, "a", "other");
    timeout(PATIENCE, proxy.handle.ready()).await.expect("in time").expect("running");
    let node = xds::node::NodeInfo::new("ztunnel", None, "a", "default").to_wire();
    let request =
        DeltaDiscoveryRequest { type_url: MESH_SETTINGS.into(), node: Some(node), ..Default::default() };
    let mut streams = Vec::new();
    for number in 0..40 {
        let channel = controller.connect().await.expect("a server");
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let requests = tokio_stream::StreamExt::chain(
            tokio_stream::iter([request.clone()]),
            tokio_stream::pending::<DeltaDiscoveryRequest>(),
        );
        let mut call = tonic::Request::new(requests);
        call.metadata_mut().insert("authorization", "Bearer secret".parse().expect("ascii"));
        let mut responses = client.delta_aggregated_resources(call).await.expect("a stream").into_inner();
        let first = timeout(PATIENCE, responses.message()).await.expect("in time");
        assert!(first.expect("served").is_some(), "{number}: the newest has a place");
        streams.push(responses);
    }
    let all = mesh.clients().all();
    let of = |caller: &str| all.iter().filter(|client| client.caller == caller).count();
    assert_eq!((of("agent"), of("other")), (8, 1));
    let told = timeout(PATIENCE, streams[0].message()).await.expect("in time").expect_err("its end");
    assert_eq!(told.code(), tonic::Code::ResourceExhausted, "{told}");
    assert!(proxy.handle.link().connected, "others have not noticed");
    assert!(proxy.endings.borrow_and_update().is_empty());
}
