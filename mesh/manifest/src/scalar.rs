//! What a plain scalar means. Kubernetes reads YAML as Go's YAML 1.1 reader does, so `yes`, `on`, `0644` and
//! `1_000` are not strings there; a manifest has to mean the same here, or be refused in the same place.

/// What a scalar stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// `~`, `null` or nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number that fits 64 bits, signed.
    Int(i64),
    /// A whole number above `i64::MAX`.
    Unsigned(u64),
    /// Any other finite number.
    Float(f64),
    /// Text, quoted or not like anything else.
    Text,
}

/// What the unquoted `text` stands for.
pub(crate) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Scalar::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        _ => number(text).unwrap_or(Scalar::Text),
    }
}

fn number(text: &str) -> Option<Scalar> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| float(&plain))
}

fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    match (negative, i64::try_from(value)) {
        (false, Ok(value)) => Some(Scalar::Int(value)),
        (false, Err(_)) => Some(Scalar::Unsigned(value)),
        (true, Ok(value)) => Some(Scalar::Int(-value)),
        (true, Err(_)) => None,
    }
}

/// Decimal fractions and exponents; not the `inf`, `nan` and `infinity` that Rust would also read, since JSON
/// has no way to say them.
fn float(text: &str) -> Option<Scalar> {
    let shaped = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && text.bytes().any(|b| b.is_ascii_digit());
    let value: f64 = if shaped { text.parse().ok()? } else { return None };
    value.is_finite().then_some(Scalar::Float(value))
}

#[cfg(test)]
mod tests {
    use super::{Scalar, resolve};

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubernetes() {
        for (text, expected) in [
            ("", Scalar::Null),
            ("null", Scalar::Null),
            ("nulled", Scalar::Text),
            ("on", Scalar::Bool(true)),
            ("No", Scalar::Bool(false)),
            ("y", Scalar::Text),
            ("8080", Scalar::Int(8080)),
            ("-1", Scalar::Int(-1)),
            ("0644", Scalar::Int(0o644)),
            ("0o644", Scalar::Int(0o644)),
            ("0x1F", Scalar::Int(31)),
            ("1_000", Scalar::Int(1000)),
            ("18446744073709551615", Scalar::Unsigned(u64::MAX)),
            ("0.5", Scalar::Float(0.5)),
            (".5", Scalar::Float(0.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("-", Scalar::Text),
            ("+-1", Scalar::Text),
            ("1.2.3", Scalar::Text),
            ("10.0.0.1", Scalar::Text),
            ("10.0.0.0/8", Scalar::Text),
            ("nan", Scalar::Text),
            (".inf", Scalar::Text),
            ("08", Scalar::Float(8.0)),
            ("v1", Scalar::Text),
            ("100m", Scalar::Text),
        ] {
            assert_eq!(resolve(text), expected, "{text:?}");
        }
    }
}
