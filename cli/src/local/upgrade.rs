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
use super::supervise::{ask, end, start};

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

/// Replaces `child` by a process of another program, which becomes the component's; both stay as they were if that does
/// not become ready. Returns what a person should know.
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
    match outcome {
        Ok(detail) => Ok(format!("{detail} in {} ms", begun.elapsed().as_millis())),
        Err(reason) => {
            component.program = before;
            Err(format!("{}: {reason}; the one before goes on", component.name))
        }
    }
}

/// Starts the new one beside the old one and waits until it and a proxy of its own have taken over.
async fn beside(
    component: &Component,
    child: &mut Child,
    socket: &Path,
    log: &LogFile,
) -> Result<String, String> {
    let text = |error: io::Error| error.to_string();
    let before = http::get_json::<Status>(socket, "/status", ANSWER).await.map_err(text)?;
    let mut new = start(component, log).await.map_err(text)?;
    match taken_over(&mut new, &before, socket).await {
        Ok(status) => {
            let mut old = std::mem::replace(child, new);
            // It ends when what it could not hand over has ended, at the latest with the mesh.
            tokio::spawn(async move { old.wait().await });
            let still = match status.superseded.len() {
                0 => String::new(),
                _ => String::from(", the proxy before ends when its last connections have"),
            };
            Ok(format!("{} by {}{still}", before.version, status.version))
        }
        Err(reason) => {
            end(&mut new).await;
            Err(reason)
        }
    }
}

async fn taken_over(new: &mut Child, before: &Status, socket: &Path) -> Result<Status, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(Some(status)) = new.try_wait() {
            return Err(format!("the new one has ended ({status}); see its log"));
        }
        let now = http::get_json::<Status>(socket, "/status", ANSWER).await;
        if let Ok(status) = now
            && Some(status.process) == new.id()
            && status.proxy.is_some()
            && status.proxy != before.proxy
        {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(format!("the new one has not taken over within {PATIENCE:?}; see its log"));
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
) -> Result<String, String> {
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
    *child =
        start(&old, log).await.map_err(|error| format!("{reason}, and {}: {error}", before.display()))?;
    Err(reason)
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
