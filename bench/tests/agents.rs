//! `bench agents` in its short form: everything works, and agents that come back to find nothing changed cost little.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a condition that does not hold fails the test")]

use std::path::Path;
use std::process::Command;

/// Percent of what each is told at first that coming back may take: in a mesh as small as this the requests and answers of three
/// types alone are some of it (target C3 is half a percent, with a thousand pods).
const MUCH: f64 = 10.0;

#[test]
fn agents_that_come_back_to_find_nothing_changed_cost_little() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let built = bench.with_file_name("ctrl");
    assert!(built.exists(), "{} is not there; build it: cargo build --workspace --bins", built.display());
    let output = Command::new(bench).args(["agents", "--quick"]).output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    let line = table.lines().find(|line| line.starts_with("| that is of what each received at first"));
    let part = line.and_then(|line| line.split('|').nth(2)?.split_whitespace().next()?.parse::<f64>().ok());
    let part = part.unwrap_or_else(|| panic!("no such line in {table}"));
    assert!(part < MUCH, "{part} %\n{table}");
    println!("counted: coming back takes {part} % of being told everything, of 50 pods");
}
