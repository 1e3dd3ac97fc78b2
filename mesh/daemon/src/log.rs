//! Logs in Istio's format: `TIME<TAB>LEVEL<TAB>SCOPE<TAB>MESSAGE<TAB>key=value …`, or one JSON object a line with
//! `LOG_FORMAT=json`; levels by scope, changed at run time by `POST /logging`.
//!
//! Lines go through one buffer that a thread of its own writes out, so that a line on the path of a connection
//! costs a few copies and no system call.

mod format;
pub mod sink;

use std::cell::Cell;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use http::Method;
use thiserror::Error;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

pub use self::format::Line;
use self::format::Lines;
pub use self::sink::{About, Sink};
use crate::http::{Answer, Call, Routes};

/// The scope of the access log.
pub const ACCESS: &str = "access";

/// The levels of its lines, those that matter most first.
const ACCESS_LEVELS: [Level; 3] = [Level::ERROR, Level::WARN, Level::INFO];

/// What a thread keeps for its next line, in bytes.
const LONG_LINE: usize = 4096;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tab-separated text.
    Plain,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "plain" | "" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// Why a level cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not a level: give error, warn, info, debug, trace or off, alone or as SCOPE=LEVEL, with commas between"
)]
pub struct InvalidLevel(String);

/// The process's log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    format: Format,
    sink: Sink,
    handle: reload::Handle<Targets, Registry>,
    levels: Arc<std::sync::Mutex<String>>,
    initial: Arc<str>,
    /// How many of [`ACCESS_LEVELS`] are wanted.
    access: Arc<AtomicU8>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("levels", &self.levels()).finish_non_exhaustive()
    }
}

impl Log {
    /// Starts the process's log on standard output.
    ///
    /// # Errors
    /// The levels cannot be read.
    pub fn start(levels: &str, format: Format) -> Result<Self, InvalidLevel> {
        static STARTED: OnceLock<()> = OnceLock::new();
        let targets = parse(levels)?;
        let sink = Sink::start(std::io::stdout(), move |out, lines| tell_dropped(out, format, lines));
        let access = Arc::new(AtomicU8::new(access_levels(&targets)));
        let (filter, handle) = reload::Layer::new(targets);
        let subscriber = Registry::default().with(filter).with(Lines::new(sink.clone(), format));
        // A second start in one process (tests) keeps the first subscriber; both write whole lines.
        if STARTED.set(()).is_ok() {
            let _ = tracing::subscriber::set_global_default(subscriber);
        }
        Ok(Self {
            format,
            sink,
            handle,
            levels: Arc::new(std::sync::Mutex::new(levels.to_owned())),
            initial: levels.into(),
            access,
        })
    }

