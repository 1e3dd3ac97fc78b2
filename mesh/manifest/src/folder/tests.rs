//! Real files in real folders: what is in force after each change, and what is said about it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use super::{Batch, Folder, Watch};
use crate::Typed;

/// Longer than any look takes, shorter than a test that hangs.
const DEADLINE: Duration = Duration::from_secs(20);

fn account(name: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n")
}

fn policy(action: &str) -> String {
    let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";
    format!("{head}spec:\n  action: {action}\n  rules: [{{}}]\n")
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
    fs::write(&path, text).expect("written");
    path
}

fn names(folder: &Folder) -> Vec<String> {
    folder.objects().map(|object| object.metadata.name.clone()).collect()
}

fn said(batch: &Batch) -> Vec<String> {
    let file =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let one = |f: &crate::Finding| {
        format!("{}:{}:{} {}", file(&f.position.file), f.position.line, f.position.column, f.code)
    };
    batch.findings.iter().map(one).collect()
}

#[test]
fn a_folder_is_read_recursively_but_only_manifests() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    for (name, text) in [
        ("b.yaml", account("b")),
        ("a.yml", account("a")),
        (
            "deep/er/c.json",
            "{\"apiVersion\":\"v1\",\"kind\":\"ServiceAccount\",\"metadata\":{\"name\":\"c\"}}".to_owned(),
        ),
        ("README.md", "# not a manifest".to_owned()),
        (".#b.yaml", "an editor's lock".to_owned()),
        ("b.yaml~", account("old")),
    ] {
        write(root, name, &text);
    }
    std::os::unix::fs::symlink(root, root.join("deep/loop")).expect("a link");
    std::os::unix::fs::symlink(root.join("nowhere"), root.join("gone.yaml")).expect("a link");
    let mut folder = Folder::new([root.to_owned()]);
    let batch = folder.scan();
    assert_eq!(said(&batch), Vec::<String>::new());
    assert_eq!(names(&folder), ["a", "b", "c"]);
    assert_eq!(batch.upserted.len(), 3);
    assert!(folder.scan().is_empty(), "nothing changed");
}

#[test]
fn one_file_given_twice_is_one_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "any.name", &account("a"));
    let mut folder = Folder::new([path.clone(), path]);
    assert_eq!(said(&folder.scan()), Vec::<String>::new());
    assert_eq!(names(&folder), ["a"]);
}

#[test]
fn a_file_that_breaks_keeps_its_objects_and_a_removed_one_takes_them_along() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "a.yaml", &account("a"));
    let mut watched = Folder::new([folder.path().to_owned()]);
    watched.scan();
    fs::write(&path, "kind: [\n").expect("written");
    let batch = watched.scan();
    assert_eq!((batch.upserted.len(), batch.removed.len()), (0, 0));
    assert_eq!(said(&batch), ["a.yaml:1:7 LAT0001"]);
    assert_eq!(names(&watched), ["a"]);
    fs::write(&path, account("b")).expect("written");
    let batch = watched.scan();
    assert_eq!(batch.removed.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((names(&watched), said(&batch)), (vec!["b".to_owned()], vec![]));
    fs::remove_file(&path).expect("removed");
    assert_eq!(watched.scan().removed.len(), 1);
}

#[test]
fn a_path_asked_for_by_name_keeps_its_objects_when_it_goes_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("mounted");
    write(&root, "a.yaml", &account("a"));
    let mut watched = Folder::new([root.clone()]);
    watched.scan();
    fs::rename(&root, folder.path().join("away")).expect("renamed");
    let batch = watched.scan();
    assert_eq!(said(&batch), ["mounted:0:0 LAT0005"]);
    assert_eq!(names(&watched), ["a"]);
}

#[test]
fn a_broken_object_does_not_replace_its_last_good_version() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "a.yaml", &policy("DENY"));
    let mut watched = Folder::new([folder.path().to_owned()]);
    watched.scan();
    fs::write(&path, policy("DENI") + "---\n" + &account("a")).expect("written");
    let batch = watched.scan();
    assert_eq!(batch.upserted.iter().map(|o| o.kind.as_str()).collect::<Vec<_>>(), ["ServiceAccount"]);
    assert_eq!(said(&batch), ["a.yaml:1:1 IST0106", "a.yaml:5:11 IST0106"]);
    let in_force = watched.objects().find(|object| object.metadata.name == "p").expect("in force");
    assert!(matches!(in_force.spec, Typed::AuthorizationPolicy(_)));
    let batch = watched.scan();
    assert!(batch.is_empty(), "the same is not said twice");
    fs::write(&path, policy("ALLOW")).expect("written");
    assert_eq!((watched.scan().upserted.len(), watched.findings().len()), (1, 0));
}

