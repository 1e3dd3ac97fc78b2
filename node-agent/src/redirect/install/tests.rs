//! The plugin on a node that is a folder: put there, put there again, and taken away.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::{InstallError, Installation, Places};
use crate::redirect::catalog::Catalog;

const LIST: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp"}]}"#;

fn node(folder: &Path) -> Installation {
    for part in ["bin", "net.d", "run"] {
        fs::create_dir(folder.join(part)).unwrap();
    }
    fs::write(folder.join("plugin"), "a plugin").unwrap();
    Installation::new(Places {
        binary: folder.join("plugin"),
        bin: folder.join("bin"),
        configurations: folder.join("net.d"),
        socket: folder.join("run/cni.sock"),
        exempt: vec!["kube-system".into()],
    })
}

fn types(folder: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join("net.d").join(name)).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let plugins = list["plugins"].as_array().unwrap().iter();
    plugins.map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn only_what_a_runtime_takes_is_changed_and_everything_can_be_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let installation = node(folder);
    assert!(matches!(installation.ensure(), Err(InstallError::Nothing(_))));
    assert!(installation.failing().unwrap().contains("no configuration"));
    for (name, text) in [("05-broken.conflist", "{"), ("10-pods.conflist", LIST), ("20-later.conflist", LIST)]
    {
        fs::write(folder.join("net.d").join(name), text).unwrap();
    }
    fs::set_permissions(folder.join("net.d/10-pods.conflist"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(installation.ensure().unwrap());
    assert_eq!(installation.failing(), None);
    assert_eq!(types(folder, "10-pods.conflist"), ["ptp", "lateen-cni"]);
    assert_eq!(types(folder, "20-later.conflist"), ["ptp"]);
    let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("net.d/10-pods.conflist"), mode("bin/lateen-cni")), (0o600, 0o755));
    assert!(!installation.ensure().unwrap(), "there is nothing left to do");

    installation.remove().unwrap();
    assert_eq!(types(folder, "10-pods.conflist"), ["ptp"]);
    assert!(!folder.join("bin/lateen-cni").exists());
    installation.remove().unwrap();
    let left: Vec<_> = fs::read_dir(folder.join("net.d")).unwrap().flatten().collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_single_plugin_cannot_be_chained_to() {
    let folder = tempfile::tempdir().unwrap();
    let installation = node(folder.path());
    fs::write(folder.path().join("net.d/10-pods.conf"), json!({"type": "ptp"}).to_string()).unwrap();
    assert!(matches!(installation.ensure(), Err(InstallError::NoList(_))));
}

#[tokio::test]
async fn what_another_writer_takes_out_is_put_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let installation = node(folder);
    let path = folder.join("net.d/10-pods.conflist");
    fs::write(&path, LIST).unwrap();
    let (sender, catalog) = watch::channel(Arc::new(Catalog::new("n")));
    let running = tokio::spawn(installation.run(catalog));
    let until = async |entries: usize, binary: bool| {
        let holds = async {
            while types(folder, "10-pods.conflist").len() != entries
                || folder.join("bin/lateen-cni").exists() != binary
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(5), holds).await.expect("in time");
    };
    until(2, true).await;
    // As other writers do: a new file in the place of the old one.
    fs::write(folder.join("net.d/new"), LIST).unwrap();
    fs::rename(folder.join("net.d/new"), &path).unwrap();
    until(2, true).await;
    fs::remove_file(folder.join("bin/lateen-cni")).unwrap();
    until(2, true).await;

    let mut later = Catalog::new("n");
    later.set_namespace("monitoring".into(), [].into());
    sender.send(Arc::new(later)).unwrap();
    let told = async {
        while fs::read_to_string(folder.join("run/namespaces-apart.json")).unwrap_or_default()
            != r#"["monitoring"]"#
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(5), told).await.expect("told in time");
    drop(sender);
    timeout(Duration::from_secs(5), running).await.expect("it ends").unwrap();
}
