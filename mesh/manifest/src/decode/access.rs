//! The inside of lists, objects and enums: one step down, the path and the enclosing structs extended.

use std::slice;

use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::{De, Error, MAX_PROBLEMS, Problem, hint, hint::Scope, key_deserializer};
use crate::node::{Entry, Node, Path};

/// A list being read.
pub(super) struct Items<'a> {
    list: De<'a>,
    items: std::iter::Enumerate<slice::Iter<'a, Node>>,
}

impl<'a> Items<'a> {
    pub(super) fn new(list: De<'a>, items: &'a [Node]) -> Self {
        Self { list, items: items.iter().enumerate() }
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        for (index, node) in self.items.by_ref() {
            if self.list.context.is_left_out(node) {
                continue;
            }
            let path = Path::Index(self.list.path, index);
            let item = De { node, key_at: node.at, path: &path, ..self.list };
            return seed.deserialize(item).map(Some).map_err(|error| item.placed(error));
        }
        Ok(None)
    }
}

/// An object being read: a struct, whose fields are known, or a map.
pub(super) struct Fields<'a> {
    object: De<'a>,
    all: &'a [Entry],
    rest: slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
    known: Option<&'static [&'static str]>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(object: De<'a>, all: &'a [Entry], known: Option<&'static [&'static str]>) -> Self {
        Self { object, all, rest: all.iter(), current: None, known }
    }

    /// Notes a field that the struct does not have; the value is not looked at.
    fn unknown(&self, entry: &Entry, known: &'static [&'static str]) {
        let mut noted = self.object.context.unknown.borrow_mut();
        if noted.len() >= MAX_PROBLEMS {
            return;
        }
        let path = Path::Key(self.object.path, &entry.key);
        let problem = Problem {
            at: entry.at,
            field: path.to_string(),
            message: format!("unknown field `{}`", entry.key),
            fix: hint::for_unknown(entry, self.all, known, self.object.scope),
            is_unknown_field: true,
        };
        noted.push(problem);
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some(entry) = self.rest.next() {
            if self.object.context.is_left_out(&entry.node) {
                continue;
            }
            if let Some(known) = self.known
                && !known.contains(&entry.key.as_str())
            {
                self.unknown(entry, known);
                continue;
            }
            self.current = Some(entry);
            return seed.deserialize(key_deserializer(&entry.key)).map(Some).map_err(|mut error| {
                error.problem.get_or_insert_with(|| {
                    Box::new(Problem {
                        at: entry.at,
                        field: Path::Key(self.object.path, &entry.key).to_string(),
                        message: std::mem::take(&mut error.message),
                        fix: None,
                        is_unknown_field: false,
                    })
                });
                error.culprit = Some(&entry.node);
                error
            });
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.current.take() else {
            return Err(self.object.error("a value without a key".to_owned(), None));
        };
        let path = Path::Key(self.object.path, &entry.key);
        let scope = Scope { parent: self.object.scope, object: &self.object, known: self.known };
        let value =
            De { node: &entry.node, key_at: entry.at, path: &path, scope: Some(&scope), ..self.object };
        seed.deserialize(value).map_err(|error| value.placed(error))
    }
}

/// A plain word that names a variant.
pub(super) struct Variant<'a>(pub(super) &'a str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(key_deserializer(self.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Error> {
        Err(only_words())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Error> {
        Err(only_words())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        Err(only_words())
    }
}

fn only_words() -> Error {
    serde::de::Error::custom("only a plain word can stand here")
}
