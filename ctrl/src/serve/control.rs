//! The decision who may see what.

use std::sync::Arc;

use manifest::waypoint::{CLASS, OWN_CLASS};
use model::identity::Identity;
use proto::type_url;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use tracing::field::display;
use xds::convert::routing::features::{Feature, lesser};
use xds::delta::session::Fit;
use xds::delta::store::Resource;
use xds::node::NodeInfo;
use xds::server::{Control, Excess, Publisher, Report};

use super::metrics::XdsMetrics;
use crate::ca::authorize::{Authenticator, Caller};
use crate::ca::listen::Peer;
use crate::core::Core;
use crate::index::Name;
use crate::limits::{Limit, Limits};

/// Lets callers in by their tokens.
#[derive(Debug)]
pub struct Gate<A> {
    authenticator: Arc<A>,
    core: Core,
    metrics: XdsMetrics,
    limits: Limits,
}

impl<A: Authenticator> Gate<A> {
    /// Shows what `core` publishes.
    pub fn new(authenticator: Arc<A>, core: Core, metrics: XdsMetrics, limits: Limits) -> Self {
        Self { authenticator, core, metrics, limits }
    }

    /// For the status of what it does not carry out: of another version, it lacks what this one's waypoints do.
    fn note_lagging(&self, node: &NodeInfo, connected: bool) {
        let lacks: Vec<Feature> = lacking(node).into_iter().filter(|feature| feature.is_carried()).collect();
        if node.is_waypoint() && node.heeds_extensions() && !lacks.is_empty() {
            self.core.note_lagging(&Name::new(&node.namespace, &node.pod), lacks, connected);
        }
    }
}

impl<A: Authenticator> Control for Gate<A> {
    type Caller = Caller;

    async fn authenticate(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Caller, Status> {
        let peer = Peer::of(extensions);
        let from = Peer::ip_of(extensions);
        let caller = self.authenticator.authenticate(metadata, from).await.map_err(|refusal| {
            let from = peer.and_then(|peer| peer.address).map(display);
            tracing::warn!(%refusal, peer = from, "configuration refused");
            Status::unauthenticated("authentication failure")
        })?;
        if let Some(peer) = peer {
            peer.is(&caller);
        }
        Ok(caller)
    }

    fn streams_of(&self, caller: &Caller) -> usize {
        caller.streams()
    }

    fn exceeded(&self, caller: &Caller, excess: Excess) {
        let (limit, what) = match excess {
            Excess::OfCaller => (Limit::StreamsOfCaller, "one caller has too many streams; its oldest ends"),
            Excess::OfAll => (Limit::Streams, "too many streams; one is turned away"),
        };
        if self.limits.hit_and_tell(limit) {
            tracing::warn!(%caller, "{what}");
        }
    }

    fn view(&self, caller: &Caller, node: &NodeInfo) -> Result<Arc<Publisher>, Status> {
        let is_waypoint = |identity: &Identity| self.core.is_waypoint(identity);
        may_speak_for(caller, node, is_waypoint).map_err(|reason| {
            tracing::warn!(%caller, node = node.id(), reason, "configuration refused");
            Status::permission_denied(reason)
        })?;
        Ok(view_of(&self.core, node).clone())
    }

    fn fit(&self, node: &NodeInfo) -> Option<Fit> {
        let lacks = lacking(node);
        let fit = move |type_url: &str, resource: &Resource| {
            (type_url == type_url::ROUTING).then(|| lesser(resource, &lacks)).flatten()
        };
        node.is_waypoint().then(|| Fit::new(fit))
    }

    fn observe(&self, caller: &Caller, node: &NodeInfo, report: Report<'_>) {
        match &report {
            Report::Connected => {
                tracing::info!(%caller, node = node.id(), "proxy connected");
                self.note_lagging(node, true);
            }
            Report::Disconnected => {
                tracing::info!(%caller, node = node.id(), "proxy disconnected");
                self.note_lagging(node, false);
            }
            Report::Sent { type_url, resources, removed, bytes } => {
                tracing::debug!(node = node.id(), type_url, resources, removed, bytes, "sent");
            }
            Report::Event(event) => tracing::debug!(node = node.id(), ?event, "answered"),
            Report::TooManyNames => {
                tracing::warn!(%caller, node = node.id(), "a proxy asks for too many names; its stream ends");
            }
        }
        self.metrics.note(&report);
    }
}

/// What a proxy is shown.
pub fn view_of<'a>(core: &'a Core, node: &NodeInfo) -> &'a Arc<Publisher> {
    match (node.heeds_extensions(), node.is_waypoint()) {
        (true, true) => &core.layer7,
        (true, false) => &core.ours,
        (false, _) => &core.foreign,
    }
}

