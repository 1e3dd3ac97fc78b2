//! Trees to types: a serde deserializer over [`Node`] that knows, at each step, where it stands and which
//! fields the struct being read has. Hence every unknown field and every wrong type is reported with its
//! place, its path and a fix, for our own types and for Kubernetes' alike, and not only the first of them.

mod access;
mod hint;

use std::cell::RefCell;

use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};

use crate::{
    node::{Node, Path, Value},
    position::Mark,
    scalar::Scalar,
    suggest::nearest,
};
use access::{Fields, Items, Variant};
use hint::Scope;

/// How many problems of one object are looked for.
const MAX_PROBLEMS: usize = 30;

/// Something in which a document does not fit its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) at: Mark,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) fix: Option<String>,
    /// A field that the type does not have; everything else is a wrong type.
    pub(crate) is_unknown_field: bool,
}

/// Reads `root` as a `T`. The value is there unless a type was wrong; unknown fields alone leave it readable.
///
/// serde stops at the first wrong type. To find the others too, the value at fault is left out and the
/// document read again, until it fits or cannot be read even so.
pub(crate) fn decode<T: DeserializeOwned>(root: &Node) -> (Option<T>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut left_out = Vec::new();
    loop {
        let context = Context { left_out, unknown: RefCell::default() };
        let path = Path::Root;
        let de = De { node: root, key_at: root.at, path: &path, scope: None, context: &context };
        let outcome = T::deserialize(de);
        let Context { left_out: skipped, unknown } = context;
        left_out = skipped;
        match outcome {
            Ok(value) => {
                let sound = left_out.is_empty();
                problems.extend(unknown.into_inner());
                problems.sort_by_key(|problem| problem.at);
                return (sound.then_some(value), problems);
            }
            Err(error) => {
                problems.extend(error.problem.map(|problem| *problem));
                match error.culprit {
                    Some(node) if problems.len() < MAX_PROBLEMS => left_out.push(node),
                    _ => {
                        problems.extend(unknown.into_inner());
                        problems.sort_by_key(|problem| problem.at);
                        return (None, problems);
                    }
                }
            }
        }
    }
}

/// What all steps of one reading share.
struct Context {
    /// Values that were of a wrong type in an earlier reading, by address: treated as if not there.
    left_out: Vec<*const Node>,
    unknown: RefCell<Vec<Problem>>,
}

impl Context {
    fn is_left_out(&self, node: &Node) -> bool {
        self.left_out.iter().any(|other| std::ptr::eq(*other, node))
    }
}

/// One value on its way into a type.
#[derive(Clone, Copy)]
struct De<'a> {
    node: &'a Node,
    /// Where the key stands whose value this is: the place to point at when the value is empty.
    key_at: Mark,
    path: &'a Path<'a>,
    scope: Option<&'a Scope<'a>>,
    context: &'a Context,
}

