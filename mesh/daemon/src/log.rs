//! Logs in Istio's format: `TIME<TAB>LEVEL<TAB>SCOPE<TAB>MESSAGE<TAB>key=value …`, or one JSON object a line with
//! `LOG_FORMAT=json`; levels by scope, changed at run time by `POST /logging`.
//!
//! Lines go through one buffer that a thread of its own writes out, so that a line on the path of a connection
//! costs a few copies and no system call.

mod format;
pub mod sink;

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
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
pub use self::sink::Sink;
use crate::http::{Answer, Call, Routes};

/// The scope of the access log.
pub const ACCESS: &str = "access";

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
    access: Arc<AtomicBool>,
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
        let sink = Sink::start(std::io::stdout());
        let access = Arc::new(AtomicBool::new(targets.would_enable(ACCESS, &Level::INFO)));
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
        self.access.store(targets.would_enable(ACCESS, &Level::INFO), Ordering::Relaxed);
        // The subscriber is gone only when the process is.
        let _ = self.handle.reload(targets);
        *self.levels.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = merged;
        Ok(())
    }

    /// Whether access log lines are wanted.
    pub fn access_enabled(&self) -> bool {
        self.access.load(Ordering::Relaxed)
    }

    /// Writes one line of the access log: `fill` adds the fields.
    pub fn access(&self, level: Level, message: &str, fill: impl FnOnce(&mut Line<'_>)) {
        if !self.access_enabled() {
            return;
        }
        self.sink.write(|buffer| {
            let mut line = Line::begin(buffer, self.format, level, ACCESS, message);
            fill(&mut line);
            line.end();
        });
    }

    /// How often a line waited because what was written before it did not go out.
    pub fn waits(&self) -> u64 {
        self.sink.waits()
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
    fn reads_levels() {
        assert!(parse("info,access:debug,a::b=trace").is_ok());
        for bad in ["loud", "access=", "=info"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
