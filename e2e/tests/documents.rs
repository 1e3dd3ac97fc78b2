//! What documents and comments point at is there.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const OTHERS: [&str; 3] = ["target", ".git", "node_modules"];

/// All files of the project, by their paths in it.
fn files() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours") {
            let entry = entry.expect("a folder can be listed");
            let (path, kind) = (entry.path(), entry.file_type().expect("it is there"));
            if kind.is_dir() {
                if !OTHERS.iter().any(|other| entry.file_name() == *other) {
                    folders.push(path);
                }
            } else {
                let inside = path.strip_prefix(&root).expect("a file of this folder");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// What is said in backquotes and looks like a file of a kind that we name: with its folder, or a document alone.
fn named(text: &str) -> Vec<&str> {
    let is_file = |word: &&str| {
        let whole = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        let (source, document) = (word.ends_with(".rs") && word.contains('/'), word.ends_with(".md"));
        whole && !word.starts_with('/') && (source || document)
    };
    let quoted = |line| str::split(line, '`').skip(1).step_by(2);
    let words = text.lines().flat_map(quoted);
    // Tables say which test of a file it is.
    words.map(|word| word.split([':', ' ']).next().unwrap_or_default()).filter(is_file).collect()
}

/// The parts of a file that are for readers: all of a document, comments of a program.
fn words(file: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let text = |path: PathBuf| fs::read_to_string(path).expect("a text of ours");
    match Path::new(file).extension()?.to_str()? {
        "md" => Some(text(path)),
        "rs" => {
            let text = text(path);
            let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
            Some(comments.collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

#[test]
fn what_documents_and_comments_name_is_there() {
    let files = files();
    assert!(files.iter().any(|file| file == "docs/ARCHITECTURE.md"), "{}", files.len());
    let mut checked = 0;
    let mut missing = Vec::new();
    for file in &files {
        let Some(words) = words(file) else { continue };
        for name in named(&words) {
            checked += 1;
            // Often by what it is called inside its crate.
            let tail = format!("/{}", name.trim_start_matches("../").trim_start_matches("./"));
            if !files.iter().any(|one| format!("/{one}").ends_with(&tail)) {
                missing.push(format!("{file}: `{name}`"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(checked > 100, "hardly anything was looked at: {checked}");
}

#[test]
fn only_what_looks_like_a_file_is_one() {
    let text = "`proxy/app/tests.rs: a_test` and `a.rs`, `docs/limits.md`; `fn x`, `proxy::state`, `/etc/x.rs`, a/b.rs";
    assert_eq!(named(text), ["proxy/app/tests.rs", "docs/limits.md"]);
}
