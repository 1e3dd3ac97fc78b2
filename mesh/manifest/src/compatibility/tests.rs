//! The table against the types, the sources and the page.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::authorization_policy::AUTHORIZATION_POLICY;
use super::{DESTINATION_RULE, Message, Of, Support, VIRTUAL_SERVICE, page, trace};
use crate::{
    Level, from_json,
    istio::{AuthorizationPolicy, DestinationRule, VirtualService},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The fields of a message by path, down to those of messages in it.
fn paths(message: &'static Message, above: &str, into: &mut BTreeMap<String, Support>, under: Support) {
    for field in message.fields {
        let path = format!("{above}.{}", field.name);
        let support = if under == Support::Supported { field.support } else { under };
        into.insert(path.clone(), support);
        match field.of {
            Of::Value => {}
            Of::Object(inner) => paths(inner, &path, into, support),
            Of::Map(inner) => paths(inner, &format!("{path}{{}}"), into, support),
        }
    }
}

fn table(message: &'static Message) -> BTreeMap<String, Support> {
    let mut all = BTreeMap::new();
    paths(message, "spec", &mut all, Support::Supported);
    all
}

fn has_every_field_of<T: for<'de> Deserialize<'de>>(message: &'static Message, at_least: usize) {
    let of_type: BTreeSet<String> = trace::fields::<T>()
        .into_iter()
        .map(|(path, _)| path.replace("[]", ""))
        .filter(|path| !path.ends_with("{}"))
        .collect();
    let of_table: BTreeSet<String> = table(message).into_keys().collect();
    let missing: Vec<_> = of_type.symmetric_difference(&of_table).collect();
    assert!(missing.is_empty(), "only in the types or only in the table of {}: {missing:?}", message.name);
    assert!(of_table.len() >= at_least, "{}", of_table.len());
}

#[test]
fn the_table_has_exactly_the_fields_of_the_types() {
    has_every_field_of::<VirtualService>(&VIRTUAL_SERVICE, 60);
    has_every_field_of::<DestinationRule>(&DESTINATION_RULE, 60);
    has_every_field_of::<AuthorizationPolicy>(&AUTHORIZATION_POLICY, 40);
}

/// A document that has every field.
fn whole<T: for<'de> Deserialize<'de>>(kind: &str) -> Value {
    let mut spec = json!({});
    for (path, sample) in trace::fields::<T>() {
        let Some(sample) = sample else { continue };
        let path = path.trim_start_matches("spec.").replace("{}", ".k");
        let mut at = &mut spec;
        for step in path.split('.') {
            let (name, is_list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
            let fields = at.as_object_mut().expect("a sample of fields");
            at = fields.entry(name).or_insert_with(|| if is_list { json!([{}]) } else { json!({}) });
            if is_list {
                at = &mut at[0];
            }
        }
        *at = sample;
    }
    json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "x", "namespace": "a"}, "spec": spec})
}

fn each_is_refused_by_name<T: for<'de> Deserialize<'de>>(message: &'static Message) {
    let document = whole::<T>(message.name);
    let parsed = from_json(&document, &Arc::from(Path::new("f")));
    let said = |field: &str, level: Level, part: &str| {
        let at = |finding: &&crate::Finding| finding.field.replace("[0]", "").replace(".k", "{}") == field;
        parsed
            .findings
            .iter()
            .filter(at)
            .any(|finding| finding.level == level && finding.message.contains(part))
    };
    let mut counted = 0;
    for (path, support) in table(message) {
        let name = path.rsplit('.').next().expect("a path has a last part");
        // Of what is refused as a whole nothing more is said.
        let above = path.rsplit_once('.').map(|(above, _)| above.trim_end_matches("{}")).unwrap_or_default();
        if table(message).get(above).is_some_and(|support| *support != Support::Supported) {
            continue;
        }
        let expected = match support {
            Support::Supported | Support::Unseen => {
                assert!(!said(&path, Level::Error, "is not supported"), "{path} is refused");
                continue;
            }
            Support::Noted => said(&path, Level::Warning, &format!("`{name}` has no effect")),
            Support::Planned => said(&path, Level::Error, &format!("`{name}` is not supported yet")),
            Support::Refused => said(&path, Level::Error, &format!("`{name}` is not supported:")),
        };
        assert!(expected, "{path} is {support:?}, and nothing says so: {:#?}", parsed.findings);
        counted += 1;
    }
    assert!(counted > 0, "nothing of {} is refused", message.name);
}

#[test]
fn what_is_not_supported_is_refused_by_its_name() {
    each_is_refused_by_name::<VirtualService>(&VIRTUAL_SERVICE);
    each_is_refused_by_name::<DestinationRule>(&DESTINATION_RULE);
}

/// A field whose value a type lost on the way would be one that is ignored.
#[test]
fn every_field_is_read_into_its_type() {
    fn read<T: for<'de> Deserialize<'de> + Default + PartialEq + std::fmt::Debug>(kind: &str) {
        let document = whole::<T>(kind);
        let whole: T = serde_json::from_value(document["spec"].clone()).expect("a sample fits");
        for (path, sample) in trace::fields::<T>() {
            if sample.is_none() {
                continue;
            }
            // The same without this one field is another value.
            let pointer =
                path.replacen("spec", "", 1).replace("[]", "/0").replace("{}", "/k").replace('.', "/");
            let mut less = document["spec"].clone();
            let (above, last) = pointer.rsplit_once('/').expect("a path has parts");
            match less.pointer_mut(above).expect("it is there") {
                Value::Object(fields) => drop(fields.remove(last)),
                Value::Array(items) => items.clear(),
                other => panic!("{path}: {other}"),
            }
            let less: T = serde_json::from_value(less).expect("a sample fits");
            assert_ne!(less, whole, "{path} is not read");
        }
    }
    read::<VirtualService>("VirtualService");
    read::<DestinationRule>("DestinationRule");
    read::<AuthorizationPolicy>("AuthorizationPolicy");
}

#[test]
fn what_is_supported_is_held_by_tests_that_exist() {
    for message in page::KINDS.into_iter().flat_map(|kind| page::messages(kind)) {
        for field in message.fields {
            let what = format!("{}.{}", message.name, field.name);
            let accepted = matches!(field.support, Support::Supported | Support::Unseen);
            assert_eq!(field.held.is_empty(), !accepted, "{what}");
            assert!(field.support == Support::Supported || !field.note.is_empty(), "{what} does not say why");
            for (file, test) in field.held {
                let text = fs::read_to_string(root().join(file))
                    .unwrap_or_else(|error| panic!("{what}: {file}: {error}"));
                assert!(is_test(&text, test), "{what}: there is no test `{test}` in {file}");
            }
        }
    }
}

/// Whether a text has a test of that name: a function under `#[test]`, of tokio or in `proptest!`.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begins = |line: &&str| {
        line.strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix(&format!("fn {name}"))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let Some(at) = lines.iter().position(begins) else { return false };
    lines[..at]
        .iter()
        .rev()
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
        .any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
}

#[test]
fn only_tests_count_as_tests() {
    assert!(is_test("#[test]\n    fn a() {", "a"));
    assert!(is_test("#[tokio::test(start_paused = true)]\nasync fn a() {", "a"));
    assert!(!is_test("#[test]\nfn ab() {", "a"));
    assert!(!is_test("fn a() {", "a"));
    assert!(!is_test("#[test]\nfn b() {}\n\nfn a() {", "a"));
}

#[test]
fn the_documentation_agrees() {
    let file = root().join("docs/compatibility.md");
    let now = page::page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &now).expect("the page can be written");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == now, "docs/compatibility.md is older than the table: run `make docs`");
}
