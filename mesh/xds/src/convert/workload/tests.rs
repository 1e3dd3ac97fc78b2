//! What is read of the wire and written to it, field by field, and what is refused.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use model::address::{NamespacedHostname, NetworkAddress};
use model::service::{AppProtocol, Port, Ports};
use model::workload::{GatewayAddress, GatewayDestination, PolicyName};

fn full() -> Workload {
    let service = NamespacedHostname::new("default", "reviews.default.svc.cluster.local");
    let profile = Profile {
        identity: Identity::new("example.org", "default", "reviews"),
        network: "east".into(),
        protocol: TunnelProtocol::Hbone,
        host_network: false,
        native_tunnel: true,
        hostname: "reviews.example".into(),
        canonical_name: "reviews".into(),
        canonical_revision: "v1".into(),
        kind: WorkloadKind::Job,
        workload_name: "reviews-v1".into(),
        waypoint: Some(GatewayAddress {
            destination: GatewayDestination::Address(NetworkAddress::new("".into(), [10, 96, 0, 9].into())),
            hbone_port: 15008,
        }),
        network_gateway: None,
        services: [(service, Ports([Port { service: 80, target: 8080, protocol: AppProtocol::Tls }].into()))]
            .into(),
        policies: [PolicyName { namespace: "default".into(), name: "deny".into() }].into(),
        enforced_by: Some([Identity::new("example.org", "default", "waypoint")].into()),
        cluster: "one".into(),
        locality: Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() },
        capacity: 7,
        application_tunnel: Some(ApplicationTunnel { proxy_protocol: true, port: 15088 }),
    };
    Workload {
        uid: "one//Pod/default/reviews-v1-abc".into(),
        name: "reviews-v1-abc".into(),
        addresses: [IpAddr::from([10, 244, 0, 5]), "fd00::5".parse().unwrap()].into(),
        node: "node-1".into(),
        status: Health::Unhealthy,
        profile: Arc::new(profile),
    }
}

fn read_back(wire: &wire::Workload) -> Result<Workload, FieldError> {
    let name = Str::from(wire.uid.as_str());
    read(&mut Strings::default(), &mut Profiles::default(), &Settings::default(), &name, wire)
}

#[test]
fn reads_what_it_writes() {
    let workload = full();
    assert_eq!(read_back(&to_wire(&workload)), Ok(workload));
}

#[test]
fn elided_fields_mean_their_defaults() {
    let wire = wire::Workload { uid: "u".into(), namespace: "ns".into(), ..Default::default() };
    let read = read_back(&wire).unwrap();
    assert_eq!(*read.identity(), Identity::new("cluster.local", "ns", "default"));
    assert_eq!(&*read.profile.cluster, "Kubernetes");
    assert_eq!(read.profile.capacity, 1);
    assert_eq!(read.profile.enforced_by, None);

    let settings = Settings { trust_domain: "example.org".into(), ..Settings::default() };
    let name = Str::from("u");
    let read =
        super::read(&mut Strings::default(), &mut Profiles::default(), &settings, &name, &wire).unwrap();
    assert_eq!(&**read.identity().trust_domain(), "example.org");
}

#[test]
fn nobody_enforcing_is_not_the_same_as_not_saying() {
    let mut workload = full();
    Arc::make_mut(&mut workload.profile).enforced_by = Some(Box::default());
    assert_eq!(read_back(&to_wire(&workload)).unwrap().profile.enforced_by, Some(Box::default()));
}

#[test]
fn replicas_share_a_profile() {
    let (mut strings, mut profiles) = (Strings::default(), Profiles::default());
    let mut read_named = |uid: &str| {
        let wire = wire::Workload { uid: uid.into(), ..to_wire(&full()) };
        read(&mut strings, &mut profiles, &Settings::default(), &uid.into(), &wire).unwrap()
    };
    assert!(Arc::ptr_eq(&read_named("a").profile, &read_named("b").profile));
}

#[test]
fn refuses_what_it_does_not_understand_by_field() {
    type Spoil = fn(&mut wire::Workload);
    let cases: [(&str, Spoil); 17] = [
        ("uid", |wire| wire.uid.clear()),
        ("addresses", |wire| wire.addresses[0] = vec![1, 2, 3, 4, 5].into()),
        ("status", |wire| wire.status = 2),
        ("tunnel_protocol", |wire| wire.tunnel_protocol = 3),
        ("tunnel_protocol", |wire| wire.tunnel_protocol = wire::TunnelProtocol::LegacyIstioMtls.into()),
        ("network_mode", |wire| wire.network_mode = 2),
        ("workload_type", |wire| wire.workload_type = 4),
        ("waypoint.hbone_mtls_port", |wire| wire.waypoint.as_mut().unwrap().hbone_mtls_port = 65_536),
        ("waypoint.destination", |wire| wire.waypoint = Some(wire::GatewayAddress::default())),
        ("services", |wire| wire.services = [("nohost".to_owned(), wire::PortList::default())].into()),
        ("services[default/x].ports.target_port", |wire| {
            let ports = vec![wire::Port { service_port: 1, target_port: 70_000, app_protocol: 0 }];
            wire.services = [("default/x".to_owned(), wire::PortList { ports })].into();
        }),
        ("authorization_policies", |wire| wire.authorization_policies.push("unqualified".into())),
        ("extensions[lateen.dev/enforced-by]", |wire| {
            let content = mesh::EnforcedBy { identities: vec!["nobody".into()] };
            wire.extensions = vec![extension(extension::ENFORCED_BY, &content)];
        }),
        ("extensions[lateen.dev/enforced-by]", |wire| {
            wire.extensions = vec![extension(extension::ENFORCED_BY, &mesh::Labels::default())];
        }),
        ("application_tunnel.protocol", |wire| wire.application_tunnel.as_mut().unwrap().protocol = 2),
        ("trust_domain", |wire| wire.trust_domain = "a/ns/b".into()),
        ("service_account", |wire| wire.service_account = "a\0".into()),
    ];
    for (field, spoil) in cases {
        let mut wire = to_wire(&full());
        spoil(&mut wire);
        assert_eq!(read_back(&wire).map_err(|error| error.field.into_owned()), Err(field.to_owned()));
    }
}

#[test]
fn labels_come_as_an_extension() {
    let content = mesh::Labels { labels: [("app".to_owned(), "reviews".to_owned())].into() };
    let mut wire = to_wire(&full());
    assert_eq!(labels(&wire), None);
    wire.extensions.push(extension(extension::LABELS, &content));
    assert_eq!(labels(&wire), Some(content.labels));
    assert_eq!(read_back(&wire), Ok(full()));
}

#[test]
fn is_known_by_its_addresses_unless_they_are_its_nodes() {
    let mut workload = full();
    assert_eq!(aliases(&workload), [Str::from("east/10.244.0.5"), Str::from("east/fd00::5")]);
    Arc::make_mut(&mut workload.profile).host_network = true;
    assert!(aliases(&workload).is_empty());
}
