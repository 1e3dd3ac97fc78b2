//! `node-agent redirect` and `node-agent proxy`: reads the settings and starts the role.

use std::pin::pin;
use std::process::ExitCode;

use daemon::{log::Log, settings, shutdown::Shutdown};
use node_agent::{config, proxy, redirect, redirect::supervise::Orders};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "usage: node-agent redirect|proxy [SETTINGS]

  redirect   captures this node's pods and keeps the proxy running
  proxy      carries what the captured pods send and get

SIGHUP to `redirect` replaces the running proxy by a new one, which takes its connections over.
--help lists the settings.
";

/// Exit code of a command line that cannot be understood (`EX_USAGE` of sysexits.h).
const WRONG_USE: u8 = 64;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let role = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let asked = |arg: &str| matches!(arg, "--help" | "-h" | "help");
    if asked(&role) || args.iter().any(|arg| asked(arg)) {
        print!("{USAGE}\n{}", config::help());
        return ExitCode::SUCCESS;
    }
    if !matches!(role.as_str(), "redirect" | "proxy") {
        eprint!("{role:?} is no role of the node agent\n{USAGE}");
        return ExitCode::from(WRONG_USE);
    }
    match start(&role, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("node-agent {role}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(role: &str, args: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let settings = config::read(args, |name| std::env::var(name).ok())?;
    let format = settings.parse(config::name::LOG_FORMAT, "plain or json")?;
    let log = Log::start(settings.text(config::name::LOG_LEVEL), format)?;
    let outcome = match role {
        "proxy" => proxy::run(&settings, &log),
        _ => run_redirect(&settings),
    };
    log.flush();
    outcome
}

fn run_redirect(settings: &settings::Settings) -> Result<(), Box<dyn std::error::Error>> {
    let options = redirect::Options::from_settings(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::default();
        let orders = Orders::default();
        let mut role = pin!(redirect::run(options, orders.clone(), shutdown.clone()));
        let mut replace = signal(SignalKind::hangup())?;
        let mut signalled = pin!(shutdown.signalled());
        loop {
            tokio::select! {
                outcome = &mut role => return Ok(outcome?),
                // It has begun the end.
                signalled = &mut signalled => {
                    signalled?;
                    return Ok(role.await?);
                }
                Some(()) = replace.recv() => orders.replace(),
            }
        }
    })
}
