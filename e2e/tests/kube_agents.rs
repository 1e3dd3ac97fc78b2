//! A controller of a real API server with as many agents as a large cluster has nodes, which speak the protocol and decode
//! nothing: `bench agents --kubernetes` (`LATEEN_FULL=1`: 1,000 pods and 200 services as objects, 1,000 agents). Needs what
//! `e2e/cluster/build` builds.

use std::process::Command;

use e2e::cluster::Cluster;
use e2e::report::{counted, full, size};
use e2e::{built, run};

/// Per cent of what each is told at first that coming back to find nothing changed may take: target C3, and what the smallest
/// requests and answers are of a mesh as small as the short form's.
const BACK: (f64, f64) = (0.5, 10.0);

#[test]
fn agents_of_a_cluster_are_told_and_come_back() {
    if !Cluster::is_possible("agents_of_a_cluster_are_told_and_come_back") {
        return;
    }
    let mut bench = Command::new(built("bench", "cargo build --workspace --bins"));
    bench.args(["agents", "--kubernetes"]);
    if !full() {
        bench.arg("--quick");
    }
    let measured = run(&mut bench);
    assert!(measured.ok(), "{measured}");
    for line in measured.stdout.lines().filter(|line| line.starts_with("| ")) {
        counted(line);
    }
    let line = measured.stdout.lines().find(|line| line.starts_with("| that is of what each received"));
    let part = line.and_then(|line| line.split('|').nth(2)?.split_whitespace().next()?.parse::<f64>().ok());
    let part = part.expect("the table says what coming back takes");
    assert!(part <= size(BACK.1, BACK.0), "{part} %");
}
