//! The mesh that the table is about, and the policies, as manifests.

use super::policies::{Action, Case, OTHERS, Operation, Policy, ROOT, SERVERS, Scope};
use super::way::LOBBY;
use super::{Binding, Target};
use crate::manifests::{namespace, shell};

/// The file that says how many replicas the waypoint `gone` has.
pub const GONE: &str = "gone.yaml";

/// What [`super::Client::Waypoint`] is asked for, and the header by which its rules know where to.
pub const DOOR: &str = "door.hall:8080";
/// Its name.
pub const LEADS_TO: &str = "x-leads-to";

/// Its name, of one of the servers' two services.
pub fn service(binding: Binding, target: Target) -> String {
    match target {
        Target::Headless => format!("{}-headless", binding.name()),
        Target::Service | Target::Pod => binding.name().to_owned(),
    }
}

/// The mesh.
pub fn mesh() -> Vec<(&'static str, String)> {
    let clients = [
        namespace("clients", "ambient"),
        namespace("outside", ""),
        shell("friend", "clients", "node-1"),
        shell("stranger", "clients", "node-1"),
        shell("plaintext", "outside", "node-1"),
        in_node(&shell("host-near", "outside", "node-2")),
        in_node(&shell("host-far", "outside", "node-1")),
    ];
    let servers = Binding::ALL.map(server).concat();
    vec![
        ("clients.yaml", clients.concat()),
        ("namespaces.yaml", namespaces()),
        ("servers.yaml", servers),
        ("waypoints.yaml", waypoints()),
        ("door.yaml", door()),
        (GONE, replicas("gone", 1) + &replicas("never", 0)),
    ]
}

fn in_node(pod: &str) -> String {
    pod.replace("spec:\n", "spec:\n  hostNetwork: true\n")
}

fn namespaces() -> String {
    let bound = |name| namespace(name, "ambient") + "    istio.io/use-waypoint: way\n";
    [
        namespace("test", "ambient"),
        bound("services"),
        bound("everything"),
        namespace("infra", "ambient"),
        namespace("hall", "ambient") + "    istio.io/use-waypoint: lobby\n",
        namespace(ROOT, ""),
    ]
    .concat()
}

/// How many replicas a waypoint of `test` is to have.
pub fn replicas(waypoint: &str, count: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {waypoint}, namespace: test}}\n\
         data: {{deployment: \"spec: {{replicas: {count}}}\"}}\n"
    )
}

fn waypoints() -> String {
    let account = |name: &str| format!("annotations: {{istio.io/for-service-account: {name}}}");
    let all = "labels: {istio.io/waypoint-for: all}";
    let own = "Same";
    let replicas = |name| {
        format!("  infrastructure: {{parametersRef: {{group: \"\", kind: ConfigMap, name: {name}}}}}\n")
    };
    [
        gateway("front", "test", "", own, ""),
        gateway("guard", "test", &account("account"), own, ""),
        gateway("sentry", "test", &account("both"), own, ""),
        gateway("gone", "test", all, own, &replicas("gone")),
        gateway("never", "test", all, own, &replicas("never")),
        gateway("way", "services", "", own, ""),
        gateway("way", "everything", all, own, ""),
        gateway("shared", "infra", all, "All", ""),
        gateway(LOBBY.name, LOBBY.namespace, "", own, ""),
    ]
    .concat()
}

fn gateway(name: &str, namespace: &str, metadata: &str, from: &str, parameters: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: {namespace}, {metadata}}}\n\
         spec:\n  gatewayClassName: istio-waypoint\n{parameters}  \
         listeners: [{{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {{namespaces: {{from: {from}}}}}}}]\n"
    )
}

/// The labels by which a server's services and its pod ask for a waypoint.
fn labels(binding: Binding) -> (&'static str, &'static str) {
    match binding {
        Binding::Service | Binding::Both => ("istio.io/use-waypoint: front", ""),
        Binding::Elsewhere => {
            let both = "istio.io/use-waypoint: shared, istio.io/use-waypoint-namespace: infra";
            (both, both)
        }
        Binding::Down => ("istio.io/use-waypoint: gone", "istio.io/use-waypoint: gone"),
        Binding::NeverReady => ("istio.io/use-waypoint: never", "istio.io/use-waypoint: never"),
        Binding::None | Binding::Account | Binding::NamespaceServices | Binding::NamespaceAll => ("", ""),
    }
}