#[test]
fn an_object_that_was_never_good_is_given_as_broken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "a.yaml", &policy("DENI"));
    let batch = Folder::new([folder.path().to_owned()]).scan();
    assert!(matches!(batch.upserted[0].spec, Typed::Broken));
}

#[test]
fn of_two_alike_the_first_stays_until_it_goes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = write(folder.path(), "1.yaml", &policy("DENY"));
    write(folder.path(), "2.yaml", &(account("x") + "---\n" + &policy("ALLOW")));
    let mut watched = Folder::new([folder.path().to_owned()]);
    let batch = watched.scan();
    assert_eq!(said(&batch), ["2.yaml:7:12 LAT0002"]);
    let expected =
        format!("a second AuthorizationPolicy default/p: the one at {}:1:1 stays in force", first.display());
    assert_eq!(batch.findings[0].message, expected);
    let file = |watched: &Folder| {
        let found =
            watched.objects().find(|object| object.metadata.name == "p").map(|o| o.file().to_path_buf());
        found.expect("in force")
    };
    assert_eq!(file(&watched), first);
    fs::remove_file(&first).expect("removed");
    let batch = watched.scan();
    assert_eq!((batch.upserted.len(), batch.removed.len(), batch.findings.len()), (1, 0, 0));
    assert_ne!(file(&watched), first);
}

#[test]
fn what_the_mesh_wrote_stands_in_for_what_was_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (manifests, state) = (folder.path().join("manifests"), folder.path().join("objects"));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n";
    write(&manifests, "p.yaml", pod);
    let mut watched = Folder::new([manifests]).with_state(state.clone());
    assert_eq!(said(&watched.scan()), Vec::<String>::new(), "the state folder may come later");
    let live = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c"}]}, "status": {"podIP": "10.0.0.1"}});
    crate::State::at(state).write(&live).expect("written");
    let batch = watched.scan();
    assert_eq!(said(&batch), Vec::<String>::new(), "no duplicate");
    assert_eq!(batch.upserted[0].raw["status"]["podIP"], "10.0.0.1");
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("a.yaml"), b"a: \xff\n").expect("written");
    let large = fs::File::create(folder.path().join("b.yaml")).expect("a file");
    large.set_len(super::MAX_FILE + 1).expect("a large file");
    let mut watched = Folder::new([folder.path().to_owned(), folder.path().join("none")]);
    let batch = watched.scan();
    assert_eq!(said(&batch), ["a.yaml:0:0 LAT0005", "b.yaml:0:0 LAT0005", "none:0:0 LAT0005"]);
}

/// Batches of a watch over `folder`.
fn start(folder: Folder) -> (Watch, Receiver<Batch>) {
    let (tx, rx) = sync_channel(64);
    let watch = Watch::start(folder, move |batch| tx.send(batch).is_ok()).expect("a thread");
    (watch, rx)
}

/// Batches until one satisfies `enough`; all of them.
fn until(batches: &Receiver<Batch>, enough: impl Fn(&Batch) -> bool) -> Vec<Batch> {
    let deadline = Instant::now() + DEADLINE;
    let mut all = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let batch = batches.recv_timeout(left).expect("it comes before the deadline");
        let last = enough(&batch);
        all.push(batch);
        if last {
            return all;
        }
    }
}

#[test]
fn a_watch_gives_all_at_once_then_what_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for index in 0..20 {
        write(folder.path(), &format!("{index}.yaml"), &account(&format!("a{index}")));
    }
    let (_watch, batches) = start(Folder::new([folder.path().to_owned()]));
    let first = until(&batches, |_| true);
    assert_eq!(first[0].upserted.len(), 20, "one batch, not twenty");
    write(folder.path(), "new/x.yaml", &account("x"));
    until(&batches, |batch| batch.upserted.iter().any(|object| object.metadata.name == "x"));
    fs::remove_file(folder.path().join("3.yaml")).expect("removed");
    until(&batches, |batch| batch.removed.iter().any(|key| key.name == "a3"));
}

#[test]
fn a_file_replaced_by_renaming_never_seems_to_be_gone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "a.yaml", &policy("DENY"));
    // The file itself is watched, so that only its folder can tell.
    let (_watch, batches) = start(Folder::new([path.clone()]));
    until(&batches, |_| true);
    for round in 0..20 {
        let action = if round % 2 == 0 { "ALLOW" } else { "DENY" };
        let unfinished = write(folder.path(), ".a.yaml.swp", &policy(action));
        fs::rename(&unfinished, &path).expect("renamed");
        let batches = until(&batches, |batch| {
            batch.upserted.iter().any(|object| object.raw["spec"]["action"] == action)
        });
        assert!(batches.iter().all(|batch| batch.removed.is_empty() && batch.findings.is_empty()));
    }
}

