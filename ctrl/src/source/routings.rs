//! Routings as they were last good, over restarts: one file in the state folder, of resources as they go over the wire.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::mesh::Settings;
use model::route::Routing;
use prost::Message;
use prost::bytes::Bytes;
use xds::convert::{Decoder, resource};

/// The file in the state folder.
const FILE: &str = "last-good-routings";

/// Keeps routings as they were last good.
#[derive(Debug)]
pub struct Routings(PathBuf);

impl Routings {
    /// In the state folder; made when the first is kept.
    pub fn open(state: &Path) -> Self {
        Self(state.join(FILE))
    }

    /// Those that an earlier process kept. What cannot be read is told, and left out.
    pub fn stored(&self) -> Vec<Routing> {
        let Ok(bytes) = fs::read(&self.0) else { return Vec::new() };
        let mut rest = Bytes::from(bytes);
        let mut decoder = Decoder::new(Settings::default());
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length =
                prost::decode_length_delimiter(&mut rest).ok().filter(|length| *length <= rest.len());
            let Some(length) = length else {
                tracing::warn!(path = %self.0.display(), "it ends in the middle of a routing; the rest is ignored");
                break;
            };
            let value = rest.split_to(length);
            let named = proto::routing::Routing::decode(value.clone());
            let name = named.map(|wire| format!("{}/{}", wire.namespace, wire.hostname)).unwrap_or_default();
            match decoder.routing(&name.as_str().into(), value) {
                Ok(routing) => found.push(routing),
                Err(error) => tracing::warn!(
                    ?error,
                    name,
                    "a routing that is not as this controller keeps them; ignored"
                ),
            }
        }
        found
    }

    /// Keeps these, and no others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, routings: &[Arc<Routing>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for routing in routings {
            let value = resource::routing(routing);
            // Writing into memory does not fail.
            let _ = prost::encode_length_delimiter(value.value().len(), &mut bytes);
            bytes.extend_from_slice(value.value());
        }
        let beside = self.0.with_extension("new");
        fs::write(&beside, bytes)?;
        fs::rename(&beside, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use model::address::NamespacedHostname;
    use model::route::Forward;

    use super::*;

    fn routing(host: &str) -> Arc<Routing> {
        let host = NamespacedHostname { namespace: "shop".into(), hostname: host.into() };
        Arc::new(Routing {
            http: Box::default(),
            tls: Box::default(),
            tcp: Box::default(),
            default: Some(Box::new(Forward::to_service(host.clone()))),
            destinations: std::collections::BTreeMap::new(),
            host,
        })
    }

    #[test]
    fn what_is_kept_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let routings = Routings::open(folder.path());
        assert!(routings.stored().is_empty());
        let all = [routing("a.shop"), routing("b.shop")];
        routings.keep(&all).unwrap();
        let stored: Vec<Arc<Routing>> =
            Routings::open(folder.path()).stored().into_iter().map(Arc::new).collect();
        assert_eq!(stored, all);
        routings.keep(&all[1..]).unwrap();
        assert_eq!(routings.stored().len(), 1);
        // A file that was cut off: what is whole of it counts.
        routings.keep(&all).unwrap();
        let bytes = fs::read(folder.path().join(FILE)).unwrap();
        fs::write(folder.path().join(FILE), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(routings.stored().len(), 1);
    }
}
