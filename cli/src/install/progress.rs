//! What a person sees meanwhile: a line for each thing that is done, and on a terminal what is waited for.

use std::io::{IsTerminal, Write};

/// Lines on standard output; the one that changes goes to the terminal alone.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    /// Whether a line that changes stands there.
    passing: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), passing: false }
    }

    /// Something is done.
    pub(super) fn done(&mut self, what: &str, how: &str) {
        self.note(&format!("{what:<40} {how}"));
    }

    /// Something a person should know.
    pub(super) fn note(&mut self, text: &str) {
        self.clear();
        crate::say(text);
    }

    /// What is waited for, in place of what was before.
    pub(super) fn waiting(&mut self, text: &str) {
        if self.terminal {
            self.clear();
            // As much as fits into one line, or it could not be taken away again.
            let shown: String = text.chars().take(78).collect();
            let _ = write!(std::io::stderr(), "{shown}");
            let _ = std::io::stderr().flush();
            self.passing = true;
        }
    }

    fn clear(&mut self) {
        if self.passing {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
            self.passing = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
