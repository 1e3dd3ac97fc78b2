//! What is read is what was written, whatever happened in between: entries replaced, files sealed or unwritable, the
//! journal written anew beside the running one, its writer killed in the middle.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use model::address::Str;
use proto::type_url;
use xds::delta::subscriber::Received;

use super::*;

type Content = BTreeMap<(u8, String), (String, Vec<u8>)>;

fn content(files: &[Arc<Saved>]) -> Content {
    let mut content = Content::new();
    read(files, |entry| {
        let key = (entry.kind as u8, entry.name.to_owned());
        match entry.content {
            Some((version, value)) => drop(content.insert(key, (version.to_owned(), value.to_vec()))),
            None => drop(content.remove(&key)),
        }
    })
    .unwrap();
    content
}

/// A journal beside a map that is told the same.
struct Bed {
    journal: Arc<Journal>,
    expected: Content,
    /// Of the last delivery.
    number: usize,
}

impl Bed {
    fn of(journal: Journal) -> Self {
        Self { journal: Arc::new(journal), expected: Content::new(), number: 0 }
    }

    /// What came for names, and which went.
    fn deliver(&mut self, set: &[usize], removed: &[usize]) {
        self.number += 1;
        let name = |number: &usize| Str::from(format!("name-{number}"));
        let key = |name: &Str| (Kind::Address as u8, name.to_string());
        let version = self.number.to_string();
        let value = format!("{} {}", self.number, "x".repeat(200));
        let mut delivery = Delivery {
            type_url: type_url::ADDRESS.into(),
            revision: String::new(),
            resources: Vec::new(),
            removed: removed.iter().map(name).collect(),
            more: false,
            ours: true,
        };
        delivery.removed.iter().for_each(|name| drop(self.expected.remove(&key(name))));
        for name in set.iter().map(name) {
            let before = self.expected.insert(key(&name), (version.clone(), value.clone().into()));
            delivery.resources.push(Received {
                name,
                version: version.clone(),
                value: value.clone().into(),
                replaces: before.is_some(),
            });
        }
        self.journal.record(&delivery, &[], |_| None);
    }

    /// What a successor would read now.
    fn check(&self, what: &str) {
        assert!(content(&self.journal.files()) == self.expected, "{what}");
    }

    fn last_file(&self) -> Arc<Saved> {
        self.journal.inner().files.last().unwrap().clone()
    }

    /// From now on nothing can be written to the last file.
    fn make_unwritable(&self) {
        let path = format!("/proc/self/fd/{}", self.last_file().as_fd().as_raw_fd());
        let file = Saved::unchecked(File::open(path).unwrap().into());
        *self.journal.inner().files.last_mut().unwrap() = Arc::new(file);
    }
}

#[tokio::test]
async fn a_long_history_reads_as_it_ended() {
    let mut bed = Bed::of(Journal::new());
    let mut random = 1_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((random >> 33) % below).unwrap()
    };
    let (mut compacted, mut broken) = (0, 0);
    for round in 0..3000 {
        let set: Vec<usize> = (0..draw(4)).map(|_| draw(500)).collect();
        let removed: Vec<usize> = (0..draw(3)).map(|_| draw(500)).collect();
        bed.deliver(&set, &removed);
        if draw(100) == 0 {
            match draw(2) {
                0 => bed.last_file().seal().unwrap(),
                _ => bed.make_unwritable(),
            }
            broken += 1;
        }
        if round % 100 == 99 {
            bed.check(&format!("after {round}"));
        }
        if bed.journal.work() == Some(Work::Tell) {
            bed.journal.files();
        }
        if bed.journal.work() == Some(Work::Compact) {
            // Entries that come meanwhile follow.
            let journal = bed.journal.clone();
            let (compacting, ()) = tokio::join!(journal.compact(), async {
                bed.deliver(&[1, 2, 501], &[3]);
            });
            compacting.unwrap();
            bed.check("written anew");
            assert_eq!(bed.journal.inner().files.len(), 1);
            compacted += 1;
        }
    }
    bed.check("in the end");
    assert!(compacted > 5 && broken > 10, "{compacted}, {broken}");
    let size = bed.journal.inner().size;
    assert!(size.bytes < 2 * SMALL, "{size:?}");
}

#[test]
fn what_cannot_be_written_is_written_later() {
    // As many files as there may be, none of which is its own.
    let full = || {
        let files = (0..MAX_FILES).map(|_| Arc::new(Saved::new().unwrap())).collect();
        Bed::of(Journal::after(files, 0, 0).unwrap())
    };
    let mut bed = full();
    bed.deliver(&[1, 2], &[]);
    bed.deliver(&[3], &[1]);
    assert!(bed.journal.inner().failed);
    assert!(content(&bed.journal.files()).is_empty());
    assert_eq!(bed.journal.work(), Some(Work::Compact));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(bed.journal.compact()).unwrap();
    bed.check("written anew");
    assert!(!bed.journal.inner().failed);

    // Not for ever: then nothing is left to a successor, rather than something old.
    let mut bed = full();
    let many: Vec<usize> = (0..100_000).collect();
    bed.deliver(&many, &[]);
    assert_eq!(bed.journal.work(), Some(Work::Tell));
    assert!(bed.journal.files().is_empty());
    bed.deliver(&[1], &[]);
    assert_eq!(bed.journal.work(), None);
    assert!(bed.journal.inner().buffer.is_empty());
}

