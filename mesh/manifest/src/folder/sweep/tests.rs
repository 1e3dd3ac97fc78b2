//! A look in steps finds what a look at everything does, and knows what it cannot tell.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use super::{STEP, Sweep, Swept};
use crate::folder::Folder;

fn account(name: &str, length: usize) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n#{}\n", "-".repeat(length))
}

/// All steps: what is to be read, if that is clear, and how many there were.
fn sweep(folder: &Folder) -> (Option<HashSet<PathBuf>>, usize) {
    let (mut sweep, mut steps) = (Sweep::of(folder), 1);
    loop {
        match sweep.step(folder) {
            Swept::Begun(begun) => sweep = begun,
            Swept::All(found) => return (Some(found), steps),
            Swept::Unclear => return (None, steps),
        }
        steps += 1;
    }
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("a folder");
    (folder, root)
}

#[test]
fn it_finds_what_a_look_at_everything_finds() {
    let (_folder, root) = temporary();
    let (state, manifests) = (root.join("state"), root.join("manifests"));
    fs::create_dir_all(manifests.join("deep")).expect("a folder");
    let new = || Folder::new([manifests.clone()]).with_state(state.clone());
    let (mut ours, mut all) = (new(), new());
    ours.scan();
    all.scan();
    let mut number = 7_u64;
    let mut draw = |bound: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % bound
    };
    let mut clear = 0;
    for round in 0..400 {
        for _ in 0..draw(3) {
            let within = if draw(2) == 0 { &state } else { &manifests };
            let name = ["a.yaml", "b.yaml", "deep/c.yaml", "d.json", "e.txt", ".f.yaml"][draw(6) as usize];
            let file = within.join(name);
            let text = match draw(8) {
                0 => "{ not yaml".to_owned() + &"-".repeat(round),
                1 | 2 => {
                    // It need not be there.
                    let _ = fs::remove_file(&file);
                    continue;
                }
                // A clock may be too coarse to tell two versions apart; their lengths do.
                _ => account(["x", "y", "z"][draw(3) as usize], round),
            };
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(&file, text).expect("written");
        }
        let found = sweep(&ours).0.expect("nothing is out of the ordinary");
        clear += usize::from(!found.is_empty());
        if ours.scan_some(&found).is_none() {
            ours.scan_touched(&found);
        }
        all.scan();
        let names = |folder: &Folder| -> Vec<String> {
            folder.objects().map(|one| format!("{} {}", one.key(), one.position)).collect()
        };
        assert_eq!(names(&ours), names(&all), "round {round}: {found:?}");
        assert_eq!(ours.findings(), all.findings(), "round {round}: {found:?}");
        assert_eq!(sweep(&ours).0, Some(HashSet::new()), "round {round}: it is found once");
    }
    assert!(clear > 100, "{clear}");
}

#[test]
fn it_takes_small_steps() {
    let (_folder, root) = temporary();
    for number in 0..10 * STEP {
        fs::write(root.join(format!("{number}.yaml")), account(&format!("a{number}"), 0)).expect("written");
    }
    let mut folder = Folder::new([root.clone()]);
    folder.scan();
    let (found, steps) = sweep(&folder);
    assert_eq!(found, Some(HashSet::new()));
    assert!(steps >= 20, "listed and looked at in {steps} steps");
    let (new, other, gone) = (root.join("new.yaml"), root.join("3.yaml"), root.join("4.yaml"));
    fs::write(&new, account("new", 0)).expect("written");
    fs::write(&other, account("a3", 7)).expect("written");
    fs::remove_file(&gone).expect("it is there");
    assert_eq!(sweep(&folder).0, Some([new, other, gone].into()));
}

#[test]
fn what_is_out_of_the_ordinary_is_left_to_a_look_at_everything() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 4] = [
        ("a source that is gone", |root| fs::remove_dir_all(root).expect("it is there")),
        ("a folder that is gone", |root| fs::remove_dir_all(root.join("deep")).expect("it is there")),
        ("a linked file", |root| {
            std::os::unix::fs::symlink(root.join("a.yaml"), root.join("c.yaml")).expect("a link");
        }),
        ("a linked folder", |root| {
            std::os::unix::fs::symlink(root.join("deep"), root.join("link")).expect("a link");
        }),
    ];
    for (what, change) in cases {
        let (_folder, root) = temporary();
        fs::create_dir(root.join("deep")).expect("a folder");
        for name in ["a.yaml", "deep/b.yaml"] {
            fs::write(root.join(name), account("a", 0)).expect("written");
        }
        let mut folder = Folder::new([root.clone()]);
        folder.scan();
        assert_eq!(sweep(&folder).0, Some(HashSet::new()), "{what}");
        change(&root);
        assert_eq!(sweep(&folder).0, None, "{what}");
    }
}
