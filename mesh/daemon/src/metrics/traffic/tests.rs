//! What is encoded, what is forgotten, and who may have how much.

use super::*;
use crate::metrics::Metrics;

fn labels(flags: &'static str) -> Labels {
    let mut labels = Labels::overflow(Reporter::Source);
    labels.source.workload = "client".into();
    labels.flags = flags;
    labels
}

#[test]
fn encodes_every_label_and_unknown_for_none() {
    let metrics = Metrics::default();
    let traffic = Traffic::default();
    metrics.register_istio(|registry| registry.register_collector(Box::new(traffic.clone())));
    traffic.series(&labels("-")).sent.fetch_add(7, Ordering::Relaxed);
    traffic.series(&labels("DENY")).failed.fetch_add(1, Ordering::Relaxed);
    let text = metrics.text();
    assert!(text.contains("istio_tcp_sent_bytes_total{reporter=\"source\",source_workload=\"client\",source_canonical_service=\"unknown\""), "{text}");
    assert!(text.contains("response_flags=\"DENY\",connection_security_policy=\"unknown\""), "{text}");
    assert!(text.contains("istio_tcp_sockets_open{reporter=\"source\"} 0"), "{text}");
    assert!(text.contains("istio_mesh_series_dropped_total 0"), "{text}");
}

#[test]
fn forgets_series_that_nobody_uses() {
    let traffic = Traffic::default();
    let held = traffic.series(&labels("-"));
    drop(traffic.series(&labels("DENY")));
    (1..PASSES).for_each(|_| traffic.expire());
    assert_eq!(traffic.len(), 2, "asked for not long ago");
    traffic.expire();
    assert_eq!(traffic.len(), 1, "only the one that is held");
    drop(held);
    traffic.expire();
    assert!(traffic.is_empty());
}

#[test]
fn forgets_soon_what_is_about_pods_that_have_gone() {
    let of = |workload: &str, reporter| {
        let mut labels = labels("-");
        labels.reporter = reporter;
        (labels.source.workload, labels.source.namespace) = (workload.into(), "shop".into());
        (labels.destination.workload, labels.destination.namespace) = ("server".into(), "shop".into());
        labels
    };
    let traffic = Traffic::default();
    for labels in
        [of("gone", Reporter::Source), of("stays", Reporter::Source), of("gone", Reporter::Destination)]
    {
        drop(traffic.series(&labels));
    }
    let held = traffic.series(&of("gone", Reporter::Source));
    traffic.retire("shop", "gone");
    traffic.retire("elsewhere", "stays");
    (0..LAST_PASSES).for_each(|_| traffic.expire());
    assert_eq!(traffic.len(), 3, "a connection that has not ended yet will be counted");
    drop(held);
    traffic.expire();
    // The third was reported of the server's end, whose pod is still there.
    assert_eq!(traffic.len(), 2);
}

#[test]
fn what_one_workload_is_told_leaves_series_for_the_others() {
    let traffic = Traffic::new(300);
    let of = |own: &str, peer: usize| {
        let mut labels = Labels::overflow(Reporter::Destination);
        labels.destination.workload = own.into();
        labels.source.workload = peer.to_string().into();
        labels
    };
    // A peer says of itself to be another one each time.
    (0..1000).for_each(|peer| drop(traffic.series(&of("attacked", peer))));
    assert_eq!((traffic.len(), traffic.dropped()), (200 + 1, 800));
    (0..30).for_each(|peer| drop(traffic.series(&of("bystander", peer))));
    assert_eq!((traffic.len(), traffic.dropped()), (230 + 1, 800));
    (0..PASSES).for_each(|_| traffic.expire());
    assert!(traffic.is_empty());
    (0..1000).for_each(|peer| drop(traffic.series(&of("bystander", peer))));
    assert_eq!(traffic.len(), 200 + 1, "what is gone counts no more");
}

#[test]
fn series_are_shared_by_what_is_left() {
    for (own, all, more) in
        [(0, 0, true), (199, 199, true), (200, 200, false), (1, 299, true), (2, 299, false), (0, 300, false)]
    {
        assert_eq!(may_have_more(own, all, 300), more, "{own} of {all}");
    }
}

#[test]
fn caps_the_number_of_series() {
    let traffic = Traffic::default();
    for number in 0..MAX_SERIES + 10 {
        let mut labels = labels("-");
        labels.source.workload = number.to_string().into();
        traffic.series(&labels);
    }
    assert_eq!(traffic.len(), MAX_SERIES + 1);
    assert_eq!(traffic.dropped(), 10);
    traffic.expire();
    assert_eq!(traffic.len(), MAX_SERIES + 1, "asked for not long ago, like all others");
    let few = Traffic::new(1);
    few.series(&labels("-"));
    few.series(&labels("DENY"));
    assert_eq!((few.len(), few.dropped()), (2, 1));
}

#[test]
fn what_did_not_fit_is_counted_as_no_workloads() {
    let counted = |traffic: &Traffic| -> usize {
        traffic.0.series.read().expect("nobody panicked").of_workload.values().sum()
    };
    // Of workloads that are not known, like the series of what does not fit.
    let unknown = |flags| Labels { flags, ..Labels::overflow(Reporter::Source) };
    let traffic = Traffic::new(1);
    let held = traffic.series(&unknown("DENY"));
    drop([traffic.series(&unknown("UF")), traffic.series(&unknown("-"))]);
    assert_eq!((traffic.len(), traffic.dropped(), counted(&traffic)), (2, 1, 1));
    (0..PASSES).for_each(|_| traffic.expire());
    assert_eq!((traffic.len(), counted(&traffic)), (1, 1), "that of the one that is held");
    drop(held);
    traffic.expire();
    assert_eq!((traffic.len(), counted(&traffic)), (0, 0));
}
