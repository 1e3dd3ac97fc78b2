//! What is wrong with a manifest: one finding per cause, with the place, the field and the likely fix.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::position::Position;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Level {
    /// Good to know; nothing has to be done.
    Info,
    /// In force, but probably not what was meant.
    Warning,
    /// Refused: the object does not take effect.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        })
    }
}

/// The kind of a finding. Istio's code where Istio has one, so that people find its documentation; `LAT…`
/// where nobody has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The text is not YAML or JSON; nothing of the document could be read.
    Syntax,
    /// Two objects of one kind, namespace and name.
    DuplicateObject,
    /// A kind that belongs to a mesh but is not carried by this one: refused by name, never skipped silently.
    UnsupportedKind,
    /// A kind the mesh has no use for.
    IgnoredKind,
    /// A file that could not be read, or that exceeds a limit.
    Unreadable,
    /// Traffic that passes beside the mesh where somebody may rely on the contrary.
    NotCarried,
    /// An address that is another's.
    AddressTaken,
    /// A NetworkPolicy that keeps the mesh's tunnels away from pods of the mesh.
    TunnelBlocked,
    /// Something is named that is not there (Istio: `ReferencedResourceNotFound`).
    ReferencedResourceNotFound,
    /// The object does not fit its schema or breaks one of its rules (Istio: `SchemaValidationError`).
    Schema,
    /// A selector selects nothing (Istio: `NoMatchingWorkloadsFound`).
    NoMatchingWorkloads,
    /// Valid, but questionable (Istio: `SchemaWarning`).
    SchemaWarning,
    /// A policy that cannot do what it says (Istio: `IneffectivePolicy`).
    IneffectivePolicy,
    /// A rule behind one that takes everything (Istio: `VirtualServiceUnreachableRule`).
    UnreachableRule,
    /// A match that a rule before has already (Istio: `VirtualServiceIneffectiveMatch`).
    IneffectiveMatch,
    /// Several VirtualServices for one host (Istio: `ConflictingMeshGatewayVirtualServiceHosts`).
    SharedHost,
    /// A destination without a port, of a service that has several (Istio:
    /// `VirtualServiceDestinationPortSelectorRequired`).
    PortSelectorRequired,
    /// A subset that no pod belongs to (Istio: `DestinationRuleSubsetNotSelectPods`).
    SubsetNotSelectPods,
    /// A DestinationRule for a host that is not there (Istio: `UnknownDestinationRuleHost`).
    UnknownDestinationRuleHost,
}

impl Code {
    /// The code as printed, for example `IST0106`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "LAT0001",
            Self::DuplicateObject => "LAT0002",
            Self::UnsupportedKind => "LAT0003",
            Self::IgnoredKind => "LAT0004",
            Self::Unreadable => "LAT0005",
            Self::NotCarried => "LAT0006",
            Self::AddressTaken => "LAT0007",
            Self::TunnelBlocked => "LAT0008",
            Self::ReferencedResourceNotFound => "IST0101",
            Self::Schema => "IST0106",
            Self::NoMatchingWorkloads => "IST0127",
            Self::SchemaWarning => "IST0133",
            Self::IneffectivePolicy => "IST0167",
            Self::UnreachableRule => "IST0130",
            Self::IneffectiveMatch => "IST0131",
            Self::SharedHost => "IST0109",
            Self::PortSelectorRequired => "IST0112",
            Self::SubsetNotSelectPods => "IST0173",
            Self::UnknownDestinationRuleHost => "IST0174",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing to say about a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Error, warning or information.
    pub level: Level,
    /// What kind of finding this is.
    pub code: Code,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The object it is about, as `Kind namespace/name`, when that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Where: the offending key, value or character.
    #[serde(flatten)]
    pub position: Position,
    /// The field's path, such as `spec.rules[0].from[0].source.principals[1]`; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What would most likely put it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// A finding without object, field or fix.
    pub fn new(level: Level, code: Code, position: Position, message: impl Into<String>) -> Self {
        Self { level, code, message: message.into(), object: None, position, field: String::new(), fix: None }
    }

    /// The same with the field's path.
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The same with a fix.
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same with the object it is about.
    pub fn about(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// True where nothing of the document could be read, so that whatever was in force has to stay.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.code, Code::Syntax | Code::Unreadable)
    }
}

/// `FILE:LINE:COLUMN: error: message (field F)`, and a second line with the fix when there is one.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{}: {level}: {}", self.position, self.message)?;
        if !self.field.is_empty() {
            write!(f, " (field {})", self.field)?;
        }
        if let Some(fix) = &self.fix {
            write!(f, "\n  fix: {fix}")?;
        }
        Ok(())
    }
}