    /// The levels in force.
    pub fn levels(&self) -> String {
        self.levels.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Changes levels: `debug` for all, or `scope=level` (`scope:level` too, as istioctl writes it), comma-separated.
    ///
    /// # Errors
    /// A level cannot be read; nothing is changed.
    pub fn set_levels(&self, levels: &str) -> Result<(), InvalidLevel> {
        let merged = merge(&self.levels(), levels);
        let targets = parse(&merged)?;
        self.access.store(access_levels(&targets), Ordering::Relaxed);
        // The subscriber is gone only when the process is.
        let _ = self.handle.reload(targets);
        *self.levels.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = merged;
        Ok(())
    }

    /// Whether access log lines of a level are wanted.
    pub fn access_enabled(&self, level: Level) -> bool {
        let wanted = usize::from(self.access.load(Ordering::Relaxed));
        ACCESS_LEVELS[..wanted.min(ACCESS_LEVELS.len())].contains(&level)
    }

    /// Writes one line of the access log about a pod: `fill` adds the fields.
    pub fn access(
        &self,
        about: Option<About<'_>>,
        level: Level,
        message: &str,
        fill: impl FnOnce(&mut Line<'_>),
    ) {
        if !self.access_enabled(level) {
            return;
        }
        self.sink.write(about, |buffer| {
            let mut line = Line::begin(buffer, self.format, level, ACCESS, message);
            fill(&mut line);
            line.end();
        });
    }

    /// Writes one line of the access log in a form of the caller's own, with the line's end.
    pub fn access_line(&self, level: Level, fill: impl FnOnce(&mut Vec<u8>, Format)) {
        if !self.access_enabled(level) {
            return;
        }
        // Put together outside the lock that all threads share.
        thread_local!(static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
        let mut line = LINE.take();
        fill(&mut line, self.format);
        self.sink.write(None, |buffer| buffer.extend_from_slice(&line));
        line.clear();
        line.shrink_to(LONG_LINE);
        LINE.set(line);
    }

    /// How many lines were dropped because what was written before them did not go out.
    pub fn dropped(&self) -> u64 {
        self.sink.dropped()
    }

    /// Writes out what is buffered; call it before the process ends.
    pub fn flush(&self) {
        self.sink.flush();
    }

    /// The `/logging` page, as istioctl and ztunnel know it.
    pub fn routes(&self, routes: Routes) -> Routes {
        let log = self.clone();
        routes.on(Method::POST, "/logging", move |call| {
            let answer = log.change(&call);
            async move { answer }
        })
    }

    fn change(&self, call: &Call) -> Answer {
        if call.parameter("reset").is_some() {
            let initial = self.initial.to_string();
            *self.levels.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = String::new();
            if let Err(error) = self.set_levels(&initial) {
                return Answer::text(500, format!("{error}\n"));
            }
        }
        let wanted: Vec<String> = call
            .query
            .split('&')
            .filter(|pair| !pair.is_empty() && *pair != "reset")
            .filter_map(|pair| {
                let (key, _) = pair.split_once('=').unwrap_or((pair, ""));
                let value = call.parameter(key)?;
                Some(if key == "level" { value } else { format!("{key}={value}") })
            })
            .collect();
        if !wanted.is_empty()
            && let Err(error) = self.set_levels(&wanted.join(","))
        {
            return Answer::text(400, format!("{error}\n"));
        }
        Answer::text(200, format!("current log level is {}\n", self.levels()))
    }
}

/// How many of [`ACCESS_LEVELS`] the access log is to have.
fn access_levels(targets: &Targets) -> u8 {
    let wanted = ACCESS_LEVELS.iter().filter(|level| targets.would_enable(ACCESS, level));
    u8::try_from(wanted.count()).unwrap_or(u8::MAX)
}

/// The line in place of those that were dropped.
fn tell_dropped(out: &mut Vec<u8>, format: Format, lines: u64) {
    let message = "lines were dropped here: the log is not read as fast as it is written";
    let mut line = Line::begin(out, format, Level::WARN, "log", message);
    line.number("lines", lines);
    line.end();
}

/// Reads a list of levels.
fn parse(levels: &str) -> Result<Targets, InvalidLevel> {
    let mut targets = Targets::new();
    for part in levels.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let invalid = || InvalidLevel(part.to_owned());
        let (scope, level) = match part.rsplit_once(['=', ':']) {
            Some((scope, level)) => (Some(scope.trim_end_matches(':')), level),
            None => (None, part),
        };
        let level = match level {
            // The parser takes an empty text for a level.
            "" => return Err(invalid()),
            "warning" => "warn",
            other => other,
        };
        let level: LevelFilter = level.parse().map_err(|_| invalid())?;
        targets = match scope {
            Some("") => return Err(invalid()),
            Some(scope) => targets.with_target(scope, level),
            None => targets.with_default(level),
        };
    }
    Ok(targets)
}

/// What was in force, with the parts of `change` in place of those for the same scope.
fn merge(levels: &str, change: &str) -> String {
    let scope = |part: &str| part.rsplit_once(['=', ':']).map(|(scope, _)| scope.to_owned());
    let changed: Vec<&str> = change.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut merged = String::new();
    let kept = levels
        .split(',')
        .filter(|part| !part.is_empty() && !changed.iter().any(|new| scope(new) == scope(part)));
    for part in kept.chain(changed.iter().copied()) {
        let comma = if merged.is_empty() { "" } else { "," };
        let _ = write!(merged, "{comma}{part}");
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_levels_by_scope() {
        assert_eq!(merge("info,access=info", "access=debug"), "info,access=debug");
        assert_eq!(merge("info,access=info", "debug"), "access=info,debug");
        assert_eq!(merge("", "info"), "info");
    }

    #[test]
    fn the_access_log_has_the_levels_that_are_wanted() {
        for (levels, wanted) in
            [("off", 0), ("access=error", 1), ("access=warn", 2), ("info", 3), ("trace", 3)]
        {
            assert_eq!(access_levels(&parse(levels).unwrap()), wanted, "{levels}");
        }
    }

    #[test]
    fn what_was_dropped_is_said_in_a_line_like_any_other() {
        let mut out = Vec::new();
        tell_dropped(&mut out, Format::Plain, 7);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("\twarn\tlog\tlines were dropped here") && text.ends_with("\tlines=7\n"),
            "{text}"
        );
    }

    #[test]
    fn reads_levels() {
        assert!(parse("info,access:debug,a::b=trace").is_ok());
        for bad in ["loud", "access=", "=info"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
