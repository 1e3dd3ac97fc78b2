//! Values of flags that have a form of their own.

/// A setting of a component, from the command line of `up`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Setting {
    pub(crate) component: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Components whose settings can be given.
const COMPONENTS: [&str; 3] = ["ctrl", "node-agent", "waypoint"];

/// `COMPONENT.NAME=VALUE`.
pub(crate) fn setting(text: &str) -> Result<Setting, String> {
    let parts = text.split_once('.').and_then(|(component, rest)| {
        let (name, value) = rest.split_once('=')?;
        Some((component, name, value))
    });
    let named = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    match parts.filter(|(component, name, _)| COMPONENTS.contains(component) && named(name)) {
        Some((component, name, value)) => {
            Ok(Setting { component: component.into(), name: name.into(), value: value.into() })
        }
        None => Err(format!("expected COMPONENT.NAME=VALUE, COMPONENT one of {}", COMPONENTS.join(", "))),
    }
}

/// A span of time as people write it, in seconds: `90s`, `5m`, `2h`.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no span of time: write 90s, 5m or 2h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_have_a_unit() {
        for (text, expected) in
            [("90s", Some(90)), ("5m", Some(300)), ("2h", Some(7200)), ("5", None), ("", None), ("m", None)]
        {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
    }
}