#[test]
fn a_file_that_was_handed_over_is_continued_by_another() {
    let mut bed = Bed::of(Journal::new());
    bed.deliver(&[1, 2, 3], &[]);
    bed.last_file().seal().unwrap();
    bed.deliver(&[2], &[3]);
    assert_eq!(bed.journal.work(), Some(Work::Tell));
    assert_eq!(bed.journal.files().len(), 2);
    bed.check("in two files");
    assert_eq!(bed.journal.work(), None);

    // A successor goes on in a third.
    let after = Journal::after(bed.journal.files(), 5, 2).unwrap();
    let mut next = Bed { journal: Arc::new(after), expected: bed.expected.clone(), number: 100 };
    next.deliver(&[4], &[1]);
    assert_eq!(next.journal.files().len(), 3);
    next.check("in three files");
    bed.check("nothing of it in the first two");
}

#[test]
fn what_is_cut_off_anywhere_ends_before() {
    let mut bed = Bed::of(Journal::new());
    let (mut ends, mut contents) = (vec![0], vec![Content::new()]);
    for (set, removed) in [(&[1, 2][..], &[][..]), (&[2], &[1]), (&[3], &[]), (&[], &[2])] {
        bed.deliver(set, removed);
        ends.push(bed.last_file().length().unwrap());
        contents.push(bed.expected.clone());
    }
    let mut whole = vec![0; usize::try_from(ends[4]).unwrap()];
    bed.last_file().read_at(&mut whole, 0).unwrap();
    for cut in 0..=whole.len() {
        let file = Saved::new().unwrap();
        file.write_at(&whole[..cut], 0).unwrap();
        let complete = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
        assert!(content(&[Arc::new(file)]) == contents[complete], "cut at {cut}");
    }
}

#[test]
fn what_is_no_journal_is_refused_whole() {
    let cases: [(&str, Vec<u8>); 5] = [
        ("another form", b"lateen\0\x01rest".to_vec()),
        ("no journal", b"something else".to_vec()),
        ("an unknown kind", [&HEADER[..], &[5, 0, 0, 0, 9, 0, 0, 0, 0]].concat()),
        ("a part too short", [&HEADER[..], &[5, 0, 0, 0, 3, 9, 0, 0, 0]].concat()),
        ("a name that is no text", [&HEADER[..], &[6, 0, 0, 0, 0x83, 1, 0, 0, 0, 0xff]].concat()),
    ];
    for (what, bytes) in cases {
        let file = Saved::new().unwrap();
        file.write_at(&bytes, 0).unwrap();
        assert!(read(&[Arc::new(file)], |_| {}).is_err(), "{what}");
    }
}

#[test]
fn is_written_anew_when_that_saves_half() {
    let size = |bytes, dead| Size { bytes, dead, entries: 1 };
    for (size, files, expected) in [
        (size(0, 0), 0, false),
        (size(SMALL, SMALL), 1, false),
        (size(4 * SMALL, 2 * SMALL), 1, false),
        (size(4 * SMALL, 2 * SMALL + 1), 1, true),
        (size(1, 0), MANY_FILES, false),
        (size(1, 0), MANY_FILES + 1, true),
        // Where it gets tight, for less.
        (size(MAX_STATE / 4 * 3, MAX_STATE / 4), 1, false),
        (size(MAX_STATE / 4 * 3 + 1, MAX_STATE / 4), 1, true),
        (size(MAX_STATE, MAX_STATE / 16), 1, false),
    ] {
        assert_eq!(size.is_wasteful(files), expected, "{size:?} in {files} files");
    }
}

#[test]
fn nothing_is_kept_where_nobody_reads_it() {
    let mut bed = Bed::of(Journal::off());
    bed.deliver(&[1], &[]);
    bed.journal.record_certificates(b"keys");
    assert_eq!(bed.journal.work(), None);
    assert!(bed.journal.files().is_empty());
}

#[test]
fn of_certificates_the_last_count_and_the_largest_fits() {
    let bed = Bed::of(Journal::new());
    let large = vec![b'x'; 3 * BATCH];
    for export in [&b"first"[..], &large, b"last"] {
        bed.journal.record_certificates(export);
        let content = content(&bed.journal.files());
        assert_eq!(content.len(), 1);
        assert!(content.values().all(|(version, value)| version.is_empty() && value == export));
    }
}
