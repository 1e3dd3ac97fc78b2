//! What a failed test leaves behind: the logs of its mesh in files, their ends on the standard error output, and last of
//! all why it failed, so that who sees only the end of a long output sees that.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::Mesh;

/// Lines of each log that are printed.
const SHOWN: usize = 40;

thread_local! {
    static WHY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on keeps what each thread's panic says. Again and again is as good as once.
pub(crate) fn remember() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            WHY.with(|why| why.replace(panic.to_string()));
            print(panic);
        }));
    });
}

/// Keeps and shows what there is to learn about a mesh whose test is failing on this thread.
pub(crate) fn tell(mesh: &Mesh) {
    let folder = folder().join(mesh.name());
    for part in ["ctrl", "node-agent/node-1", "node-agent/node-2"] {
        let log = mesh.logs(part);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        eprintln!("--- {part}: {}\n{end}", keep(&folder, part, &log));
    }
    WHY.with(|why| eprintln!("--- failed: {}", why.borrow()));
}

/// `failed` in the folder of the build.
fn folder() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(2).unwrap_or(Path::new(".")).join("failed")
}

/// Says where, or why not.
fn keep(folder: &Path, part: &str, log: &str) -> String {
    let path = folder.join(format!("{}.log", part.replace('/', "-")));
    match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, log)) {
        Ok(()) => format!("the end of {}", path.display()),
        Err(error) => format!("{} cannot be written: {error}; its end", path.display()),
    }
}