/// A server of three ports, and its two services.
fn server(binding: Binding) -> String {
    let (name, namespace, (of_service, of_pod)) = (binding.name(), binding.namespace(), labels(binding));
    let service = |name: &str, headless: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{of_service}}}}}\n\
             spec: {{selector: {{app: {}}}, {headless}ports: [{{name: http, port: 8080}}, {{name: tcp, port: 9000}}, {{name: undeclared, port: 8081}}]}}\n",
            binding.name()
        )
    };
    let pod = format!(
        "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}, role: server, {of_pod}}}}}\n\
         spec:\n  serviceAccountName: {name}\n  nodeName: node-2\n  containers:\n  - name: echo\n    image: none\n    \
         command: [lateen, echo, --http, \"8080\", --http, \"8081\", --tcp, \"9000\"]\n    ports: [{{containerPort: 8080}}, {{containerPort: 8081}}, {{containerPort: 9000}}]\n    \
         readinessProbe: {{tcpSocket: {{port: 8080}}}}\n"
    );
    service(name, "") + &service(&format!("{name}-headless"), "clusterIP: None, ") + &pod
}

/// What is behind the lobby: a service without pods, from which a header leads to each server.
fn door() -> String {
    let mut rules = String::new();
    for binding in Binding::ALL {
        for target in [Target::Service, Target::Headless] {
            let (service, namespace) = (service(binding, target), binding.namespace());
            rules.push_str(&format!(
                "  - match: [{{headers: {{{LEADS_TO}: {{exact: {service}.{namespace}}}}}}}]\n    \
                 route: [{{destination: {{host: {service}.{namespace}.svc.cluster.local, port: {{number: 8080}}}}}}]\n"
            ));
        }
    }
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: door, namespace: hall}}\n\
         spec: {{ports: [{{name: http, port: 8080}}]}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: door, namespace: hall}}\n\
         spec:\n  hosts: [door]\n  http:\n{rules}"
    )
}

/// The policies of a case.
pub fn policies(case: &Case) -> String {
    let mut text = case.policies.iter().map(objects).collect::<String>();
    if case.strict {
        text.push_str(&format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: strict, namespace: {ROOT}}}\n\
             spec: {{mtls: {{mode: STRICT}}}}\n"
        ));
    }
    text
}

fn objects(policy: &Policy) -> String {
    let service = |binding: &Binding| {
        [Target::Service, Target::Headless]
            .map(|target| format!("{{kind: Service, group: \"\", name: {}}}", service(*binding, target)))
    };
    let services = |namespace: &str| {
        let own = Binding::ALL.into_iter().filter(|binding| binding.namespace() == namespace);
        own.flat_map(|binding| service(&binding)).collect::<Vec<_>>()
    };
    let gateways = |namespace: &str| {
        let names: &[&str] = match namespace {
            "test" => &["front", "guard", "sentry", "gone", "never"],
            "infra" => &["shared"],
            _ => &["way"],
        };
        let one = |name: &&str| format!("{{kind: Gateway, group: gateway.networking.k8s.io, name: {name}}}");
        names.iter().map(one).collect::<Vec<_>>()
    };
    let all = |namespaces: &[&str], target: &dyn Fn(&str) -> String| {
        let one = |namespace: &&str| object(policy, namespace, &target(namespace));
        namespaces.iter().map(one).collect::<String>()
    };
    let to_targets = |targets: Vec<String>| format!("targetRefs: [{}]", targets.join(", "));
    match policy.scope {
        Scope::Servers => all(&SERVERS, &|_| String::from("selector: {matchLabels: {role: server}}")),
        Scope::Namespace => all(&SERVERS, &|_| String::new()),
        Scope::Mesh => all(&[ROOT], &|_| String::new()),
        Scope::OtherNamespaces => all(&OTHERS, &|_| String::new()),
        Scope::Services => all(&SERVERS, &|namespace| to_targets(services(namespace))),
        Scope::Gateways => {
            let namespaces = [&SERVERS[..], &["infra"]].concat();
            all(&namespaces, &|namespace| to_targets(gateways(namespace)))
        }
    }
}

fn object(policy: &Policy, namespace: &str, target: &str) -> String {
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Deny | Action::DryRun => "DENY",
        Action::Audit => "AUDIT",
    };
    let annotations = match policy.action {
        Action::DryRun => ", annotations: {istio.io/dry-run: \"true\"}",
        Action::Allow | Action::Deny | Action::Audit => "",
    };
    let from = policy.from.map(|from| format!("from: [{{source: {{principals: [{}]}}}}]", from.principal()));
    let to = policy.to.map(|to| match to {
        Operation::GetOpen => String::from("to: [{operation: {methods: [GET], paths: [/open]}}]"),
        Operation::Closed => String::from("to: [{operation: {paths: [/closed]}}]"),
    });
    let rule = [from, to].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let target = if target.is_empty() { String::new() } else { format!("  {target}\n") };
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {}, namespace: {namespace}{annotations}}}\n\
         spec:\n{target}  action: {action}\n  rules: [{{{rule}}}]\n",
        policy.name
    )
}
