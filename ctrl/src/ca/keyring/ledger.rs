//! What was issued and has not ended: who holds which certificate, signed by whom. By it a root stays trusted as long as
//! it has to, and a workload can be revoked by its name. Kept as lines in a file, as they come; the file is written anew
//! when most of it has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::revocation::{Serial, hexadecimal};
use model::identity::Identity;
use serde::{Deserialize, Serialize};

use super::stored::{bytes, write_atomically};
use crate::ca::authorize::Caller;
use crate::ca::root::RootError;

/// The most certificates that are known; beyond, the one that ends first is forgotten of who holds most.
const MOST: usize = 500_000;

/// The same of one holder for one identity: an agent renews twice a day and starts anew now and then.
const MOST_OF_ONE: usize = 1_000;

/// Lines of the file that may have ended before it is written anew.
const SLACK: usize = 4096;

/// Which authority signed, by a digest of its certificate.
pub type Print = String;

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its serial number.
    pub serial: Serial,
    /// Who signed it.
    pub issuer: Print,
    /// Who asked for it.
    pub holder: Caller,
    /// Whom it proves.
    pub identity: Identity,
    /// When it was signed.
    pub at: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// When it ends, and its number.
type Key = (SystemTime, Serial);

/// What one caller holds.
#[derive(Debug, Default)]
struct Held {
    count: usize,
    identities: HashMap<Identity, BTreeSet<Key>>,
}

/// All that has not ended.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
    /// By end.
    issued: BTreeMap<Key, Issued>,
    /// The same, by who holds them.
    held: HashMap<Caller, Held>,
    most: usize,
    most_of_one: usize,
    /// Before this, certificates were issued that nobody noted.
    noted_since: Option<SystemTime>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noted_since: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    serial: String,
    issuer: Print,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    identity: Identity,
    at: u64,
    until: u64,
}

impl Ledger {
    /// What an earlier process noted; `fresh` says that nothing can have been issued before.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: PathBuf, fresh: bool, now: SystemTime) -> Result<Self, RootError> {
        let mut ledger = Self {
            path,
            file: None,
            lines: 0,
            issued: BTreeMap::new(),
            held: HashMap::new(),
            most: MOST,
            most_of_one: MOST_OF_ONE,
            noted_since: (!fresh).then_some(now),
        };
        match File::open(&ledger.path) {
            Ok(file) => ledger.read(BufReader::new(file), now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(RootError::Read { path: ledger.path, source }),
        }
        ledger.rewrite()?;
        Ok(ledger)
    }

    fn read(&mut self, file: impl BufRead, now: SystemTime) {
        let mut unreadable = 0_usize;
        for (number, line) in file.lines().map_while(Result::ok).enumerate() {
            if number == 0
                && let Ok(head) = serde_json::from_str::<Head>(&line)
            {
                self.noted_since = head.noted_since.map(time);
                continue;
            }
            match serde_json::from_str::<Line>(&line).ok().and_then(Line::issued) {
                Some(issued) if issued.not_after > now => drop(self.keep(issued)),
                Some(_) => {}
                None => unreadable += 1,
            }
        }
        if unreadable > 0 {
            // A crash cuts off the last line at most; more is damage, and what stood there is not known.
            tracing::warn!(path = %self.path.display(), unreadable, "lines of the list of issued certificates cannot be read");
            if unreadable > 1 {
                self.noted_since = Some(now);
            }
        }
    }

    /// Notes a certificate. Returns one that is forgotten for it.
    pub fn note(&mut self, issued: Issued) -> Option<Issued> {
        let text = serde_json::to_string(&Line::of(&issued)).expect("strings and numbers always serialise");
        let forgotten = self.keep(issued);
        self.lines += 1;
        let written = match &mut self.file {
            Some(file) => writeln!(file, "{text}"),
            None => Err(io::Error::other("it could not be opened")),
        };
        if let Err(error) = written {
            // Issuing goes on: a mesh without certificates is worse than one that has to revoke by serial number.
            tracing::error!(path = %self.path.display(), %error, "an issued certificate was not noted");
        }
        forgotten
    }

    fn keep(&mut self, issued: Issued) -> Option<Issued> {
        let key = (issued.not_after, issued.serial.clone());
        let held = self.held.entry(issued.holder.clone()).or_default();
        let own = held.identities.entry(issued.identity.clone()).or_default();
        if own.insert(key.clone()) {
            held.count += 1;
        }
        let first = (own.len() > self.most_of_one).then(|| own.first().cloned()).flatten();
        self.issued.insert(key, issued);
        let first = first.or_else(|| (self.issued.len() > self.most).then(|| self.first_of_most()).flatten());
        self.forget(&first?)
    }

