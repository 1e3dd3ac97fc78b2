//! A redirector in this process: its parts, without the files and signals of the whole role.

use std::{net::TcpStream, time::Duration};

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
use testkit::netns::Netns;
use tokio::task::JoinSet;

use crate::bed::{POD_V4, UID, ip};

/// Waits at most five seconds where it would wait for ever.
pub(crate) fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
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
        let (private, mut drained) = PrivateServer::new();
        let zds = ZdsServer::for_own(private.clone());
        let enroller = Enroller::new(policy, zds.clone(), private.clone()).unwrap();
        let mut tasks = JoinSet::new();
        let drainer = enroller.clone();
        tasks.spawn(async move {
            loop {
                let uid = drained.next().await;
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
        rules: RuleSet { probed: [8080].into(), ..RuleSet::default() },
    }
}
