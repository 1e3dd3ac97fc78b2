//! Routings as they were last good, over restarts: one file in the state folder, of resources as they go over the wire. What
//! changes is written behind what is there, and the last of a host counts; when as much of the file is out of date as
//! counts, it is written anew.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::address::NamespacedHostname;
use model::mesh::Settings;
use model::route::Routing;
use prost::Message;
use prost::bytes::Bytes;
use xds::convert::{Decoder, resource};

/// The file in the state folder.
const FILE: &str = "last-good-routings";
/// What a host "requires" that has no last good routing any more.
const GONE: &str = "lateen.dev/gone";
/// A file of so many bytes, or fewer, is not worth writing anew.
const SMALL: usize = 64 << 10;

/// Keeps routings as they were last good.
#[derive(Debug)]
pub struct Routings {
    path: PathBuf,
    /// How long the file is; not known before this process has written it, or after it could not.
    length: Option<usize>,
    /// How long it would be if it were written anew.
    counts: usize,
}

impl Routings {
    /// In the state folder; made when the first is kept.
    pub fn open(state: &Path) -> Self {
        Self { path: state.join(FILE), length: None, counts: 0 }
    }

    /// Those that an earlier process kept. What cannot be read is told, and left out.
    pub fn stored(&self) -> Vec<Routing> {
        let Ok(bytes) = fs::read(&self.path) else { return Vec::new() };
        decode(bytes, &self.path)
    }

    /// Keeps what has changed: a host's last good routing, or that it has none any more. `all` is every one there is.
    ///
    /// # Errors
    /// The file cannot be written; the next time it is written anew.
    pub fn keep(
        &mut self,
        changed: &[(NamespacedHostname, Option<Arc<Routing>>)],
        all: impl FnOnce() -> Vec<Arc<Routing>>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (host, routing) in changed {
            match routing {
                Some(routing) => put(&mut bytes, resource::routing(routing).value()),
                None => put(&mut bytes, &gone(host)),
            }
        }
        // Only now known to be good.
        match self.length.take().map(|length| length + bytes.len()) {
            Some(length) if length <= SMALL.max(2 * self.counts) => {
                OpenOptions::new().append(true).open(&self.path)?.write_all(&bytes)?;
                self.length = Some(length);
            }
            _ => {
                let mut bytes = Vec::new();
                all().iter().for_each(|routing| append(&mut bytes, routing));
                let beside = self.path.with_extension("new");
                fs::write(&beside, &bytes)?;
                fs::rename(&beside, &self.path)?;
                (self.length, self.counts) = (Some(bytes.len()), bytes.len());
            }
        }
        Ok(())
    }
}

/// Writes a routing behind others.
pub(crate) fn append(bytes: &mut Vec<u8>, routing: &Routing) {
    put(bytes, resource::routing(routing).value());
}

/// The routings that stand in `bytes` one behind the other, the last of each host. What cannot be read is told of `path`,
/// and left out.
pub(crate) fn decode(bytes: Vec<u8>, path: &Path) -> Vec<Routing> {
    let mut rest = Bytes::from(bytes);
    let mut decoder = Decoder::new(Settings::default());
    let mut found = BTreeMap::new();
    while !rest.is_empty() {
        let length = prost::decode_length_delimiter(&mut rest).ok().filter(|length| *length <= rest.len());
        let Some(length) = length else {
            tracing::warn!(path = %path.display(), "it ends in the middle of a routing; the rest is ignored");
            break;
        };
        let value = rest.split_to(length);
        let wire = proto::routing::Routing::decode(value.clone()).unwrap_or_default();
        let name = format!("{}/{}", wire.namespace, wire.hostname);
        if wire.requires == [GONE] {
            found.remove(&name);
            continue;
        }
        match decoder.routing(&name.as_str().into(), value) {
            Ok(routing) => drop(found.insert(name, routing)),
            Err(error) => {
                tracing::warn!(?error, name, "a routing that is not as this controller keeps them; ignored")
            }
        }
    }
    found.into_values().collect()
}

fn put(bytes: &mut Vec<u8>, value: &[u8]) {
    // Writing into memory does not fail.
    let _ = prost::encode_length_delimiter(value.len(), bytes);
    bytes.extend_from_slice(value);
}

fn gone(host: &NamespacedHostname) -> Vec<u8> {
    let wire = proto::routing::Routing {
        requires: vec![GONE.to_owned()],
        namespace: host.namespace().to_owned(),
        hostname: host.hostname().to_owned(),
        ..Default::default()
    };
    wire.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use model::address::NamespacedHostname;
    use model::route::Forward;

    use super::*;

    fn routing(host: &str) -> Arc<Routing> {
        let host = NamespacedHostname::new("shop", host);
        Arc::new(Routing {
            http: Box::default(),
            tls: Box::default(),
            tcp: Box::default(),
            default: Some(Box::new(Forward::to_service(host.clone()))),
            destinations: BTreeMap::new(),
            host,
        })
    }

    fn length(folder: &Path) -> u64 {
        fs::metadata(folder.join(FILE)).unwrap().len()
    }

    fn stored(folder: &Path) -> Vec<Arc<Routing>> {
        Routings::open(folder).stored().into_iter().map(Arc::new).collect()
    }

    #[test]
    fn what_is_kept_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut routings = Routings::open(folder);
        assert!(routings.stored().is_empty());
        let all = [routing("a.shop"), routing("b.shop"), routing("c.shop")];
        let changed = |place: usize| vec![(all[place].host.clone(), Some(all[place].clone()))];
        routings.keep(&changed(0), || all[..2].to_vec()).unwrap();
        assert_eq!(stored(folder), all[..2]);
        // From then on what is new is written, and nothing else.
        let before = length(folder);
        routings.keep(&changed(2), || unreachable!()).unwrap();
        assert!(length(folder) < 2 * before);
        assert_eq!(stored(folder), all);
        routings.keep(&[(all[0].host.clone(), None)], || unreachable!()).unwrap();
        assert_eq!(stored(folder), all[1..]);
        routings.keep(&changed(0), || unreachable!()).unwrap();
        assert_eq!(stored(folder), all);
        // A file that was cut off: what is whole of it counts, and it is written anew by who comes next.
        let bytes = fs::read(folder.join(FILE)).unwrap();
        fs::write(folder.join(FILE), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(stored(folder), all[1..]);
        Routings::open(folder).keep(&changed(0), || all.to_vec()).unwrap();
        assert_eq!(stored(folder), all);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut routings = Routings::open(folder.path());
        let all = [routing("a.shop"), routing("b.shop")];
        let mut anew = 0;
        for _ in 0..5000 {
            let changed = [(all[0].host.clone(), Some(all[0].clone()))];
            let whole = || {
                anew += 1;
                all.to_vec()
            };
            routings.keep(&changed, whole).unwrap();
            assert!(length(folder.path()) <= SMALL as u64);
        }
        assert!((2..50).contains(&anew), "{anew}");
        assert_eq!(stored(folder.path()), all);
    }
}
