//! What CONNECTs ask for, by table.

use model::address::NamespacedHostname;
use model::mesh::Update;
use model::service::Ports;

use super::*;
use crate::tests::fixtures::{edit, identity, key, pod, ports, service, waypoint};

fn mesh() -> (Mesh, Arc<Workload>) {
    let mut mesh = Mesh::new("".into(), None);
    let all = || ports(&[(80, 8080, AppProtocol::Http2), (81, 8081, AppProtocol::Unknown)]);
    let own = edit(pod("waypoint", [10, 0, 0, 1].into()), |own| {
        own.services = [(key("waypoint"), ports(&[(15008, 15008, AppProtocol::Unknown)]))].into();
    });
    let own = Arc::new(own);
    let bound =
        Service { waypoint: Some(waypoint("waypoint").into()), ..service("bound", "10.96.0.1", all()) };
    let other = Service { waypoint: Some(waypoint("other").into()), ..service("other", "10.96.0.2", all()) };
    let leaving = service("leaving", "10.96.0.3", all());
    let behind = |name: &str, ip: u8, host: &str| {
        edit(pod(name, [10, 0, 0, ip].into()), |pod| pod.services = [(key(host), all())].into())
    };
    let grab = Service {
        key: NamespacedHostname::new("other", key("grab").hostname()),
        ..service("grab", "10.96.0.5", all())
    };
    for update in [
        Update::Workload((*own).clone()),
        Update::Service(service("waypoint", "10.96.0.9", Ports::default())),
        Update::Service(bound),
        Update::Service(other),
        Update::Service(leaving),
        Update::Service(service("free", "10.96.0.4", all())),
        Update::Service(grab.clone()),
        Update::Workload(behind("free", 2, "free")),
        Update::Workload(edit(behind("bound", 3, "bound"), |pod| pod.waypoint = Some(waypoint("waypoint")))),
        Update::Workload(edit(behind("judged", 4, "leaving"), |pod| {
            pod.services = [(key("leaving"), all()), (grab.key.clone(), all())].into();
            pod.enforced_by = Some([identity("waypoint")].into());
        })),
    ] {
        mesh.apply(update);
    }
    (mesh, own)
}

/// Service, workload and protocol, or why not.
type Reached = Result<(Option<String>, Option<&'static str>, AppProtocol), Misdirected>;

#[test]
fn only_what_is_bound_to_this_waypoint_is_reached_through_it() {
    use Misdirected::{NoPort, NotBound, Unknown};
    let (mesh, own) = mesh();
    let host = |host: &str| key(host).hostname().to_owned();
    let named = |host: &str| Some(key(host).to_string());
    let reached: [(String, Reached); 13] = [
        ("10.96.0.1:80".into(), Ok((named("bound"), None, AppProtocol::Http2))),
        ("10.96.0.1:81".into(), Ok((named("bound"), None, AppProtocol::Unknown))),
        (format!("{}:80", host("bound")), Ok((named("bound"), None, AppProtocol::Http2))),
        ("10.96.0.1:82".into(), Err(NoPort { service: key("bound").to_string(), port: 82 })),
        ("10.96.0.2:80".into(), Err(NotBound(key("other").to_string()))),
        ("10.96.0.3:80".into(), Ok((named("leaving"), None, AppProtocol::Http2))),
        ("10.96.0.4:80".into(), Err(NotBound(key("free").to_string()))),
        // Somebody else's service, which names a pod that is judged here.
        ("10.96.0.5:80".into(), Err(NotBound(format!("other/{}", key("grab").hostname())))),
        ("10.0.0.2:8080".into(), Err(NotBound("shop/free".into()))),
        ("10.0.0.3:8080".into(), Ok((None, Some("bound"), AppProtocol::Http2))),
        // By its services only.
        ("10.0.0.4:9999".into(), Err(NotBound("shop/judged".into()))),
        ("10.0.0.9:80".into(), Err(Unknown("10.0.0.9:80".into()))),
        ("nobody.example:80".into(), Err(Unknown("nobody.example".into()))),
    ];
    for (authority, expected) in reached {
        let resolved = resolve(&mesh, &own, &authority.parse().unwrap());
        let resolved = resolved.map(|target| {
            let service = target.service.as_ref().map(|service| service.key.to_string());
            (service, target.workload.map(|workload| workload.name.to_string()), target.protocol)
        });
        let expected =
            expected.map(|(service, workload, protocol)| (service, workload.map(str::to_owned), protocol));
        assert_eq!(resolved, expected, "{authority}");
    }
}

/// What somebody wrote down as an endpoint at a service's address does not come before the service; a pod does.
#[test]
fn only_a_pod_comes_before_a_service_whose_address_it_is() {
    let service = Ok(Some(key("bound").to_string()));
    for (uid, expected) in [
        ("Kubernetes/discovery.k8s.io/EndpointSlice/other/x/10.96.0.1", service),
        ("Kubernetes//Pod/shop/x", Err(Misdirected::NotBound("shop/x".into()))),
    ] {
        let (mut mesh, own) = mesh();
        mesh.apply(Update::Workload(Workload { uid: uid.into(), ..pod("x", [10, 96, 0, 1].into()) }));
        let resolved = resolve(&mesh, &own, &"10.96.0.1:80".parse().unwrap());
        let found = resolved.map(|target| target.service.map(|service| service.key.to_string()));
        assert_eq!(found, expected, "{uid}");
    }
}

/// A pod is borrowed where its services alone bring it here: not where it is bound itself, nor where nobody is judged for.
#[test]
fn who_is_borrowed() {
    let (mesh, own) = mesh();
    for (ip, expected) in [([10, 0, 0, 2], false), ([10, 0, 0, 3], false), ([10, 0, 0, 4], true)] {
        let workload = mesh.workload_at(&NetworkAddress::new("".into(), ip.into())).unwrap();
        assert_eq!(is_borrowed(&mesh, &own, workload), expected, "{}", workload.name);
    }
}

#[test]
fn what_another_namespace_declares_of_a_pods_port_counts_for_nothing() {
    let (mut mesh, own) = mesh();
    let named =
        |namespace: &str| NamespacedHostname::new(namespace, &format!("grab.{namespace}.svc.cluster.local"));
    for (namespace, expected) in [("shop", AppProtocol::Tcp), ("other", AppProtocol::Unknown)] {
        mesh.apply(Update::Workload(edit(pod("p", [10, 0, 0, 5].into()), |pod| {
            pod.waypoint = Some(waypoint("waypoint"));
            pod.services = [(named(namespace), ports(&[(80, 8080, AppProtocol::Tcp)]))].into();
        })));
        let target = resolve(&mesh, &own, &"10.0.0.5:8080".parse().unwrap()).unwrap();
        assert_eq!(target.protocol, expected, "{namespace}");
    }
}
