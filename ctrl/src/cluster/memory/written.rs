//! What stands in the ConfigMaps as far as this replica has written it, by what the watch of them tells. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::ObjectMeta;
use kube::runtime::watcher::Event;

use super::numbered;
use super::parts::{PARTS, Part};

/// The parts that this replica has written and nobody has touched since.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By number, with the version that the API server gave it.
    parts: BTreeMap<usize, (Part, Option<String>)>,
    /// Those that a listing has named so far.
    listed: BTreeSet<usize>,
}

impl Written {
    /// Whether this part stands there.
    pub(super) fn has(&self, number: usize, part: &Part) -> bool {
        self.parts.get(&number).is_some_and(|(written, _)| written == part)
    }

    /// This replica has written a part.
    pub(super) fn note(&mut self, number: usize, part: Part, version: Option<String>) {
        self.parts.insert(number, (part, version));
    }

    /// What stands there is another replica's from now on.
    pub(super) fn forget(&mut self) {
        self.parts.clear();
    }

    /// Takes what the watch tells of the namespace's ConfigMaps, of which ours are called `name` and a number. True if
    /// something else stands there than this replica has written, or nothing any more. What is told late of an own write
    /// seems somebody else's: writing it once more changes nothing.
    pub(super) fn take(&mut self, name: &str, event: &Event<ObjectMeta>) -> bool {
        let number = |map: &ObjectMeta| {
            (0..PARTS).find(|number| map.name.as_deref() == Some(&*numbered(name, *number)))
        };
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(map) | Event::Apply(map) => {
                let Some(number) = number(map) else { return false };
                self.listed.insert(number);
                let is_ours =
                    self.parts.get(&number).is_some_and(|(_, version)| *version == map.resource_version);
                if !is_ours {
                    self.parts.remove(&number);
                }
                !is_ours
            }
            Event::Delete(map) => number(map).is_some_and(|number| self.parts.remove(&number).is_some()),
            Event::InitDone => {
                let before = self.parts.len();
                self.parts.retain(|number, _| self.listed.contains(number));
                self.parts.len() < before
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "lateen-last-good-default";

    fn map(name: &str, version: &str) -> ObjectMeta {
        let (name, resource_version) = (Some(name.to_owned()), Some(version.to_owned()));
        ObjectMeta { name, resource_version, ..ObjectMeta::default() }
    }

    #[test]
    fn what_others_do_to_a_part_is_seen_and_what_this_replica_did_is_not() {
        let (first, third) =
            (|version| map(&numbered(NAME, 0), version), |version| map(&numbered(NAME, 2), version));
        let another = || map("lateen-last-good-default-canary-0", "9");
        for (about, events, seen, left) in [
            ("the own write", vec![Event::Apply(third("5"))], false, [0, 2].as_slice()),
            ("another's write", vec![Event::Apply(third("6"))], true, &[0]),
            (
                "a part that was not written here",
                vec![Event::Apply(map(&numbered(NAME, 1), "5"))],
                true,
                &[0, 2],
            ),
            ("a part removed", vec![Event::Delete(third("6"))], true, &[0]),
            ("the first removed", vec![Event::Delete(first("6"))], true, &[2]),
            (
                "a part removed that was not written here",
                vec![Event::Delete(map(&numbered(NAME, 1), "5"))],
                false,
                &[0, 2],
            ),
            (
                "a ConfigMap of somebody else",
                vec![Event::Apply(another()), Event::Delete(another())],
                false,
                &[0, 2],
            ),
            (
                "listed as it was",
                vec![
                    Event::Init,
                    Event::InitApply(first("4")),
                    Event::InitApply(third("5")),
                    Event::InitDone,
                ],
                false,
                &[0, 2],
            ),
            (
                "removed while nothing was watched",
                vec![Event::Init, Event::InitApply(first("4")), Event::InitDone],
                true,
                &[0],
            ),
        ] {
            let mut written = Written::default();
            written.note(0, Part::default(), Some("4".to_owned()));
            written.note(2, Part::default(), Some("5".to_owned()));
            let told =
                events.iter().map(|event| written.take(NAME, event)).fold(false, |seen, one| seen | one);
            assert_eq!(told, seen, "{about}");
            for number in 0..PARTS {
                assert_eq!(
                    written.has(number, &Part::default()),
                    left.contains(&number),
                    "{about}: part {number}"
                );
            }
        }
    }
}
