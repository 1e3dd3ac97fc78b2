//! What the controller sends waypoints beside what it tells every proxy: the labels of workloads. What becomes of traffic
//! to hosts `xds::feed::routing` reads.

use std::sync::Arc;

use model::address::Str;
use model::traffic::balance::Labels;
use prost::Message as _;
use proto::type_url;
use proto::workload::{Address, address};
use xds::convert::routing::features::Feature;
use xds::delta::subscriber::{Delivery, Handler, Received, Rejection};

use crate::Waypoint;

/// Takes the labels of workloads from deliveries, and passes all of them on.
#[derive(Debug)]
pub(crate) struct LabelFeed<F> {
    /// What takes all the rest.
    pub(crate) feed: F,
    pub(crate) waypoint: Arc<Waypoint>,
}

impl<F: Handler> Handler for LabelFeed<F> {
    fn apply(&mut self, delivery: &Delivery) -> Vec<Rejection> {
        if *delivery.type_url == *type_url::ADDRESS {
            // Before the workloads themselves: an endpoint belongs to its subsets from the first moment.
            delivery.removed.iter().for_each(|name| self.waypoint.labels.set(name, None));
            delivery.resources.iter().for_each(|received| take_labels(&self.waypoint, received));
        }
        self.feed.apply(delivery)
    }

    fn held(&self, name: &str) -> Option<Str> {
        self.feed.held(name)
    }
}

/// What this waypoint can do with a routing: it is sent nothing that requires more.
pub(crate) fn abilities() -> Vec<&'static str> {
    Feature::carried().map(Feature::name).collect()
}

fn take_labels(waypoint: &Waypoint, received: &Received) {
    // What cannot be read is refused, and said, by who reads all of it.
    let Ok(Address { r#type: Some(address::Type::Workload(workload)) }) = Address::decode(&*received.value)
    else {
        return;
    };
    let labels = xds::convert::workload::labels(&workload).map(|labels| {
        let pairs = labels.into_iter().map(|(name, value)| (Str::from(name), Str::from(value)));
        Labels::new(pairs.collect())
    });
    waypoint.labels.set(&workload.uid.into(), labels);
}
