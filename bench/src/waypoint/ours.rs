//! Our waypoint, told by our controller, which has its configuration from files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::ground::{Ground, WAYPOINT};
use super::mesh::Mesh;
use crate::process::Process;
use crate::variants::VariantError;

/// Where the controller is, inside the waypoint's pod: nothing else is there.
pub(super) const CTRL: &str = "127.0.0.1:15012";
/// How long the controller may take to read all there is.
pub(super) const LOADING: Duration = Duration::from_secs(120);

/// The programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub waypoint: PathBuf,
    pub ctrl: PathBuf,
}

/// Both, running.
#[derive(Debug)]
pub(crate) struct Ours {
    pub process: Process,
    pub mesh: Mesh,
    pub ctrl: Process,
}

/// Starts both, once `furnish` has written what is to be there from the beginning.
pub(crate) fn start(
    ground: &Ground,
    programs: &Programs,
    threads: usize,
    access_log: bool,
    furnish: impl FnOnce(&Mesh) -> io::Result<()>,
) -> Result<Ours, VariantError> {
    let folder = &ground.folder;
    let mesh = Mesh::write(folder).map_err(failed("writing the mesh"))?;
    furnish(&mesh).map_err(failed("writing the mesh"))?;
    let ctrl = controller(ground, &programs.ctrl, &mesh)?;
    let mut command = Command::new(&programs.waypoint);
    command.env_clear();
    for name in ["XDS_ADDRESS", "CA_ADDRESS"] {
        command.env(name, format!("https://{CTRL}"));
    }
    for name in ["XDS_ROOT_CA", "CA_ROOT_CA"] {
        command.env(name, folder.join("ca/root-cert.pem"));
    }
    command
        .env("POD_NAME", "waypoint")
        .env("POD_NAMESPACE", "bench")
        .env("SERVICE_ACCOUNT", "waypoint")
        .env("NODE_NAME", "waypoint")
        .env("INSTANCE_IP", WAYPOINT.to_string())
        .env("TOKEN_FILE", folder.join("tokens/bench_waypoint"))
        .env("WORKER_THREADS", threads.to_string())
        .env("LOG_LEVEL", if access_log { "info" } else { "warn" });
    let process = Process::start("lateen-waypoint", &mut command, &ground.waypoint, folder)?;
    let mut process = process.patient(LOADING);
    process.wait_ready_http(&ground.waypoint, 15021, "/healthz/ready")?;
    Ok(Ours { process, mesh, ctrl })
}

/// Starts a controller alone, which signs for the waypoint's account too.
pub(super) fn controller(ground: &Ground, binary: &Path, mesh: &Mesh) -> Result<Process, VariantError> {
    let folder = &ground.folder;
    let (tokens, authority) = (folder.join("tokens"), folder.join("ca"));
    fs::create_dir_all(&tokens).map_err(failed("making a folder"))?;
    let token = "token-of-this-bench-alone";
    fs::write(tokens.join("bench_waypoint"), token).map_err(failed("writing a token"))?;
    ground.plug(&authority).map_err(failed("writing the authority"))?;
    let mut command = Command::new(binary);
    command.env_clear().env("SOURCE", mesh.written()).env("OBJECTS", mesh.objects());
    command.env("STATE", folder.join("state")).env("TOKENS", &tokens).env("ROOT_CA_DIR", &authority);
    command.env("LISTEN", CTRL).env("POD_CIDRS", "10.9.0.0/16");
    let process = Process::start("lateen-ctrl", &mut command, &ground.waypoint, folder)?;
    let mut process = process.patient(LOADING);
    process.wait_ready_http(&ground.waypoint, 15014, "/healthz/ready")?;
    Ok(process)
}

pub(super) fn failed(doing: &str) -> impl FnOnce(io::Error) -> VariantError + '_ {
    move |source| VariantError::Io { doing: doing.to_owned(), source }
}