    /// The certificate that ends first of those that the greediest caller holds for the identity he has most for: who
    /// asks for certificates without end forgets his own.
    fn first_of_most(&self) -> Option<Key> {
        let greediest = self.held.values().max_by_key(|held| held.count)?;
        greediest.identities.values().max_by_key(|own| own.len())?.first().cloned()
    }

    fn forget(&mut self, key: &Key) -> Option<Issued> {
        let issued = self.issued.remove(key)?;
        if let Some(held) = self.held.get_mut(&issued.holder) {
            if let Some(own) = held.identities.get_mut(&issued.identity)
                && own.remove(key)
            {
                held.count -= 1;
                if own.is_empty() {
                    held.identities.remove(&issued.identity);
                }
            }
            if held.count == 0 {
                self.held.remove(&issued.holder);
            }
        }
        Some(issued)
    }

    /// Forgets what has ended.
    pub fn expire(&mut self, now: SystemTime) {
        while let Some(first) = self.issued.keys().next().filter(|first| first.0 <= now).cloned() {
            self.forget(&first);
        }
        if self.lines > 2 * self.issued.len() + SLACK
            && let Err(error) = self.rewrite()
        {
            tracing::error!(%error, "the list of issued certificates was not written anew");
            self.lines = 0;
        }
    }

    fn rewrite(&mut self) -> Result<(), RootError> {
        let head = Head { version: 1, noted_since: self.noted_since.map(seconds) };
        let mut text = serde_json::to_string(&head).expect("numbers always serialise") + "\n";
        for issued in self.issued.values() {
            text += &serde_json::to_string(&Line::of(issued)).expect("strings and numbers always serialise");
            text.push('\n');
        }
        write_atomically(&self.path, &text, 0o600)?;
        let opened = OpenOptions::new().append(true).mode(0o600).open(&self.path);
        let failed = |source| RootError::Write { path: self.path.clone(), source };
        self.file = Some(opened.map_err(failed)?);
        self.lines = self.issued.len();
        Ok(())
    }

    /// Others sign too, and do not say what: until `now` anything may have been issued.
    pub(super) fn others_sign(&mut self, now: SystemTime) {
        self.noted_since = Some(now);
    }

    /// How many have not ended.
    pub fn count(&self) -> usize {
        self.issued.len()
    }

    /// All that have not ended, those that end first in front.
    pub fn iter(&self) -> impl Iterator<Item = &Issued> {
        self.issued.values()
    }

    /// When the last certificate that an authority signed ends: `longest` is what one that nobody noted may last.
    pub fn last_end(&self, issuer: &str, longest: Duration, now: SystemTime) -> SystemTime {
        let noted = self.iter().filter(|issued| issued.issuer == issuer).map(|issued| issued.not_after).max();
        let unnoted = self.noted_since.map(|since| since + longest);
        noted.max(unnoted).unwrap_or(now).max(now)
    }

    /// By holder, when the oldest certificate that he still may use was signed.
    pub fn holders(&self) -> HashMap<Caller, SystemTime> {
        let mut holders = HashMap::new();
        for issued in self.iter() {
            let oldest = holders.entry(issued.holder.clone()).or_insert(issued.at);
            *oldest = issued.at.min(*oldest);
        }
        holders
    }
}

impl Line {
    fn of(issued: &Issued) -> Self {
        let node = match &issued.holder {
            Caller::Node(node) => Some(node.to_string()),
            Caller::Workload(_) => None,
        };
        Self {
            serial: hexadecimal(&issued.serial),
            issuer: issued.issuer.clone(),
            node,
            identity: issued.identity.clone(),
            at: seconds(issued.at),
            until: seconds(issued.not_after),
        }
    }

