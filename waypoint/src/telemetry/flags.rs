//! How a request or connection ended, in Envoy's codes (`%RESPONSE_FLAGS%`), which Istio's dashboards know.

use std::fmt;

/// A response flag; `-` where nothing is to remark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flags(&'static str);

impl Flags {
    /// Nothing to remark.
    pub(crate) const NONE: Self = Self("-");
    /// No endpoint can take it.
    pub(crate) const UH: Self = Self("UH");
    /// The endpoint could not be connected to.
    pub(crate) const UF: Self = Self("UF");
    /// A connection pool is full.
    pub(crate) const UO: Self = Self("UO");
    /// There is no route.
    pub(crate) const NR: Self = Self("NR");
    /// The endpoint's connection ended before it had answered.
    pub(crate) const UC: Self = Self("UC");
    /// The endpoint reset the request, or its answer.
    pub(crate) const UR: Self = Self("UR");
    /// The client went away.
    pub(crate) const DC: Self = Self("DC");
    /// A rule names a destination that is not there.
    pub(crate) const NC: Self = Self("NC");
    /// It took longer than it may.
    pub(crate) const UT: Self = Self("UT");
    /// It was tried as often as it may.
    pub(crate) const URX: Self = Self("URX");
    /// It was answered by an injected fault.
    pub(crate) const FI: Self = Self("FI");
    /// What the client sent breaks the protocol.
    pub(crate) const DPE: Self = Self("DPE");

    /// The same after it was tried as often as it may.
    pub(crate) fn exhausted(self) -> Self {
        match self.0 {
            "UF" => Self("UF,URX"),
            "UC" => Self("UC,URX"),
            "UT" => Self("UT,URX"),
            _ => Self::URX,
        }
    }

    /// Its code.
    pub(crate) fn code(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
