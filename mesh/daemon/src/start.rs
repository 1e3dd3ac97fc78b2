//! Why a process cannot start, or go on.

use thiserror::Error;

use crate::ports::Taken;
use crate::settings::SettingsError;
use crate::tasks::Defect;

/// Why a process could not start, or go on; the text says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A setting's value makes no sense.
    #[error("{0}")]
    Value(String),
    /// A port of operators is not to be had.
    #[error("{0}; is another proxy running here? The ports are settings, see --help")]
    Port(#[from] Taken),
    /// The system refused something.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// A part of the process has ended that never does.
    #[error(transparent)]
    Defect(#[from] Defect),
}
