//! Findings as text: for people, in istioctl's words and with the place in front so that editors jump to it;
//! and for programs.

use std::fmt::Write;

use manifest::{Finding, Level};
use serde::Serialize;

/// Findings at or above a level.
pub(super) struct Report<'a> {
    findings: Vec<&'a Finding>,
}

/// A finding as programs get it: istioctl's fields, and ours beside them.
#[derive(Serialize)]
struct Message<'a> {
    origin: &'a str,
    reference: String,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl<'a> Report<'a> {
    pub(super) fn new(findings: &'a [Finding], least: Level) -> Self {
        Self { findings: findings.iter().filter(|finding| finding.level >= least).collect() }
    }

    /// `FILE:LINE:COLUMN: Error [IST0106] (Kind ns/name) message`, its field and its fix below.
    pub(super) fn log(&self, colours: bool) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let (on, off) = match (colours, finding.level) {
                (true, Level::Error) => ("\x1b[1;31m", "\x1b[0m"),
                (true, Level::Warning) => ("\x1b[33m", "\x1b[0m"),
                _ => ("", ""),
            };
            let Finding { level, code, position, message, .. } = finding;
            let object = finding.object.as_ref().map(|object| format!(" ({object})")).unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{position}: {on}{level}{off} [{code}]{object} {message}");
            if !finding.field.is_empty() {
                let _ = writeln!(text, "    field: {}", finding.field);
            }
            if let Some(fix) = &finding.fix {
                let _ = writeln!(text, "    fix:   {fix}");
            }
        }
        text
    }

    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&self.messages()).map(|text| text + "\n")
    }

    pub(super) fn yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        match self.findings.is_empty() {
            true => Ok("[]\n".to_owned()),
            false => serde_saphyr::to_string(&self.messages()),
        }
    }

    /// How many there are, in words: `2 errors, 1 warning`.
    pub(super) fn count(&self) -> String {
        let words = [(Level::Error, "error"), (Level::Warning, "warning"), (Level::Info, "note")];
        let counted = words.into_iter().filter_map(|(level, word)| {
            let count = self.findings.iter().filter(|finding| finding.level == level).count();
            match count {
                0 => None,
                1 => Some(format!("1 {word}")),
                many => Some(format!("{many} {word}s")),
            }
        });
        counted.collect::<Vec<_>>().join(", ")
    }

    fn messages(&self) -> Vec<Message<'a>> {
        let message = |finding: &&'a Finding| Message {
            origin: finding.object.as_deref().unwrap_or_default(),
            reference: finding.position.to_string(),
            finding,
        };
        self.findings.iter().map(message).collect()
    }
}
