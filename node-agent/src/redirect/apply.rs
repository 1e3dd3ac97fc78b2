//! Brings rules, routes and settings into a pod's namespace: the thin shell around [`super::rules`]. Only making
//! the child process, the netlink socket and the settings happens inside; waiting happens outside.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr},
    process::Stdio,
    time::Duration,
};

use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        route::{RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute},
    },
};
use socket2::{Domain, Socket, Type};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::rules::{self, RuleSet, WayBack};
use crate::{
    netns::{NetnsFd, in_namespace},
    socket::{MARK_MASK, RETURN_MARK},
};

/// Table with the one route that keeps returning packets inside the pod.
const ROUTE_TABLE: u32 = 100;
/// Place of the rule that leads there.
const RULE_PREFERENCE: u32 = 32764;
/// How long `nft` may take; it takes some ten milliseconds.
const NFT_TIME: Duration = Duration::from_secs(10);
/// The loopback interface's index, the same in every namespace.
const LOOPBACK: u32 = 1;

/// Why a namespace could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The namespace could not be entered.
    #[error(
        "cannot enter the pod's network namespace: {0}; the agent needs CAP_SYS_ADMIN, and the pod must still exist"
    )]
    Enter(#[source] io::Error),
    /// `nft` could not be started.
    #[error("cannot run `{command}`: {source}; install nftables (1.0 or later) beside the agent")]
    NftMissing {
        /// The command tried.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `nft` refused the transaction: nothing of it is in force.
    #[error("nft refused the redirection rules ({0}); the kernel needs nf_tables, nft_redir and conntrack")]
    Nft(String),
    /// `nft` did not end.
    #[error("nft did not answer within {} s; is the machine out of memory?", NFT_TIME.as_secs())]
    NftSlow,
    /// A route or routing rule could not be set.
    #[error("cannot set the policy route for returning packets: {0}; the agent needs CAP_NET_ADMIN")]
    Route(String),
}

/// Sets the policy route, `rules` and the settings they rely on. Can be repeated; each part is atomic. Where the
/// route fails the rules stand nevertheless: they refuse rather than let pass. Returns how what an application
/// answers comes back: as `wanted`, unless the kernel refuses a setting for that.
///
/// # Errors
/// See [`ApplyError`].
pub async fn install(
    namespace: &NetnsFd,
    nft: &str,
    rules: &RuleSet,
    wanted: WayBack,
) -> Result<WayBack, ApplyError> {
    let settings = in_namespace(namespace, || prepare_settings(wanted)).map_err(ApplyError::Enter)?;
    // First, since the application answers what the rules capture from their first moment on: without the route that
    // answer leaves the pod and is lost, which the client makes good only after a second.
    let routed = add_routes(namespace, settings.loopback_v6).await;
    run_nft(namespace, nft, &rules::render(rules, settings.way_back)).await?;
    in_namespace(namespace, set_up_tracking).map_err(ApplyError::Enter)?;
    routed.map(|()| settings.way_back)
}

async fn add_routes(namespace: &NetnsFd, loopback_v6: bool) -> Result<(), ApplyError> {
    let netlink = Netlink::open(namespace)?;
    netlink.add_v4().await?;
    if loopback_v6 {
        netlink.add_v6().await?;
    }
    Ok(())
}

/// Takes everything of ours out of the namespace again. Can be repeated.
///
/// # Errors
/// See [`ApplyError`].
pub async fn remove(namespace: &NetnsFd, nft: &str) -> Result<(), ApplyError> {
    run_nft(namespace, nft, &rules::removal()).await?;
    Netlink::open(namespace)?.remove().await;
    match in_namespace(namespace, forget_tracked).map_err(ApplyError::Enter)? {
        Ok(()) => {}
        Err(error) => tracing::debug!(%error, "tracked connections of a pod that left are not forgotten"),
    }
    Ok(())
}

/// Has the kernel forget the connections that it tracks in the namespace this thread is in. Nobody watches how they end
/// once the rules are gone, so that they would be taken for open for days; and when the pod has joined again, a new
/// connection from the same port would pass for one of them: not captured, and hence stopped.
fn forget_tracked() -> io::Result<()> {
    /// `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK` without a connection named: all of them.
    const DELETE: u16 = 1 << 8 | 2;
    const LENGTH: u32 = 20;
    let mut message = Vec::new();
    message.extend_from_slice(&LENGTH.to_ne_bytes());
    message.extend_from_slice(&DELETE.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    message.extend_from_slice(&flags.to_ne_bytes());
    // Sequence number, port, and any family, version and resource 0.
    message.resize(LENGTH as usize, 0);
    let kind = Type::RAW.cloexec();
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(libc::NETLINK_NETFILTER.into()))?;
    socket.send(&message)?;
    // The kernel has answered when the call returns; without support for it in the kernel there is nobody to.
    let mut answer = [0; 36];
    socket.set_nonblocking(true)?;
    let answered = (&socket).read(&mut answer)?;
    let code = answer[..answered].get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What the namespace said about itself.
struct Settings {
    loopback_v6: bool,
    way_back: WayBack,
}

/// Reads and makes settings; runs inside the namespace, where /proc/sys/net is the namespace's own.
fn prepare_settings(wanted: WayBack) -> Settings {
    // Connections waiting in the queue of a listener that closes move to its successor. Kernels before 5.14
    // have no such setting: then only those waiting at that moment are lost.
    let _ = std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1");
    let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
    let loopback_v6 = disabled.is_ok_and(|text| text.trim() == "0");
    // A socket has the mark of the SYN that it answers, and a reset that of the packet that it answers.
    let on = |setting: &str| std::fs::write(format!("/proc/sys/net/{setting}"), "1").is_ok();
    let marked = wanted == WayBack::Marked
        && on("ipv4/tcp_fwmark_accept")
        && on("ipv4/fwmark_reflect")
        && (!loopback_v6 || on("ipv6/fwmark_reflect"));
    Settings { loopback_v6, way_back: if marked { WayBack::Marked } else { WayBack::Tracked } }
}

/// A packet outside the window that connection tracking expects (a late retransmission) would not be translated
/// back, and so reset a captured connection. And a lone packet from anywhere must not be taken for a connection under
/// way: the one that then begins would not be captured, hence stopped by the rules. What was open before the pod
/// joined stays untracked and passes. A SYN that is repeated because it was lost while the pod was outside is a new one to be
/// captured: tracking forgets the first before it is repeated, after a second (RFC 6298), and would else lead each
/// repetition past the translation, to the rules that stop it. What is captured is answered at once. The settings are
/// there once rules have started the tracking; a user namespace may not have them.
fn set_up_tracking() {
    for (setting, value) in [("be_liberal", "1"), ("loose", "0"), ("timeout_syn_sent", "1")] {
        let _ = std::fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_tcp_{setting}"), value);
    }
}

/// Runs one nftables transaction inside `namespace`.
pub(super) async fn run_nft(namespace: &NetnsFd, nft: &str, transaction: &str) -> Result<(), ApplyError> {
    let missing = |source| ApplyError::NftMissing { command: nft.to_owned(), source };
    let mut command = Command::new(nft);
    command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child =
        in_namespace(namespace, || command.spawn()).map_err(ApplyError::Enter)?.map_err(missing)?;
    let mut input = child.stdin.take().expect("stdin is piped above");
    let run = async {
        // A child that ends early breaks the pipe; its exit status and its words say why.
        let _ = input.write_all(transaction.as_bytes()).await;
        drop(input);
        child.wait_with_output().await
    };
    let output = timeout(NFT_TIME, run).await.map_err(|_| ApplyError::NftSlow)?.map_err(missing)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(ApplyError::Nft(words.lines().next().unwrap_or("no reason given").trim().to_owned()))
}

/// A netlink socket made inside a namespace, used from outside.
struct Netlink {
    handle: Handle,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Netlink {
    fn open(namespace: &NetnsFd) -> Result<Self, ApplyError> {
        let (connection, handle, _) = in_namespace(namespace, rtnetlink::new_connection)
            .map_err(ApplyError::Enter)?
            .map_err(|error| ApplyError::Route(error.to_string()))?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    async fn add_v4(&self) -> Result<(), ApplyError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(LOOPBACK)
            .table_id(ROUTE_TABLE)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .build();
        self.add_route(route).await?;
        tolerate_existing(self.policy_rule().v4().execute().await)
    }

    async fn add_v6(&self) -> Result<(), ApplyError> {
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .output_interface(LOOPBACK)
            .table_id(ROUTE_TABLE)
            .kind(RouteType::Local)
            .build();
        self.add_route(route).await?;
        tolerate_existing(self.policy_rule().v6().execute().await)
    }

    async fn add_route(&self, route: rtnetlink::packet_route::route::RouteMessage) -> Result<(), ApplyError> {
        tolerate_existing(self.handle.route().add(route).replace().execute().await)
    }

    fn policy_rule(&self) -> rtnetlink::RuleAddRequest {
        let mut rule = self
            .handle
            .rule()
            .add()
            .table_id(ROUTE_TABLE)
            .priority(RULE_PREFERENCE)
            .action(RuleAction::ToTable)
            .fw_mark(RETURN_MARK);
        rule.message_mut().attributes.push(RuleAttribute::FwMask(MARK_MASK));
        rule
    }

    /// Removes rule and route of both families; what is not there needs no removing.
    async fn remove(&self) {
        use rtnetlink::packet_route::AddressFamily;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut rule = self.policy_rule();
            rule.message_mut().header.family = family;
            let message = rule.message_mut().clone();
            let _ = self.handle.rule().del(message).execute().await;
        }
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(LOOPBACK).table_id(ROUTE_TABLE);
        let _ = self
            .handle
            .route()
            .del(v4.kind(RouteType::Local).scope(RouteScope::Host).build())
            .execute()
            .await;
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(LOOPBACK).table_id(ROUTE_TABLE);
        let _ = self.handle.route().del(v6.kind(RouteType::Local).build()).execute().await;
    }
}

fn tolerate_existing(result: Result<(), rtnetlink::Error>) -> Result<(), ApplyError> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => Ok(()),
        other => other.map_err(|error| ApplyError::Route(error.to_string())),
    }
}