/// What routings may require and a proxy does not say that it does: it is sent nothing of it.
fn lacking(node: &NodeInfo) -> Vec<Feature> {
    Feature::ALL.into_iter().filter(|feature| !node.understands(feature.name())).collect()
}

/// Whether who the caller has proved to be and what it says of itself agree. A node's token is its agent's: what a waypoint
/// lacks, or has in force, no agent can say in its name. Another account's is a waypoint's if there is a Gateway that it
/// runs for: a waypoint sees the mesh of all namespaces, which the account of some pod has no business with. One that comes
/// before its Gateway is known asks again by itself.
pub(super) fn may_speak_for(
    caller: &Caller,
    node: &NodeInfo,
    is_waypoint: impl Fn(&Identity) -> bool,
) -> Result<(), String> {
    match caller {
        Caller::Node(own) if node.is_waypoint() => {
            Err(format!("the token of node {own} is its agent's, not one of a waypoint"))
        }
        Caller::Node(own) => match node.node_name() {
            Some(said) if *said != **own => Err(format!("the token of node {own} is not one of node {said}")),
            _ => Ok(()),
        },
        Caller::Workload(identity) if !node.is_waypoint() => {
            Err(format!("{identity} is no node's agent and can be told configuration as a waypoint only"))
        }
        Caller::Workload(identity) if **identity.namespace() != *node.namespace => {
            Err(format!("{identity} is not of the namespace {}", node.namespace))
        }
        Caller::Workload(identity) if !is_waypoint(identity) => Err(format!(
            "{identity} runs no waypoint: there is no Gateway {}/{} of class {CLASS} or {OWN_CLASS}; passes once there is",
            identity.namespace(),
            identity.service_account()
        )),
        Caller::Workload(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use manifest::{Batch, Object};

    use super::*;
    use crate::translate::Context;

    fn object(text: &str) -> Object {
        manifest::parse(text, &Arc::from(Path::new("f.yaml"))).objects.remove(0)
    }

    fn gateway(name: &str) -> Object {
        object(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: m, port: 15008, protocol: HBONE}}]}}\n"
        ))
    }

    #[test]
    fn a_token_opens_its_own_view_only() {
        let core = Core::new(Context::new(model::mesh::Settings::default()));
        // One that was ready before a restart and whose Gateway is gone runs on until nobody is bound to it.
        core.remember(&[gateway("gone")]);
        let bound = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop, \
                     labels: {istio.io/use-waypoint: gone}}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
        let may_speak_for = |caller: &Caller, node: &NodeInfo| {
            may_speak_for(caller, node, |identity| core.is_waypoint(identity))
        };
        let node = |name: &str| NodeInfo::new("ztunnel", None, "agent", "istio-system").on_node(name);
        let agent = Caller::Node("node-1".into());
        assert!(may_speak_for(&agent, &node("node-1")).is_ok());
        assert!(may_speak_for(&agent, &NodeInfo::new("ztunnel", None, "agent", "istio-system")).is_ok());
        assert!(may_speak_for(&agent, &node("node-2")).is_err());
        assert!(may_speak_for(&agent, &NodeInfo::new("waypoint", None, "w", "shop")).is_err());
        let waypoint = Caller::Workload(Identity::new("cluster.local", "shop", "waypoint"));
        // Its Gateway is not known yet; it comes again.
        assert!(may_speak_for(&waypoint, &NodeInfo::new("waypoint", None, "w", "shop")).is_err());
        let upserted = [gateway("waypoint"), object(bound)].map(Arc::new).into();
        core.apply(&Batch { upserted, ..Batch::default() });
        assert!(may_speak_for(&waypoint, &NodeInfo::new("waypoint", None, "w", "shop")).is_ok());
        for (domain, account, known) in
            [("cluster.local", "gone", true), ("cluster.local", "cart", false), ("other", "waypoint", false)]
        {
            let caller = Caller::Workload(Identity::new(domain, "shop", account));
            let found = may_speak_for(&caller, &NodeInfo::new("waypoint", None, "w", "shop"));
            assert_eq!(found.is_ok(), known, "{found:?}");
        }
        assert!(may_speak_for(&waypoint, &NodeInfo::new("waypoint", None, "w", "other")).is_err());
        assert!(may_speak_for(&waypoint, &NodeInfo::new("ztunnel", None, "w", "shop")).is_err());
    }
}
