//! A pod's volumes as folders: ConfigMaps, Secrets and fields of the pod as files, empty folders, claims. Written
//! when the pod starts, and again when a ConfigMap or Secret changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, DownwardAPIVolumeFile, KeyToPath, Pod, SecretVolumeSource, Volume,
};

use super::super::manifests::{Manifests, ObjectName};
use super::env::field;
use super::spec::Mount;

/// Where volumes lie.
pub(crate) struct VolumeFolders<'a> {
    /// Folder of the pod.
    pub(crate) pod: &'a Path,
    /// Folder of all claims of the mesh.
    pub(crate) claims: &'a Path,
}

impl VolumeFolders<'_> {
    fn of(&self, pod: &Pod, volume: &Volume) -> Result<PathBuf, String> {
        if let Some(path) = &volume.host_path {
            return Ok(PathBuf::from(&path.path));
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            return Ok(self.claims.join(plain(namespace)?).join(plain(&claim.claim_name)?));
        }
        Ok(self.pod.join("volumes").join(plain(&volume.name)?))
    }
}

/// Makes the folders of all volumes and (re)writes their files.
pub(crate) fn write(folders: &VolumeFolders<'_>, pod: &Pod, manifests: &Manifests) -> Result<(), String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    for volume in volumes {
        let folder = folders.of(pod, volume)?;
        let says = |error: io::Error| format!("volume {}: {error}", volume.name);
        if volume.host_path.is_none() {
            fs::create_dir_all(&folder).map_err(says)?;
        }
        if volume.empty_dir.is_some() || volume.persistent_volume_claim.is_some() {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).map_err(says)?;
        }
        if let Some(files) =
            files(volume, pod, manifests).map_err(|error| format!("volume {}: {error}", volume.name))?
        {
            write_files(&folder, &files).map_err(says)?;
        }
    }
    Ok(())
}

/// The mounts of a container.
pub(crate) fn mounts(
    folders: &VolumeFolders<'_>,
    pod: &Pod,
    container: &Container,
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume
            .ok_or_else(|| format!("volumeMounts names {:?}, which is no volume of the pod", mount.name))?;
        let mut source = folders.of(pod, volume)?;
        if let Some(below) = &mount.sub_path {
            source.push(plain(below)?);
            let is_writable = volume.empty_dir.is_some() || volume.persistent_volume_claim.is_some();
            if is_writable && !source.exists() {
                fs::create_dir_all(&source).map_err(|error| format!("{}: {error}", source.display()))?;
            }
        }
        let from_objects = volume.empty_dir.is_none()
            && volume.persistent_volume_claim.is_none()
            && volume.host_path.is_none();
        let read_only = mount.read_only == Some(true) || from_objects;
        mounts.push(Mount { source, target: PathBuf::from(&mount.mount_path), read_only });
    }
    // The outer before the inner.
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(mounts)
}

/// A relative path without `..`.
fn plain(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    let fine = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if fine { Ok(path) } else { Err(format!("{path:?} must be a path inside the volume")) }
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The files of a volume made from objects; `None` for a volume of another kind.
fn files(volume: &Volume, pod: &Pod, manifests: &Manifests) -> Result<Option<Files>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &volume.config_map {
        return config_map(source, namespace, manifests).map(Some);
    }
    if let Some(source) = &volume.secret {
        return secret(source, namespace, manifests).map(Some);
    }
    if let Some(source) = &volume.downward_api {
        return downward(source.items.iter().flatten(), pod).map(Some);
    }
    let Some(projected) = &volume.projected else { return Ok(None) };
    let mut all = Files::new();
    for source in projected.sources.iter().flatten() {
        if let Some(map) = &source.config_map {
            let (items, optional) = (map.items.clone(), map.optional);
            let map = ConfigMapVolumeSource { name: map.name.clone(), items, optional, default_mode: None };
            all.extend(config_map(&map, namespace, manifests)?);
        }
        if let Some(from) = &source.secret {
            let (items, optional) = (from.items.clone(), from.optional);
            let name = Some(from.name.clone());
            all.extend(secret(
                &SecretVolumeSource { secret_name: name, items, optional, default_mode: None },
                namespace,
                manifests,
            )?);
        }
        if let Some(from) = &source.downward_api {
            all.extend(downward(from.items.iter().flatten(), pod)?);
        }
    }
    Ok(Some(all))
}

fn config_map(
    source: &ConfigMapVolumeSource,
    namespace: &str,
    manifests: &Manifests,
) -> Result<Files, String> {
    let name = ObjectName { namespace: namespace.to_owned(), name: source.name.clone() };
    let Some(map) = manifests.config_maps.get(&name) else {
        return if source.optional == Some(true) {
            Ok(Files::new())
        } else {
            Err(format!("ConfigMap {name} is in no file"))
        };
    };
    let text = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
    choose(text.chain(binary).collect(), source.items.as_deref(), &format!("ConfigMap {name}"))
}

