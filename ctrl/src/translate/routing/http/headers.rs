//! Changes of headers, in the model's words.

use std::collections::BTreeMap;

use http::HeaderName;
use manifest::istio::{HeaderOperations, Headers};
use model::address::Str;
use model::route::headers::may_change;
use model::route::template::Template;
use model::route::{HeaderChanges, Operations};

/// What is changed in both directions.
///
/// # Errors
/// What of it cannot be read, in words.
pub(super) fn changes(written: Option<&Headers>) -> Result<HeaderChanges, String> {
    let Some(written) = written else { return Ok(HeaderChanges::default()) };
    let side = |written: &Option<HeaderOperations>| -> Result<Option<Box<Operations>>, String> {
        let operations = written.as_ref().map(operations).transpose()?;
        Ok(operations.filter(|operations| *operations != Operations::default()).map(Box::new))
    };
    Ok(HeaderChanges { request: side(&written.request)?, response: side(&written.response)? })
}

fn operations(written: &HeaderOperations) -> Result<Operations, String> {
    let authority = |values: &BTreeMap<String, String>| -> Option<Str> {
        values.iter().find(|(name, _)| is_authority(name)).map(|(_, value)| value.as_str().into())
    };
    let values = |values: &BTreeMap<String, String>| -> Result<Box<[(HeaderName, Template)]>, String> {
        let others = values.iter().filter(|(name, _)| !is_authority(name));
        others
            .map(|(name, value)| {
                let template = Template::parse(value).map_err(|error| format!("header `{name}`: {error}"))?;
                Ok((header(name)?, template))
            })
            .collect()
    };
    Ok(Operations {
        remove: written.remove.iter().map(|name| header(name)).collect::<Result<_, String>>()?,
        set: values(&written.set)?,
        add: values(&written.add)?,
        authority: authority(&written.set).or_else(|| authority(&written.add)),
    })
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

fn header(name: &str) -> Result<HeaderName, String> {
    let header: HeaderName = name.parse().map_err(|_| format!("`{name}` cannot be the name of a header"))?;
    match may_change(&header) {
        true => Ok(header),
        false => Err(format!("`{name}` frames messages and cannot be changed")),
    }
}
