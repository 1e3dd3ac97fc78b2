//! What a pod's containers find in /etc and in their volumes.

use std::fs;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::hostname;
use super::status::Doing;
use super::worker::{Body, FIRST_WAIT, PodTask};
use crate::local::containers::volumes::{self, VolumeFolders};
use crate::local::dns;
use crate::local::links::has_ipv6;

impl PodTask {
    /// Writes what the containers will find in /etc and in their volumes, trying until it can be done.
    pub(super) async fn write_files(&mut self, body: &mut Body) -> bool {
        let mut wait = FIRST_WAIT;
        loop {
            match self.write_files_once() {
                Ok(()) => return true,
                Err(reason) => {
                    for standing in &mut body.standings {
                        standing.doing = Doing::waiting("CreateContainerConfigError", reason.clone());
                    }
                    self.publish(body).await;
                    self.pause(&mut wait).await;
                }
            }
            if self.stop.is_cancelled() {
                return false;
            }
        }
    }

    fn write_files_once(&self) -> Result<(), String> {
        let folder = self.folder();
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = hostname(&self.pod);
        let write = |file: &str, text: String| {
            fs::write(folder.join(file), text)
                .map_err(|error| format!("{}: {error}", folder.join(file).display()))
        };
        write("resolv.conf", dns::resolv_conf(namespace))?;
        write("hostname", format!("{name}\n"))?;
        write("hosts", hosts(&self.pod, &name))?;
        self.write_volumes()
    }

    pub(super) fn write_volumes(&self) -> Result<(), String> {
        let manifests = Arc::clone(&self.manifests.borrow());
        let (folder, claims) = (self.folder(), self.host.dir.root().join("claims"));
        volumes::write(&VolumeFolders { pod: &folder, claims: &claims }, &self.pod, &manifests)
    }
}

fn hosts(pod: &Pod, name: &str) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    if has_ipv6() {
        text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
    }
    for ip in pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten()) {
        text.push_str(&format!("{}\t{name}\n", ip.ip));
    }
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    text
}
