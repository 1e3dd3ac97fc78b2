//! A pod's namespace, a peer's beside it, and a redirector in this process.

use std::{
    net::{IpAddr, TcpStream},
    time::Duration,
};

use node_agent::{
    netns::NetnsFd,
    pods::Sources,
    private::server::PrivateServer,
    redirect::{
        enrol::{Enroller, PodSpec, Policy},
        rules::RuleSet,
    },
    zds::{WorkloadInfo, server::ZdsServer},
};
use testkit::netns::{End, Netns, join};
use tokio::task::JoinSet;

pub(crate) const UID: &str = "0f6a6ab8-6d3c-4d57-9a50-8c4f4f3a1f11";
pub(crate) const POD_V4: &str = "10.77.0.2";
pub(crate) const POD_V6: &str = "fd77::2";
pub(crate) const PEER_V4: &str = "10.77.0.1";
pub(crate) const PEER_V6: &str = "fd77::1";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Waits at most five seconds where it would wait for ever.
pub(crate) fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
}

/// Pod and peer, joined; everything the pod does not know goes to the peer.
pub(crate) fn pod_and_peer() -> (Netns, Netns) {
    let (pod, peer) = (Netns::new("pod").unwrap(), Netns::new("peer").unwrap());
    join(
        End { namespace: &pod, interface: "eth0", addresses: &[(ip(POD_V4), 24), (ip(POD_V6), 64)] },
        End { namespace: &peer, interface: "eth0", addresses: &[(ip(PEER_V4), 24), (ip(PEER_V6), 64)] },
    )
    .unwrap();
    pod.ip(&format!("route add default via {PEER_V4}")).unwrap();
    pod.ip(&format!("-6 route add default via {PEER_V6}")).unwrap();
    (pod, peer)
}

/// The redirector's three parts, served in a folder.
pub(crate) struct Redirector {
    pub(crate) enroller: Enroller,
    pub(crate) zds: ZdsServer,
    pub(crate) folder: tempfile::TempDir,
    private: PrivateServer,
    tasks: std::cell::RefCell<JoinSet<()>>,
}

impl Redirector {
    pub(crate) fn new(policy: Policy) -> Self {
        let redirector = Self::in_folder(policy, tempfile::tempdir().unwrap());
        redirector.serve();
        redirector
    }

    /// One that does not serve yet.
    pub(crate) fn in_folder(policy: Policy, folder: tempfile::TempDir) -> Self {
        let zds = ZdsServer::new();
        let (private, mut drained) = PrivateServer::new();
        let enroller = Enroller::new(policy, zds.clone(), private.clone()).unwrap();
        let mut tasks = JoinSet::new();
        let drainer = enroller.clone();
        tasks.spawn(async move {
            while let Some(uid) = drained.recv().await {
                drainer.drained(&uid).await;
            }
        });
        Self { enroller, zds, folder, private, tasks: tasks.into() }
    }

    pub(crate) fn serve(&self) {
        let Sources { zds, private } = self.sources();
        let mut tasks = self.tasks.borrow_mut();
        tasks.spawn(self.zds.serve(&zds).unwrap());
        tasks.spawn(self.private.serve(&private.unwrap()).unwrap());
    }

    pub(crate) fn sources(&self) -> Sources {
        Sources {
            zds: self.folder.path().join("zds.sock"),
            private: Some(self.folder.path().join("redirect.sock")),
        }
    }
}

pub(crate) fn policy() -> Policy {
    Policy { leave_grace: Duration::from_millis(50), ..Policy::default() }
}

pub(crate) fn spec(pod: &Netns) -> PodSpec {
    PodSpec {
        uid: UID.into(),
        info: WorkloadInfo {
            name: "reviews-0".into(),
            namespace: "books".into(),
            service_account: "reviews".into(),
        },
        netns: NetnsFd::from_fd(pod.fd().try_clone_to_owned().unwrap()).unwrap(),
        ips: vec![ip(POD_V4)],
        rules: RuleSet::default(),
    }
}
