//! A proxy's state after a restart is the one before it: from what was written down bit by bit, and from the same
//! written anew.

use daemon::log::{Format, Log};
use daemon::metrics::Metrics;
use model::Identity;
use model::authz::Policy;
use model::service::Service;
use model::workload::Workload;
use proto::Any;
use proto::discovery::{DeltaDiscoveryResponse, Node, Resource};
use proto::workload::address::Type;
use proto::workload::{self as wire, Address};
use proto::{mesh, security};
use xds::delta::subscriber::{Mode, Subscription};
use xds::feed::Feed;

use super::*;

type Sink = Box<dyn FnMut(Vec<Update>) + Send>;

/// A proxy without sockets: state, subscriptions and journal.
struct Proxy {
    agent: Arc<Agent>,
    subscriber: Subscriber,
    handler: Recorded<Feed<Sink>>,
    journal: Arc<Journal>,
    restored: bool,
}

impl Proxy {
    fn start(files: &[Arc<Saved>]) -> Self {
        Self::start_as(files, false)
    }

    fn on_demand(files: &[Arc<Saved>]) -> Self {
        Self::start_as(files, true)
    }

    fn start_as(files: &[Arc<Saved>], on_demand: bool) -> Self {
        let on_demand = on_demand.to_string();
        let args = ["--node-name", "n", "--xds-on-demand", &on_demand].map(str::to_owned);
        let settings = crate::config::read(args, |_| None).unwrap();
        let log = Log::start("off", Format::Plain).unwrap();
        let (agent, _) = crate::proxy::app::agent(&settings, log, &Metrics::default()).unwrap();
        let all = [type_url::MESH_SETTINGS, type_url::AUTHORIZATION, type_url::ADDRESS]
            .map(|type_url| Subscription { type_url: type_url.into(), mode: Mode::All, required: false });
        let all = all.map(|subscription| {
            match agent.demand.is_on() && *subscription.type_url == *type_url::ADDRESS {
                true => Subscription { mode: Mode::Demand, ..subscription },
                false => subscription,
            }
        });
        let (mut decoder, mut subscriber) = (Decoder::default(), Subscriber::new(Node::default(), all));
        let files = files.iter().map(|file| {
            // As over the socket: another descriptor of the same file.
            file.seal().unwrap();
            Saved::accept_sealed(std::os::fd::AsFd::as_fd(file).try_clone_to_owned().unwrap()).unwrap()
        });
        let (journal, restored) = restore(&agent, &mut decoder, &mut subscriber, files.collect());
        let journal = Arc::new(journal);
        let taking = agent.clone();
        let sink: Sink = Box::new(move |updates| taking.take(updates));
        let handler =
            Recorded { handler: Feed::new(decoder, sink), agent: agent.clone(), journal: journal.clone() };
        Self { agent, subscriber, handler, journal, restored }
    }

    /// What the controller says.
    fn hear(&mut self, type_url: &str, version: &str, resources: Vec<(&str, Any)>, removed: &[&str]) {
        let resource = |(name, any): (&str, Any)| Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            resource: Some(any),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            resources: resources.into_iter().map(resource).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.subscriber.receive(response, &mut self.handler).unwrap();
    }

    /// Everything that it goes by, and what it would tell a controller that it has.
    fn knows(&mut self) -> Known {
        let mesh = self.agent.state.read();
        let mut workloads: Vec<Workload> = mesh.workloads().map(|one| (**one).clone()).collect();
        workloads.sort_by(|one, other| one.uid.cmp(&other.uid));
        let mut services: Vec<Service> = mesh.services().map(|one| (**one).clone()).collect();
        services.sort_by(|one, other| one.key.cmp(&other.key));
        let mut policies: Vec<Policy> = mesh.policies().map(|one| (**one).clone()).collect();
        // On the wire what stands in for something has a rule besides that denies everything.
        policies.iter_mut().filter(|one| one.invalid.is_some()).for_each(|one| one.rules = Box::default());
        policies.sort_by(|one, other| one.name.cmp(&other.name));
        let settings = mesh.settings().clone();
        let has = self.subscriber.connect().into_iter().map(|request| request.initial_resource_versions);
        Known { settings, policies, services, workloads, has: has.collect() }
    }
}

