//! The endpoint of the CNI plugin: before a pod's containers start, its runtime asks here, and gets its answer
//! once the pod is captured and served. A pod that belongs to the mesh and could not be captured does not start.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use daemon::http::{Answer, Call, Routes};
use http::Method;
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    catalog::Catalog,
    eligible::{PodFacts, Verdict},
    enrol::Status,
    reconcile::{CaptureError, Capturer},
};

/// How long a call may take in all: waiting for news of the pod, and capturing it.
const CALL_TIME: Duration = Duration::from_secs(5);

/// What the plugin sends; the names are those of Istio's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Added {
    netns: PathBuf,
    pod_name: String,
    pod_namespace: String,
    /// Only our own plugin sends it.
    #[serde(default, rename = "PodUID")]
    pod_uid: Option<String>,
    #[serde(default, rename = "IPs")]
    ips: Vec<Ip>,
}

/// An address: as a plugin passes it on, or plain.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ip {
    Configured {
        #[serde(rename = "Address")]
        address: Network,
    },
    Plain(IpAddr),
}

/// Go's way to write a network; the mask is of no interest here.
#[derive(Debug, Deserialize)]
struct Network {
    #[serde(rename = "IP")]
    ip: IpAddr,
}

impl Added {
    fn ips(&self) -> Vec<IpAddr> {
        let ip = |ip: &Ip| match ip {
            Ip::Configured { address } => address.ip,
            Ip::Plain(ip) => *ip,
        };
        self.ips.iter().map(ip).collect()
    }
}

/// Why a pod must not start.
#[derive(Debug, thiserror::Error)]
enum AddError {
    #[error("this node's agent has no news of pod {0} after {time} s; is it scheduled on this node, and can the agent read its objects?", time = CALL_TIME.as_secs())]
    Unknown(String),
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// Answers CNI calls.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Captures pods.
    pub capturer: Capturer,
    /// News of pods.
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

impl Endpoint {
    /// `POST /cmdadd`, as Istio's plugin calls it, and `POST /cmdcheck` with the same message.
    #[must_use]
    pub fn routes(&self, routes: Routes) -> Routes {
        let (adds, checks) = (self.clone(), self.clone());
        let routes = routes.on(Method::POST, "/cmdadd", move |call: Call| {
            let endpoint = adds.clone();
            async move { endpoint.answer(&call.body).await }
        });
        routes.on(Method::POST, "/cmdcheck", move |call: Call| {
            let answer = checks.check(&call.body);
            async move { answer }
        })
    }

    /// Whether a pod that runs is as it should be.
    fn check(&self, body: &[u8]) -> Answer {
        let Ok(asked) = serde_json::from_slice::<Added>(body) else {
            return refusal(400, "not a message of the CNI plugin");
        };
        let catalog = self.catalog.borrow().clone();
        let pod = catalog.find(&asked.pod_namespace, &asked.pod_name, asked.pod_uid.as_deref());
        let captured = pod.filter(|pod| catalog.verdict(pod) == Verdict::Captured);
        match captured.map(|pod| self.capturer.enroller.statuses().remove(&pod.uid)) {
            None | Some(Some(Status::Served(_))) => Answer::text(200, ""),
            Some(_) => refusal(500, "the pod belongs to the mesh and is not captured"),
        }
    }

    async fn answer(&self, body: &[u8]) -> Answer {
        let added: Added = match serde_json::from_slice(body) {
            Ok(added) => added,
            Err(error) => return refusal(400, &format!("not a message of the CNI plugin: {error}")),
        };
        // In a task of its own: a plugin that gives up closes the connection, and with it goes whoever serves that. Cut
        // off between its steps a capture would be one that nobody knows of.
        let endpoint = self.clone();
        let adding = tokio::spawn(async move {
            let outcome = endpoint.add(&added, Instant::now() + CALL_TIME).await;
            if let Err(error) = &outcome {
                warn!(%error, pod = added.pod_name, namespace = added.pod_namespace, "a pod was kept from starting");
            }
            outcome.map_err(|error| error.to_string())
        });
        match adding.await {
            Ok(Ok(())) => Answer::text(200, ""),
            Ok(Err(reason)) => refusal(500, &reason),
            Err(ended) => refusal(500, &format!("the capture ended early: {ended}")),
        }
    }

