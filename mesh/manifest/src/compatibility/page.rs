//! `docs/compatibility.md`, made of the table.

use std::fmt::Write as _;

use super::authorization_policy::AUTHORIZATION_POLICY;
use super::health_check::HEALTH_CHECK;
use super::{DESTINATION_RULE, Field, Message, Of, Support, VIRTUAL_SERVICE};

/// The kinds that speak of layer 7, and what is written beside their fields.
pub(super) const KINDS: [&Message; 4] =
    [&VIRTUAL_SERVICE, &DESTINATION_RULE, &HEALTH_CHECK, &AUTHORIZATION_POLICY];

const HEAD: &str = "# Compatibility

Which fields of Istio's API do what they say. Made of the table in `mesh/manifest/src/compatibility` by `make docs`; a test fails
when this page is older than the table, when a type has a field that the table does not, and when a test that is named here
does not exist.

- **supported**: as Istio documents it, or as noted. Named is a test that holds it.
- **no effect**: accepted, and a warning says so.
- **not seen**: accepted, and nobody can tell what it says: a rule with it never lets anything through, and one that refuses
  refuses what the rest of it matches.
- **planned**, **refused**: an object with this field is refused, with the field's name, in status and analysis.
";

/// The whole page.
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for kind in KINDS {
        let _ = writeln!(page, "\n## {}", kind.name);
        for message in messages(kind) {
            section(message, &mut page);
        }
    }
    page
}

/// A message and those in its fields, each once.
pub(super) fn messages(of: &'static Message) -> Vec<&'static Message> {
    let mut found = vec![of];
    let mut at = 0;
    while let Some(message) = found.get(at).copied() {
        for field in message.fields {
            if let Of::Object(inner) | Of::Map(inner) = field.of
                && !found.iter().any(|known| known.name == inner.name)
            {
                found.push(inner);
            }
        }
        at += 1;
    }
    found
}

fn section(message: &Message, page: &mut String) {
    let _ = write!(page, "\n### {}\n\n| Field | | Held by, or why not |\n|---|---|---|\n", message.name);
    for field in message.fields {
        let support = match field.support {
            Support::Supported => "supported",
            Support::Noted => "no effect",
            Support::Unseen => "not seen",
            Support::Planned => "planned",
            Support::Refused => "refused",
        };
        let _ = writeln!(page, "| `{}` | {support} | {} |", field.name, remark(field));
    }
}

fn remark(field: &Field) -> String {
    let held = field.held.iter().map(|(file, test)| format!("`{test}` ({file})"));
    let note = Some(field.note.to_owned()).filter(|note| !note.is_empty());
    note.into_iter().chain(held).collect::<Vec<_>>().join("; ")
}
