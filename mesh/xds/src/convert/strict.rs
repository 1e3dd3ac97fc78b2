//! Looks for what a decoder would silently skip: fields of a message that this version does not know. Where a
//! message restricts who may pass, ignoring such a field would let more pass than its author meant.

use super::{FieldError, Reason};

/// What a message may contain.
#[derive(Debug)]
pub(super) struct Schema {
    /// Fields by number.
    pub(super) fields: &'static [(u32, &'static str, Kind)],
    /// What it means if there is another one.
    pub(super) others: Others,
    /// Whether the fields exclude one another. A decoder takes the last, another reader might take the first.
    pub(super) exclusive: bool,
}

/// What is to be done about a field that is not in the schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// It says nothing that matters here.
    Ignore,
    /// The message is refused.
    Refuse,
}

/// What a field contains.
#[derive(Debug)]
pub(super) enum Kind {
    /// A number, or several, packed or not.
    Number,
    /// Bytes, text, or a message that is read elsewhere.
    Bytes,
    /// A message to look into.
    Message(&'static Schema),
}

/// Wire types of the encoding.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

/// Checks an encoded message and all in it against a schema.
pub(super) fn check(mut bytes: &[u8], schema: &Schema) -> Result<(), FieldError> {
    let mut seen = 0_usize;
    let mut counts: Vec<usize> = vec![0; schema.fields.len()];
    while !bytes.is_empty() {
        let (number, wire_type) = tag(&mut bytes)?;
        let content = content(&mut bytes, wire_type)?;
        seen += 1;
        let Some(place) = schema.fields.iter().position(|(known, ..)| *known == number) else {
            if schema.others == Others::Refuse {
                return Err(FieldError::new("", Reason::UnknownField(number)));
            }
            continue;
        };
        let (_, name, kind) = &schema.fields[place];
        let index = counts[place];
        counts[place] += 1;
        match (kind, content) {
            (Kind::Message(inner), Some(content)) => {
                check(content, inner).map_err(|error| locate(error, name, index))?;
            }
            (Kind::Number, _) | (Kind::Bytes, Some(_)) => {}
            (Kind::Message(_) | Kind::Bytes, None) => return Err(malformed("a number where there is none")),
        }
    }
    if schema.exclusive && seen != 1 {
        return Err(FieldError::new("", Reason::Malformed(format!("{seen} conditions where there is one"))));
    }
    Ok(())
}

fn locate(error: FieldError, name: &str, index: usize) -> FieldError {
    let here = format!("{name}[{index}]");
    let field = if error.field.is_empty() { here } else { format!("{here}.{}", error.field) };
    FieldError::new(field, error.reason)
}

fn malformed(what: &str) -> FieldError {
    FieldError::new("", Reason::Malformed(format!("not a message: {what}")))
}

fn tag(bytes: &mut &[u8]) -> Result<(u32, u8), FieldError> {
    let tag = varint(bytes)?;
    let number = u32::try_from(tag >> 3).map_err(|_| malformed("a field number out of range"))?;
    if number == 0 {
        return Err(malformed("field number 0"));
    }
    Ok((number, (tag & 7) as u8))
}

/// The content of a length-delimited field; nothing for a number. Groups, which nobody sends, are refused.
fn content<'a>(bytes: &mut &'a [u8], wire_type: u8) -> Result<Option<&'a [u8]>, FieldError> {
    match wire_type {
        VARINT => varint(bytes).map(|_| None),
        FIXED64 => take(bytes, 8).map(|_| None),
        FIXED32 => take(bytes, 4).map(|_| None),
        LENGTH_DELIMITED => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| malformed("a length out of range"))?;
            take(bytes, length).map(Some)
        }
        _ => Err(malformed("an unknown wire type")),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], FieldError> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or_else(|| malformed("it ends in a field"))?;
    *bytes = rest;
    Ok(taken)
}

/// At most ten bytes of seven bits each; what does not fit 64 bits is refused.
fn varint(bytes: &mut &[u8]) -> Result<u64, FieldError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed("a number out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: Schema = Schema {
        fields: &[(1, "text", Kind::Bytes), (2, "other", Kind::Bytes)],
        others: Others::Refuse,
        exclusive: true,
    };
    const OUTER: Schema = Schema {
        fields: &[(1, "inner", Kind::Message(&INNER)), (2, "numbers", Kind::Number)],
        others: Others::Refuse,
        exclusive: false,
    };
    const LENIENT: Schema =
        Schema { fields: &[(5, "outer", Kind::Message(&OUTER))], others: Others::Ignore, exclusive: false };

    #[test]
    fn finds_what_is_not_known() {
        /// Where something is wrong, and which field is not known, if that is it.
        type Found = Result<(), (String, Option<u32>)>;
        let unknown = |field: &'static str, number| Err((field.to_owned(), Some(number)));
        let wrong = |field: &'static str| Err((field.to_owned(), None));
        #[rustfmt::skip]
        let cases: [(&Schema, &[u8], Found); 19] = [
            (&OUTER, &[], Ok(())),
            // inner { text: "a" }
            (&OUTER, &[0x0a, 3, 0x0a, 1, b'a'], Ok(())),
            // inner {}: one condition is due
            (&OUTER, &[0x0a, 0], wrong("inner[0]")),
            // inner { text: "a" other: "b" }
            (&OUTER, &[0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'], wrong("inner[0]")),
            // numbers, packed and not
            (&OUTER, &[0x12, 2, 1, 2], Ok(())),
            (&OUTER, &[0x10, 7], Ok(())),
            // field 3, as each wire type
            (&OUTER, &[0x18, 1], unknown("", 3)),
            (&OUTER, &[0x1a, 0], unknown("", 3)),
            (&OUTER, &[0x19, 0, 0, 0, 0, 0, 0, 0, 0], unknown("", 3)),
            (&OUTER, &[0x1d, 0, 0, 0, 0], unknown("", 3)),
            // a group
            (&OUTER, &[0x1b, 0x1c], wrong("")),
            // the second inner has field 9
            (&OUTER, &[0x0a, 3, 0x0a, 1, b'a', 0x0a, 2, 0x48, 1], unknown("inner[1]", 9)),
            // a field number of 29 bits and one out of range
            (&OUTER, &[0xf8, 0xff, 0xff, 0xff, 0x0f, 1], unknown("", 0x1fff_ffff)),
            (&OUTER, &[0x00, 0], wrong("")),
            // truncated
            (&OUTER, &[0x0a, 200], wrong("")),
            (&OUTER, &[0x80], wrong("")),
            // where the rest is ignored, what is known is still looked into
            (&LENIENT, &[0x08, 1, 0x2a, 2, 0x18, 1], unknown("outer[0]", 3)),
            (&LENIENT, &[0x08, 1, 0x12, 1, b'x', 0x2a, 0], Ok(())),
            (&LENIENT, &[0x28, 1], wrong("")),
        ];
        for (schema, bytes, expected) in cases {
            let found = check(bytes, schema).map_err(|error| match error.reason {
                Reason::UnknownField(number) => (error.field.into_owned(), Some(number)),
                _ => (error.field.into_owned(), None),
            });
            assert_eq!(found, expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn numbers_have_at_most_64_bits() {
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(varint(&mut &max[..]), Ok(u64::MAX));
        let more = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(varint(&mut &more[..]).is_err());
        assert!(varint(&mut &[0x80; 11][..]).is_err());
    }
}
