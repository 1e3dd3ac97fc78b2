//! What a test says besides passing: how much it did, and what this kernel or this user is refused.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Whether tests are to run at their full size (`LATEEN_FULL=1`).
pub fn full() -> bool {
    std::env::var_os("LATEEN_FULL").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The short or the full size of something.
pub fn size<T>(short: T, at_full: T) -> T {
    if full() { at_full } else { short }
}

/// Tells how much was done; seen also when the test passes.
pub fn counted(what: &str) {
    // The macros' output of a test that passes is kept back.
    let _ = writeln!(std::io::stderr(), "counted: {what}");
}

/// Says how long a stage took.
pub fn told(stage: &str, begun: Instant) {
    counted(&format!("{stage}: {:.1} s", begun.elapsed().as_secs_f64()));
}

/// Notes that a test cannot run here, and why, in the file that `LATEEN_NOT_POSSIBLE` names.
///
/// # Panics
/// No file is named: a test that cannot run fails unless somebody takes note of it.
pub fn not_possible(test: &str, reason: &str) {
    let file = std::env::var_os("LATEEN_NOT_POSSIBLE").map(PathBuf::from);
    let file =
        file.unwrap_or_else(|| panic!("{test} cannot run here: {reason}; LATEEN_NOT_POSSIBLE is unset"));
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    writeln!(file, "{test}: {reason}").expect("the list of what is not possible takes a line");
}
