//! `lateen top`: what each captured pod costs its node's agent now. The agents are asked through the mesh.

use std::cmp::Reverse;
use std::process::ExitCode;

use pages::top::Costs;
use serde::Serialize;
use serde_json::json;

use crate::args::{SortBy, TopArgs, VersionFormat};
use crate::control::{self, ControlError, Reply, Request};
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::table::align;
use crate::{Outcome, complain, say, state};

/// What a pod costs its node's agent.
#[derive(Debug, Clone, Serialize)]
struct Pod {
    node: String,
    #[serde(flatten)]
    costs: Costs,
}

/// Runs `top`.
pub(crate) fn run(mesh: Option<&str>, namespace: Option<&str>, args: &TopArgs) -> Outcome {
    let mesh = state::select(mesh)?;
    let (nodes, silent) = match control::ask(&mesh, &Request::Top)? {
        Reply::Top { nodes, silent } => (nodes, silent),
        other => return Err(ControlError::Malformed(format!("{other:?}")).into()),
    };
    for (node, why) in &silent {
        complain(&format!(
            "{node} does not say what its pods cost: {why}; see: lateen logs node-agent/{node}"
        ));
    }
    let namespace = if args.all_namespaces { None } else { Some(namespace.unwrap_or(DEFAULT_NAMESPACE)) };
    let all = nodes
        .into_iter()
        .flat_map(|(node, told)| told.pods.into_iter().map(move |costs| Pod { node: node.clone(), costs }));
    let mut pods: Vec<Pod> =
        all.filter(|pod| namespace.is_none_or(|namespace| pod.costs.namespace == namespace)).collect();
    sort(&mut pods, args.sort_by);
    match args.output {
        Some(VersionFormat::Json) => say(&format!("{:#}", json!({ "pods": pods }))),
        None if pods.is_empty() => {
            let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
            complain(&format!("no pod is captured{place}"));
        }
        None => say(table(&pods, namespace.is_none()).trim_end()),
    }
    // What the others said is there, and yet it is not all.
    Ok(if silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sort(pods: &mut [Pod], by: SortBy) {
    pods.sort_by(|Pod { costs: one, .. }, Pod { costs: other, .. }| {
        (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
    });
    let most = |Pod { costs: pod, .. }: &Pod| -> u64 {
        match by {
            // As exact as it is shown.
            SortBy::Work => (pod.work * 1000.0) as u64,
            SortBy::Bytes => pod.sent_per_second + pod.received_per_second,
            SortBy::Connections => pod.connections.into(),
            SortBy::Buffered => pod.buffered_bytes,
            SortBy::Memory => pod.memory_bytes,
            SortBy::Descriptors => pod.descriptors.into(),
            SortBy::Refused => pod.refused,
            SortBy::Name => 0,
        }
    };
    pods.sort_by_key(|pod| Reverse(most(pod)));
}

fn table(pods: &[Pod], with_namespace: bool) -> String {
    let header =
        ["NAME", "NODE", "CONNS", "TUNNELS", "OUT/S", "IN/S", "BUFFERED", "MEMORY", "FDS", "WORK", "REFUSED"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(pods.iter().map(|Pod { node, costs: pod }| {
        vec![
            pod.name.clone(),
            node.clone(),
            pod.connections.to_string(),
            pod.tunnels.to_string(),
            size(pod.sent_per_second),
            size(pod.received_per_second),
            size(pod.buffered_bytes),
            size(pod.memory_bytes),
            pod.descriptors.to_string(),
            format!("{:.1}%", pod.work * 100.0),
            pod.refused.to_string(),
        ]
    }));
    if with_namespace {
        rows[0].insert(0, "NAMESPACE".to_owned());
        for (row, pod) in rows.iter_mut().skip(1).zip(pods) {
            row.insert(0, pod.costs.namespace.clone());
        }
    }
    align(&rows)
}

/// Bytes in three digits and a unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "Ki", "Mi", "Gi", "Ti"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, connections: u32, work: f64) -> Pod {
        let costs = Costs { name: name.into(), namespace: "n".into(), connections, work, ..Costs::default() };
        Pod { node: "node-1".into(), costs }
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0Ki"),
            (1 << 20, "1.0Mi"),
            (200 << 20, "200Mi"),
            (u64::MAX, "16777216Ti"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn what_costs_most_comes_first() {
        let all = [pod("b", 5, 0.1), pod("a", 5, 0.7), pod("c", 9, 0.2)];
        for (by, expected) in [
            (SortBy::Work, "acb"),
            (SortBy::Connections, "cab"),
            (SortBy::Name, "abc"),
            (SortBy::Refused, "abc"),
        ] {
            let mut pods = all.to_vec();
            sort(&mut pods, by);
            let order: String = pods.iter().map(|pod| pod.costs.name.as_str()).collect();
            assert_eq!(order, expected, "{by:?}");
        }
    }

    #[test]
    fn a_row_has_what_its_pod_costs() {
        let mut pod = pod("p", 2, 0.25);
        pod.costs = Costs { buffered_bytes: 3 << 20, refused: 7, ..pod.costs };
        let text = table(&[pod], true);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["n", "p", "node-1", "2", "0", "0B", "0B", "3.0Mi", "0B", "0", "25.0%", "7"]);
    }
}
