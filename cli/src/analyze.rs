//! `lateen analyze`: what is wrong with manifests, before anything takes effect. Reading, checking and judging
//! are the manifest crate's, so that the controller says the same; here are only the words and the exit code.

mod report;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use manifest::{Finding, Folder, Level, analyze, parse};

use crate::Outcome;
use report::Report;

/// The namespace whose policies are for all namespaces.
const ROOT_NAMESPACE: &str = "istio-system";

/// Exit code when something was found (istioctl's).
const FOUND: u8 = 79;
/// Exit code when something could not be read (`EX_DATAERR` of sysexits.h).
const UNREADABLE: u8 = 65;

/// `lateen analyze`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lateen analyze policy.yaml                 one file
  lateen analyze manifests/ mesh.yaml        folders (*.yaml, *.yml, *.json, recursively) and files, as one mesh
  kubectl get authorizationpolicies,pods -A -o yaml | lateen analyze -
  lateen analyze -o json deploy/ | jq '.[] | .reference'

Exit codes: 0 nothing at or above --failure-threshold, 79 something found, 65 a file cannot be read or parsed,
64 command line not understood.")]
pub(crate) struct AnalyzeArgs {
    /// Manifest files and folders, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "also")]
    files: Vec<PathBuf>,

    /// The same as FILE (can be repeated)
    #[arg(short = 'f', long = "file", value_name = "FILE", id = "also")]
    also: Vec<PathBuf>,

    /// How to print what is found
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Log)]
    output: Output,

    /// The least level that makes the exit code 79
    #[arg(long, value_enum, ignore_case = true, default_value_t = Threshold::Warning, value_name = "LEVEL")]
    failure_threshold: Threshold,

    /// The least level that is printed
    #[arg(long, value_enum, ignore_case = true, default_value_t = Threshold::Info, value_name = "LEVEL")]
    output_threshold: Threshold,
}

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line a finding, then its field and its fix
    Log,
    /// A list
    Json,
    /// A list
    Yaml,
}

/// A level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Threshold {
    Info,
    Warning,
    Error,
}

impl Threshold {
    const fn level(self) -> Level {
        match self {
            Self::Info => Level::Info,
            Self::Warning => Level::Warning,
            Self::Error => Level::Error,
        }
    }
}

/// Analyses the files and prints what is found.
pub(crate) fn run(args: &AnalyzeArgs) -> Outcome {
    let paths: Vec<PathBuf> = args.files.iter().chain(&args.also).cloned().collect();
    let findings = examine(&paths, io::stdin().lock())?;
    let report = Report::new(&findings, args.output_threshold.level());
    let stdout = io::stdout();
    let text = match args.output {
        Output::Log => report.log(stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none()),
        Output::Json => report.json()?,
        Output::Yaml => report.yaml()?,
    };
    let mut stdout = stdout.lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    let code = exit_code(&findings, args.failure_threshold.level());
    let what = paths.iter().map(|path| shown(path)).collect::<Vec<_>>().join(", ");
    match code {
        0 => eprintln!("✔ No validation issues found when analyzing {what}."),
        _ => eprintln!("Analyzers found issues when analyzing {what}: {}.", report.count()),
    }
    Ok(ExitCode::from(code))
}

/// Everything wrong with the manifests of `paths`, each alone and all together, by file and line.
fn examine(paths: &[PathBuf], mut stdin: impl Read) -> io::Result<Vec<Finding>> {
    let is_stdin = |path: &&PathBuf| path.as_os_str() == "-";
    let mut folder = Folder::new(paths.iter().filter(|path| !is_stdin(path)).cloned());
    let mut findings = folder.scan().findings;
    let mut objects: Vec<_> = folder.objects().cloned().collect();
    if paths.iter().any(|path| is_stdin(&path)) {
        let mut text = String::new();
        stdin.read_to_string(&mut text)?;
        let parsed = parse(&text, &Arc::from(Path::new("-")));
        findings.extend(parsed.findings);
        objects.extend(parsed.objects.into_iter().map(Arc::new));
    }
    findings.extend(analyze(&objects, ROOT_NAMESPACE));
    findings.sort_by(|a, b| a.position.cmp(&b.position));
    Ok(findings)
}

fn exit_code(findings: &[Finding], threshold: Level) -> u8 {
    if findings.iter().any(Finding::is_unreadable) {
        UNREADABLE
    } else if findings.iter().any(|finding| finding.level >= threshold) {
        FOUND
    } else {
        0
    }
}

fn shown(path: &Path) -> String {
    match path.as_os_str() == "-" {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests;
