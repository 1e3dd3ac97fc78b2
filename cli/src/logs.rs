//! `lateen logs`: prints what a pod, a node agent, a waypoint or the controller wrote. The files are read where they
//! lie; only which pod a name means is asked of the mesh.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::Outcome;
use crate::args::LogsArgs;
use crate::control::{self, ControlError, Reply, Request};
use crate::local::logs::older;
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::state::{self, MeshDir};

/// Milliseconds between looks at a file that is followed.
const LOOK: u16 = 100;

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error("there is no {0}; what there is: ctrl, node-agent/node-1 to node-agent/node-{1}")]
    Unknown(String, u8),
    #[error("{0} was not started again, so there is no log of a run before")]
    NoPrevious(String),
}

/// Runs `logs`.
pub(crate) fn run(mesh: Option<&str>, namespace: Option<&str>, args: &LogsArgs) -> Outcome {
    let mesh = state::select(mesh)?;
    let log = match component(&mesh, &args.source)? {
        Some(log) => log,
        None => container(&mesh, namespace, args)?,
    };
    let mut output = io::stdout().lock();
    let mut print = || -> io::Result<()> {
        let parts = [older(&log), log.clone()];
        let skip = args.tail.map_or(Ok(0), |lines| skip_to_tail(&parts, lines))?;
        copy_from(&parts, skip, &mut output)?;
        output.flush()?;
        if args.follow { follow(&mesh, &log, &mut output) } else { Ok(()) }
    };
    match print() {
        // `lateen logs … | head` is a common thing to do.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}

/// The log of a component, if `source` names one.
fn component(mesh: &MeshDir, source: &str) -> Result<Option<PathBuf>, LogsError> {
    let known = source == "ctrl" || source == "mesh" || source.starts_with("node-agent/");
    if !known {
        return Ok(None);
    }
    let log = mesh.logs().join(format!("{source}.log"));
    if !source.contains("..") && log.is_file() {
        return Ok(Some(log));
    }
    let nodes = mesh.read_mesh_file().map_or(1, |file| file.nodes);
    Err(LogsError::Unknown(source.to_owned(), nodes))
}

fn container(
    mesh: &MeshDir,
    namespace: Option<&str>,
    args: &LogsArgs,
) -> Result<PathBuf, Box<dyn std::error::Error>> {
    // A waypoint's pods come from a Deployment of its name.
    let pod = match args.source.strip_prefix("waypoint/") {
        Some(name) => format!("deploy/{name}"),
        None => args.source.clone(),
    };
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned();
    match control::ask(mesh, &Request::Find { namespace, pod, container: args.container.clone() })? {
        Reply::Found(found) if !args.previous => Ok(found.log),
        Reply::Found(found) if found.previous.is_file() => Ok(found.previous),
        Reply::Found(found) => Err(LogsError::NoPrevious(found.pod).into()),
        other => Err(ControlError::Malformed(format!("{other:?}")).into()),
    }
}

/// How many bytes of the parts, taken together, stand before the last `lines` lines.
fn skip_to_tail(parts: &[PathBuf], lines: usize) -> io::Result<u64> {
    let mut starts = std::collections::VecDeque::from([0u64]);
    let mut position = 0;
    let mut ended = true;
    for_each_block(parts, 0, |block| {
        for byte in block {
            position += 1;
            ended = *byte == b'\n';
            if ended {
                starts.push_back(position);
                if starts.len() > lines + 1 {
                    starts.pop_front();
                }
            }
        }
        Ok(())
    })?;
    // The last start is behind the last line, unless that one has no end yet.
    if !ended && starts.len() > lines {
        starts.pop_front();
    }
    Ok(if lines == 0 { position } else { starts.front().copied().unwrap_or(0) })
}

fn copy_from(parts: &[PathBuf], skip: u64, output: &mut impl Write) -> io::Result<()> {
    for_each_block(parts, skip, |block| output.write_all(block))
}

/// Reads the parts one after another, those that are there, from byte `skip` of the whole.
fn for_each_block(
    parts: &[PathBuf],
    mut skip: u64,
    mut work: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for part in parts {
        let mut file = match File::open(part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let length = file.metadata()?.len();
        if skip >= length && skip > 0 {
            skip -= length;
            continue;
        }
        file.seek(SeekFrom::Start(skip))?;
        skip = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => work(&buffer[..read])?,
            }
        }
    }
    Ok(())
}

/// Prints what is appended, also to the file that takes the place of this one, until the mesh ends.
fn follow(mesh: &MeshDir, log: &Path, output: &mut impl Write) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let mut position = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
    let mut inode = std::fs::metadata(log).map_or(0, |metadata| metadata.ino());
    while mesh.is_running() {
        if let Ok(metadata) = std::fs::metadata(log) {
            if metadata.ino() != inode {
                (inode, position) = (metadata.ino(), 0);
            }
            if metadata.len() > position {
                let parts = [log.to_owned()];
                for_each_block(&parts, position, |block| {
                    position += block.len() as u64;
                    output.write_all(block)
                })?;
                output.flush()?;
            }
        }
        nix::poll::poll(&mut [], LOOK)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{copy_from, skip_to_tail};

    #[test]
    fn the_last_lines_may_stand_in_both_parts() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let parts = [folder.path().join("a.1"), folder.path().join("a")];
        std::fs::write(&parts[0], "1\n2\n").expect("written");
        for (text, lines, expected) in [
            ("3\n4\n", 1, "4\n"),
            ("3\n4\n", 3, "2\n3\n4\n"),
            ("3\n4\n", 9, "1\n2\n3\n4\n"),
            ("3\n4\n", 0, ""),
            ("3\n4", 1, "4"),
            ("3\n4", 2, "3\n4"),
            ("", 1, "2\n"),
        ] {
            std::fs::write(&parts[1], text).expect("written");
            let mut printed = Vec::new();
            copy_from(&parts, skip_to_tail(&parts, lines).expect("read"), &mut printed).expect("read");
            assert_eq!(String::from_utf8_lossy(&printed), expected, "{text:?} {lines}");
        }
    }
}
