//! Tables: manifests in; objects and findings, each with its exact place, field and fix, out.

use std::{path::Path, sync::Arc};

use super::parse;
use crate::{Finding, Parsed};

mod good;
mod mistakes;

fn read(text: &str) -> Parsed {
    parse(text, &Arc::from(Path::new("f.yaml")))
}

/// Every finding in one line: `LINE:COLUMN level field: message => fix`.
fn shown(findings: &[Finding]) -> Vec<String> {
    let one = |finding: &Finding| {
        let fix = finding.fix.as_ref().map(|fix| format!(" => {fix}")).unwrap_or_default();
        let Finding { level, position, field, message, .. } = finding;
        let level = level.to_string().to_lowercase();
        format!("{}:{} {level} {field}: {message}{fix}", position.line, position.column)
    };
    findings.iter().map(one).collect()
}
