//! How a client of ours says briefly what it has: a few hashes instead of every name with its version.
//!
//! The protocol has a client that comes back list all it has. For a hundred thousand resources that is ten megabytes,
//! from a thousand clients at once, to a controller that has just started. So, to a server that has shown itself to
//! be ours (by its [nonces](is_ours)), a client sends a hash for each bucket of names, as versions of
//! resources named `#00` and so on, `#ff` at most. The server asks for the names of the buckets that differ, as removals of
//! those names, and the client lists them with its acknowledgement. A foreign server knows nothing of it: the client sees
//! that by its first nonce, and starts over with the whole list.
//!
//! There are as many buckets as make it likely that a few changes concern a few dozen names: a power of two, so that the
//! server, which keeps 256, makes fewer of them. A thousand clients that come back to find nothing changed cost next to
//! nothing even in a small mesh.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::version::Version;

/// What our nonces begin with.
const OURS: &str = "lateen/";
/// What they end with where more is to come.
const MORE: &str = "/more";
const BUCKETS: usize = 256;
/// Names that a bucket is to have, about.
const NAMES_A_BUCKET: usize = 64;

/// Hashes of names and versions, by bucket: of all buckets, or of fewer and larger ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digests(Vec<Version>);

/// Some of so many buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Buckets {
    of: usize,
    some: BTreeSet<u8>,
}

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

/// The bucket of a name, of all (FNV-1a, folded: both sides have to agree, nothing more).
fn bucket(name: &str) -> u8 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.to_be_bytes().into_iter().fold(0, |folded, byte| folded ^ byte)
}

/// Into how many buckets so many names are put.
pub(super) fn buckets_for(names: usize) -> usize {
    names.div_ceil(NAMES_A_BUCKET).next_power_of_two().min(BUCKETS)
}

/// What a bucket is called.
fn bucket_name(bucket: u8) -> String {
    format!("#{bucket:02x}")
}

/// The bucket of that name.
fn bucket_named(name: &str) -> Option<u8> {
    let digits = name.strip_prefix('#').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok().filter(|bucket| bucket_name(*bucket) == name)
}

impl Buckets {
    /// Those of `of` that are named; nothing if one is not a bucket's name.
    pub(super) fn named<'a>(of: usize, names: impl IntoIterator<Item = &'a String>) -> Option<Self> {
        let some = names.into_iter().map(|name| bucket_named(name)).collect::<Option<_>>()?;
        Some(Self { of, some })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.some.iter().map(|bucket| bucket_name(*bucket))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.some.is_empty()
    }

    /// Whether a name is in one of them.
    pub(super) fn hold(&self, name: &str) -> bool {
        let place = usize::from(bucket(name)).checked_rem(self.of);
        place.and_then(|place| u8::try_from(place).ok()).is_some_and(|place| self.some.contains(&place))
    }
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

    /// The same of so many buckets: a power of two, and no more than there are.
    pub(super) fn in_buckets(&self, buckets: usize) -> Self {
        if buckets >= self.0.len() {
            return self.clone();
        }
        let of = |bucket: usize| {
            let within = self.0.iter().skip(bucket).step_by(buckets);
            let within: Vec<_> = within.map(|digest| digest.to_string()).collect();
            Version::of(within.iter().map(|digest| digest.as_bytes()))
        };
        Self((0..buckets).map(of).collect())
    }

    /// As a client sends them.
    pub(super) fn to_versions(&self) -> BTreeMap<String, String> {
        let name = |(bucket, digest): (usize, &Version)| (format!("#{bucket:02x}"), digest.to_string());
        self.0.iter().enumerate().map(name).collect()
    }

    /// What a client has sent, if that is what they are.
    pub(super) fn from_versions(versions: &BTreeMap<String, String>) -> Option<Self> {
        if !versions.len().is_power_of_two() || versions.len() > BUCKETS {
            return None;
        }
        let read = |(place, (name, digest)): (usize, (&String, &String))| {
            (bucket_named(name).map(usize::from) == Some(place)).then(|| digest.parse().ok())?
        };
        versions.iter().enumerate().map(read).collect::<Option<_>>().map(Self)
    }

    /// The buckets in which these, of all buckets, differ from what a client has sent.
    pub(super) fn differences(&self, sent: &Self) -> Buckets {
        let ours = self.in_buckets(sent.0.len());
        let differ = ours.0.iter().zip(&sent.0).map(|(one, other)| one != other);
        let some =
            (0..=u8::MAX).zip(differ).filter(|(_, differ)| *differ).map(|(bucket, _)| bucket).collect();
        Buckets { of: sent.0.len(), some }
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
        for buckets in [1, 2, 16, 128, 256] {
            let differ = |other: &[(&str, &str)]| {
                let found = one.differences(&of(other).in_buckets(buckets));
                (found.hold("a"), found.hold("b"))
            };
            let place = |name| usize::from(bucket(name)) % buckets;
            let together = place("a") == place("b");
            assert_eq!(differ(&[("a", "1"), ("b", "1")]), (false, false), "{buckets}");
            assert_eq!(differ(&[("a", "1"), ("b", "2")]), (together, true), "{buckets}");
            assert_eq!(differ(&[("a", "1")]), (together, true), "{buckets}");
            assert_eq!(differ(&[]), (true, true), "{buckets}");
        }
        assert!(!Buckets::default().hold("a"));
    }

    #[test]
    fn buckets_are_as_many_as_there_are_names_for() {
        for (names, buckets) in [(0, 1), (1, 1), (64, 1), (65, 2), (1200, 32), (16_384, 256), (1 << 20, 256)]
        {
            assert_eq!(buckets_for(names), buckets, "{names}");
            let sent = of(&[("a", "1")]).in_buckets(buckets).to_versions();
            assert_eq!((sent.len(), Digests::from_versions(&sent).is_some()), (buckets, true));
        }
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
        let mut garbled = versions.clone();
        garbled.insert("#00".into(), "1".into());
        let mut three = versions.clone();
        three.retain(|name, _| name.as_str() < "#03");
        for versions in [BTreeMap::new(), fewer, other, three, garbled] {
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
