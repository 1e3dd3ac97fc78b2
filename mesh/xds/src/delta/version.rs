//! The version of a resource: a hash of its content.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Equal versions of a resource have equal contents. 64 bits of SHA-256, written as 16 hexadecimal digits: a
/// version is only ever compared with another one of the same resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

/// Not a version of ours; another controller may write them as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAVersion;

impl Version {
    /// The version of a content that consists of several parts.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // With the lengths, the parts can only be put together in one way.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut first = [0_u8; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !digits {
            return Err(NotAVersion);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAVersion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_the_content_alone() {
        let parts = |parts: &[&'static str]| Version::of(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(parts(&["ab", "c"]), parts(&["ab", "c"]));
        assert_ne!(parts(&["ab", "c"]), parts(&["a", "bc"]));
        assert_ne!(parts(&["ab", ""]), parts(&["ab"]));
    }

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let version = Version::of([b"content".as_slice()]);
        assert_eq!(version.to_string().parse(), Ok(version));
        for text in ["", "1", "+00000000000000a", "ABCDEF0123456789", "00000000000000000"] {
            assert_eq!(text.parse::<Version>(), Err(NotAVersion), "{text:?}");
        }
    }
}
