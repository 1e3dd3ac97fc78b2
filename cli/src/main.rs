//! `lateen`: the command people type. It runs a whole mesh on one machine (`up`), works inside it (`exec`, `logs`,
//! `get`) and takes it down; one file per command, `local/` is the mesh itself.

mod analyze;
mod args;
mod ca;
mod capture;
mod chart;
mod cluster;
mod control;
mod ctrl;
mod down;
mod echo;
mod exec;
mod flags;
mod get;
mod install;
mod local;
mod logs;
mod place;
mod precheck;
mod proxy_status;
mod state;
mod table;
mod top;
mod up;
mod upgrade;
mod version;
mod waypoint;
mod why;

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;

use args::{Args, Command, Experimental};
use clap::Parser;

/// Exit code of a command line that cannot be understood (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done when stdout or stderr is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("lateen: {error}"));
            let mut cause = error.source();
            while let Some(inner) = cause {
                complain(&format!("  because: {inner}"));
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// What a command ends with: an exit code, or a reason told on stderr with exit code 1.
pub(crate) type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

/// Prints a line on stdout. Whoever reads it may have left, which is no reason to end.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{}", shown(line));
}

/// Prints a line on stderr, likewise.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", shown(line));
}

/// A text as a terminal may be given it: what proxies and clients of the mesh say stands in it, too, and they move no cursor
/// and colour nothing. Control characters go, those of C1 as well; lines and columns stay.
fn shown(text: &str) -> Cow<'_, str> {
    let commands = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if text.contains(commands) { text.replace(commands, "?").into() } else { text.into() }
}

fn run(args: Args) -> Outcome {
    let Args { mesh, namespace, cluster, command } = args;
    let namespace = namespace.as_deref();
    let place = || place::choose(mesh.as_deref(), &cluster);
    match command {
        Command::Up(up) => up::run(mesh.as_deref(), &up),
        Command::Exec(exec) => exec::run(mesh.as_deref(), namespace, &exec),
        Command::Logs(logs) => logs::run(mesh.as_deref(), namespace, &logs),
        Command::Top(top) => top::run(mesh.as_deref(), namespace, &top),
        Command::Get(get) => get::run(mesh.as_deref(), namespace, &get),
        Command::Why(why) => why::run(&place()?, namespace, &why),
        Command::Ca(ca) => ca::run(&place()?, namespace, &ca),
        Command::ProxyStatus(args) => proxy_status::run(&place()?, &args),
        Command::Analyze(analyze) => analyze::run(&analyze),
        Command::Upgrade(upgrade) => match place()? {
            place::Place::Machine(mesh) => upgrade::run(&mesh, &upgrade),
            place::Place::Cluster(cluster) => install::upgrade(&cluster, namespace, &upgrade),
        },
        Command::Install(install) => install::install(&cluster, namespace, &install),
        Command::Uninstall(uninstall) => install::uninstall(&cluster, namespace, &uninstall),
        Command::Tag(tag) => install::tag(&cluster, namespace, &tag),
        Command::Manifest(manifest) => install::manifest(namespace, &manifest),
        Command::Experimental(experimental) => match experimental.command {
            Experimental::Precheck(precheck) => precheck::run(&cluster, namespace, &precheck),
        },
        Command::Waypoint(waypoint) => waypoint::run(place, namespace, &waypoint),
        Command::Down(down) => down::run(mesh.as_deref(), &down),
        Command::Version(version) => version::run(mesh.as_deref(), &cluster, &version),
        Command::Echo(echo) => echo::run(&echo),
        Command::Capture(capture) => capture::run(&capture),
        Command::Keeper(keeper) => local::keeper::run(&keeper),
        Command::Init(init) => local::init::run(&init),
        Command::Daemon(daemon) => local::daemon::run(&daemon),
        Command::Container(container) => local::containers::enter::run(&container),
        Command::Join(join) => local::containers::join::run(&join),
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn nothing_that_is_said_commands_the_terminal() {
        for (said, expected) in [
            ("äö one\ttwo\nthree", "äö one\ttwo\nthree"),
            ("refused: \u{1b}[2J\u{1b}]0;root\u{7}", "refused: ?[2J?]0;root?"),
            ("\u{9b}31m\u{9d}8\u{85}", "?31m?8?"),
            ("done\rlateen: all is well\u{8}\u{7f}\0", "done?lateen: all is well???"),
        ] {
            assert_eq!(shown(said), expected);
        }
    }
}
