//! A pod's network namespace: made and joined to its node, and taken away again with all that runs in it.

use std::fs;

use super::worker::{Body, PodTask};
use crate::local::containers::run;
use crate::local::namespaces::Netns;
use crate::local::nodes;

impl PodTask {
    pub(super) async fn make_network(&self) -> Result<Netns, String> {
        fs::create_dir_all(self.folder()).map_err(|error| error.to_string())?;
        let Some(addresses) = self.addresses else { return Ok(self.node.netns.clone()) };
        let path = self.host.dir.netns().join(self.uid());
        let netns = Netns::create(&path).await.map_err(|error| error.to_string())?;
        match nodes::join_pod(&self.node, &netns, &self.link(), addresses).await {
            Ok(()) => Ok(netns),
            Err(error) => {
                netns.forget();
                Err(error.to_string())
            }
        }
    }

    /// Ends what is left in the pod's namespace and takes its network away.
    pub(super) async fn release_network(&self, body: &Body) {
        if self.addresses.is_none() {
            return;
        }
        if let Ok(inode) = body.netns.inode() {
            let _ = tokio::task::spawn_blocking(move || run::kill_namespace("net", inode)).await;
        }
        nodes::part_pod(&self.node, &self.link()).await;
        body.netns.forget();
    }
}
