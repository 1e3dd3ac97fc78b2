//! A CNI configuration list with and without our entry: pure.

use serde_json::Value;

use super::PLUGIN;

/// Whether a runtime would take this text for the configuration of a network.
pub(super) fn is_network(text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
    match value.get("plugins") {
        Some(plugins) => plugins.as_array().is_some_and(|plugins| !plugins.is_empty()),
        None => value["type"].is_string(),
    }
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN
}

/// The list with `entry` at its end; `None` where it has just that, wherever: another one that chains itself to the end
/// would otherwise be fought with for ever.
pub(super) fn with(list: &Value, entry: &Value) -> Option<Value> {
    let plugins = list["plugins"].as_array()?;
    let ours: Vec<&Value> = plugins.iter().filter(|plugin| is_ours(plugin)).collect();
    if ours == [entry] && !is_ours(&plugins[0]) {
        return None;
    }
    let others = plugins.iter().filter(|plugin| !is_ours(plugin));
    let mut list = list.clone();
    list["plugins"] = others.chain([entry]).cloned().collect();
    Some(list)
}

/// The list without any entry of ours; `None` where there is none.
pub(super) fn without(list: &Value) -> Option<Value> {
    let plugins = list["plugins"].as_array()?;
    let others: Vec<Value> = plugins.iter().filter(|plugin| !is_ours(plugin)).cloned().collect();
    (others.len() != plugins.len()).then(|| {
        let mut list = list.clone();
        list["plugins"] = others.into();
        list
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{is_network, with, without};

    fn list(types: &[&str]) -> Value {
        let plugins: Vec<Value> = types.iter().map(|kind| json!({"type": kind})).collect();
        json!({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})
    }

    #[test]
    fn our_entry_is_there_once_and_behind_another() {
        let entry = json!({"type": "lateen-cni"});
        for (before, after) in [
            (&["ptp", "portmap"][..], Some(&["ptp", "portmap", "lateen-cni"][..])),
            (&["ptp", "lateen-cni"], None),
            (&["ptp", "lateen-cni", "istio-cni"], None),
            (&["lateen-cni", "ptp"], Some(&["ptp", "lateen-cni"])),
            (&["ptp", "lateen-cni", "lateen-cni"], Some(&["ptp", "lateen-cni"])),
        ] {
            assert_eq!(with(&list(before), &entry), after.map(list), "{before:?}");
        }
        // Of another version of ours.
        let newer = json!({"type": "lateen-cni", "socket": "/elsewhere"});
        let updated = with(&list(&["ptp", "lateen-cni"]), &newer).expect("it differs");
        assert_eq!(updated["plugins"], json!([{"type": "ptp"}, newer]));
        assert_eq!(with(&json!({"type": "ptp"}), &entry), None);
    }

    #[test]
    fn it_goes_without_a_trace() {
        assert_eq!(without(&list(&["ptp", "lateen-cni", "portmap"])), Some(list(&["ptp", "portmap"])));
        assert_eq!(without(&list(&["ptp"])), None);
        assert_eq!(without(&json!([])), None);
    }

    #[test]
    fn what_a_runtime_takes_for_a_network() {
        for (text, expected) in [
            (list(&["ptp"]).to_string(), true),
            (json!({"type": "ptp"}).to_string(), true),
            (list(&[]).to_string(), false),
            (json!({"type": 1}).to_string(), false),
            ("not json".to_owned(), false),
        ] {
            assert_eq!(is_network(&text), expected, "{text}");
        }
    }
}
