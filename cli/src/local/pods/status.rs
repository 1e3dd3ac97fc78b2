//! How a pod stands, from how its containers stand: phase, conditions, container statuses. Pure.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What a container is doing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Doing {
    /// Not running; why not.
    Waiting { reason: String, message: String },
    /// Running since.
    Running { since: Time },
    /// Ended for good or until its next start.
    Ended { code: i32, signal: Option<i32>, since: Time, at: Time },
}

impl Doing {
    pub(crate) fn waiting(reason: &str, message: impl Into<String>) -> Self {
        Self::Waiting { reason: reason.to_owned(), message: message.into() }
    }
}

/// One container's standing.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) init: bool,
    /// An init container that stays (`restartPolicy: Always`).
    pub(crate) stays: bool,
    pub(crate) doing: Doing,
    pub(crate) last: Option<Doing>,
    pub(crate) restarts: i32,
    /// Its startup probe has succeeded, or it has none.
    pub(crate) started: bool,
    /// Its readiness probe succeeds, or it has none.
    pub(crate) ready: bool,
    /// Ended and not to be started again.
    pub(crate) over: bool,
}

impl Standing {
    fn is_running(&self) -> bool {
        matches!(self.doing, Doing::Running { .. })
    }

    fn succeeded(&self) -> bool {
        matches!(self.doing, Doing::Ended { code: 0, .. })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_running() && self.started && self.ready
    }

    fn to_status(&self) -> ContainerStatus {
        let done_init = self.init && !self.stays && self.over && self.succeeded();
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            ready: self.is_ready() || done_init,
            started: Some(self.is_running() && self.started),
            restart_count: self.restarts,
            state: Some(state(&self.doing)),
            last_state: self.last.as_ref().map(state),
            ..ContainerStatus::default()
        }
    }
}

fn state(doing: &Doing) -> ContainerState {
    match doing {
        Doing::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: Some(message.clone()).filter(|message| !message.is_empty()),
            }),
            ..ContainerState::default()
        },
        Doing::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(since.clone()) }),
            ..ContainerState::default()
        },
        Doing::Ended { code, signal, since, at } => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: *code,
                signal: *signal,
                reason: Some(if *code == 0 { "Completed" } else { "Error" }.to_owned()),
                started_at: Some(since.clone()),
                finished_at: Some(at.clone()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        },
    }
}

/// Phase of a pod whose containers stand so.
pub(crate) fn phase(standings: &[Standing]) -> &'static str {
    let (init, main): (Vec<&Standing>, Vec<&Standing>) = standings.iter().partition(|standing| standing.init);
    if init.iter().any(|standing| standing.over && !standing.stays && !standing.succeeded()) {
        return "Failed";
    }
    if main.iter().all(|standing| standing.over) {
        return if main.iter().all(|standing| standing.succeeded()) { "Succeeded" } else { "Failed" };
    }
    let begun =
        |standing: &&&Standing| !matches!(standing.doing, Doing::Waiting { .. }) || standing.restarts > 0;
    if main.iter().filter(begun).count() > 0 { "Running" } else { "Pending" }
}

/// Writes phase, conditions and container statuses into the pod.
pub(crate) fn apply(pod: &mut Pod, standings: &[Standing], networked: bool, now: &Time) {
    let status = pod.status.get_or_insert_default();
    let phase = phase(standings);
    let (init, main): (Vec<&Standing>, Vec<&Standing>) = standings.iter().partition(|standing| standing.init);
    let initialized =
        init.iter().all(|standing| if standing.stays { standing.started } else { standing.succeeded() });
    let all_ready = initialized && main.iter().all(|standing| standing.is_ready());
    let unready: Vec<&str> = main.iter().filter(|s| !s.is_ready()).map(|s| s.name.as_str()).collect();
    let why_not = match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        _ if all_ready => None,
        _ => Some(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))),
    };
    status.phase = Some(phase.to_owned());
    if phase != "Pending" {
        status.start_time.get_or_insert_with(|| now.clone());
    }
    status.container_statuses = Some(main.iter().map(|standing| standing.to_status()).collect());
    status.init_container_statuses =
        (!init.is_empty()).then(|| init.iter().map(|standing| standing.to_status()).collect());
    let conditions = status.conditions.get_or_insert_default();
    set(conditions, "PodScheduled", true, None, now);
    set(conditions, "PodReadyToStartContainers", networked, None, now);
    set(conditions, "Initialized", initialized, None, now);
    set(conditions, "ContainersReady", all_ready, why_not.clone(), now);
    set(conditions, "Ready", all_ready, why_not, now);
}

