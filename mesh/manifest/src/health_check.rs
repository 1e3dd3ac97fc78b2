//! `lateen.dev/health-check` on a DestinationRule: active checks of the host's endpoints, written as the probes of Kubernetes
//! are. Istio's API has no field for them, so that they stand in an annotation; what is in it is read as strictly as a
//! field is.

use std::time::Duration;

use model::address::Str;
use model::traffic::health::ANNOTATION;
use model::traffic::{HealthCheck, Probe};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::cursor::Cursor;
use crate::decode::{Problem, decode};
use crate::node::{Node, Value};
use crate::position::Mark;
use crate::yaml;

/// The annotation as written. What stands as [`IgnoredAny`] is refused, or looked at, by its name.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Written {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    period_seconds: Option<u32>,
    timeout_seconds: Option<u32>,
    failure_threshold: Option<u32>,
    success_threshold: Option<u32>,
    #[serde(rename = "exec")]
    _exec: Option<IgnoredAny>,
    #[serde(rename = "initialDelaySeconds")]
    _initial_delay_seconds: Option<IgnoredAny>,
    #[serde(rename = "terminationGracePeriodSeconds")]
    _termination_grace_period_seconds: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct HttpGet {
    path: Option<String>,
    http_headers: Vec<HttpHeader>,
    #[serde(rename = "port")]
    _port: Option<IgnoredAny>,
    #[serde(rename = "host")]
    _host: Option<IgnoredAny>,
    #[serde(rename = "scheme")]
    _scheme: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct HttpHeader {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct TcpSocket {
    #[serde(rename = "port")]
    _port: Option<IgnoredAny>,
    #[serde(rename = "host")]
    _host: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Grpc {
    service: Option<String>,
    #[serde(rename = "port")]
    _port: Option<IgnoredAny>,
}

/// The annotation of an object, if it has it.
pub(crate) fn annotation<'a>(root: &Cursor<'a>) -> Option<Cursor<'a>> {
    let annotations = root.get("metadata").and_then(|metadata| metadata.get("annotations"))?;
    annotations.get(ANNOTATION).filter(|value| value.node.text().is_some())
}

/// What the text of an annotation consists of. All of it stands where the annotation does.
///
/// # Errors
/// It is not one document of YAML with fields.
pub(crate) fn document(annotation: &Cursor<'_>) -> Result<Node, String> {
    let mut documents = yaml::documents(annotation.text()).into_iter();
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return Err("it is not one document".to_owned());
    };
    if let Some(fault) = document.faults.first() {
        return Err(fault.message.clone());
    }
    let mut root = document.root.ok_or("it is not YAML")?;
    if !matches!(root.value, Value::Map(_)) {
        return Err(format!("{} where fields are wanted", root.kind()));
    }
    place(&mut root, annotation.at);
    Ok(root)
}

/// Fields that a check does not have, and values of a wrong type.
pub(crate) fn problems(document: &Node) -> Vec<Problem> {
    decode::<Written>(document).1
}

/// The check that an object asks for; none where it does not, or not in a way that can be read.
pub(crate) fn read(root: &Node) -> Option<HealthCheck> {
    let document = document(&annotation(&Cursor::root(root))?).ok()?;
    let (written, _) = decode::<Written>(&document);
    let written = written?;
    let at = Cursor::root(&document);
    let port = |kind: &str| u16::try_from(at.get(kind)?.get("port")?.node.to_json().as_u64()?).ok();
    let probe = match &written {
        Written { http_get: Some(http), .. } => Probe::Http {
            port: port("httpGet")?,
            path: path(http.path.as_deref()),
            headers: http
                .http_headers
                .iter()
                .map(|one| (Str::from(&*one.name), Str::from(&*one.value)))
                .collect(),
        },
        Written { tcp_socket: Some(_), .. } => Probe::Tcp { port: port("tcpSocket")? },
        Written { grpc: Some(grpc), .. } => {
            Probe::Grpc { port: port("grpc")?, service: grpc.service.as_deref().unwrap_or_default().into() }
        }
        _ => return None,
    };
    let usual = HealthCheck::of(probe);
    let seconds =
        |written: Option<u32>, usual| written.map_or(usual, |count| Duration::from_secs(count.into()));
    Some(HealthCheck {
        period: seconds(written.period_seconds, usual.period),
        timeout: seconds(written.timeout_seconds, usual.timeout),
        failure_threshold: written.failure_threshold.unwrap_or(usual.failure_threshold),
        success_threshold: written.success_threshold.unwrap_or(usual.success_threshold),
        probe: usual.probe,
    })
}

/// As Kubernetes reads it: a path may be written without its first slash.
pub(crate) fn path(written: Option<&str>) -> Str {
    match written.unwrap_or_default() {
        path if path.starts_with('/') => path.into(),
        path => format!("/{path}").into(),
    }
}

/// Puts a tree in one place: its own text has lines that nobody can look up.
fn place(node: &mut Node, at: Mark) {
    node.at = at;
    match &mut node.value {
        Value::Scalar(..) => {}
        Value::List(items) => items.iter_mut().for_each(|item| place(item, at)),
        Value::Map(entries) => {
            for entry in entries {
                entry.at = at;
                place(&mut entry.node, at);
            }
        }
    }
}
