//! The part of a CNI agent that a node proxy needs: it names pods and passes their network namespaces (ZDS).

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, sendmsg,
    socket,
};
use prost::Message;
use proto::zds::workload_request::Payload;
use proto::zds::{
    AddWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest, WorkloadResponse, workload_response,
};
use testkit::netns::Netns;

/// Listens at `path` and tells the first proxy that connects about the pods; then keeps the connection open.
///
/// Its thread ends with the proxy, or with this process.
pub(super) fn announce(path: &Path, pods: &[(&str, &Netns)]) -> io::Result<()> {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::new(4)?)?;
    let pods: Vec<_> = pods
        .iter()
        .map(|(name, pod)| Ok((info(name), pod.fd().try_clone_to_owned()?)))
        .collect::<io::Result<_>>()?;
    std::thread::spawn(move || {
        if let Err(error) = serve(&UnixListener::from(listener), pods) {
            // What is wrong shows in the proxy's not becoming ready; this says why.
            eprintln!("bench: telling a proxy of its pod: {error}");
        }
    });
    Ok(())
}

fn info(name: &str) -> WorkloadInfo {
    WorkloadInfo { name: name.to_owned(), namespace: "bench".to_owned(), service_account: name.to_owned() }
}

/// Hello, each pod with its namespace, the end of the snapshot; each answered.
fn serve(listener: &UnixListener, pods: Vec<(WorkloadInfo, OwnedFd)>) -> io::Result<()> {
    // Reads and writes of a stream are those of a SEQPACKET socket: a datagram a call.
    let (mut proxy, _) = listener.accept()?;
    let mut buffer = [0; 1024];
    let _hello = proxy.read(&mut buffer)?;
    for (info, namespace) in pods {
        let uid = info.name.clone();
        let add = Payload::Add(AddWorkload { uid, workload_info: Some(info) });
        ask(&mut proxy, add, Some(&namespace))?;
    }
    ask(&mut proxy, Payload::SnapshotSent(SnapshotSent {}), None)?;
    while proxy.read(&mut buffer)? > 0 {}
    Ok(())
}

/// One request and its answer.
fn ask(proxy: &mut UnixStream, payload: Payload, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let message = WorkloadRequest { payload: Some(payload) }.encode_to_vec();
    let descriptors: Vec<_> = descriptor.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(proxy.as_raw_fd(), &[IoSlice::new(&message)], control, MsgFlags::empty(), None)?;
    let mut buffer = [0; 1024];
    let length = proxy.read(&mut buffer)?;
    let answer = WorkloadResponse::decode(&buffer[..length])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match answer.payload {
        Some(workload_response::Payload::Ack(ack)) if ack.error.is_empty() => Ok(()),
        other => Err(io::Error::other(format!("the proxy answers {other:?}"))),
    }
}
