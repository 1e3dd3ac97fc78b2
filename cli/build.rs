//! Takes the charts into the command, so that `lateen install` needs no files: their templates, as they are.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let own = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    let mut code = String::new();
    for (name, chart) in [("CRDS", "crds"), ("LATEEN", "lateen")] {
        let folder = own.join("../deploy/helm").join(chart).join("templates");
        println!("cargo::rerun-if-changed={}", folder.display());
        writeln!(code, "pub(super) const {name}: &[(&str, &str)] = &[").map_err(io::Error::other)?;
        for file in templates(&folder)? {
            let shown = file.file_name().unwrap_or_default().to_string_lossy();
            let path = file.display();
            writeln!(code, "    ({shown:?}, include_str!({:?})),", path.to_string())
                .map_err(io::Error::other)?;
        }
        code.push_str("];\n");
    }
    fs::write(out.join("charts.rs"), code)
}

/// In the order of their names, which is the same everywhere.
fn templates(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml" || ending == "tpl"));
    files.sort();
    Ok(files)
}
