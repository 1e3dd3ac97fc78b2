//! Which fields of Istio's kinds are supported: the one table from which fields are refused by their name and
//! `docs/compatibility.md` is made. What is supported names the tests that hold it, and these must exist.

#[cfg(test)]
mod authorization_policy;
mod destination_rule;
#[cfg(test)]
mod health_check;
mod virtual_service;

#[cfg(test)]
mod page;
#[cfg(test)]
mod trace;

pub(crate) use destination_rule::DESTINATION_RULE;
pub(crate) use virtual_service::VIRTUAL_SERVICE;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// It does what Istio's documentation says, or what the note says.
    Supported,
    /// It is accepted and has no effect, which is said in a warning.
    Noted,
    /// It is accepted, and nobody can tell what it says: what it is in never lets through, and refuses what the rest of it
    /// matches.
    #[cfg_attr(not(test), expect(dead_code, reason = "of a kind of which only the page is made"))]
    Unseen,
    /// An object with it is refused; it will be supported.
    Planned,
    /// An object with it is refused.
    Refused,
}

/// A test: its file, from the root of the repository, and its name.
pub(crate) type Test = (&'static str, &'static str);

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// As written in a manifest.
    pub(crate) name: &'static str,
    /// What becomes of it.
    pub(crate) support: Support,
    /// In which way it is supported, or why it is not.
    pub(crate) note: &'static str,
    /// The tests that hold it; of what is not supported, one test does for all.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the page and for who looks whether the tests are there")
    )]
    pub(crate) held: &'static [Test],
    /// What its value consists of.
    pub(crate) of: Of,
}

/// What a value consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// Nothing that has fields of its own.
    Value,
    /// An object, or a list of objects.
    Object(&'static Message),
    /// Objects by a key that anybody chooses.
    Map(&'static Message),
}

/// An object of a kind, with all fields that Istio's API has.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its name in Istio's API.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the page"))]
    pub(crate) name: &'static str,
    /// Its fields.
    pub(crate) fields: &'static [Field],
}

impl Message {
    /// A field by its name.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    /// The same, whose value is an object or a list of objects.
    const fn of(self, message: &'static Message) -> Self {
        Self { of: Of::Object(message), ..self }
    }

    /// The same, whose value is objects by key.
    const fn map(self, message: &'static Message) -> Self {
        Self { of: Of::Map(message), ..self }
    }

    /// The same, with something to know about it.
    const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }
}

const fn field(name: &'static str, support: Support, note: &'static str, held: &'static [Test]) -> Field {
    Field { name, support, note, held, of: Of::Value }
}

/// A field that is supported.
const fn yes(name: &'static str, held: &'static [Test]) -> Field {
    field(name, Support::Supported, "", held)
}

/// A field that has no effect.
const fn noted(name: &'static str, why: &'static str) -> Field {
    field(name, Support::Noted, why, &[])
}

/// A field of which nobody can tell what it says.
#[cfg(test)]
const fn unseen(name: &'static str, why: &'static str, held: &'static [Test]) -> Field {
    field(name, Support::Unseen, why, held)
}

/// A field that is refused.
const fn refused(name: &'static str, why: &'static str) -> Field {
    field(name, Support::Refused, why, &[])
}

/// A field that is refused for now.
const fn planned(name: &'static str, why: &'static str) -> Field {
    field(name, Support::Planned, why, &[])
}

#[cfg(test)]
mod tests;
