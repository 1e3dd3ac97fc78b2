//! `lateen down`: asks the mesh to take itself down, ends its keeper when it does not, removes what a crash left.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::args::DownArgs;
use crate::control::{self, Request};
use crate::state::{self, DEFAULT_MESH, MeshDir, StateError};
use crate::{Outcome, say};

/// How long the mesh may take by itself.
const POLITE: Duration = Duration::from_secs(18);
/// How long its keeper may take when told to end.
const FORCED: Duration = Duration::from_secs(8);

/// Runs `down`.
pub(crate) fn run(mesh: Option<&str>, _args: &DownArgs) -> Outcome {
    state::check_base()?;
    let meshes = match mesh {
        Some(name) => vec![MeshDir::named(name)?],
        None => only_one()?,
    };
    for mesh in meshes.iter().filter(|mesh| mesh.exists()) {
        take_down(mesh)?;
        say(&format!("mesh {:?} is down", mesh.name()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The mesh that `up` starts when it is given no name, or what meshes that no longer run left behind. One that was given
/// a name is ended by it only: whoever forgot the name may have another one in mind.
fn only_one() -> Result<Vec<MeshDir>, StateError> {
    match state::only_running()? {
        None => Ok(state::known()),
        Some(mesh) if mesh.name() == DEFAULT_MESH => Ok(vec![mesh]),
        Some(mesh) => Err(StateError::NamedOtherwise(mesh.name().to_owned())),
    }
}

fn take_down(mesh: &MeshDir) -> Result<(), Box<dyn std::error::Error>> {
    if mesh.is_running() {
        let asked = control::send(mesh, &Request::Down, &[]);
        if asked.is_err() || !wait(mesh, POLITE) {
            signal_keeper(mesh, Signal::SIGTERM);
            if !wait(mesh, FORCED) {
                // The kernel ends everything inside with it.
                signal_keeper(mesh, Signal::SIGKILL);
                if !wait(mesh, FORCED) {
                    return Err(format!(
                        "mesh {:?} does not end; see {}",
                        mesh.name(),
                        mesh.root().display()
                    )
                    .into());
                }
            }
        }
    }
    mesh.remove()?;
    Ok(())
}

/// Waits until nobody holds the mesh; false when it takes too long.
fn wait(mesh: &MeshDir, patience: Duration) -> bool {
    let begun = Instant::now();
    while mesh.exists() && mesh.is_running() {
        if begun.elapsed() > patience {
            return false;
        }
        // An interrupted wait is a shorter one.
        let _ = nix::poll::poll(&mut [], 20u16);
    }
    true
}

fn signal_keeper(mesh: &MeshDir, signal: Signal) {
    // The lock is held, so the process that wrote its number here lives.
    let keeper = mesh.read_mesh_file().ok().and_then(|file| file.keeper);
    if let Some(process) = keeper.and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(process), signal);
    }
}
