//! `ctrl`: reads the settings and runs the controller.

use std::process::ExitCode;

use ctrl::{app, config};
use daemon::{log::Log, settings};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("ctrl: reads the configuration of a mesh, issues its identities, distributes both\n\n");
        print!("{}", settings::help(config::TABLE));
        return ExitCode::SUCCESS;
    }
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctrl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let settings = config::read(args, |name| std::env::var(name).ok())?;
    let log = Log::start(settings.text("LOG_LEVEL"), settings.parse("LOG_FORMAT", "plain or json")?)?;
    let config = config::Config::new(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(app::run(config, log.clone()));
    log.flush();
    outcome
}
