//! How a client of ours says briefly what it has: 256 hashes instead of every name with its version.
//!
//! The protocol has a client that comes back list all it has. For a hundred thousand resources that is ten megabytes,
//! from a thousand clients at once, to a controller that has just started. So, to a server that has shown itself to
//! be ours (by its [nonces](is_ours)), a client sends a hash for each of 256 buckets of names, as versions of
//! resources named `#00` to `#ff`. The server asks for the names of the buckets that differ, as removals of those
//! names, and the client lists them with its acknowledgement. A foreign server knows nothing of it: the client sees
//! that by its first nonce, and starts over with the whole list.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::version::Version;

/// What our nonces begin with.
const OURS: &str = "lateen/";
/// What they end with where more is to come.
const MORE: &str = "/more";
const BUCKETS: usize = 256;

/// Hashes of names and versions, by bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digests(Vec<Version>);

/// A nonce of ours. It also says whether the client lacks more of the type: what it has is then not yet what there is.
pub(super) fn nonce(number: u64, more: bool) -> String {
    format!("{OURS}{number}{}", if more { MORE } else { "" })
}

/// Whether a response with this nonce is followed by another one of the same type. Another's server does not say; it
/// sends everything at once.
pub(super) fn has_more(nonce: &str) -> bool {
    is_ours(nonce) && nonce.ends_with(MORE)
}

/// Whether a nonce is one of ours, and so the server.
pub(super) fn is_ours(nonce: &str) -> bool {
    nonce.starts_with(OURS)
}

/// The bucket of a name (FNV-1a, folded: both sides have to agree, nothing more).
pub(super) fn bucket(name: &str) -> u8 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.to_be_bytes().into_iter().fold(0, |folded, byte| folded ^ byte)
}

/// What a bucket is called.
pub(super) fn bucket_name(bucket: u8) -> String {
    format!("#{bucket:02x}")
}

/// The bucket of that name.
pub(super) fn bucket_named(name: &str) -> Option<u8> {
    let digits = name.strip_prefix('#').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok().filter(|bucket| bucket_name(*bucket) == name)
}

impl Digests {
    /// Of names in their order, with their versions.
    pub(super) fn of<'a, V: ToString>(resources: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        let mut hashes = vec![Sha256::new(); BUCKETS];
        for (name, version) in resources {
            let hash = &mut hashes[usize::from(bucket(name))];
            for part in [name, &version.to_string()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        Self(hashes.into_iter().map(|hash| Version::of([hash.finalize().as_slice()])).collect())
    }

    /// As a client sends them.
    pub(super) fn to_versions(&self) -> BTreeMap<String, String> {
        let name = |(bucket, digest): (usize, &Version)| (format!("#{bucket:02x}"), digest.to_string());
        self.0.iter().enumerate().map(name).collect()
    }

    /// What a client has sent, if that is what they are.
    pub(super) fn from_versions(versions: &BTreeMap<String, String>) -> Option<Self> {
        if versions.len() != BUCKETS {
            return None;
        }
        let read = |(place, (name, digest)): (usize, (&String, &String))| {
            (bucket_named(name).map(usize::from) == Some(place)).then(|| digest.parse().ok())?
        };
        versions.iter().enumerate().map(read).collect::<Option<_>>().map(Self)
    }

    /// The buckets in which they differ.
    pub(super) fn differences(&self, other: &Self) -> BTreeSet<u8> {
        let differ = self.0.iter().zip(&other.0).map(|(one, other)| one != other);
        (0..=u8::MAX).zip(differ).filter(|(_, differ)| *differ).map(|(bucket, _)| bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: &[(&str, &str)]) -> Digests {
        Digests::of(resources.iter().copied())
    }

    #[test]
    fn differ_where_a_name_or_a_version_does() {
        let one = of(&[("a", "1"), ("b", "1")]);
        assert_eq!(one.differences(&of(&[("a", "1"), ("b", "1")])), BTreeSet::new());
        assert_eq!(one.differences(&of(&[("a", "1"), ("b", "2")])), [bucket("b")].into());
        assert_eq!(one.differences(&of(&[("a", "1")])), [bucket("b")].into());
        assert_eq!(one.differences(&of(&[])), [bucket("a"), bucket("b")].into());
    }

    #[test]
    fn read_what_they_write_and_nothing_else() {
        let digests = of(&[("a", "1")]);
        let versions = digests.to_versions();
        assert_eq!(Digests::from_versions(&versions), Some(digests));
        let mut fewer = versions.clone();
        fewer.remove("#00");
        let mut other = fewer.clone();
        other.insert("name".into(), "0000000000000000".into());
        let mut garbled = versions;
        garbled.insert("#00".into(), "1".into());
        for versions in [BTreeMap::new(), fewer, other, garbled] {
            assert_eq!(Digests::from_versions(&versions), None);
        }
    }

    #[test]
    fn buckets_have_one_name() {
        for bucket in 0..=u8::MAX {
            assert_eq!(bucket_named(&bucket_name(bucket)), Some(bucket));
        }
        for name in ["#", "#0", "#000", "#+1", "#AB", "00", "#0g"] {
            assert_eq!(bucket_named(name), None, "{name}");
        }
    }

    #[test]
    fn names_spread_over_the_buckets() {
        let mut counts = [0_u32; BUCKETS];
        for number in 0..25_600 {
            counts[usize::from(bucket(&format!("Kubernetes//Pod/default/reviews-{number}")))] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }
}
