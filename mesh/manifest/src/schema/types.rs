//! The schema of a type, found by reading it: a deserializer that offers a value of whatever is asked for, and notes what
//! that was. So the definitions that an API server checks objects by cannot differ from the types that read them.

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

use super::rules;

/// The structural schema of a `T`.
pub(crate) fn schema<T: for<'de> Deserialize<'de>>() -> Value {
    let noted = Noted::default();
    T::deserialize(Asked(noted.clone())).expect("every type takes its own samples");
    noted.take()
}

type Noted = Rc<RefCell<Value>>;

/// A value that is being asked for.
struct Asked(Noted);

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

/// What a visitor says that it wants.
struct Wanted<'a, V>(&'a V);

impl<'de, V: Visitor<'de>> fmt::Display for Wanted<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

impl<'de> Deserializer<'de> for Asked {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("a type that this does not know"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.0.borrow_mut() = json!({"type": "boolean"});
        visitor.visit_bool(true)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.0.borrow_mut() = json!({"type": "integer", "minimum": 0, "maximum": u32::MAX});
        visitor.visit_u32(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.0.borrow_mut() = json!({"type": "integer", "minimum": 0});
        visitor.visit_u64(1)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.0.borrow_mut() = json!({"type": "integer", "format": "int32"});
        visitor.visit_i32(1)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.0.borrow_mut() = json!({"type": "number", "format": "double"});
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut schema = json!({"type": "string"});
        if Wanted(&visitor).to_string().starts_with("a length of time") {
            rules::merge(&mut schema, &rules::duration());
        }
        *self.0.borrow_mut() = schema;
        visitor.visit_str("1s")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let item = Noted::default();
        let read = visitor.visit_seq(Once(Some(Self(item.clone()))))?;
        *self.0.borrow_mut() = json!({"type": "array", "items": item.take()});
        Ok(read)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let fields = Rc::default();
        // A key that is a port number too.
        let read = visitor.visit_map(Fields { left: vec!["1"], noted: Rc::clone(&fields) })?;
        let values = fields.take().into_iter().map(|(_, value)| value).next();
        *self.0.borrow_mut() = json!({"type": "object", "additionalProperties": values});
        Ok(read)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let noted = Rc::default();
        let read = visitor.visit_map(Fields { left: fields.to_vec(), noted: Rc::clone(&noted) })?;
        let properties: serde_json::Map<String, Value> = noted.take().into_iter().collect();
        let mut schema = json!({"type": "object", "properties": properties});
        rules::refine(name, &mut schema);
        *self.0.borrow_mut() = schema;
        Ok(read)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0.borrow_mut() = json!({"type": "string", "enum": variants});
        visitor.visit_enum(Word(variants.first().expect("an enum has variants")))
    }

    forward_to_deserialize_any! {
        i8 i16 i64 u8 u16 f32 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct identifier ignored_any
    }
}

struct Once(Option<Asked>);

impl<'de> SeqAccess<'de> for Once {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|item| seed.deserialize(item)).transpose()
    }
}

/// The keys that are still to be offered, and the schemas of those that were.
struct Fields {
    left: Vec<&'static str>,
    noted: Rc<RefCell<Vec<(String, Value)>>>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(key) = self.left.first() else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = (*key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let key = self.left.remove(0);
        let value = Noted::default();
        let read = seed.deserialize(Asked(value.clone()))?;
        self.noted.borrow_mut().push((key.to_owned(), value.take()));
        Ok(read)
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
