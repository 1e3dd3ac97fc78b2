//! `bench scale` in its short form: everything works, and what an agent on demand keeps does not grow with the mesh.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a condition that does not hold fails the test")]

use std::path::Path;
use std::process::Command;

/// Megabytes of anonymous memory that an agent may need more once others have been told of ten thousand workloads: a
/// workload takes a third of a thousandth, so that this is less than a third of what being told all would be. Pages of the
/// program that happen to be mapped meanwhile are not looked at: they are up to one, and say nothing.
const MUCH: f64 = 1.0;

#[test]
fn an_agent_on_demand_keeps_what_it_asked_for() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    for program in ["node-agent", "ctrl"] {
        let built = bench.with_file_name(program);
        assert!(built.exists(), "{} is not there; build it: cargo build --workspace --bins", built.display());
    }
    let output = Command::new(bench).args(["scale", "--quick"]).output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    let figure = |what: &str| -> f64 {
        let line = table.lines().find(|line| line.starts_with(&format!("| {what}")));
        let figure = line.and_then(|line| line.split_once("(anonymous ")?.1.split_once(')')?.0.parse().ok());
        figure.unwrap_or_else(|| panic!("no {what:?} in {table}"))
    };
    let (few, many) =
        (figure("agent on demand, a mesh of few"), figure("agent on demand, 10000 workloads more"));
    assert!(many - few < MUCH, "{few} MB in a mesh of few, {many} MB beside 10,000 workloads\n{table}");
    let active = figure("agent on demand, 50 of 10000 active");
    println!(
        "counted: an agent on demand: {few} MB in a mesh of few, {many} MB beside 10,000 workloads, {active} MB with 50 of them"
    );
}
