//! How hosts are routed, beside the mesh: the handler of waypoints.

use model::address::{NamespacedHostname, Str};
use model::mesh::Update;
use model::route::Routing;
use proto::type_url;

use super::{Feed, say_refused};
use crate::convert::routing::features::required;
use crate::convert::{ConvertError, Decoder, Reason};
use crate::delta::subscriber::{Delivery, Handler, Received, Rejection};

/// A host is routed otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum RoutingUpdate {
    /// By this, as a whole.
    Put(Box<Routing>),
    /// No longer by rules: as its service says.
    Remove(NamespacedHostname),
}

/// Passes updates of the mesh on as a [`Feed`] does, and those of [`type_url::ROUTING`] beside them. A routing that cannot
/// be read, or asks for what waypoints do not do, changes nothing: its last good version stays in force.
#[derive(Debug)]
pub struct RoutingFeed<F, R> {
    mesh: Feed<F>,
    sink: R,
}

impl<F: FnMut(Vec<Update>) + Send, R: FnMut(Vec<RoutingUpdate>) + Send> RoutingFeed<F, R> {
    /// Passes updates of the mesh to `mesh` and those of routings to `routings`, in the order in which they are to be
    /// applied.
    pub fn new(decoder: Decoder, mesh: F, routings: R) -> Self {
        Self { mesh: Feed::new(decoder, mesh), sink: routings }
    }

    fn routing(
        &mut self,
        received: &Received,
        nth: usize,
        updates: &mut Vec<RoutingUpdate>,
    ) -> Option<Rejection> {
        let Received { name, value, replaces, .. } = received;
        let error = match self.mesh.decoder.routing(name, value.clone()) {
            Ok(routing) => match required(&routing).into_iter().find(|feature| !feature.is_carried()) {
                None => {
                    updates.push(RoutingUpdate::Put(Box::new(routing)));
                    return None;
                }
                Some(feature) => ConvertError {
                    resource: name.to_string(),
                    field: "requires".to_owned(),
                    reason: Reason::Required(feature.name().to_owned()),
                },
            },
            Err(refused) => refused.error,
        };
        let effect = if *replaces { "its last good version stays in force" } else { "it is unknown here" };
        say_refused(&error, effect, nth);
        Some(Rejection { name: name.clone(), reason: format!("{}: {}", error.field, error.reason) })
    }
}

impl<F: FnMut(Vec<Update>) + Send, R: FnMut(Vec<RoutingUpdate>) + Send> Handler for RoutingFeed<F, R> {
    fn apply(&mut self, delivery: &Delivery) -> Vec<Rejection> {
        let Delivery { type_url, resources, removed, .. } = delivery;
        if **type_url != *type_url::ROUTING {
            return self.mesh.apply(delivery);
        }
        let mut updates = Vec::with_capacity(removed.len() + resources.len());
        let gone = |name| self.mesh.decoder.routing_removal(name).map(RoutingUpdate::Remove);
        updates.extend(removed.iter().filter_map(gone));
        let mut rejections = Vec::new();
        for received in resources {
            rejections.extend(self.routing(received, rejections.len(), &mut updates));
        }
        (self.sink)(updates);
        rejections
    }

    fn held(&self, name: &str) -> Option<Str> {
        self.mesh.held(name)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::route::action::Forward;
    use prost::Message;

    use super::*;
    use crate::convert::{routing, settings};

    fn host(name: &str) -> NamespacedHostname {
        NamespacedHostname::new("ns", name)
    }

    fn reviews() -> Routing {
        Routing {
            host: host("reviews"),
            http: Box::default(),
            tls: Box::default(),
            tcp: Box::default(),
            default: Some(Box::new(Forward::to_service(host("reviews")))),
            destinations: std::collections::BTreeMap::new(),
        }
    }

    fn delivery(type_url: &str, resources: &[(&str, Bytes)], removed: &[&str]) -> Delivery {
        let received = |(name, value): &(&str, Bytes)| Received {
            name: (*name).into(),
            version: "1".into(),
            value: value.clone(),
            replaces: false,
        };
        Delivery {
            type_url: type_url.into(),
            revision: String::new(),
            resources: resources.iter().map(received).collect(),
            removed: removed.iter().map(|name| Str::from(*name)).collect(),
            more: false,
            ours: true,
        }
    }

    /// What comes of a delivery: how many updates of the mesh, those of routings, and what is refused.
    fn apply(delivery: &Delivery) -> (usize, Vec<RoutingUpdate>, Vec<Rejection>) {
        let (mut mesh, mut routings) = (0, Vec::new());
        let mut feed =
            RoutingFeed::new(Decoder::default(), |all| mesh += all.len(), |all| routings.extend(all));
        let rejections = feed.apply(delivery);
        (mesh, routings, rejections)
    }

    #[test]
    fn routings_are_passed_on_and_what_cannot_be_read_is_refused() {
        let good = Bytes::from(routing::to_wire(&reviews()).encode_to_vec());
        let resources =
            [("ns/other", good.clone()), ("ns/reviews", good), ("ns/x", Bytes::from_static(b"\xff"))];
        let (mesh, routings, rejections) =
            apply(&delivery(type_url::ROUTING, &resources, &["ns/old", "odd"]));
        assert_eq!(mesh, 0);
        assert_eq!(routings, [RoutingUpdate::Remove(host("old")), RoutingUpdate::Put(Box::new(reviews()))]);
        let refused: Vec<&str> = rejections.iter().map(|one| &*one.name).collect();
        assert_eq!(refused, ["ns/other", "ns/x"]);
        assert!(rejections[0].reason.starts_with("name: "), "{rejections:?}");
    }

    #[test]
    fn the_rest_is_the_meshs() {
        let value = settings::to_wire(&model::mesh::Settings::default(), "").encode_to_vec().into();
        let settings = delivery(type_url::MESH_SETTINGS, &[("mesh", value)], &[]);
        assert_eq!(apply(&settings), (1, Vec::new(), Vec::new()));
    }
}
