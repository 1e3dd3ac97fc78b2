//! That the page of settings has every option.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use super::*;

/// What the environment says beside options.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "XDG_RUNTIME_DIR",
        "Where an ordinary user's meshes lie, in its folder `lateen`; root's lie in `/run/lateen`.",
    ),
    ("NO_COLOR", "Set: `lateen analyze` uses no colours."),
    (
        crate::local::components::NO_AGENT,
        "Set: a mesh starts without ctrl and node agents, only with namespaces, pods, services and names.",
    ),
];

/// One line of a table: how the option is written, where else it comes from, and what it means.
fn row(command: &str, arg: &Arg) -> String {
    let long = arg.get_long().map(|long| format!("`--{long}`"));
    let short = arg.get_short().map(|short| format!("`-{short}`"));
    let value = || arg.get_value_names().map_or_else(String::new, |names| names.join(" "));
    let written = if arg.is_positional() { Some(format!("`{}`", value())) } else { None };
    let written: Vec<String> = [short, long, written].into_iter().flatten().collect();
    let env = arg.get_env().map_or("–".into(), |env| format!("`{}`", env.to_string_lossy()));
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let default: Vec<_> = defaults.filter(|value| !value.is_empty() && value != "false").collect();
    let default = if default.is_empty() { "–".into() } else { format!("`{}`", default.join(",")) };
    let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    format!("| {command} | {} | {env} | {default} | {meaning} |\n", written.join(", "))
}

fn rows(name: &str, command: &Command, global: bool) -> String {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.is_global_set() == global);
    let shown = shown.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"));
    shown.map(|arg| row(name, arg)).collect()
}

/// The page of the documentation has the options of every command, as clap has them; `make docs` writes them there.
#[test]
fn the_documentation_agrees() {
    let whole = Args::command();
    let mut section = String::from(
        "## lateen\n\n| Command | Option | Environment | Default | Meaning |\n|---|---|---|---|---|\n",
    );
    section.push_str(&rows("all", &whole, true));
    for command in whole.get_subcommands().filter(|command| !command.is_hide_set()) {
        section.push_str(&rows(&format!("`{}`", command.get_name()), command, false));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let name = format!("`{} {}`", command.get_name(), inner.get_name());
            section.push_str(&rows(&name, inner, false));
        }
    }
    section.push_str("\n| Environment | Meaning |\n|---|---|\n");
    for (name, meaning) in ENVIRONMENT {
        let _ = writeln!(section, "| `{name}` | {meaning} |");
    }
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    daemon::settings::check_page(&page, "lateen", &section).unwrap();
}
