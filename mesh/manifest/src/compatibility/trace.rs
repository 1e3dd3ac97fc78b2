//! Which fields a type reads, found by reading it: a deserializer that offers every field of every struct and notes its
//! path. So the table can be held against the types themselves.

use std::{cell::RefCell, fmt, rc::Rc};

use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
        VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Value, json};

/// Every field that a `T` reads, by its path (`[]` for items, `{}` for values by key), with a value where it has no
/// fields of its own.
pub(super) fn fields<T: for<'de> Deserialize<'de>>() -> Vec<(String, Option<Value>)> {
    let log = Rc::default();
    T::deserialize(Trace { path: "spec".to_owned(), log: Rc::clone(&log) })
        .expect("every type takes its own samples");
    log.take()
}

type Log = Rc<RefCell<Vec<(String, Option<Value>)>>>;

struct Trace {
    path: String,
    log: Log,
}

#[derive(Debug)]
pub(super) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Trace {
    fn below(&self, step: &str) -> Self {
        Self { path: format!("{}{step}", self.path), log: Rc::clone(&self.log) }
    }

    /// Notes the value of what has no fields.
    fn leaf(&self, value: Value) {
        self.log.borrow_mut().push((self.path.clone(), Some(value)));
    }
}

impl<'de> Deserializer<'de> for Trace {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom(format!("{}: a type that this does not know", self.path)))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf(json!(true));
        visitor.visit_bool(true)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf(json!(1));
        visitor.visit_u32(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf(json!(1));
        visitor.visit_u64(1)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf(json!(1));
        visitor.visit_i32(1)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf(json!(1.0));
        visitor.visit_f64(1.0)
    }

    /// A text that is a length of time too.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf(json!("1s"));
        visitor.visit_str("1s")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Once(Some(self.below("[]"))))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { of: self.below("{}"), left: vec!["k"], keyed: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { of: self, left: fields.to_vec(), keyed: true })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let last = variants.last().expect("an enum has variants");
        self.leaf(json!(last));
        visitor.visit_enum(Word(last))
    }

    forward_to_deserialize_any! {
        i8 i16 i64 u8 u16 f32 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct identifier ignored_any
    }
}

struct Once(Option<Trace>);

impl<'de> SeqAccess<'de> for Once {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Entries {
    of: Trace,
    left: Vec<&'static str>,
    /// Whether keys are fields.
    keyed: bool,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(key) = self.left.first() else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = (*key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let key = self.left.remove(0);
        let value = if self.keyed { self.of.below(&format!(".{key}")) } else { self.of.below("") };
        if self.keyed {
            self.of.log.borrow_mut().push((value.path.clone(), None));
        }
        seed.deserialize(value)
    }
}

struct Word(&'static str);

impl<'de> EnumAccess<'de> for Word {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let word: StrDeserializer<'_, Error> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(Error::custom("no such enums here"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no such enums here"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no such enums here"))
    }
}
