//! `lateen upgrade`: the components of a running mesh are replaced by the programs beside this command.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

use crate::args::UpgradeArgs;
use crate::control::{self, ControlError, Reply, Request};
use crate::local::{components, preflight};
use crate::state::MeshDir;
use crate::{Outcome, say};

/// Runs `upgrade`: a line for each component as it is replaced.
pub(crate) fn run(mesh: &MeshDir, args: &UpgradeArgs) -> Outcome {
    if args.for_clusters() {
        return Err(format!(
            "the mesh {:?} runs on this machine, where upgrade has no options; name a cluster with --context or --kubeconfig",
            mesh.name()
        )
        .into());
    }
    let executable = std::env::current_exe()?;
    let binaries = executable.parent().unwrap_or(Path::new("/"));
    preflight::check_binaries(binaries, components::needed())?;
    let request = Request::Upgrade { binaries: binaries.to_owned() };
    let answers = BufReader::new(control::send(mesh, &request, &[])?);
    for line in answers.lines() {
        match control::parse_reply(&line?)? {
            Reply::Replaced { component, detail } => say(&format!("{component:<32} replaced  {detail}")),
            Reply::Upgraded => {
                say(&format!("mesh {:?} is upgraded", mesh.name()));
                return Ok(ExitCode::SUCCESS);
            }
            Reply::Refused { reason } => return Err(ControlError::Refused(reason).into()),
            other => return Err(ControlError::Malformed(format!("{other:?}")).into()),
        }
    }
    Err(ControlError::Ended(mesh.name().to_owned()).into())
}
