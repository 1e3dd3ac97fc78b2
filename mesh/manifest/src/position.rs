//! Where something stands in a manifest: what every finding and every status message points at.

use std::{fmt, path::Path, sync::Arc};

use serde::Serialize;

/// A line and a column inside one file, both counted from 1; 0:0 where there is no text to point into (an
/// object that came from an API server).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mark {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Mark {
    /// A mark at `line`:`column`, both from 1.
    pub const fn new(line: u32, column: u32) -> Self {
        Self { line, column }
    }

    /// True where a text is known, so that line and column mean something.
    pub const fn is_known(self) -> bool {
        self.line > 0
    }
}

/// A place in a file. Shown as `FILE:LINE:COLUMN`, or `FILE` where the place in it is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// The file as it was named by whoever asked for it to be read.
    pub file: Arc<Path>,
    /// Line, from 1; 0 when unknown.
    pub line: u32,
    /// Column in characters, from 1; 0 when unknown.
    pub column: u32,
}

impl Position {
    /// The place `mark` in `file`.
    pub fn new(file: &Arc<Path>, mark: Mark) -> Self {
        Self { file: file.clone(), line: mark.line, column: mark.column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}
