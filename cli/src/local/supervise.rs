//! Keeps a component running: started again when it ends, replaced on demand, asked again and again whether it is ready.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::components::Component;
use super::logs::LogFile;
use super::process::{ask, end, start};
use super::upgrade::{self, Upgrade};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Time between questions: until it is ready, and afterwards.
const EAGER: Duration = Duration::from_millis(50);
const STEADY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a supervised component tells the world.
#[derive(Debug)]
pub(crate) enum Health {
    Ready(String),
    /// Not ready, and why as far as is known.
    Unready(String, String),
}

/// Runs a component until `stop`, then ends it.
pub(crate) async fn run(
    mut component: Component,
    health: mpsc::Sender<Health>,
    mut upgrades: mpsc::Receiver<Upgrade>,
    stop: CancellationToken,
) {
    let log = LogFile::new(&component.log);
    let mut backoff = FIRST_BACKOFF;
    if let Some(file) = &component.needs {
        tokio::select! {
            () = wait_for(file) => {}
            () = stop.cancelled() => {}
        }
    }
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let why = match start(&component, &log).await {
            Ok(mut child) => {
                let status = loop {
                    tokio::select! {
                        status = child.wait() => break status,
                        never = ask_forever(&component, &health) => match never {},
                        Some(Upgrade { program, done }) = upgrades.recv() => {
                            let replaced = upgrade::replace(&mut component, &mut child, program, &log).await;
                            let _ = done.send(replaced);
                        }
                        () = stop.cancelled() => return end(&mut child).await,
                    }
                };
                match status {
                    Ok(status) => format!("ended ({status}); its log: lateen logs {}", component.name),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => format!("{}: {error}", component.program.display()),
        };
        log.write(format!("lateen: {} {why}\n", component.name).as_bytes());
        let _ = health.send(Health::Unready(component.name.clone(), why)).await;
        if begun.elapsed() > LONGEST_BACKOFF {
            backoff = FIRST_BACKOFF;
        }
        let _ = tokio::time::timeout(backoff, stop.cancelled()).await;
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

/// Waits a little for a file; without it the component itself says what it misses.
async fn wait_for(file: &Path) {
    const LOOK: Duration = Duration::from_millis(10);
    let appears = async {
        while !file.exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(LONGEST_BACKOFF, appears).await;
}

/// Asks whether it is ready, and tells every change.
async fn ask_forever(component: &Component, health: &mpsc::Sender<Health>) -> std::convert::Infallible {
    let mut told: Option<bool> = None;
    loop {
        let answer = match tokio::time::timeout(PATIENCE, ask(&component.ready)).await {
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        if told != Some(answer.is_ok()) {
            told = Some(answer.is_ok());
            let name = component.name.clone();
            let message = match &answer {
                Ok(()) => Health::Ready(name),
                Err(error) => Health::Unready(name, error.to_string()),
            };
            // The world outlives every component.
            let _ = health.send(message).await;
        }
        tokio::time::sleep(if answer.is_ok() { STEADY } else { EAGER }).await;
    }
}
