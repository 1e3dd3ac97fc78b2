//! A container's environment: `env`, `envFrom`, fields of the pod, and `$(NAME)` in values, command and arguments.
//! Pure.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVar, ObjectFieldSelector, Pod, ResourceFieldSelector};

use super::super::manifests::{Manifests, ObjectName};

/// What a container's environment is made from.
pub(crate) struct EnvSource<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) manifests: &'a Manifests,
    /// What every container of the mesh has: PATH, HOME, LANG.
    pub(crate) inherited: &'a [(String, String)],
}

/// The environment in the order given, later names over earlier ones; or why it cannot be made.
pub(crate) fn environment(
    source: &EnvSource<'_>,
    container: &Container,
) -> Result<Vec<(String, String)>, String> {
    let mut names: Vec<String> = Vec::new();
    let mut values: HashMap<String, String> = HashMap::new();
    let mut set = |name: String, value: String, values: &mut HashMap<String, String>| {
        if values.insert(name.clone(), value).is_none() {
            names.push(name);
        }
    };
    for (name, value) in source.inherited {
        set(name.clone(), value.clone(), &mut values);
    }
    set("HOSTNAME".to_owned(), source.pod.metadata.name.clone().unwrap_or_default(), &mut values);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let entries = if let Some(map) = &from.config_map_ref {
            config_map(source, &map.name, map.optional == Some(true))?
        } else if let Some(secret) = &from.secret_ref {
            secret_values(source, &secret.name, secret.optional == Some(true))?
        } else {
            BTreeMap::new()
        };
        for (key, value) in entries {
            set(format!("{prefix}{key}"), value, &mut values);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value {
            Some(value) => Some(expand(value, &values)),
            None => from_elsewhere(source, container, variable)?,
        };
        if let Some(value) = value {
            set(variable.name.clone(), value, &mut values);
        }
    }
    Ok(names.into_iter().map(|name| (name.clone(), values.remove(&name).unwrap_or_default())).collect())
}

/// `$(NAME)` becomes the variable's value, `$$(` a literal `$(`; an unknown name stays as it is written.
pub(crate) fn expand(text: &str, values: &HashMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match values.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The command line of a container: `command` and `args` with variables expanded.
pub(crate) fn command_line(container: &Container, environment: &[(String, String)]) -> Vec<String> {
    let values: HashMap<String, String> = environment.iter().cloned().collect();
    let words = container.command.iter().flatten().chain(container.args.iter().flatten());
    words.map(|word| expand(word, &values)).collect()
}

fn namespace(source: &EnvSource<'_>) -> String {
    source.pod.metadata.namespace.clone().unwrap_or_default()
}

fn object_name(source: &EnvSource<'_>, name: &str) -> ObjectName {
    ObjectName { namespace: namespace(source), name: name.to_owned() }
}

fn config_map(
    source: &EnvSource<'_>,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, String>, String> {
    match source.manifests.config_maps.get(&object_name(source, name)) {
        Some(map) => Ok(map.data.clone().unwrap_or_default()),
        None if optional => Ok(BTreeMap::new()),
        None => Err(format!("ConfigMap {}/{name} is in no file", namespace(source))),
    }
}

fn secret_values(
    source: &EnvSource<'_>,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, String>, String> {
    let Some(secret) = source.manifests.secrets.get(&object_name(source, name)) else {
        return match optional {
            true => Ok(BTreeMap::new()),
            false => Err(format!("Secret {}/{name} is in no file", namespace(source))),
        };
    };
    let data = secret.data.iter().flatten();
    let mut values: BTreeMap<String, String> =
        data.map(|(key, bytes)| (key.clone(), String::from_utf8_lossy(&bytes.0).into_owned())).collect();
    values.extend(secret.string_data.clone().unwrap_or_default());
    Ok(values)
}

fn from_elsewhere(
    source: &EnvSource<'_>,
    container: &Container,
    variable: &EnvVar,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else { return Ok(Some(String::new())) };
    let keyed =
        |kind: &str, name: &str, key: &str, optional: bool, values: BTreeMap<String, String>| match values
            .get(key)
        {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!("{kind} {}/{name} has no key {key:?}", namespace(source))),
        };
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional == Some(true);
        return keyed("ConfigMap", &key.name, &key.key, optional, config_map(source, &key.name, optional)?);
    }
    if let Some(key) = &from.secret_key_ref {
        let optional = key.optional == Some(true);
        return keyed("Secret", &key.name, &key.key, optional, secret_values(source, &key.name, optional)?);
    }
    if let Some(selector) = &from.field_ref {
        return field(source.pod, selector).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return resource(container, selector).map(Some);
    }
    Ok(Some(String::new()))
}

/// A field of the pod, as `fieldRef` names it.
pub(crate) fn field(pod: &Pod, selector: &ObjectFieldSelector) -> Result<String, String> {
    let (meta, spec, status) = (&pod.metadata, pod.spec.as_ref(), pod.status.as_ref());
    let text = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let map = if map == "metadata.labels" { meta.labels.as_ref() } else { meta.annotations.as_ref() };
        return text(map.and_then(|map| map.get(key)));
    }
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => Ok(properties(meta.labels.as_ref())),
        "metadata.annotations" => Ok(properties(meta.annotations.as_ref())),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" => text(status.and_then(|status| status.pod_ip.as_ref())),
        "status.hostIP" => text(status.and_then(|status| status.host_ip.as_ref())),
        "status.podIPs" => {
            let ips = status.and_then(|status| status.pod_ips.as_ref());
            Ok(ips.into_iter().flatten().map(|ip| ip.ip.clone()).collect::<Vec<_>>().join(","))
        }
        _ => Err(format!("fieldRef {path:?} is not known")),
    }
}

/// `metadata.labels['key']` in two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once("['")?;
    let known = map == "metadata.labels" || map == "metadata.annotations";
    known.then_some((map, key.strip_suffix("']")?))
}

fn properties(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}\n")).collect()
}

/// A limit or request as the manifest writes it; nothing enforces one here.
fn resource(container: &Container, selector: &ResourceFieldSelector) -> Result<String, String> {
    let resources = container.resources.as_ref();
    let (map, key) =
        selector.resource.split_once('.').ok_or_else(|| format!("resource {:?}", selector.resource))?;
    let map = match map {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(format!("resourceFieldRef {:?} is not known", selector.resource)),
    };
    Ok(map.and_then(|map| map.get(key)).map_or_else(|| "0".to_owned(), |quantity| quantity.0.clone()))
}

#[cfg(test)]
mod tests;
