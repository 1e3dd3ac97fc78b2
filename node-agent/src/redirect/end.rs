//! The end of the role: alone, in favour of another one that is there, or of one that is only starting. In a cluster it
//! begins when the kubelet wants it to, which is sooner or later than its successor is there.

use std::{future::Future, path::Path, pin::Pin, time::Duration};

use daemon::{shutdown::Shutdown, tasks::Tasks};
use tokio::{net::UnixStream, time::sleep};
use tracing::{info, warn};

use super::{
    Options, RedirectError,
    enrol::{Enroller, StandStill},
    supervise::Orders,
};
use crate::{
    private::{server::PrivateServer, takeover},
    seqpacket::SeqPacket,
};

/// How often it is looked whether another one is still in this one's place, and how often that must fail in a row.
const LOOK_FOR_HEIR: Duration = Duration::from_millis(500);
const MISSED: u32 = 6;

/// Ends what serves others, and the proxy. Nobody would take the connections that wait in listeners held here: those of the
/// proxy alone are left, and it learns from the lost connection that it is to serve until its end.
pub(super) async fn alone(tasks: &Tasks, private: &PrivateServer, proxy: Pin<&mut impl Future<Output = ()>>) {
    tasks.stop().await;
    private.let_go();
    proxy.await;
}

/// Hands everything over to another one that is there. `None` if that does not take it: `tasks` have been stopped, and are to be
/// started again.
pub(super) async fn in_favour_of(
    heir: &SeqPacket,
    tasks: &Tasks,
    private: &PrivateServer,
    enroller: &Enroller,
) -> Option<StandStill> {
    // What has been begun is finished first; nothing changes any more from here on.
    let still = enroller.stand_still().await;
    tasks.stop().await;
    match takeover::hand_over(private, heir).await {
        Ok(()) => Some(still),
        Err(error) => {
            warn!(%error, "another redirector wanted to take over and has not; going on");
            None
        }
    }
}

/// As [`alone`], where another one is about to come: as long as the proxy has not ended, that one gets everything, and the proxy's
/// connections go on in its own. Returns whether it came.
///
/// # Errors
/// The socket that it would come to cannot be opened.
pub(super) async fn awaiting_an_heir(
    tasks: &Tasks,
    (private, path): (&PrivateServer, &Path),
    enroller: &Enroller,
    mut proxy: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<StandStill>, RedirectError> {
    // Pods are that one's business already.
    tasks.stop().await;
    loop {
        let serving = private.serve(path);
        let serving =
            serving.map_err(RedirectError::system(format!("cannot listen on {}", path.display())))?;
        let tasks = Tasks::default();
        tasks.spawn_lasting("private socket", serving);
        tokio::select! {
            () = proxy.as_mut() => {
                tasks.stop().await;
                private.let_go();
                return Ok(None);
            }
            heir = private.heir() => {
                if let Some(still) = in_favour_of(&heir, &tasks, private, enroller).await {
                    return Ok(Some(still));
                }
            }
        }
    }
}

/// After everything was handed over: until the proxy has ended, and where `options` say so, for as long as another one is in
/// this one's place. Its kubelet would start the container of one that ends before its pod is deleted, and so bring it back
/// over the one that has just taken its place. Where that one goes away again, as when an update is taken back, this one
/// ends, to be started anew; and if its proxy is still there, it takes everything up again, as the connections would end
/// with it.
///
/// # Errors
/// It could not take it up again.
pub(super) async fn replaced(
    options: Options,
    shutdown: Shutdown,
    mut proxy: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), RedirectError> {
    if !options.lingers {
        proxy.await;
        return Ok(());
    }
    tokio::select! {
        () = proxy.as_mut() => lingering(&options.cni, &shutdown).await,
        () = lingering(&options.cni, &shutdown) => {
            if !shutdown.has_begun() {
                info!("taking everything up again, beside the proxy that is still there");
                let ((), outcome) = tokio::join!(proxy, again(options, shutdown));
                return outcome;
            }
            proxy.await;
        }
    }
    Ok(())
}

/// The role from its beginning.
fn again(
    options: Options,
    shutdown: Shutdown,
) -> Pin<Box<dyn Future<Output = Result<(), RedirectError>> + Send>> {
    Box::pin(super::run(options, Orders::default(), shutdown))
}

/// Waits until nobody is in this one's place, or it is told to end.
async fn lingering(socket: &Path, shutdown: &Shutdown) {
    let mut missed = 0;
    while missed < MISSED {
        tokio::select! {
            () = shutdown.begun() => return,
            () = sleep(LOOK_FOR_HEIR) => {}
        }
        missed = if serves(socket).await { 0 } else { missed + 1 };
    }
    warn!("the redirector that has taken over is gone");
}

/// Whether a redirecting role serves on this socket.
pub(super) async fn serves(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
}
