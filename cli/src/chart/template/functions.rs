//! The functions that the charts use, as Go and helm have them.

use serde_json::Value;

use super::TemplateError;

/// Calls one.
pub(super) fn call(name: &str, given: &[Value]) -> Result<Value, TemplateError> {
    let wrong = |what: &str| Err(TemplateError::Evaluation(what.to_owned()));
    Ok(match (name, given) {
        ("default", [otherwise, value]) => if truth(value) { value } else { otherwise }.clone(),
        ("quote", [value]) => match value {
            Value::Null => Value::Null,
            // As JSON has it, which YAML and Go agree with.
            value => Value::from(text(value)).to_string().into(),
        },
        ("toString", [value]) => text(value).into(),
        // JSON is YAML, too.
        ("toJson" | "toYaml", [value]) => value.to_string().into(),
        ("indent", [Value::Number(by), value]) => indented(by, value).into(),
        ("nindent", [Value::Number(by), value]) => format!("\n{}", indented(by, value)).into(),
        ("join", [Value::String(between), Value::Array(list)]) => {
            list.iter().map(text).collect::<Vec<_>>().join(between).into()
        }
        ("join", [Value::String(_), Value::Null]) => "".into(),
        ("lower", [value]) => text(value).to_lowercase().into(),
        ("trim", [value]) => text(value).trim().into(),
        ("b64enc", [Value::String(_)]) => return wrong("b64enc is not there: give Secrets stringData"),
        ("printf", [Value::String(format), rest @ ..]) => printf(format, rest)?.into(),
        ("list", list) => list.to_vec().into(),
        ("len", [Value::Array(list)]) => list.len().into(),
        ("len", [Value::Object(map)]) => map.len().into(),
        ("len", [Value::String(text)]) => text.len().into(),
        ("not", [value]) => (!truth(value)).into(),
        ("and", [first, rest @ ..]) => rest.iter().fold(first, |a, b| if truth(a) { b } else { a }).clone(),
        ("or", [first, rest @ ..]) => rest.iter().fold(first, |a, b| if truth(a) { a } else { b }).clone(),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => rest.iter().any(|one| one == first).into(),
        ("ne", [a, b]) => (a != b).into(),
        ("gt", [Value::Number(a), Value::Number(b)]) => (a.as_f64() > b.as_f64()).into(),
        ("lt", [Value::Number(a), Value::Number(b)]) => (a.as_f64() < b.as_f64()).into(),
        ("int", [Value::Number(number)]) => number.clone().into(),
        ("fail", [value]) => return wrong(&text(value)),
        ("required", [message, value]) => match value {
            Value::Null => return wrong(&text(message)),
            Value::String(empty) if empty.is_empty() => return wrong(&text(message)),
            value => value.clone(),
        },
        ("hasKey", [Value::Object(map), Value::String(key)]) => map.contains_key(key).into(),
        (name, given) => {
            return wrong(&format!(
                "{name} of {} values is not a function that `lateen install` has",
                given.len()
            ));
        }
    })
}

/// As Go's templates see it: nothing, zero and what is empty are false.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As it is written into the output.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn indented(by: &serde_json::Number, value: &Value) -> String {
    let by = " ".repeat(usize::try_from(by.as_u64().unwrap_or(0)).unwrap_or(0));
    text(value).split('\n').map(|line| format!("{by}{line}")).collect::<Vec<_>>().join("\n")
}

/// `%s`, `%d`, `%v` and `%q`.
fn printf(format: &str, given: &[Value]) -> Result<String, TemplateError> {
    let mut given = given.iter();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let missing = || TemplateError::Evaluation(format!("printf {format:?} is given too little"));
        match chars.next() {
            Some('%') => out.push('%'),
            Some('s' | 'd' | 'v') => out.push_str(&text(given.next().ok_or_else(missing)?)),
            Some('q') => {
                out.push_str(&Value::from(text(given.next().ok_or_else(missing)?)).to_string());
            }
            other => {
                return Err(TemplateError::Evaluation(format!(
                    "printf of {format:?}: %{other:?} is not there"
                )));
            }
        }
    }
    Ok(out)
}
