//! A redirector in this process with one pod, and a test that plays the proxy.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    process::Command,
    time::Duration,
};

use node_agent::{
    listeners::{Listeners, Slot},
    netns::NetnsFd,
    pods::{Feed, PodEvent},
    redirect::{
        apply,
        enrol::{EnrolError, Enroller, PodSpec},
        rules::WayBack,
    },
};
use testkit::netns::Netns;
use tokio::time::{Instant, timeout};

use crate::{
    bed::{pod_and_peer, policy},
    redirector::{Redirector, patient, spec},
};

/// What a proxy got for its pod.
pub(crate) struct Served {
    pub(crate) netns: NetnsFd,
    pub(crate) listeners: Listeners,
    pub(crate) app_mark: u32,
}

impl Served {
    pub(crate) fn take(&mut self, slot: Slot) -> Option<OwnedFd> {
        self.listeners.take(slot)
    }
}

pub(crate) struct Setup {
    pub(crate) pod: Netns,
    pub(crate) peer: Netns,
    pub(crate) enroller: Enroller,
    pub(crate) feed: Feed,
    _redirector: Redirector,
}

/// The same without a proxy.
pub(crate) struct Alone {
    pub(crate) pod: Netns,
    pub(crate) peer: Netns,
    pub(crate) enroller: Enroller,
    _redirector: Redirector,
}

impl Alone {
    pub(crate) fn spec(&self) -> PodSpec {
        spec(&self.pod)
    }

    pub(crate) async fn enroll_within(&self, time: Duration) -> Result<(), EnrolError> {
        self.enroller.enrol(self.spec(), Instant::now() + time).await
    }

    pub(crate) fn rules(&self) -> String {
        self.pod.exec(Command::new("nft").args(["list", "ruleset"])).unwrap()
    }
}

impl Setup {
    pub(crate) async fn without_proxy() -> Alone {
        let (pod, peer) = pod_and_peer();
        let redirector = Redirector::new(policy());
        Alone { pod, peer, enroller: redirector.enroller.clone(), _redirector: redirector }
    }

    pub(crate) async fn new() -> Self {
        let Alone { pod, peer, enroller, _redirector } = Self::without_proxy().await;
        let (mut feed, saved) = Feed::open(_redirector.sources()).await;
        assert!(saved.is_empty());
        assert!(matches!(feed.next().await, Some(PodEvent::Synced)));
        Self { pod, peer, enroller, feed, _redirector }
    }

    pub(crate) async fn enroll(&self) -> Result<(), EnrolError> {
        self.enroller.enrol(spec(&self.pod), Instant::now() + Duration::from_secs(5)).await
    }

    /// Enrols the pod while playing the proxy that takes it on.
    pub(crate) async fn enrol_and_serve(&mut self) -> Served {
        let enrolled = self.enroller.enrol(spec(&self.pod), Instant::now() + Duration::from_secs(5));
        let served = async {
            match self.feed.next().await {
                Some(PodEvent::Add { pod, answer }) => {
                    answer.give(Ok(()));
                    Served {
                        netns: pod.netns,
                        listeners: pod.listeners.expect("listeners came first"),
                        app_mark: pod.app_mark,
                    }
                }
                other => panic!("{other:?}"),
            }
        };
        let (enrolled, served) = tokio::join!(enrolled, served);
        enrolled.unwrap();
        served
    }

    pub(crate) async fn install_again(&self) {
        let spec = spec(&self.pod);
        apply::install(&spec.netns, "nft", &spec.rules, WayBack::Marked).await.unwrap();
    }

    pub(crate) async fn next_event(&mut self) -> PodEvent {
        timeout(Duration::from_secs(5), self.feed.next()).await.expect("an event in time").unwrap()
    }

    /// Whether a listing has `word` in it. A routing table that never was is an error, hence no word.
    fn stands(&self, program: &str, args: &[&str], word: &str) -> bool {
        self.pod.exec(Command::new(program).args(args)).is_ok_and(|listing| listing.contains(word))
    }

    pub(crate) async fn until_rules_are_gone(&self) {
        let gone = async {
            while self.stands("nft", &["list", "ruleset"], "lateen")
                || self.stands("ip", &["rule"], "0x111")
                || self.stands("ip", &["-6", "rule"], "0x111")
                || self.stands("ip", &["route", "show", "table", "100"], "local")
                || self.stands("ip", &["-6", "route", "show", "table", "100"], "local")
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), gone).await.expect("rules are removed");
    }
}

/// Accepts one connection on a pod's listener (which stays open), within five seconds.
pub(crate) async fn accept(served: &mut Served, slot: Slot) -> (TcpStream, SocketAddr) {
    let fd = served.listeners.take(slot).unwrap();
    let listener = TcpListener::from(fd.as_fd().try_clone_to_owned().unwrap());
    served.put_back(slot, fd);
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (stream, from) = timeout(Duration::from_secs(5), listener.accept()).await.expect("captured").unwrap();
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    patient(&stream);
    (stream, from)
}

impl Served {
    fn put_back(&mut self, slot: Slot, fd: OwnedFd) {
        let mut sockets = vec![(slot, fd)];
        for other in Slot::ALL {
            if let Some(fd) = self.listeners.take(other) {
                sockets.push((other, fd));
            }
        }
        self.listeners = Listeners::from_parts(sockets);
    }
}

pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}
