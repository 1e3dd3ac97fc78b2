//! `bench strike`: the attacker, a process of its own in a namespace of its own. It keeps to a pace, so that what it
//! takes of the processors is the same whoever it attacks.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::kinds::{Attack, Door};
use super::{credentials, dns, raw, sockets, tunnel};
use crate::load::{raise_descriptor_limit, seconds};

/// One attack.
#[derive(Debug, Clone, Args)]
pub(crate) struct Strike {
    /// Which.
    #[arg(value_enum)]
    pub attack: Attack,
    /// The proxy's port, or that of the sink.
    #[arg(long, value_name = "ADDR")]
    pub connect: SocketAddr,
    /// For how long.
    #[arg(long, value_parser = seconds, default_value = "3")]
    pub seconds: Duration,
    /// Steps a second; the attack's own pace if not given.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<u32>,
    /// The application that tunnels are asked for.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1")]
    pub app: SocketAddr,
    /// Where the credentials are (chain.pem, key.pem).
    #[arg(long, value_name = "FOLDER")]
    pub credentials: Option<PathBuf>,
    /// A folder with the agent's sockets.
    #[arg(long, value_name = "FOLDER")]
    pub sockets: Option<PathBuf>,
    /// There is a sink that answers nothing: do not wait for its grants.
    #[arg(long)]
    pub sink: bool,
}

/// What the attacker did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Steps it made.
    pub steps: u64,
    /// In seconds.
    pub seconds: f64,
    /// Tunnels or connections that it opened.
    pub opened: u64,
    /// How many of them the other side ended.
    pub ended: u64,
    /// How many could not be opened.
    pub refused: u64,
}

impl Strike {
    pub(super) fn rate(&self) -> u32 {
        self.rate.unwrap_or(self.attack.plan().rate).max(1)
    }
}

/// Attacks, and prints what it did as one line of JSON.
pub(crate) fn run(strike: &Strike) -> io::Result<()> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let until = begun + strike.seconds;
    let local = tokio::task::LocalSet::new();
    let mut done = local.block_on(&runtime, async {
        match strike.attack.plan().door {
            Door::Tunnel => {
                let tls = credentials::client(strike.credentials.as_deref())?;
                Ok(tunnel::storm(strike, tls, until).await)
            }
            Door::Tcp if strike.attack == Attack::SlowHandshake => Ok(raw::slow(strike, until).await),
            Door::Tcp | Door::Pod => Ok(raw::flood(strike, until).await),
            Door::Dns => dns::flood(strike, until).await,
            Door::Sockets => sockets::storm(strike, until).await,
            Door::Controller => Err(io::Error::other("the bench itself is the controller")),
        }
    })?;
    done.seconds = begun.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

/// How many steps are due: what was missed is made up for, up to a tenth of a second.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    last: Instant,
    owed: f64,
}

impl Pace {
    pub(super) fn new(rate: f64) -> Self {
        Self { rate, last: Instant::now(), owed: 0.0 }
    }

    /// Steps that have fallen due since the last time.
    pub(super) fn due(&mut self) -> usize {
        let now = Instant::now();
        self.owed =
            (self.owed + self.rate * (now - self.last).as_secs_f64()).min((self.rate / 10.0).max(1.0));
        self.last = now;
        let whole = self.owed.floor();
        self.owed -= whole;
        whole as usize
    }
}
