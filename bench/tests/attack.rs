//! `bench attack` in its short form: after each attack the agent still serves, is within its memory, and has counted that
//! its limit was hit. No time counts here.

#![allow(clippy::unwrap_used, reason = "a condition that does not hold fails the test")]

use std::path::Path;
use std::process::Command;

#[test]
fn attacks_do_not_harm_who_has_nothing_to_do_with_them() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let agent = bench.with_file_name("node-agent");
    assert!(agent.exists(), "{} is not there; build it: cargo build --workspace --bins", agent.display());
    let output = Command::new(bench).args(["attack", "--quick"]).output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    let attacks = table.lines().filter(|line| line.contains("| held")).count();
    assert!(attacks >= 17, "{table}{errors}");
    println!("counted: {attacks} attacks, after each of which the agent served as before");
}
