//! The annotation `lateen.dev/health-check`.

use model::traffic::health::{ANNOTATION, MOST_TIMEOUT, USUAL_PERIOD, is_path, may_have_header};

use crate::{
    check::{Report, values},
    cursor::Cursor,
    health_check::{self, annotation, document, problems},
    node::Value,
    scalar::Scalar,
    suggest::nearest,
};

/// The kinds of probes that can be written.
const KINDS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// Lengths of time and numbers of checks, in whole numbers up to these.
const NUMBERS: [(&str, f64); 4] = [
    (PERIOD, 3600.0),
    (TIMEOUT, MOST_TIMEOUT.as_secs_f64()),
    ("failureThreshold", 3600.0),
    ("successThreshold", 3600.0),
];
const PERIOD: &str = "periodSeconds";
const TIMEOUT: &str = "timeoutSeconds";
/// What annotations of ours begin with.
const OURS: &str = "lateen.dev/";
/// Headers of one request.
const MAX_HEADERS: usize = 20;
/// What only a kubelet can do, and why not a waypoint.
const REFUSED: [(&str, &str); 3] = [
    ("exec", "a waypoint runs nothing in pods; use httpGet, tcpSocket or grpc"),
    ("initialDelaySeconds", "an endpoint is checked from when it is ready; give its pod a readiness probe"),
    ("terminationGracePeriodSeconds", "nothing is ended by a check"),
];

/// Its rules. It is read as strictly as a field would be.
pub(super) fn check(root: &Cursor<'_>, report: &mut Report<'_>) {
    others(root, report);
    let Some(annotation) = annotation(root) else { return };
    let tree = match document(&annotation) {
        Ok(tree) => tree,
        Err(why) => {
            let fix = "write fields as of a probe: `httpGet: {path: /healthz, port: 8080}`".to_owned();
            return report.error(&annotation, format!("cannot be read: {why}"), Some(fix));
        }
    };
    let check = Cursor { node: &tree, ..annotation };
    let problems = problems(&tree);
    for problem in &problems {
        let at = Cursor { path: within(&check.path, &problem.field), ..check.clone() };
        report.error(&at, problem.message.clone(), problem.fix.clone());
    }
    if !problems.is_empty() {
        return;
    }
    for (key, why) in REFUSED {
        if let Some(at) = check.get(key) {
            report.error(&at, format!("`{key}` is not supported: {why}"), Some(format!("leave `{key}` out")));
        }
    }
    if check.get("exec").is_none()
        && values::says_something(&check, "lateen.dev/health-check", &KINDS, report)
    {
        values::only_one(&check, &KINDS, report);
    }
    for (value, most) in NUMBERS.iter().filter_map(|(key, most)| Some((check.get(key)?, most))) {
        if values::number(&value).is_some_and(|number| !(1.0..=*most).contains(&number)) {
            report.error(&value, format!("not a whole number from 1 to {most}"), None);
        }
    }
    timeout(&check, report);
    for probe in KINDS.iter().filter_map(|kind| check.get(kind)) {
        port(&probe, report);
        if let Some(host) = probe.get("host") {
            let fix = "leave it out; for the header add `httpHeaders: [{name: Host, value: …}]`".to_owned();
            report.error(&host, "`host` is not supported: it is the endpoint that is asked", Some(fix));
        }
    }
    if let Some(http) = check.get("httpGet") {
        http_get(&http, report);
    }
}

/// Annotations of ours that no DestinationRule has, such as this one with another spelling.
fn others(root: &Cursor<'_>, report: &mut Report<'_>) {
    let annotations = root.get("metadata").and_then(|metadata| metadata.get("annotations"));
    for (key, value) in annotations.iter().flat_map(Cursor::fields) {
        if key.starts_with(OURS) && key != ANNOTATION {
            let fix = nearest(key, [ANNOTATION]).map(|near| format!("did you mean `{near}`?"));
            report.warning_at_key(&value, format!("`{key}` has no effect on a DestinationRule"), fix);
        }
    }
}

/// Who is waited for longer than a period would be asked less often than is written.
fn timeout(check: &Cursor<'_>, report: &mut Report<'_>) {
    let number = |key: &str| check.get(key).and_then(|value| values::number(&value));
    let period = number(PERIOD).unwrap_or(USUAL_PERIOD.as_secs_f64());
    if let (Some(value), Some(timeout)) = (check.get(TIMEOUT), number(TIMEOUT))
        && period >= 1.0
        && period < timeout
        && timeout <= MOST_TIMEOUT.as_secs_f64()
    {
        let message = format!("{timeout} s are longer than `{PERIOD}`, {period} s");
        let fix = format!("write at most {period}, or a longer `{PERIOD}`");
        report.error(&value, message, Some(fix));
    }
}

/// The path of a field within the annotation.
fn within(path: &str, field: &str) -> String {
    match field {
        "" => path.to_owned(),
        field if field.starts_with('[') => format!("{path}{field}"),
        field => format!("{path}.{field}"),
    }
}

fn port(probe: &Cursor<'_>, report: &mut Report<'_>) {
    let Some(port) = probe.get("port") else {
        let fix = Some("add `port:` with the number of the pod's port".to_owned());
        return report.error(probe, "`port` is missing", fix);
    };
    match port.node.value {
        Value::Scalar(Scalar::Int(_), _) => values::port(&port, report),
        Value::Scalar(Scalar::Text, _) => {
            let fix = Some("write the number of the pod's port".to_owned());
            report.error(&port, "a port's name cannot be looked up by a waypoint", fix);
        }
        _ => report.error(&port, "not a port number from 1 to 65535", None),
    }
}

fn http_get(http: &Cursor<'_>, report: &mut Report<'_>) {
    if let Some(scheme) = http.get("scheme").filter(|scheme| scheme.text() != "HTTP") {
        let fix = Some("leave it out: between workloads of the mesh checks are encrypted anyway".to_owned());
        report.error(&scheme, format!("the scheme `{}` is not supported", scheme.text()), fix);
    }
    if let Some(path) = http.get("path")
        && !is_path(&health_check::path(Some(path.text())))
    {
        let fix = Some("escape what cannot stand in a path with `%`".to_owned());
        report.error(&path, format!("`{}` cannot be a path", path.text()), fix);
    }
    let headers = http.items("httpHeaders");
    if headers.len() > MAX_HEADERS {
        report.error(http, format!("more than {MAX_HEADERS} headers"), None);
    }
    for header in headers {
        let name = header.get("name").filter(|name| values::is_header_name(name.text()));
        if name.is_none() {
            let text = header.get("name").map(|name| name.text().to_owned()).unwrap_or_default();
            report.error(&header, format!("`{text}` cannot be the name of a header"), None);
        }
        if name.is_some_and(|name| !may_have_header(name.text())) {
            let fix = Some("leave it out".to_owned());
            report.error(
                &header,
                "what frames a request, or says whose it is, is the waypoint's to say",
                fix,
            );
        }
        let odd = |byte: u8| byte != b'\t' && !(b' '..=b'~').contains(&byte);
        if header.get("value").is_some_and(|value| value.text().bytes().any(odd)) {
            report.error(&header, "its value has characters that a header cannot have", None);
        }
    }
}
