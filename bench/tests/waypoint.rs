//! `bench waypoint` and `bench change` in their short forms: every row of ours is measured, and no change is answered wrongly.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a condition that does not hold fails the test")]

use std::path::Path;
use std::process::Command;

fn bench(args: &[&str]) -> String {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    for program in ["waypoint", "ctrl"] {
        let built = bench.with_file_name(program);
        assert!(built.exists(), "{} is not there; build it: cargo build --workspace --bins", built.display());
    }
    let output = Command::new(bench).args(args).output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    table.into_owned()
}

#[test]
fn a_waypoint_is_measured_in_every_protocol() {
    let table = bench(&["waypoint", "--quick", "--routes", "5000", "--services", "5000"]);
    let head = table.lines().next().unwrap();
    let column = head.split('|').position(|cell| cell.trim().starts_with("lateen")).unwrap();
    let cell = |what: &str| -> String {
        let line = table.lines().find(|line| line.contains(what));
        let line = line.unwrap_or_else(|| panic!("no {what:?} in {table}"));
        line.split('|').nth(column).unwrap().trim().to_owned()
    };
    for protocol in ["HTTP/1.1", "HTTP/2", "gRPC"] {
        for row in ["64 at once: CPU", "64 at once (req/s)", "same paced rate: p99"] {
            let cell = cell(&format!("{protocol}, {row}"));
            assert!(cell.starts_with(|c: char| c.is_ascii_digit()), "{protocol}, {row}: {cell:?} in {table}");
        }
    }
    println!(
        "counted: memory: {}",
        table.lines().filter(|line| line.contains("MB")).collect::<Vec<_>>().join("; ")
    );
}

#[test]
fn a_written_file_is_in_force_and_nothing_is_answered_wrongly() {
    let table = bench(&["change", "--quick", "--routes", "10,1000"]);
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| C1")).collect();
    assert_eq!(rows.len(), 4, "{table}");
    for row in rows {
        assert_eq!(row.split('|').nth(6).unwrap().trim(), "0", "wrong answers: {table}");
    }
}