    fn issued(self) -> Option<Issued> {
        let holder = match self.node {
            Some(node) => Caller::Node(node.into()),
            None => Caller::Workload(self.identity.clone()),
        };
        Some(Issued {
            serial: bytes(&self.serial)?,
            issuer: self.issuer,
            holder,
            identity: self.identity,
            at: time(self.at),
            not_after: time(self.until),
        })
    }
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The path of the ledger in a state folder.
pub fn path(state: &Path) -> PathBuf {
    state.join("issued.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(number: u8, issuer: &str, account: &str, at: u64, until: u64) -> Issued {
        Issued {
            serial: Box::from([7, number]),
            issuer: issuer.to_owned(),
            holder: Caller::Node("node-1".into()),
            identity: Identity::new("cluster.local", "shop", account),
            at: time(at),
            not_after: time(until),
        }
    }

    #[test]
    fn knows_after_a_restart_what_it_noted_and_forgets_what_ended() {
        let folder = tempfile::tempdir().unwrap();
        let open = |now| Ledger::open(path(folder.path()), true, time(now)).unwrap();
        let mut ledger = open(0);
        ledger.note(issued(1, "old", "a", 10, 100));
        ledger.note(issued(2, "old", "b", 20, 300));
        ledger.note(issued(3, "new", "a", 30, 200));
        let longest = Duration::from_secs(1_000_000);
        let check = |ledger: &Ledger| {
            assert_eq!(ledger.last_end("old", longest, time(50)), time(300));
            assert_eq!(ledger.last_end("new", longest, time(50)), time(200));
            assert_eq!(ledger.last_end("none", longest, time(50)), time(50));
        };
        check(&ledger);
        assert_eq!(ledger.holders()[&Caller::Node("node-1".into())], time(10));
        let mut again = open(60);
        check(&again);
        assert_eq!(again.count(), 3);
        again.expire(time(200));
        assert_eq!(again.count(), 1);
        assert_eq!(open(250).count(), 1);
    }

    #[test]
    fn who_holds_most_forgets_his_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(path(folder.path()), true, time(0)).unwrap();
        (ledger.most, ledger.most_of_one) = (20, 12);
        let mut number: u8 = 0;
        let mut note = |ledger: &mut Ledger, node: &str, account: &str| {
            number += 1;
            let holder = Caller::Node(node.into());
            // Those of others end first.
            let until = if node == "greedy" { 900 } else { 300 } + u64::from(number);
            let forgotten = ledger.note(Issued { holder, ..issued(number, "old", account, 10, until) });
            forgotten.map(|one| (one.holder, one.serial[1]))
        };
        for account in ["a", "b", "c"] {
            assert_eq!(note(&mut ledger, "honest", account), None);
        }
        let greedy = || Caller::Node("greedy".into());
        // Many for one identity, then for all: first those of this one, then of whichever he has most for.
        let first: Vec<_> = (0..14).map(|_| note(&mut ledger, "greedy", "a")).collect();
        assert_eq!(first[11..], [None, Some((greedy(), 4)), Some((greedy(), 5))]);
        for _ in 0..100 {
            assert!(note(&mut ledger, "greedy", "b").is_none_or(|(holder, _)| holder == greedy()));
        }
        assert_eq!(ledger.count(), 20);
        let of = |name: &str| ledger.iter().filter(|one| one.holder == Caller::Node(name.into())).count();
        assert_eq!((of("honest"), of("greedy")), (3, 17));
        // What the places say is what there is.
        ledger.expire(time(10_000));
        assert!(ledger.held.is_empty() && ledger.issued.is_empty());
    }

    #[test]
    fn what_nobody_noted_may_last_as_long_as_anything() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(path(folder.path()), false, time(1_000)).unwrap();
        let longest = Duration::from_secs(500);
        assert_eq!(ledger.last_end("old", longest, time(1_200)), time(1_500));
        // The moment outlives a restart, and passes.
        let again = Ledger::open(path(folder.path()), true, time(9_000)).unwrap();
        assert_eq!(again.last_end("old", longest, time(1_200)), time(1_500));
        assert_eq!(again.last_end("old", longest, time(9_000)), time(9_000));
    }

    #[test]
    fn a_line_that_a_crash_cut_off_costs_that_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(path(folder.path()), true, time(0)).unwrap();
        ledger.note(issued(1, "old", "a", 10, 100));
        ledger.note(issued(2, "old", "b", 20, 300));
        let text = std::fs::read_to_string(path(folder.path())).unwrap();
        std::fs::write(path(folder.path()), &text[..text.len() - 9]).unwrap();
        let again = Ledger::open(path(folder.path()), true, time(0)).unwrap();
        assert_eq!(again.count(), 1);
        assert_eq!(again.last_end("none", Duration::from_secs(5), time(50)), time(50));
    }
}
