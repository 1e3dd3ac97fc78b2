//! `node-agent redirect` and `node-agent proxy`: reads the settings and starts the role.

use std::process::ExitCode;

use daemon::{log::Log, settings, shutdown::Shutdown};
use node_agent::{config, proxy, redirect};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "usage: node-agent redirect|proxy [SETTINGS]

  redirect   captures this node's pods and keeps the proxy running
  proxy      carries what the captured pods send and get
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let role = args.next().unwrap_or_default();
    if !matches!(role.as_str(), "redirect" | "proxy") || args.peek().is_some_and(|arg| arg == "--help") {
        print!("{USAGE}\n{}", settings::help(config::TABLE));
        return if role.starts_with('-') || args.peek().is_some() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(2)
        };
    }
    match start(&role, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("node-agent {role}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(role: &str, args: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let settings = config::read(args, |name| std::env::var(name).ok())?;
    let log = Log::start(settings.text("LOG_LEVEL"), settings.parse("LOG_FORMAT", "plain or json")?)?;
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
        let signals = shutdown.clone();
        tokio::spawn(async move { signals.signalled().await });
        redirect::run(options, shutdown).await
    })?;
    Ok(())
}