impl De<'_> {
    fn at(&self) -> Mark {
        if self.node.is_null() { self.key_at } else { self.node.at }
    }

    /// This value is not what is wanted here.
    fn mismatch(&self, wanted: &str, fix: Option<String>) -> Error {
        let message = match self.node.is_null() {
            true => format!("nothing here, where {wanted} is wanted"),
            false => format!("{} here, where {wanted} is wanted", self.node.kind()),
        };
        self.error(message, fix)
    }

    fn error(&self, message: String, fix: Option<String>) -> Error {
        let problem =
            Problem { at: self.at(), field: self.path.to_string(), message, fix, is_unknown_field: false };
        Error { problem: Some(Box::new(problem)), message: String::new(), culprit: Some(self.node) }
    }

    /// An error that a type's own code raised gets the place of the value it was raised for.
    fn placed(&self, error: Error) -> Error {
        match error.problem {
            Some(_) => error,
            None => self.error(error.message, None),
        }
    }

    /// The text of a scalar as it was written, to be offered in quotes.
    fn quoted(&self) -> Option<String> {
        match &self.node.value {
            Value::Scalar(Scalar::Null | Scalar::Text, _) => None,
            Value::Scalar(_, text) => Some(format!("quote it: \"{text}\"")),
            _ => None,
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V, wanted: &str) -> Result<V::Value, Error> {
        let outcome = match &self.node.value {
            Value::Scalar(Scalar::Int(value), _) => visitor.visit_i64(*value),
            Value::Scalar(Scalar::Unsigned(value), _) => visitor.visit_u64(*value),
            Value::Scalar(Scalar::Float(value), _) => visitor.visit_f64(*value),
            Value::Scalar(Scalar::Text, text) if text.parse::<f64>().is_ok() => {
                return Err(self.mismatch(wanted, Some(format!("write it without quotes: {text}"))));
            }
            _ => return Err(self.mismatch(wanted, None)),
        };
        outcome.map_err(|error| self.placed(error))
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(Scalar::Float(_), _) => Err(self.mismatch("an integer", None)),
            _ => self.number(visitor, "an integer"),
        }
    }

    fn string<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(Scalar::Text, text) => visitor.visit_str(text).map_err(|error| self.placed(error)),
            _ => Err(self.mismatch("a string", self.quoted())),
        }
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(items) => {
                visitor.visit_seq(Items::new(self, items)).map_err(|error| self.placed(error))
            }
            Value::Map(_) => {
                Err(self.mismatch("a list", Some("begin each item of the list with `- `".to_owned())))
            }
            Value::Scalar(Scalar::Null, _) => Err(self.mismatch("a list", None)),
            Value::Scalar(_, text) => {
                Err(self.mismatch("a list", Some(format!("write it as a list: [\"{text}\"]"))))
            }
        }
    }

    fn object<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        known: Option<&'static [&'static str]>,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(entries) => {
                visitor.visit_map(Fields::new(self, entries, known)).map_err(|error| self.placed(error))
            }
            Value::List(_) => {
                Err(self.mismatch("an object", Some("write its fields without the leading `- `".to_owned())))
            }
            Value::Scalar(..) => Err(self.mismatch("an object", hint::for_scalar(self, known))),
        }
    }
}

/// What went wrong, and which value to leave out when looking for more.
#[derive(Debug)]
struct Error {
    problem: Option<Box<Problem>>,
    /// What a type's own code said, until the place is added.
    message: String,
    culprit: Option<*const Node>,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.problem.as_ref().map_or(&self.message, |problem| &problem.message))
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self { problem: None, message: message.to_string(), culprit: None }
    }
}

impl<'de> Deserializer<'de> for De<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let outcome = match &self.node.value {
            Value::Scalar(Scalar::Null, _) => visitor.visit_unit(),
            Value::Scalar(Scalar::Bool(value), _) => visitor.visit_bool(*value),
            Value::Scalar(Scalar::Text, text) => visitor.visit_str(text),
            Value::Scalar(..) => return self.number(visitor, "a number"),
            Value::List(_) => return self.list(visitor),
            Value::Map(_) => return self.object(visitor, None),
        };
        outcome.map_err(|error| self.placed(error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let outcome = if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) };
        outcome.map_err(|error| self.placed(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(Scalar::Bool(value), _) => visitor.visit_bool(*value),
            Value::Scalar(Scalar::Text, text) if matches!(text.as_str(), "true" | "false") => {
                Err(self.mismatch("a boolean", Some(format!("write it without quotes: {text}"))))
            }
            _ => Err(self.mismatch("a boolean", None)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some(text) = self.node.text() else {
            return Err(self.mismatch(&format!("one of {}", variants.join(", ")), self.quoted()));
        };
        if !variants.contains(&text) {
            let fix = nearest(text, variants.iter().copied()).map(|word| format!("did you mean `{word}`?"));
            return Err(self.error(format!("`{text}` is not one of {}", variants.join(", ")), fix));
        }
        visitor.visit_enum(Variant(text)).map_err(|error| self.placed(error))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self).map_err(|error| self.placed(error))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.object(visitor, Some(fields))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.object(visitor, None)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor, "a number")
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor, "a number")
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.string(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.string(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.string(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.string(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit().map_err(|error| self.placed(error))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }
}

/// Keys are read as strings.
fn key_deserializer(key: &str) -> serde::de::value::StrDeserializer<'_, Error> {
    key.into_deserializer()
}
