//! Spans of requests, with the tags that Envoy gives them in Istio: Kiali joins traces to its graph by these.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::metrics::end::End;
use daemon::trace::{self, Exporter, Span, TraceError, TraceSettings, Tracer};
use model::workload::Workload;

use super::labels::{GrpcStatus, end_of};
use super::line::{Entry, shown, version};
use crate::Own;
use crate::listen::Inbound;

/// How long the last spans may take to get away when the process ends.
const FLUSH: Duration = Duration::from_secs(2);

/// Makes spans, and knows what is said with each.
#[derive(Debug)]
pub(crate) struct Spans {
    pub(crate) tracer: Tracer,
    /// Who runs it has taken it.
    exporter: Mutex<Option<Exporter>>,
    /// Tags that say who we are.
    own: Vec<(&'static str, String)>,
    /// What spans of no service are of.
    name: Arc<str>,
}

/// What this waypoint is called, beside [`Own`].
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) pod: &'a str,
    pub(crate) node: &'a str,
    pub(crate) cluster: &'a str,
}

/// What a span has that the access log has not.
#[derive(Debug)]
pub(super) struct More<'a> {
    pub(super) source: &'a End,
    pub(super) retries: u32,
    pub(super) grpc: Option<GrpcStatus>,
    /// What policies on trial would have decided.
    pub(super) trial: &'a [(&'static str, String)],
}

impl Spans {
    /// Spans of this waypoint.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub(crate) fn new(own: &Own, place: &Place<'_>, mut settings: TraceSettings) -> Result<Self, TraceError> {
        let (namespace, gateway) = (own.identity.namespace(), &own.gateway.name);
        settings.resource = vec![
            ("k8s.namespace.name", namespace.to_string()),
            ("k8s.pod.name", place.pod.to_owned()),
            ("k8s.node.name", place.node.to_owned()),
        ];
        let (tracer, exporter) = Tracer::new(&settings)?;
        let ip = own.address.ip;
        let node = format!("waypoint~{ip}~{}.{namespace}~{namespace}.svc.cluster.local", place.pod);
        let own = vec![
            ("component", String::from("proxy")),
            ("node_id", node),
            ("istio.mesh_id", own.identity.trust_domain().to_string()),
            ("istio.cluster_id", place.cluster.to_owned()),
            ("istio.namespace", namespace.to_string()),
            ("istio.canonical_service", gateway.to_string()),
            ("istio.canonical_revision", String::from("latest")),
        ];
        let name = format!("{gateway}.{namespace}").into();
        Ok(Self { tracer, exporter: Mutex::new(Some(exporter)), own, name })
    }

    /// What has to run; once.
    pub(crate) fn exporter(&self) -> Option<Exporter> {
        self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends the last spans away.
    pub(crate) async fn flush(&self) {
        if tokio::time::timeout(FLUSH, self.tracer.flush()).await.is_err() {
            tracing::warn!("the collector does not take the last spans; they are lost");
        }
    }

    /// A request's span ends.
    pub(super) fn end(&self, span: Span, entry: &Entry<'_>, more: &More<'_>) {
        let target = &entry.inbound.target;
        let port = target.destination.port();
        let (service, name) = match &target.service {
            Some(service) => (service.key.hostname().into(), format!("{}:{port}/*", service.key.hostname())),
            None => (self.name.clone(), format!("{}/*", target.destination)),
        };
        let failed_call = more.grpc.flatten().is_some_and(|status| status != 0);
        let failed = entry.status == 0 || entry.status >= 500 || failed_call;
        let mut tags = self.own.clone();
        request_tags(&mut tags, entry);
        if let Some(status) = more.grpc.flatten() {
            tags.push(("grpc.status_code", status.to_string()));
        }
        if failed {
            tags.push(("error", String::from("true")));
        }
        if more.retries > 0 {
            tags.push(("lateen.retries", more.retries.to_string()));
        }
        if let Some(cause) = entry.cause {
            tags.push(("lateen.cause", cause.to_owned()));
        }
        tags.extend(more.trial.iter().cloned());
        peers(&mut tags, entry.inbound, more.source, entry.endpoint.and_then(|to| to.workload.as_deref()));
        let times = (entry.at, entry.at + entry.duration);
        self.tracer.end(span, trace::End { service, name, times, tags, failed });
    }
}

fn request_tags(tags: &mut Vec<(&'static str, String)>, entry: &Entry<'_>) {
    if let Some(said) = entry.request {
        let path = said.uri.path_and_query().map_or("/", |path| path.as_str());
        let text = |value: Option<&http::HeaderValue>| shown(value).unwrap_or("-".into()).into_owned();
        tags.extend([
            ("guid:x-request-id", text(said.request_id.as_ref())),
            ("http.url", format!("http://{}{path}", said.authority)),
            ("http.method", said.method.to_string()),
            ("http.protocol", version(said.version).to_owned()),
            ("user_agent", text(said.user_agent.as_ref())),
        ]);
    }
    let cluster = super::line::cluster(entry).into_owned();
    tags.extend([
        ("downstream_cluster", String::from("-")),
        ("peer.address", entry.inbound.client.peer.ip().to_string()),
        ("http.status_code", entry.status.to_string()),
        ("response_flags", entry.flags.to_string()),
        ("request_size", entry.received.to_string()),
        ("response_size", entry.sent.to_string()),
        ("upstream_cluster", cluster.clone()),
        ("upstream_cluster.name", cluster),
    ]);
    if let Some(endpoint) = entry.endpoint {
        tags.push(("upstream_address", endpoint.address.to_string()));
    }
}

/// Tag names of one end, in the order of [`peer`]'s values.
type Names = [&'static str; 8];

const SOURCE: Names = [
    "istio.source_workload",
    "istio.source_namespace",
    "istio.source_cluster_id",
    "istio.source_canonical_service",
    "istio.source_canonical_revision",
    "istio.source_app",
    "istio.source_app_version",
    "istio.source_instance_name",
];

const DESTINATION: Names = [
    "istio.destination_workload",
    "istio.destination_namespace",
    "istio.destination_cluster_id",
    "istio.destination_canonical_service",
    "istio.destination_canonical_revision",
    "istio.destination_app",
    "istio.destination_app_version",
    "istio.destination_instance_name",
];

/// Who is at the two ends.
fn peers(
    tags: &mut Vec<(&'static str, String)>,
    inbound: &Inbound,
    source: &End,
    destination: Option<&Workload>,
) {
    let instance = |workload: Option<&Workload>| workload.map(|workload| workload.name.to_string());
    peer(tags, SOURCE, source, instance(inbound.source.as_deref()));
    let destination = destination.or(inbound.target.workload.as_deref());
    if let Some(workload) = destination {
        peer(tags, DESTINATION, &end_of(workload), instance(Some(workload)));
    }
}

fn peer(tags: &mut Vec<(&'static str, String)>, names: Names, end: &End, instance: Option<String>) {
    let values = [
        &end.workload,
        &end.namespace,
        &end.cluster,
        &end.canonical_service,
        &end.canonical_revision,
        &end.canonical_service,
        &end.canonical_revision,
    ];
    let known = names.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
    tags.extend(known.map(|(name, value)| (name, value.to_string())));
    tags.extend(instance.map(|instance| (names[7], instance)));
}
