//! Fields that are known and not supported: refused by their name, by the one table of `compatibility`.

use super::Report;
use crate::{
    compatibility::{Message, Of, Support},
    cursor::Cursor,
    node::Value,
};

/// Every field that the table refuses is an error, and one that has no effect a warning.
pub(super) fn check(at: &Cursor<'_>, message: &'static Message, report: &mut Report<'_>) {
    if let Value::List(_) = at.node.value {
        return at.own_items().iter().for_each(|item| check(item, message, report));
    }
    let fields = at.fields().filter(|(_, value)| !value.node.is_null());
    for (field, value) in fields.filter_map(|(key, value)| Some((message.field(key)?, value))) {
        let name = field.name;
        let fix = Some(format!("leave `{name}` out"));
        match (field.support, field.of) {
            (Support::Supported, Of::Value) | (Support::Unseen, _) => {}
            (Support::Supported, Of::Object(inner)) => check(&value, inner, report),
            (Support::Supported, Of::Map(inner)) => {
                value.fields().for_each(|(_, value)| check(&value, inner, report));
            }
            (Support::Noted, _) => {
                report.warning_at_key(&value, format!("`{name}` has no effect: {}", field.note), None);
            }
            (Support::Planned, _) => {
                report.error_at_key(&value, format!("`{name}` is not supported yet: {}", field.note), fix);
            }
            (Support::Refused, _) => {
                report.error_at_key(&value, format!("`{name}` is not supported: {}", field.note), fix);
            }
        }
    }
}
