//! Steps of one pod that meet: real rules in a namespace of its own, and no proxy.

use std::time::Duration;

use testkit::netns::Netns;
use tokio::time::{Instant, sleep, timeout};

use super::{Enroller, PodSpec, Policy, Status};
use crate::{
    netns::NetnsFd,
    private::server::PrivateServer,
    redirect::rules::RuleSet,
    zds::{WorkloadInfo, server::ZdsServer},
};

const UID: &str = "0f6a6ab8-6d3c-4d57-9a50-8c4f4f3a1f12";

fn spec(pod: &Netns) -> PodSpec {
    PodSpec {
        uid: UID.into(),
        info: WorkloadInfo { name: "p".into(), namespace: "n".into(), service_account: "a".into() },
        netns: NetnsFd::from_fd(pod.fd().try_clone_to_owned().unwrap()).unwrap(),
        ips: Vec::new(),
        rules: RuleSet::default(),
    }
}

/// A pod that joins again while the last step of its leaving waits for its turn does not drain: its connections would be
/// refused for good.
#[tokio::test]
async fn a_pod_that_joins_again_meanwhile_is_not_drained() {
    let pod = Netns::new("pod").unwrap();
    let (private, _drained) = PrivateServer::new();
    let policy = Policy { leave_grace: Duration::ZERO, ..Policy::default() };
    let enroller = Enroller::new(policy, ZdsServer::for_own(private.clone()), private.clone()).unwrap();
    enroller.prepare(spec(&pod)).await.unwrap();

    let still = enroller.stand_still().await;
    enroller.release(UID).await.unwrap();
    // The grace is over, and the pod about to be drained.
    sleep(Duration::from_millis(50)).await;
    let joining = {
        let (enroller, spec) = (enroller.clone(), spec(&pod));
        // Nobody acknowledges it; its rules stand nevertheless.
        tokio::spawn(async move { enroller.enrol(spec, Instant::now()).await })
    };
    // Time enough for its rules, if it need not wait.
    sleep(Duration::from_millis(500)).await;
    drop(still);
    assert!(joining.await.unwrap().is_err());
    let settled = async {
        while enroller.shared.leaving.count() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), settled).await.expect("nothing is under way");
    assert_eq!(enroller.statuses()[UID], Status::Pending);
    let held = private.estate().pods;
    assert!(held.iter().all(|held| !held.draining) && held.len() == 1, "{held:?}");
}
