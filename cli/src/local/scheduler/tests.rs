//! Tables: pods wanted, pods there are, what is done about it.

use super::{Create, Existing, Kind, Owner, Plan, Progress, Workload, plan};

fn owner(kind: Kind) -> Owner {
    Owner { kind, namespace: "default".into(), name: "app".into() }
}

fn workload(kind: Kind, replicas: usize) -> Workload {
    Workload {
        owner: owner(kind),
        template: Default::default(),
        hash: "new".into(),
        replicas,
        one_by_one: false,
        completions: 1,
        backoff_limit: 1,
    }
}

/// `hash name progress[ leaving]`, one a line, as the rows of a table.
fn pods(kind: Kind, rows: &[&str]) -> Vec<Existing> {
    let pod = |row: &&str| {
        let words: Vec<&str> = row.split(' ').collect();
        Existing {
            uid: words[1].into(),
            name: words[1].into(),
            owner: owner(kind),
            hash: words[0].into(),
            node: words[1].strip_prefix("app-n").and_then(|n| n.parse().ok()),
            progress: match words[2] {
                "starting" => Progress::Starting,
                "ready" => Progress::Ready,
                "succeeded" => Progress::Succeeded,
                "failed" => Progress::Failed,
                other => panic!("{other}"),
            },
            leaving: words.get(3) == Some(&"leaving"),
        }
    };
    rows.iter().map(pod).collect()
}

/// The plan in words: `+name`, `+` for a generated one, `-uid`.
fn words(plan: &Plan) -> String {
    let create = plan.create.iter().map(|c: &Create| {
        let node = c.node.map(|n| format!("@{n}")).unwrap_or_default();
        format!("+{}{node}", c.name.clone().unwrap_or_default())
    });
    let delete = plan.delete.iter().map(|uid| format!("-{uid}"));
    create.chain(delete).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(workload: &Workload, rows: &[&str], expected: &str) {
    let existing = pods(workload.owner.kind, rows);
    let plan = plan(std::slice::from_ref(workload), &existing, 2);
    assert_eq!(words(&plan), expected, "{rows:?}");
}

#[test]
fn a_pod_is_replaced_under_its_own_name_once_the_old_one_has_gone() {
    let pod = workload(Kind::Pod, 1);
    check(&pod, &[], "+app");
    check(&pod, &["new app ready"], "");
    check(&pod, &["new app failed"], "");
    check(&pod, &["old app ready"], "-app");
    check(&pod, &["old app ready leaving"], "");
}

#[test]
fn a_deployment_scales_and_replaces_without_a_gap() {
    let two = workload(Kind::Deployment, 2);
    check(&two, &[], "+ +");
    check(&two, &["new a ready"], "+");
    check(&two, &["new a starting", "new b ready", "new c ready"], "-a");
    check(&two, &["old a ready", "old b ready"], "+ +");
    check(&two, &["old a ready", "old b starting"], "+ + -b");
    check(&two, &["old a ready", "new b ready", "new c starting"], "");
    check(&two, &["old a ready", "new b ready", "new c ready"], "-a");
    check(&workload(Kind::Deployment, 0), &["new a ready"], "-a");
}

#[test]
fn a_recreated_deployment_lets_the_old_go_first() {
    let one = Workload { one_by_one: true, ..workload(Kind::Deployment, 1) };
    check(&one, &["old a ready"], "-a");
    check(&one, &["old a ready leaving"], "");
    check(&one, &[], "+");
}

#[test]
fn a_stateful_set_counts_from_zero_and_waits_for_each() {
    let ordered = Workload { one_by_one: true, ..workload(Kind::StatefulSet, 2) };
    check(&ordered, &[], "+app-0");
    check(&ordered, &["new app-0 starting"], "");
    check(&ordered, &["new app-0 ready"], "+app-1");
    check(&ordered, &["old app-0 ready", "old app-1 ready"], "-app-0");
    check(&ordered, &["new app-0 ready", "new app-1 ready", "new app-2 ready"], "-app-2");
    check(&workload(Kind::StatefulSet, 2), &[], "+app-0 +app-1");
}

#[test]
fn a_daemon_set_has_one_pod_on_every_node() {
    let daemon = workload(Kind::DaemonSet, 0);
    check(&daemon, &[], "+@1 +@2");
    check(&daemon, &["new app-n2 ready"], "+@1");
    check(&daemon, &["old app-n1 ready", "new app-n2 ready"], "-app-n1");
}

#[test]
fn a_job_runs_until_enough_succeeded_or_too_many_failed() {
    let job = workload(Kind::Job, 1);
    check(&job, &[], "+");
    check(&job, &["new a starting"], "");
    check(&job, &["new a succeeded"], "");
    check(&job, &["new a failed"], "+");
    check(&job, &["new a failed", "new b failed"], "");
    let parallel = Workload { completions: 3, ..workload(Kind::Job, 2) };
    check(&parallel, &[], "+ +");
    check(&parallel, &["new a succeeded", "new b succeeded"], "+");
}

#[test]
fn failures_are_counted_for_the_next_pod_of_a_job() {
    let job = workload(Kind::Job, 1);
    let existing = pods(Kind::Job, &["new a failed"]);
    assert_eq!(plan(&[job], &existing, 1).create[0].failures, 1);
}

#[test]
fn pods_nobody_wants_go_once() {
    let existing = pods(Kind::Deployment, &["new a ready", "new b ready leaving"]);
    assert_eq!(words(&plan(&[], &existing, 2)), "-a");
}