#[test]
fn a_file_written_in_pieces_is_read_when_it_is_closed() {
    use std::io::Write;
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "a.yaml", &(account("a") + "---\n" + &account("b")));
    let (_watch, batches) = start(Folder::new([folder.path().to_owned()]));
    until(&batches, |_| true);
    let mut file = fs::File::create(folder.path().join("a.yaml")).expect("truncated");
    writeln!(file, "{}---", account("a")).expect("written");
    file.sync_all().expect("on disk");
    write!(file, "{}---\n{}", account("b"), account("c")).expect("written");
    drop(file);
    let batches = until(&batches, |batch| batch.upserted.iter().any(|object| object.metadata.name == "c"));
    assert!(batches.iter().all(|batch| batch.removed.is_empty()), "never half of it: {batches:?}");
}

#[test]
fn a_watch_ends_when_dropped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (watch, batches) = start(Folder::new([folder.path().to_owned()]));
    until(&batches, |_| true);
    drop(watch);
    let ended = batches.recv_timeout(DEADLINE);
    assert!(ended.is_err(), "the sender is gone with the thread");
}

/// Whatever happens to files, looking at those that were touched comes to the same as looking at all of them.
#[test]
fn looking_at_some_files_is_as_good_as_looking_at_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("a folder");
    let (state, manifests) = (root.join("state"), root.join("manifests"));
    fs::create_dir_all(&state).expect("a folder");
    fs::create_dir_all(&manifests).expect("a folder");
    let new = || Folder::new([manifests.clone()]).with_state(state.clone());
    let (mut some, mut all) = (new(), new());
    some.scan();
    all.scan();
    let mut number = 1_u64;
    let mut draw = |bound: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % bound
    };
    let (mut alone, mut together) = (0, 0);
    for round in 0..1500 {
        let mut touched = std::collections::HashSet::new();
        for _ in 0..=draw(2) {
            let within = if draw(2) == 0 { &state } else { &manifests };
            let file = within
                .join(["a.yaml", "b.yaml", "deep/c.yaml", "d.json", "e.txt", ".f.yaml"][draw(6) as usize]);
            touched.insert(file.clone());
            let name = ["x", "y", "z"][draw(3) as usize];
            let text = match draw(10) {
                0 => "{ not yaml".to_owned(),
                1 => policy("NOTHING"),
                2 => policy(["ALLOW", "DENY"][draw(2) as usize]),
                3 => account(name) + "---\n" + &account("other"),
                4 | 5 => {
                    // It need not be there.
                    let _ = fs::remove_file(&file);
                    continue;
                }
                // Never twice the same text.
                _ => account(name) + &format!("# {round}\n"),
            };
            write(
                file.parent().expect("a folder"),
                &file.file_name().expect("a name").to_string_lossy(),
                &text,
            );
        }
        let looked = some.scan_some(&touched);
        *(if looked.is_some() { &mut alone } else { &mut together }) += 1;
        let (ours, theirs) =
            (looked.unwrap_or_else(|| some.scan_touched(&touched)), all.scan_touched(&touched));
        let told = |batch: &Batch| {
            let mut upserted: Vec<String> = batch
                .upserted
                .iter()
                .map(|one| format!("{} {} {}", one.key(), one.position, one.raw))
                .collect();
            upserted.sort();
            let mut removed: Vec<String> = batch.removed.iter().map(ToString::to_string).collect();
            removed.sort();
            (upserted, removed, said(batch), batch.findings_changed)
        };
        assert_eq!(told(&ours), told(&theirs), "round {round}: {touched:?}");
        assert_eq!(names(&some), names(&all), "round {round}: {touched:?}");
    }
    assert!(alone > 200 && together > 200, "{alone} looked at alone, {together} with all others");
}

#[test]
fn a_folder_that_goes_takes_its_files_with_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("a folder");
    write(&root, "deep/a.yaml", &account("a"));
    let link = write(&root, "b.yaml", &account("b"));
    let mut manifests = Folder::new([root.clone()]);
    manifests.scan();
    fs::remove_dir_all(root.join("deep")).expect("it is there");
    assert!(manifests.scan_some(&[root.join("deep")].into()).is_none());
    assert_eq!(manifests.scan().removed.len(), 1);
    // With a link among them, no file is alone any more.
    std::os::unix::fs::symlink(&link, root.join("c.yaml")).expect("a link");
    assert!(manifests.scan_some(&[root.join("c.yaml")].into()).is_none());
    manifests.scan();
    assert!(manifests.scan_some(&[link].into()).is_none());
}
