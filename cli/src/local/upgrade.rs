//! Replacing a component that runs by another program. A node's agent takes over from the one before, which ends by itself;
//! ctrl is ended first, and its clients come again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::components::Component;
use super::http;
use super::logs::LogFile;
use super::process::{ask, end, start};

/// How long a new component may take until it has taken over.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between looks, and how long an answer may take.
const LOOK: Duration = Duration::from_millis(5);
const ANSWER: Duration = Duration::from_secs(3);

/// Asks a component's supervisor to replace it.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// What to run from now on.
    pub(crate) program: PathBuf,
    /// To be told how it went.
    pub(crate) done: oneshot::Sender<Result<String, String>>,
}

/// What an agent's redirecting role says of itself.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    process: u32,
    proxy: Option<i32>,
    superseded: Vec<i32>,
}

/// Why a component could not be replaced as it should, and what runs now.
#[derive(Debug)]
enum Failure {
    /// The one before, as if nothing had been tried.
    Kept(String),
    /// The new one: it has what the one before had, and that has let go of it.
    Taken(String),
    /// Neither: the one before has let go, or could not be started again. Its program is started.
    Lost(String),
}

/// Replaces `child` by a process of another program, which becomes the component's; both stay as they were if that does
/// not come so far as to take over. Returns what a person should know.
pub(super) async fn replace(
    component: &mut Component,
    child: &mut Child,
    program: PathBuf,
    log: &LogFile,
) -> Result<String, String> {
    let before = std::mem::replace(&mut component.program, program);
    let begun = Instant::now();
    let outcome = match component.takes_over.clone() {
        Some(socket) => beside(component, child, &socket, log).await,
        None => in_its_place(component, child, &before, log).await,
    };
    let name = &component.name;
    let (reason, rest) = match outcome {
        Ok(detail) => return Ok(format!("{detail} in {} ms", begun.elapsed().as_millis())),
        Err(Failure::Taken(reason)) => {
            let rest = "what the proxy before has goes on in it";
            return Err(format!("{name}: {reason}; {rest}; see: lateen logs {name}; then upgrade again"));
        }
        Err(Failure::Kept(reason)) => (reason, "the one before goes on"),
        Err(Failure::Lost(reason)) => (reason, "the one before has let go; its program is started again"),
    };
    component.program = before;
    Err(format!("{}: {reason}; {rest}", component.name))
}

/// Starts the new one beside the old one and waits until it and a proxy of its own have taken over.
async fn beside(
    component: &Component,
    child: &mut Child,
    socket: &Path,
    log: &LogFile,
) -> Result<String, Failure> {
    let kept = |error: io::Error| Failure::Kept(error.to_string());
    let before = http::get_json::<Status>(socket, "/status", ANSWER).await.map_err(kept)?;
    let mut new = start(component, log).await.map_err(kept)?;
    let outcome = match taken_over(&mut new, &before, socket).await {
        Ok(status) => {
            let still = match status.superseded.len() {
                0 => String::new(),
                _ => String::from(", the proxy before ends when its last connections have"),
            };
            Ok(format!("{} by {}{still}", before.version, status.version))
        }
        // It may have been in the middle of taking over when it ended.
        Err(Failure::Kept(reason)) if !goes_on(&before, socket).await => Err(Failure::Lost(reason)),
        Err(failure) => Err(failure),
    };
    if !matches!(outcome, Err(Failure::Kept(_))) {
        // A new one that has ended is what the component is started again for.
        let mut old = std::mem::replace(child, new);
        // It ends when what it could not hand over has ended, at the latest with the mesh.
        tokio::spawn(async move { old.wait().await });
    }
    outcome
}

/// Waits until the new one has taken over with a proxy of its own. One that has not taken over at all has ended when this
/// returns.
async fn taken_over(new: &mut Child, before: &Status, socket: &Path) -> Result<Status, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let process = new.id();
    loop {
        if let Ok(Some(status)) = new.try_wait() {
            return Err(Failure::Kept(format!("the new one has ended ({status}); see its log")));
        }
        let in_charge = match http::get_json::<Status>(socket, "/status", ANSWER).await {
            Ok(now) if Some(now.process) == process && now.proxy.is_some() && now.proxy != before.proxy => {
                return Ok(now);
            }
            Ok(now) => Some(now.process),
            Err(_) => None,
        };
        if Instant::now() < deadline {
            sleep(LOOK).await;
        } else if in_charge == Some(before.process) {
            end(new).await;
            return Err(Failure::Kept(format!(
                "the new one has not taken over within {PATIENCE:?}; see its log"
            )));
        } else {
            // The one before has let go: ended now, the new one would leave nobody.
            return Err(Failure::Taken(format!(
                "the new one has taken over and stays, but no proxy of its own is up within {PATIENCE:?}"
            )));
        }
    }
}

/// Whether the one before still is what it was, once the new one has ended: it says so as soon as it has noticed.
async fn goes_on(before: &Status, socket: &Path) -> bool {
    let deadline = Instant::now() + ANSWER;
    loop {
        let now = http::get_json::<Status>(socket, "/status", ANSWER).await;
        if now.is_ok_and(|now| now.process == before.process) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK).await;
    }
}

/// Ends the old one and starts the new one; the old one again if that does not become ready.
async fn in_its_place(
    component: &Component,
    child: &mut Child,
    before: &Path,
    log: &LogFile,
) -> Result<String, Failure> {
    end(child).await;
    let reason = match start(component, log).await {
        Ok(mut new) => match ready(component, &mut new).await {
            Ok(()) => {
                *child = new;
                return Ok(String::from("ready"));
            }
            Err(reason) => {
                end(&mut new).await;
                reason
            }
        },
        Err(error) => error.to_string(),
    };
    let old = Component { program: before.to_owned(), ..component.clone() };
    match start(&old, log).await {
        Ok(old) => *child = old,
        Err(error) => return Err(Failure::Lost(format!("{reason}, and {}: {error}", before.display()))),
    }
    Err(Failure::Kept(reason))
}

async fn ready(component: &Component, new: &mut Child) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(Some(status)) = new.try_wait() {
            return Err(format!("the new one has ended ({status}); see its log"));
        }
        match ask(&component.ready).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("the new one is not ready within {PATIENCE:?}: {error}"));
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}