fn secret(source: &SecretVolumeSource, namespace: &str, manifests: &Manifests) -> Result<Files, String> {
    let name =
        ObjectName { namespace: namespace.to_owned(), name: source.secret_name.clone().unwrap_or_default() };
    let Some(secret) = manifests.secrets.get(&name) else {
        return if source.optional == Some(true) {
            Ok(Files::new())
        } else {
            Err(format!("Secret {name} is in no file"))
        };
    };
    let data = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
    let text =
        secret.string_data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
    choose(data.chain(text).collect(), source.items.as_deref(), &format!("Secret {name}"))
}

/// All keys, or those named by `items` at the paths they give.
fn choose(all: BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>, what: &str) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return all.into_iter().map(|(key, bytes)| Ok((plain(&key)?, bytes))).collect();
    };
    let pick = |item: &KeyToPath| {
        let bytes = all.get(&item.key).ok_or_else(|| format!("{what} has no key {:?}", item.key))?;
        Ok((plain(&item.path)?, bytes.clone()))
    };
    items.iter().map(pick).collect()
}

fn downward<'a>(items: impl Iterator<Item = &'a DownwardAPIVolumeFile>, pod: &Pod) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items {
        if let Some(selector) = &item.field_ref {
            files.insert(plain(&item.path)?, field(pod, selector)?.into_bytes());
        }
    }
    Ok(files)
}

/// Writes files so that a reader sees the old or the new content, and removes those that are no longer there.
fn write_files(folder: &Path, files: &Files) -> io::Result<()> {
    for (path, bytes) in files {
        let path = folder.join(path);
        if fs::read(&path).is_ok_and(|current| current == *bytes) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push("..new");
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, &path)?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if entry.file_type()?.is_file() && !files.contains_key(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{VolumeFolders, mounts, write};
    use crate::local::manifests::{Manifests, from_json};

    fn manifests(data: &serde_json::Value) -> Manifests {
        from_json(&[
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}),
        ])
    }

    #[test]
    fn files_follow_the_objects_they_are_made_from() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let folders = VolumeFolders { pod: folder.path(), claims: &folder.path().join("claims") };
        let pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "volumes": [
                {"name": "conf", "configMap": {"name": "c"}},
                {"name": "one", "configMap": {"name": "c", "items": [{"key": "a", "path": "sub/b"}]}},
            ]},
        }))
        .expect("pod");
        write(&folders, &pod, &manifests(&json!({"a": "1", "b": "2"}))).expect("written");
        let read = |name: &str| std::fs::read_to_string(folder.path().join("volumes").join(name)).ok();
        assert_eq!(read("conf/b").as_deref(), Some("2"));
        assert_eq!(read("one/sub/b").as_deref(), Some("1"));
        write(&folders, &pod, &manifests(&json!({"a": "9"}))).expect("written");
        assert_eq!((read("conf/a").as_deref(), read("conf/b")), (Some("9"), None));
        assert_eq!(
            write(&folders, &pod, &Manifests::default()),
            Err("volume conf: ConfigMap default/c is in no file".into())
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let folders =
            VolumeFolders { pod: &folder.path().join("pods/p"), claims: &folder.path().join("pods/claims") };
        let pod = |volume: serde_json::Value| {
            let spec = json!({"containers": [], "volumes": [volume]});
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p",
                "namespace": "default"}, "spec": spec}))
            .expect("pod")
        };
        let outside = folder.path().join("outside").to_string_lossy().into_owned();
        for bad in ["../../../../outside", outside.as_str()] {
            let objects = manifests(&json!({bad: "1"}));
            for volume in [
                json!({"name": "v", "configMap": {"name": "c"}}),
                json!({"name": bad, "emptyDir": {}}),
                json!({"name": "v", "persistentVolumeClaim": {"claimName": bad}}),
            ] {
                let written = write(&folders, &pod(volume.clone()), &objects);
                assert!(written.is_err(), "{volume} with a key {bad}");
                assert!(!folder.path().join("outside").exists(), "{volume} with a key {bad}");
            }
        }
    }

    #[test]
    fn a_path_out_of_the_volume_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let folders = VolumeFolders { pod: folder.path(), claims: folder.path() };
        let pod =
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}}))
            .expect("pod");
        let container = |sub: &str| {
            serde_json::from_value(
                json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": sub}]}),
            )
            .expect("container")
        };
        assert!(mounts(&folders, &pod, &container("a/b")).is_ok());
        assert!(mounts(&folders, &pod, &container("../b")).is_err());
    }
}
