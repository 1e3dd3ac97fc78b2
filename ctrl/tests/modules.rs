//! That the controller's modules do not use each other in a circle: each can be read, and tested, with those it uses alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The modules that a source names by `crate::`, but for comments and tests.
fn named(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    let name = |rest: &str| rest.chars().take_while(is_name).collect::<String>();
    code.flat_map(|line| line.split("crate::").skip(1).map(name).collect::<Vec<_>>()).collect()
}

/// Which of its own modules each module of the crate uses.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&root) {
        let place = path.strip_prefix(&root).expect("below the root");
        if place.iter().any(|part| part == "tests.rs" || part == "tests") {
            continue;
        }
        let module = Path::new(place.iter().next().expect("a name")).with_extension("");
        let source = fs::read_to_string(&path).expect("a source");
        assert!(
            !source.contains("crate::{"),
            "a module a line, for these are read by line: {}",
            path.display()
        );
        uses.entry(module.display().to_string()).or_default().extend(named(&source));
    }
    let modules: BTreeSet<String> = uses.keys().cloned().collect();
    for (module, used) in &mut uses {
        used.retain(|name| name != module && modules.contains(name));
    }
    uses
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let mut left = uses();
    assert!(left["app"].contains("core") && left["core"].contains("compile"), "nothing was read: {left:?}");
    // What uses nothing that is left cannot be part of one.
    while let Some(free) = left.iter().find(|(_, used)| used.is_empty()).map(|(module, _)| module.clone()) {
        left.remove(&free);
        for used in left.values_mut() {
            used.remove(&free);
        }
    }
    assert_eq!(left, BTreeMap::new(), "what is in a circle, or uses what is");
}
