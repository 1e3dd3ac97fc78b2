//! Waypoints that are connected and do not do what those of this version do: what they are not told is in the status of
//! the objects that ask for it (design decision D14).

use std::collections::BTreeMap;

use xds::convert::routing::features::Feature;

use crate::index::Name;

/// Such waypoints, by pod. Bounded as connections are.
#[derive(Debug, Default)]
pub struct Lagging(BTreeMap<Name, Lag>);

/// One of them.
#[derive(Debug)]
struct Lag {
    lacks: Vec<Feature>,
    /// While it comes back it may have several.
    streams: usize,
}

impl Lagging {
    /// A stream of one began or ended.
    pub(crate) fn note(&mut self, pod: &Name, lacks: Vec<Feature>, connected: bool) {
        if connected {
            let lag = self.0.entry(pod.clone()).or_insert(Lag { lacks: Vec::new(), streams: 0 });
            lag.lacks = lacks;
            lag.streams += 1;
        } else if let Some(lag) = self.0.get_mut(pod) {
            lag.streams -= 1;
            if lag.streams == 0 {
                self.0.remove(pod);
            }
        }
    }

    /// The pods and what they lack.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Name, &[Feature])> {
        self.0.iter().map(|(pod, lag)| (pod, &lag.lacks[..]))
    }
}