#[derive(Debug, PartialEq)]
struct Known {
    settings: model::mesh::Settings,
    policies: Vec<Policy>,
    services: Vec<Service>,
    workloads: Vec<Workload>,
    has: Vec<std::collections::BTreeMap<String, String>>,
}

fn workload(uid: &str, account: &str) -> Any {
    let workload = wire::Workload {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        namespace: "ns".to_owned(),
        service_account: account.to_owned(),
        addresses: vec![vec![10, 0, 0, 1].into()],
        ..wire::Workload::default()
    };
    Any::pack(&Address { r#type: Some(Type::Workload(workload)) })
}

fn service(hostname: &str) -> Any {
    let service = wire::Service {
        name: "s".to_owned(),
        namespace: "ns".to_owned(),
        hostname: hostname.to_owned(),
        ..wire::Service::default()
    };
    Any::pack(&Address { r#type: Some(Type::Service(service)) })
}

fn policy(name: &str, action: security::Action) -> Any {
    Any::pack(&security::Authorization {
        name: name.to_owned(),
        namespace: "ns".to_owned(),
        scope: security::Scope::Namespace.into(),
        action: action.into(),
        rules: vec![security::Rule::default()],
        ..security::Authorization::default()
    })
}

/// One that no version can read.
fn unreadable_policy() -> Any {
    Any { type_url: type_url::AUTHORIZATION.to_owned(), value: bytes::Bytes::from_static(b"\xff") }
}

/// All that can happen to a resource.
fn a_history(proxy: &mut Proxy) {
    let settings = mesh::MeshSettings { trust_domain: "td".to_owned(), ..mesh::MeshSettings::default() };
    proxy.hear(type_url::MESH_SETTINGS, "1", vec![("mesh", Any::pack(&settings))], &[]);
    let first = ["ns/kept", "ns/changed", "ns/gone", "ns/spoilt"]
        .map(|name| (name, policy(name.trim_start_matches("ns/"), security::Action::Allow)));
    proxy.hear(type_url::AUTHORIZATION, "1", first.into(), &[]);
    let then = vec![
        ("ns/changed", policy("changed", security::Action::Deny)),
        // Its last good version stays; of the other there is none, and everything is denied.
        ("ns/spoilt", unreadable_policy()),
        ("ns/unreadable", unreadable_policy()),
    ];
    proxy.hear(type_url::AUTHORIZATION, "2", then, &["ns/gone"]);
    let uids = ["kept", "changed", "gone", "spoilt"];
    proxy.hear(type_url::ADDRESS, "1", uids.map(|uid| (uid, workload(uid, "a"))).into(), &[]);
    proxy.hear(type_url::ADDRESS, "1", vec![("ns/s.kept", service("s.kept"))], &[]);
    let then = vec![("changed", workload("changed", "b")), ("spoilt", workload("another", "a"))];
    proxy.hear(type_url::ADDRESS, "2", then, &["gone"]);
    // Gone and here again.
    proxy.hear(type_url::ADDRESS, "3", vec![("back", workload("back", "a"))], &[]);
    proxy.hear(type_url::ADDRESS, "3", Vec::new(), &["back"]);
    proxy.hear(type_url::ADDRESS, "4", vec![("back", workload("back", "c"))], &[]);
}

#[tokio::test]
async fn nothing_is_decided_by_the_beginning_of_what_there_is() {
    let mut first = Proxy::start(&[]);
    first.hear(type_url::AUTHORIZATION, "1", vec![("ns/p", policy("p", security::Action::Allow))], &[]);
    // It ends before the rest has come, in which one may be that denies.
    let mut second = Proxy::start(&first.journal.files());
    assert!(!second.restored);
    assert_eq!(second.knows(), first.knows());
    second.hear(type_url::AUTHORIZATION, "1", vec![("ns/q", policy("q", security::Action::Deny))], &[]);
    second.journal.record_complete(false);
    let third = Proxy::start(&second.journal.files());
    assert!(third.restored);
    third.journal.compact().await.unwrap();
    assert!(Proxy::start(&third.journal.files()).restored);
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let mut first = Proxy::start(&[]);
    assert!(!first.restored);
    a_history(&mut first);
    first.journal.record_complete(false);
    let known = first.knows();
    assert_eq!(known.policies.len(), 4, "{known:#?}");
    assert_eq!(known.policies.iter().filter(|policy| policy.invalid.is_some()).count(), 1);
    assert_eq!(known.workloads.len(), 4);

    let files = first.journal.files();
    let mut second = Proxy::start(&files);
    assert!(second.restored);
    assert_eq!(second.knows(), known);

    // It goes on where the first one ended, in a file of its own.
    second.hear(type_url::ADDRESS, "5", vec![("new", workload("new", "a"))], &["kept"]);
    second.hear(type_url::AUTHORIZATION, "5", Vec::new(), &["ns/kept", "ns/unreadable"]);
    let known = second.knows();
    assert_eq!(second.journal.files().len(), 2);
    let mut third = Proxy::start(&second.journal.files());
    assert_eq!(third.knows(), known);

    // Nor does writing it anew change anything.
    third.journal.compact().await.unwrap();
    assert_eq!(third.journal.files().len(), 1);
    let mut fourth = Proxy::start(&third.journal.files());
    assert!(fourth.restored);
    assert_eq!(fourth.knows(), known);
}

#[tokio::test]
async fn what_stood_in_for_a_policy_is_replaced_by_a_good_one() {
    let mut first = Proxy::start(&[]);
    first.hear(type_url::AUTHORIZATION, "1", vec![("ns/p", unreadable_policy())], &[]);
    let mut second = Proxy::start(&first.journal.files());
    // Still unreadable: it denies, as nothing good is known.
    second.hear(type_url::AUTHORIZATION, "1", vec![("ns/p", unreadable_policy())], &[]);
    assert!(second.knows().policies[0].invalid.is_some());
    second.hear(type_url::AUTHORIZATION, "2", vec![("ns/p", policy("p", security::Action::Allow))], &[]);
    let known = second.knows();
    assert!(known.policies[0].invalid.is_none());
    assert_eq!(Proxy::start(&second.journal.files()).knows(), known);
}

#[tokio::test]
async fn a_damaged_state_is_left_alone_and_nothing_is_added_to_it() {
    let mut first = Proxy::start(&[]);
    a_history(&mut first);
    let files = first.journal.files();
    // A batch that is no batch, behind all that is good.
    files[0].write_at(&[1, 0, 0, 0, 0x7f], files[0].length().unwrap()).unwrap();
    let mut second = Proxy::start(&files);
    assert!(!second.restored);
    assert_eq!(second.knows(), Proxy::start(&[]).knows());
    assert!(second.journal.files().is_empty());
    a_history(&mut second);
    assert_eq!(Proxy::start(&second.journal.files()).knows(), first.knows());
}

#[tokio::test]
async fn what_was_asked_for_is_all_only_to_one_that_asks() {
    let mut first = Proxy::on_demand(&[]);
    first.hear(type_url::AUTHORIZATION, "1", vec![("ns/p", policy("p", security::Action::Allow))], &[]);
    let addresses = vec![("ns/s.x", service("s.x")), ("pod", workload("pod", "a"))];
    // Of what is not there nothing is written down.
    first.hear(type_url::ADDRESS, "1", addresses, &["/10.0.0.9", "ns/nothing"]);
    first.journal.record_complete(true);
    let written = first.journal.files()[0].length().unwrap();
    first.hear(type_url::ADDRESS, "1", vec![], &["/10.0.0.8"]);
    assert_eq!(first.journal.files()[0].length().unwrap(), written);

    let known = first.knows();
    let mut asks = Proxy::on_demand(&first.journal.files());
    assert!(asks.restored);
    assert_eq!(asks.knows(), known);
    let mut asked: Vec<String> = asks.subscriber.connect().pop().unwrap().resource_names_subscribe;
    asked.sort();
    assert_eq!(asked, ["*", "ns/s.x", "pod"]);

    // One that is told everything knows that this is not everything.
    let all = Proxy::start(&first.journal.files());
    assert!(!all.restored);
    all.journal.record_complete(false);
    all.journal.compact().await.unwrap();
    // And the other way round.
    assert!(Proxy::start(&all.journal.files()).restored);
    let mut asks = Proxy::on_demand(&all.journal.files());
    assert!(asks.restored);
    assert_eq!(asks.subscriber.connect().pop().unwrap().resource_names_subscribe, ["*"]);
}

#[tokio::test]
async fn roots_and_what_is_revoked_are_in_force_again_without_a_controller() {
    use testkit::certificates::TestAuthority;

    let authority = TestAuthority::default();
    let (till, cart) = (Identity::new("td", "shop", "till"), Identity::new("td", "shop", "cart"));
    let held = authority.bundle(&till);
    let serial = identity::revocation::serial_of(&held.chain()[0]).unwrap();
    let list = authority.revoke([&*serial], std::time::SystemTime::now());
    let bytes = |der: &[u8]| bytes::Bytes::copy_from_slice(der);
    let settings = mesh::MeshSettings {
        trust_domain: "td".to_owned(),
        roots: authority.roots().certificates().iter().map(|root| bytes(root)).collect(),
        crls: vec![bytes(&list)],
        issuer: bytes(&authority.signing_certificate()),
        revoked_identities: vec![cart.to_string()],
        ..mesh::MeshSettings::default()
    };
    let mut first = Proxy::start(&[]);
    first.hear(type_url::MESH_SETTINGS, "1", vec![("mesh", Any::pack(&settings))], &[]);
    first.journal.record_complete(false);
    let second = Proxy::start(&first.journal.files());
    second.journal.compact().await.unwrap();
    for proxy in [&first, &second, &Proxy::start(&second.journal.files())] {
        let revocations = proxy.agent.trust.tls.revocations();
        assert!(revocations.check(held.chain()).is_err(), "by its number");
        assert!(revocations.check(authority.bundle(&cart).chain()).is_err(), "by its name");
        assert!(revocations.check(authority.bundle(&till).chain()).is_ok(), "another of the same name");
        let roots = proxy.agent.trust.certificates.roots().borrow().clone();
        assert_eq!(roots.as_ref(), Some(&authority.roots()));
    }
}

#[tokio::test]
async fn the_roots_of_another_authority_than_the_controller_come_with_its_certificates() {
    use testkit::certificates::TestAuthority;

    let (controllers, others) = (TestAuthority::new("controller's"), TestAuthority::new("another's"));
    let args = ["--xds-address", "https://a:1", "--ca-address", "https://b:1"].map(str::to_owned);
    let settings = crate::config::read(args, |_| None).unwrap();
    let log = Log::start("off", Format::Plain).unwrap();
    let (agent, _) = crate::proxy::app::agent(&settings, log, &Metrics::default()).unwrap();
    let till = Identity::new("td", "shop", "till");
    let driver = tokio::spawn(agent.trust.certificates.drive(others));
    let held = agent.trust.certificates.get(&till).await.unwrap();
    let own = agent.trust.certificates.roots().borrow().clone();
    let trust = model::mesh::Trust {
        roots: controllers.roots().certificates().iter().map(|root| Arc::from(&**root)).collect(),
        identities: vec![Identity::new("td", "shop", "cart")],
        ..model::mesh::Trust::default()
    };
    agent.take(vec![Update::Settings(model::mesh::Settings { trust, ..Default::default() })]);
    assert_eq!(*agent.trust.certificates.roots().borrow(), own, "the controller's roots are not theirs");
    assert!(Arc::ptr_eq(&held, &agent.trust.certificates.current(&till).unwrap()));
    assert_eq!(agent.trust.tls.revocations().current().identities.len(), 1, "what it revokes counts");
    driver.abort();
}
