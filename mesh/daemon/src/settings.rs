//! Every setting of a binary once: its name, its default and what it means. The help text, the page of the
//! documentation and the values themselves all come from the one table, so they cannot disagree.

pub mod shared;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// One setting of a binary.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The environment variable that sets it, the name that Istio has for it where there is one.
    pub name: &'static str,
    /// Its value where nobody sets it, as it would be written.
    pub default: &'static str,
    /// What it means, with its unit.
    pub meaning: &'static str,
}

impl Setting {
    /// The flag that sets it: the name in lower case with dashes.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.to_ascii_lowercase().replace('_', "-"))
    }
}

/// A row of a table.
pub const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// Why the settings given cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A flag that is in no table.
    #[error("unknown flag {flag}{}; --help lists them", .nearest.as_ref().map(|near| format!(" (did you mean {near}?)")).unwrap_or_default())]
    Unknown {
        /// The flag.
        flag: String,
        /// The flag that it most resembles.
        nearest: Option<String>,
    },
    /// A flag without its value.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A value that cannot be read.
    #[error("{name}: {value:?} is not {expected}")]
    Unreadable {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A value that its type does not take.
    #[error("{name}: {error}")]
    Refused {
        /// The setting.
        name: &'static str,
        /// What the type says of it, and what it would take.
        error: String,
    },
}

/// The settings of a process: flags before the environment before defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    table: &'static [Setting],
    given: BTreeMap<&'static str, Vec<String>>,
}

impl Settings {
    /// Reads flags (`--name value` or `--name=value`) and, for what they leave out, the environment.
    ///
    /// # Errors
    /// A flag that is not in the table, or one without a value.
    pub fn read(
        table: &'static [Setting],
        args: impl IntoIterator<Item = String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut given: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let setting = table.iter().find(|setting| setting.flag() == flag).ok_or_else(|| {
                SettingsError::Unknown { nearest: nearest(table, &flag), flag: flag.clone() }
            })?;
            let value = inline.or_else(|| args.next()).ok_or(SettingsError::NoValue(flag))?;
            given.entry(setting.name).or_default().push(value);
        }
        for setting in table {
            if !given.contains_key(setting.name)
                && let Some(value) = env(setting.name)
            {
                given.insert(setting.name, vec![value]);
            }
        }
        Ok(Self { table, given })
    }

    /// The value of a setting as text.
    pub fn text(&self, name: &'static str) -> &str {
        let default =
            || self.table.iter().find(|setting| setting.name == name).map_or("", |found| found.default);
        self.given.get(name).and_then(|values| values.last()).map_or_else(default, String::as_str)
    }

    /// The value of a setting, if it has one.
    pub fn optional(&self, name: &'static str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// The value of every setting, by its name.
    pub fn in_force(&self) -> BTreeMap<&'static str, &str> {
        self.table.iter().map(|setting| (setting.name, self.text(setting.name))).collect()
    }

    /// Every value of a setting that may be given more than once (or as a list with commas).
    pub fn list(&self, name: &'static str) -> Vec<String> {
        let split = |text: &str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        match self.given.get(name) {
            Some(values) => values.iter().flat_map(|value| split(value)).collect(),
            None => split(self.text(name)),
        }
    }

    /// The value of a setting, parsed.
    ///
    /// # Errors
    /// The value cannot be read; `expected` says what would do.
    pub fn parse<T: FromStr>(&self, name: &'static str, expected: &'static str) -> Result<T, SettingsError> {
        let value = self.text(name);
        value.trim().parse().map_err(|_| SettingsError::Unreadable {
            name,
            value: value.to_owned(),
            expected,
        })
    }

    /// The same for a type whose own error says what would do.
    ///
    /// # Errors
    /// The value cannot be read.
    pub fn parse_explained<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &'static str,
    ) -> Result<T, SettingsError> {
        let refused = |error: T::Err| SettingsError::Refused { name, error: error.to_string() };
        self.text(name).trim().parse().map_err(refused)
    }

    /// Whether a switch is on.
    ///
    /// # Errors
    /// The value is neither `true` nor `false`.
    pub fn switch(&self, name: &'static str) -> Result<bool, SettingsError> {
        self.parse(name, "true or false")
    }

    /// A duration: a number with the unit `ms`, `s`, `m` or `h`.
    ///
    /// # Errors
    /// The value is no such duration.
    pub fn duration(&self, name: &'static str) -> Result<Duration, SettingsError> {
        let value = self.text(name);
        let unreadable = || SettingsError::Unreadable {
            name,
            value: value.to_owned(),
            expected: "a duration such as 500ms, 10s, 5m or 24h",
        };
        parse_duration(value).ok_or_else(unreadable)
    }
}

/// Reads a number with a unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// The help text of a table: what `--help` prints after the binary's own line.
pub fn help(table: &[Setting]) -> String {
    let mut text = String::from("Settings (each a flag or an environment variable):\n");
    for setting in table {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        let _ = write!(
            text,
            "\n  {}, {}\n      {} (default: {default})\n",
            setting.flag(),
            setting.name,
            setting.meaning
        );
    }
    text
}

/// A table as a section of the documentation.
pub fn markdown(title: &str, table: &[Setting]) -> String {
    let mut text = format!("## {title}\n\n| Setting | Flag | Default | Meaning |\n|---|---|---|---|\n");
    for setting in table {
        let default =
            if setting.default.is_empty() { String::from("–") } else { format!("`{}`", setting.default) };
        let meaning = setting.meaning.replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | `{}` | {default} | {meaning} |", setting.name, setting.flag());
    }
    text
}

/// For the test of a binary: whether a page of the documentation has its section as it is. Where `UPDATE_DOCS` is set,
/// the section is written into the page instead.
///
/// # Errors
/// The page is stale or cannot be read or written; the text says what to do.
pub fn check_page(page: &Path, binary: &str, section: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", page.display());
    let text = std::fs::read_to_string(page).map_err(failed)?;
    let current = with_section(&text, binary, section);
    if text == current {
        return Ok(());
    }
    if std::env::var_os("UPDATE_DOCS").is_none() {
        return Err(format!("the section {binary} of {} is stale; run `make docs`", page.display()));
    }
    std::fs::write(page, current).map_err(failed)
}

/// The page with a section in the place of the one that it has, or at its end.
fn with_section(page: &str, binary: &str, section: &str) -> String {
    let begin = format!("<!-- {binary}: made by `make docs` -->\n\n");
    let end = format!("\n<!-- end of {binary} -->\n");
    let (before, after) = match (page.find(&begin), page.find(&end)) {
        (Some(at), Some(to)) if at < to => (&page[..at], &page[to + end.len()..]),
        _ => (page, ""),
    };
    format!("{before}{begin}{section}{end}{after}")
}

/// The flag that shares the longest beginning with what was written.
fn nearest(table: &[Setting], flag: &str) -> Option<String> {
    let common = |known: &str| known.bytes().zip(flag.bytes()).take_while(|(a, b)| a == b).count();
    let best = table.iter().map(Setting::flag).max_by_key(|known| common(known))?;
    // Two dashes and two letters are the least that says anything.
    (common(&best) >= 4).then_some(best)
}

#[cfg(test)]
mod tests;
