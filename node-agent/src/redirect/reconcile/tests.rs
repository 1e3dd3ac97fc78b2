//! Which action follows from what a pod should be and how it stands, and when the next look is.

use std::{collections::HashMap, future::pending, path::Path, sync::Arc, time::Duration};

use manifest::{Batch, parse};
use tokio::time::Instant;

use super::{Action, Pauses, Running, actions, next_look};
use crate::redirect::{catalog::Catalog, enrol::Status, rules::RuleSet, whereabouts::Whereabouts};

/// A catalog with one pod of this namespace label, phase and annotations.
fn catalog(mode: &str, phase: &str, annotations: &str) -> Catalog {
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: books, labels: {{istio.io/dataplane-mode: {mode}}}}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: books, uid: u, \
         annotations: {{lateen.dev/netns: /run/x{annotations}}}}}\n\
         spec: {{nodeName: n, containers: [{{name: c, image: i}}]}}\nstatus: {{phase: {phase}}}\n"
    );
    let parsed = parse(&text, &Arc::from(Path::new("test.yaml")));
    let mut catalog = Catalog::new("n");
    catalog
        .apply(&Batch { upserted: parsed.objects.into_iter().map(Arc::new).collect(), ..Batch::default() });
    catalog
}

/// A word for the action on the pod.
fn action(catalog: &Catalog, status: Status, whereabouts: &Whereabouts) -> &'static str {
    let stand = HashMap::from([("u".to_owned(), status)]);
    match actions(catalog, &stand, &RuleSet::default(), whereabouts).remove("u") {
        Some(Action::Capture(_)) => "capture",
        Some(Action::Note(_)) => "note",
        Some(Action::Release(_)) => "release",
        Some(Action::Clear(_)) => "clear",
        Some(Action::Forget) => "forget",
        None => "",
    }
}

#[test]
fn what_should_be_and_what_is() {
    const NOTED: &str = ", ambient.istio.io/redirection: enabled";
    const NO_DNS: &str = ", ambient.istio.io/dns-capture: 'false'";
    let served = || Status::Served(RuleSet::default());
    for (mode, phase, annotations, status, expected) in [
        ("ambient", "Running", "", Status::Out, "capture"),
        ("ambient", "Pending", "", Status::Out, ""),
        ("ambient", "Pending", NOTED, Status::Out, "capture"),
        ("ambient", "Running", "", Status::Pending, "capture"),
        ("ambient", "Running", NOTED, served(), ""),
        ("ambient", "Running", "", served(), "note"),
        ("ambient", "Running", NO_DNS, served(), "capture"),
        ("ambient", "Running", "", Status::Draining, "capture"),
        ("none", "Running", "", Status::Out, ""),
        ("none", "Running", NOTED, Status::Out, "clear"),
        ("none", "Running", "", Status::Pending, "release"),
        ("none", "Running", "", served(), "release"),
        ("none", "Running", "", Status::Draining, ""),
        ("ambient", "Succeeded", "", served(), "forget"),
        ("ambient", "Failed", "", Status::Draining, "forget"),
        ("ambient", "Succeeded", "", Status::Out, ""),
    ] {
        let catalog = catalog(mode, phase, annotations);
        let action = action(&catalog, status.clone(), &Whereabouts::Annotated);
        assert_eq!(action, expected, "{mode} {phase} {annotations:?} {status:?}");
    }
}

#[test]
fn a_pod_that_is_gone_is_forgotten() {
    let served = Status::Served(RuleSet::default());
    assert_eq!(action(&Catalog::new("n"), served, &Whereabouts::Annotated), "forget");
}

#[test]
fn in_a_cluster_a_pod_that_has_an_address_and_no_redirection_has_slipped_through() {
    let whereabouts = Whereabouts::Processes("/proc".into());
    for (ips, phase, expected) in [
        ("", "Pending", ""),
        // Its first init container runs.
        ("10.244.1.2", "Pending", "capture"),
        ("10.244.1.2", "Running", "capture"),
        ("10.244.1.2", "Succeeded", ""),
    ] {
        let mut catalog = catalog("ambient", phase, "");
        let mut pod = catalog.pods().next().expect("there is one").clone();
        pod.ips.extend(ips.parse::<std::net::IpAddr>());
        catalog.set_pod(pod);
        assert_eq!(action(&catalog, Status::Out, &whereabouts), expected, "{ips:?} {phase}");
    }
}

#[tokio::test]
async fn the_next_look_is_at_the_end_of_a_pause_that_somebody_waits_for() {
    let now = Instant::now();
    let milliseconds = Duration::from_millis;
    let mut running = Running::default();
    running.start("busy".to_owned(), pending());
    for (paused, expected) in [
        (&[][..], 1000),
        (&[("a", 200)], 200),
        (&[("a", 800), ("b", 300)], 300),
        // A long pause keeps nobody from looking at the others.
        (&[("a", 15_000)], 1000),
        // What is being acted on is looked at when that ends, not again and again before.
        (&[("busy", 0)], 1000),
        (&[("busy", 0), ("a", 400)], 400),
        // It ended between the two looks at the clock.
        (&[("a", 0)], 0),
    ] {
        let pause =
            |(uid, left): &(&str, u64)| ((*uid).to_owned(), (Duration::ZERO, now + milliseconds(*left)));
        let pauses: Pauses = paused.iter().map(pause).collect();
        assert_eq!(next_look(&pauses, &running.busy, now), now + milliseconds(expected), "{paused:?}");
    }
}

#[tokio::test]
async fn a_pod_whose_attempt_panics_has_failed_and_is_free() {
    let mut running = Running::default();
    running.start("stays".to_owned(), pending());
    for (uid, expected) in [("done", Some(true)), ("failed", Some(false)), ("broken", None)] {
        let attempt = async move { expected.expect("breaks on purpose") };
        running.start(uid.to_owned(), attempt);
        assert_eq!(running.ended().await, Some((uid.to_owned(), expected.unwrap_or(false))));
        assert_eq!(running.busy.keys().collect::<Vec<_>>(), ["stays"], "after {uid}");
    }
    running.tasks.shutdown().await;
}
