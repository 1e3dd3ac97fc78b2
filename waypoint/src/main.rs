//! `waypoint`: reads the settings and runs the proxy.

use std::process::ExitCode;

use daemon::{log::Log, settings};
use waypoint::{app, config};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("waypoint: routes and judges requests in front of a service account\n\n");
        print!("{}", settings::help(config::TABLE));
        return ExitCode::SUCCESS;
    }
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waypoint: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let settings = config::read(args, |name| std::env::var(name).ok())?;
    let format = settings.parse(config::name::LOG_FORMAT, "plain or json")?;
    let log = Log::start(settings.text(config::name::LOG_LEVEL), format)?;
    let outcome = app::run(&settings, &log);
    log.flush();
    outcome
}
