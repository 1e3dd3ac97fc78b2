//! Enrolment: before a pod's containers start, its node's agent is told, as the CNI plugin would tell
//! it, and decides whether to capture it. Without its answer a pod that belongs to the mesh does not start: it
//! would run uncaptured.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use k8s_openapi::api::core::v1::Pod;
use manifest::enrolment::{Enrolment, Names};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::local::http;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a pod must be captured before it starts.
pub(crate) fn must_be_captured(pod: &Pod, namespace_labels: Option<&Names>) -> bool {
    let none = Names::new();
    let pod = Enrolment {
        labels: pod.metadata.labels.as_ref().unwrap_or(&none),
        annotations: pod.metadata.annotations.as_ref().unwrap_or(&none),
        host_network: pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true),
        namespace: namespace_labels.unwrap_or(&none),
    };
    pod.refusal().is_none()
}

/// The message of a CNI plugin, with Go's encoding of a network.
fn message(pod: &Pod, netns: &Path, gateways: &[IpAddr]) -> Value {
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let ips = ips.filter_map(|ip| ip.ip.parse::<IpAddr>().ok()).map(|ip| {
        let gateway = gateways.iter().find(|gateway| gateway.is_ipv6() == ip.is_ipv6());
        let mask = if ip.is_ipv6() { "/////////////////////w==" } else { "/////w==" };
        json!({
            "Interface": 0,
            "Address": {"IP": ip.to_string(), "Mask": mask},
            "Gateway": gateway.map(ToString::to_string),
        })
    });
    json!({
        "Netns": netns,
        "PodName": pod.metadata.name,
        "PodNamespace": pod.metadata.namespace,
        "PodUID": pod.metadata.uid,
        "IPs": ips.collect::<Vec<_>>(),
    })
}

/// Tells the agent of the pod's node; what it says when it does not agree is the error.
pub(crate) async fn enrol(socket: &Path, pod: &Pod, netns: &Path, gateways: &[IpAddr]) -> Result<(), String> {
    let body = message(pod, netns, gateways).to_string();
    match tokio::time::timeout(PATIENCE, post(socket, body)).await {
        Ok(result) => result,
        Err(_) => Err(format!("the node agent did not answer within {} s", PATIENCE.as_secs())),
    }
}

async fn post(socket: &Path, body: String) -> Result<(), String> {
    let unreachable = |error: std::io::Error| format!("the node agent cannot be reached: {error}");
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let (status, text) = http::call(stream, Method::POST, "/cmdadd", body).await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(());
    }
    Err(format!("the node agent refused to enrol it ({status}): {}", String::from_utf8_lossy(&text).trim()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{message, must_be_captured};

    #[test]
    fn labels_of_namespace_and_pod_decide() {
        for (namespace, pod, extra, expected) in [
            ("", "", json!({}), false),
            ("ambient", "", json!({}), true),
            ("ambient", "none", json!({}), false),
            ("", "ambient", json!({}), true),
            ("none", "ambient", json!({}), true),
            ("ambient", "", json!({"hostNetwork": true}), false),
            ("ambient", "unheard-of", json!({}), true),
        ] {
            let label = |value: &str| match value {
                "" => BTreeMap::new(),
                value => BTreeMap::from([(manifest::enrolment::MODE.to_owned(), value.to_owned())]),
            };
            let mut spec = extra.clone();
            spec["containers"] = json!([]);
            let object =
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": label(pod)}, "spec": spec});
            let object = serde_json::from_value(object).expect("pod");
            assert_eq!(
                must_be_captured(&object, Some(&label(namespace))),
                expected,
                "{namespace:?} {pod:?} {extra}"
            );
        }
    }

    #[test]
    fn the_message_is_what_a_cni_plugin_sends() {
        let pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "status": {"podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}]},
        }))
        .expect("pod");
        let gateways = ["10.244.1.1".parse().expect("ip"), "fd00::1".parse().expect("ip")];
        let message = message(&pod, std::path::Path::new("/x/netns"), &gateways);
        assert_eq!(message["Netns"], "/x/netns");
        assert_eq!(message["PodUID"], "u");
        assert_eq!(
            message["IPs"][0],
            json!({"Interface": 0, "Address": {"IP": "10.244.1.2", "Mask": "/////w=="}, "Gateway": "10.244.1.1"})
        );
        assert_eq!(message["IPs"][1]["Gateway"], "fd00::1");
    }
}