    async fn add(&self, added: &Added, deadline: Instant) -> Result<(), AddError> {
        let (pod, verdict) = self.wait_for(added, deadline).await?;
        if verdict != Verdict::Captured {
            info!(pod = pod.name, namespace = pod.namespace, ?verdict, "not captured");
            return Ok(());
        }
        let outcome = self.capturer.capture(&pod, Some(&added.netns), deadline).await;
        if outcome.is_err() {
            // Its runtime takes the namespace down, and asks again with another.
            self.capturer.forget(&pod.uid).await;
        }
        self.capturer.counts.started.fetch_add(u64::from(outcome.is_ok()), Ordering::Relaxed);
        Ok(outcome?)
    }

    /// The pod, once there is news of it, with the addresses that only its runtime knows yet.
    async fn wait_for(&self, added: &Added, deadline: Instant) -> Result<(PodFacts, Verdict), AddError> {
        let mut catalog = self.catalog.clone();
        let find = |catalog: &Arc<Catalog>| {
            let pod = catalog.find(&added.pod_namespace, &added.pod_name, added.pod_uid.as_deref())?;
            Some((pod.clone(), catalog.verdict(pod)))
        };
        let time = deadline.saturating_duration_since(Instant::now());
        let found = timeout(time, catalog.wait_for(|catalog| find(catalog).is_some())).await;
        let found = found.ok().and_then(Result::ok).and_then(|catalog| find(&catalog));
        let unknown = || AddError::Unknown(format!("{}/{}", added.pod_namespace, added.pod_name));
        let (pod, verdict) = found.ok_or_else(unknown)?;
        Ok((connected(pod, added.ips()), verdict))
    }
}

/// The pod with the addresses that its runtime has just given it. Those of its object may be of before: a pod is made
/// again under the same uid when its sandbox, or its node, has ended.
fn connected(mut pod: PodFacts, told: Vec<IpAddr>) -> PodFacts {
    if !told.is_empty() {
        pod.ips = told;
    }
    pod
}

/// Reads what a plugin says, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) -> bool {
    serde_json::from_slice::<Added>(body).is_ok_and(|added| added.ips().len() <= body.len())
}

fn refusal(status: u16, reason: &str) -> Answer {
    let mut answer = Answer::json(&serde_json::json!({ "error": reason }));
    answer.status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Added, connected};
    use crate::redirect::eligible::PodFacts;

    #[test]
    fn a_pod_has_the_addresses_that_its_runtime_tells() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("ip");
        for (object, told, expected) in [
            (vec![], vec![ip("10.0.0.2")], ip("10.0.0.2")),
            (vec![ip("10.0.0.1")], vec![ip("10.0.0.2")], ip("10.0.0.2")),
            (vec![ip("10.0.0.1")], vec![], ip("10.0.0.1")),
        ] {
            let pod = PodFacts { ips: object, ..PodFacts::default() };
            assert_eq!(connected(pod, told).ips, [expected]);
        }
    }

    #[test]
    fn reads_the_plugins_message_and_a_plain_one() {
        let istio = r#"{"Netns":"/var/run/netns/cni-1","PodName":"p","PodNamespace":"n",
            "IPs":[{"Interface":0,"Address":{"IP":"10.0.0.1","Mask":"/////w=="},"Gateway":"10.0.0.254"},
                   {"Address":{"IP":"fd00::1","Mask":"/////////////////////w=="}}]}"#;
        let added: Added = serde_json::from_str(istio).expect("reads");
        assert_eq!(added.ips(), ["10.0.0.1".parse::<IpAddr>().expect("ip"), "fd00::1".parse().expect("ip")]);
        assert_eq!(added.pod_uid, None);
        let plain = r#"{"Netns":"/x","PodName":"p","PodNamespace":"n","PodUID":"u","IPs":["10.0.0.1"]}"#;
        let added: Added = serde_json::from_str(plain).expect("reads");
        assert_eq!((added.ips().len(), added.pod_uid.as_deref()), (1, Some("u")));
        assert!(serde_json::from_str::<Added>(r#"{"PodName":"p"}"#).is_err());
    }
}