fn set(conditions: &mut Vec<PodCondition>, kind: &str, holds: bool, why: Option<(&str, String)>, now: &Time) {
    let status = if holds { "True" } else { "False" };
    let index = conditions.iter().position(|condition| condition.type_ == kind);
    let index = index.unwrap_or_else(|| {
        conditions.push(PodCondition { type_: kind.to_owned(), ..PodCondition::default() });
        conditions.len() - 1
    });
    let condition = &mut conditions[index];
    if condition.status != status {
        condition.status = status.to_owned();
        condition.last_transition_time = Some(now.clone());
    }
    condition.reason = why.as_ref().map(|(reason, _)| (*reason).to_owned());
    condition.message = why.map(|(_, message)| message).filter(|message| !message.is_empty());
}

/// Why a pod is not ready, in words; `None` if it is, or has done its work.
pub(crate) fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let finished = status.phase.as_deref() == Some("Succeeded");
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if finished || ready {
        return None;
    }
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let words = all.filter(|container| !container.ready).map(|container| {
        let state = container.state.clone().unwrap_or_default();
        let ended = |t: &ContainerStateTerminated| format!("ended with exit code {}", t.exit_code);
        let now = match (&state.waiting, &state.terminated) {
            (Some(waiting), _) => {
                let message = waiting.message.as_deref().unwrap_or_default();
                format!("{} {message}", waiting.reason.as_deref().unwrap_or("waiting"))
            }
            (None, Some(terminated)) => ended(terminated),
            (None, None) => "runs but is not ready".to_owned(),
        };
        let before = container.last_state.as_ref().and_then(|last| last.terminated.as_ref()).map(ended);
        let before = before.map(|before| format!(" (before: {before})")).unwrap_or_default();
        format!("container {}: {}{before}", container.name, now.trim())
    });
    Some(words.collect::<Vec<_>>().join("; "))
}

/// What about a pod will not change by waiting: a command that is not there, a ConfigMap in no file.
pub(crate) fn stuck(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let hopeless =
            matches!(waiting.reason.as_deref(), Some("RunContainerError" | "CreateContainerConfigError"));
        let message = waiting.message.as_deref().unwrap_or_default();
        hopeless.then(|| format!("container {}: {message}", container.name))
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::{Doing, Standing, phase};

    fn standing(words: &str) -> Standing {
        let now = || Time(Default::default());
        let ended = |code| Doing::Ended { code, signal: None, since: now(), at: now() };
        let doing = match words.split(' ').next().unwrap_or_default() {
            "running" => Doing::Running { since: now() },
            "done" => ended(0),
            "failed" => ended(1),
            _ => Doing::waiting("ContainerCreating", ""),
        };
        Standing {
            name: "c".into(),
            image: String::new(),
            init: words.contains("init"),
            stays: words.contains("stays"),
            doing,
            last: None,
            restarts: i32::from(words.contains("again")),
            started: true,
            ready: true,
            over: words.contains("over"),
        }
    }

    #[test]
    fn the_phase_follows_the_containers() {
        for (words, expected) in [
            (vec!["waiting"], "Pending"),
            (vec!["running"], "Running"),
            (vec!["running", "waiting"], "Running"),
            (vec!["waiting again"], "Running"),
            (vec!["failed"], "Running"),
            (vec!["done over"], "Succeeded"),
            (vec!["failed over"], "Failed"),
            (vec!["done over", "failed over"], "Failed"),
            (vec!["done over", "running"], "Running"),
            (vec!["running init", "waiting"], "Pending"),
            (vec!["failed init over", "waiting"], "Failed"),
            (vec!["done init over", "running"], "Running"),
            (vec!["running init stays", "done over"], "Succeeded"),
        ] {
            let standings: Vec<Standing> = words.iter().map(|words| standing(words)).collect();
            assert_eq!(phase(&standings), expected, "{words:?}");
        }
    }
}
