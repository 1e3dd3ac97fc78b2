//! `node-agent redirect` and `node-agent proxy`: reads the settings and starts the role.

use std::pin::pin;
use std::process::ExitCode;

use daemon::{log::Log, settings, shutdown::Shutdown};
use node_agent::{allocator, config, proxy, ready, redirect, redirect::supervise::Orders};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the allocator reads at its start: a peak of connections that is over is given back within a few seconds. After
/// jemalloc's own 10 s, half of it was still there half a minute later. A thread of jemalloc's does it, not one that
/// carries connections.
// SAFETY: jemalloc declares the symbol as a pointer to text that ends with NUL, which a reference to an array is, and only
// reads it, before `main`.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_OPTIONS: &[u8; 20] = b"dirty_decay_ms:2000\0";

/// Gives back what jemalloc keeps for this thread alone.
fn flush_thread() {
    use std::ptr::null_mut;
    // It fails only for a thread that has no such cache.
    // SAFETY: the name ends with NUL; this command takes no value and returns none, which null pointers and a length of 0
    // say.
    #[allow(unsafe_code)]
    let _ = unsafe {
        tikv_jemalloc_sys::mallctl(c"thread.tcache.flush".as_ptr(), null_mut(), null_mut(), null_mut(), 0)
    };
}

const USAGE: &str = "usage: node-agent redirect|proxy|ready [SETTINGS]

  redirect   captures this node's pods and keeps the proxy running
  proxy      carries what the captured pods send and get
  ready      tells by its exit code whether the agent of this pod has its node, and serves: for probes

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
    if !matches!(role.as_str(), "redirect" | "proxy" | "ready") {
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
    if role == "ready" {
        return Ok(ready::check(&settings)?);
    }
    let format = settings.parse(config::name::LOG_FORMAT, "plain or json")?;
    let log = Log::start(settings.text(config::name::LOG_LEVEL), format)?;
    let outcome = match role {
        "proxy" => {
            allocator::flush_threads_by(flush_thread);
            proxy::run(&settings, &log)
        }
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
