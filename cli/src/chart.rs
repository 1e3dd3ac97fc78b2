//! The charts of `deploy/helm`, inside this command: `lateen install` makes the objects that `helm template` would, of the
//! same templates and the same values. A test holds both against each other.

mod schema;
pub(crate) mod template;
pub(crate) mod values;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use self::template::{TemplateError, Templates};

/// The charts' templates, by their files' names.
mod files {
    include!(concat!(env!("OUT_DIR"), "/charts.rs"));
}

/// Default values of the mesh's chart, with what each means.
pub(crate) const VALUES: &str = include_str!("../../deploy/helm/lateen/values.yaml");
const SCHEMA: &str = include_str!("../../deploy/helm/lateen/values.schema.json");
/// What the objects are called by; also the name that helm's users give the release.
pub(crate) const RELEASE: &str = "lateen";

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChartError {
    /// A template is not one that this command understands: a defect, since they are inside it.
    #[error("the chart's {file}: {source}; this is a defect of this command: please report it")]
    Template { file: &'static str, source: TemplateError },
    /// What comes of a template is no YAML.
    #[error("what comes of the chart's {file} is no YAML: {source}; a value may have broken it")]
    Yaml { file: &'static str, source: Box<serde_saphyr::Error> },
}

/// The definitions of the kinds that the mesh reads.
pub(crate) fn definitions() -> Result<Vec<Value>, ChartError> {
    render(files::CRDS, &json!({}), "")
}

/// The objects of the mesh in `namespace`, with values that [`values::Settings`] has checked.
pub(crate) fn mesh(values: &Value, namespace: &str) -> Result<Vec<Value>, ChartError> {
    render(files::LATEEN, values, namespace)
}

fn render(
    files: &[(&'static str, &'static str)],
    values: &Value,
    namespace: &str,
) -> Result<Vec<Value>, ChartError> {
    let context = json!({
        "Values": values,
        "Chart": {"Name": "lateen", "Version": env!("CARGO_PKG_VERSION"), "AppVersion": env!("CARGO_PKG_VERSION")},
        "Release": {"Name": RELEASE, "Namespace": namespace, "Service": "lateen", "IsInstall": true, "IsUpgrade": false},
    });
    let mut templates = Templates::default();
    for &(file, text) in files {
        templates.add(file, text).map_err(|source| ChartError::Template { file, source })?;
    }
    let mut objects = Vec::new();
    for &(file, _) in files.iter().filter(|(file, _)| !file.starts_with('_')) {
        let text =
            templates.render(file, &context).map_err(|source| ChartError::Template { file, source })?;
        let read: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(|source| ChartError::Yaml { file, source: Box::new(source) })?;
        objects.extend(read.into_iter().filter(|object| !object.is_null()));
    }
    Ok(objects)
}
