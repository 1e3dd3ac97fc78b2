//! The fields of a CONNECT and of its answer: a small ordered list, bytes as they came.

use std::fmt;

/// Ordered header fields, names in lower case. Pseudo fields (`:authority`, `:status`) are not among them.
///
/// All text lies in one buffer: a CONNECT carries three or four fields, and one allocation serves them all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<(u32, u32)>,
}

impl Headers {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a field; `name` must be in lower case already (HTTP/2 demands it on the wire).
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name_end = self.text.len() + name.as_ref().len();
        self.text.extend_from_slice(name.as_ref());
        self.text.extend_from_slice(value.as_ref());
        self.fields.push((name_end as u32, self.text.len() as u32));
    }

    /// The same, chained.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.push(name, value);
        self
    }

    /// All fields in order, repeated ones as often as they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0usize;
        self.fields.iter().map(move |&(name_end, value_end)| {
            let (name_end, value_end) = (name_end as usize, value_end as usize);
            let field = (&self.text[start..name_end], &self.text[name_end..value_end]);
            start = value_end;
            field
        })
    }

    /// Every value of `name`, in order: match each, never join them.
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.iter().filter(move |(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// The first value of `name`.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// The first value of `name`, if it is valid UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |bytes| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map().entries(self.iter().map(|(name, value)| (show(name), show(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_fields_stay_apart() {
        let headers = Headers::new().with("baggage", "a=1").with("x", "").with("baggage", "b=2");
        assert_eq!(headers.all("baggage").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(headers.text("x"), Some(""));
        assert_eq!(headers.first("y"), None);
        assert_eq!(headers.len(), 3);
    }
}
