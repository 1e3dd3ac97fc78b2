//! What the mesh needs to know of a Gateway that is a waypoint, and of those who ask for one.

use std::collections::BTreeMap;

use manifest::istio::{LabelSelector, Listener};
use manifest::waypoint::{self, FOR_ACCOUNT, WAYPOINT_FOR};
use manifest::{Object, Typed};
use model::address::Str;

use crate::index::Name;
use crate::index::labels::Labels;

/// On a namespace or an object: the revision of the control plane whose it is.
pub const REVISION: &str = "istio.io/rev";
/// On a namespace, service or account: whoever is no waypoint of the workload is refused.
pub const REQUIRE_WAYPOINT: &str = "lateen.dev/require-waypoint";

/// A Gateway that is a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waypoint {
    /// Its name.
    pub name: Name,
    /// The port of its HBONE listener.
    pub port: u16,
    /// Its class.
    pub class: &'static str,
    /// For which traffic it says it is.
    pub traffic: Option<Traffic>,
    /// The account that it stands in front of.
    pub account: Option<Str>,
    /// From which namespaces it may be asked for.
    pub allowed: Allowed,
    /// When it was made, if anybody says.
    pub created: Option<String>,
}

/// For which traffic a waypoint may be asked for by labels (`istio.io/waypoint-for`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// To services.
    Service,
    /// To the addresses of pods.
    Workload,
    /// Both.
    All,
    /// Neither.
    None,
}

/// From which namespaces a waypoint may be asked for (`allowedRoutes.namespaces` of its listener).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Its own.
    Same,
    /// Every one.
    All,
    /// Those with such labels.
    Labels(LabelSelector),
    /// None.
    None,
}

/// What a label asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// No waypoint.
    None,
    /// This one.
    For(Name),
}

impl Waypoint {
    /// Nothing where the object is no waypoint, or cannot be read.
    pub fn of(name: Name, object: &Object) -> Option<Self> {
        let Typed::Gateway(gateway) = &object.spec else { return None };
        let (class, listener) = waypoint::listener(gateway)?;
        Some(Self {
            name,
            class,
            port: listener.port,
            traffic: traffic(object),
            account: object.annotation(FOR_ACCOUNT).filter(|name| !name.is_empty()).map(Str::from),
            allowed: Allowed::by(listener),
            created: object.metadata.creation_timestamp.clone(),
        })
    }
}

/// What an object's label says of traffic. A word that is none of the four is for no traffic at all: whoever asks for
/// the waypoint is told.
pub(in crate::index) fn traffic(object: &Object) -> Option<Traffic> {
    Some(match object.label(WAYPOINT_FOR)? {
        "service" => Traffic::Service,
        "workload" => Traffic::Workload,
        "all" => Traffic::All,
        _ => Traffic::None,
    })
}

impl Allowed {
    fn by(listener: &Listener) -> Self {
        let namespaces = listener.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref());
        let Some(namespaces) = namespaces else { return Self::Same };
        match namespaces.from.as_deref() {
            None | Some("Same") => Self::Same,
            Some("All") => Self::All,
            Some("Selector") => match &namespaces.selector {
                Some(selector) => Self::Labels(selector.clone()),
                None => Self::None,
            },
            Some(_) => Self::None,
        }
    }

    /// Whether a waypoint of `own` may be asked for from `namespace`, which has these labels.
    pub(in crate::index) fn admits(&self, own: &str, namespace: &str, labels: &Labels) -> bool {
        match self {
            Self::Same => own == namespace,
            Self::All => true,
            Self::None => false,
            Self::Labels(selector) => selects(selector, namespace, labels),
        }
    }
}

/// Every namespace has a label with its name.
fn selects(selector: &LabelSelector, namespace: &str, labels: &Labels) -> bool {
    selector.selects(|key| match key {
        "kubernetes.io/metadata.name" => Some(namespace),
        key => labels.get(key).map(String::as_str),
    })
}

/// What labels ask for, in a namespace.
pub(in crate::index) fn asked(labels: &BTreeMap<String, String>, namespace: &str) -> Option<Asked> {
    waypoint::asked(labels, namespace).map(|asked| match asked {
        waypoint::Asked::None => Asked::None,
        waypoint::Asked::For { namespace, name } => Asked::For(Name::new(namespace, name)),
    })
}

/// Whether labels or annotations say that all must come by a waypoint.
pub(in crate::index) fn required(
    labels: Option<&BTreeMap<String, String>>,
    annotations: Option<&BTreeMap<String, String>>,
) -> bool {
    let mut all = [labels, annotations].into_iter().flatten();
    all.any(|all| all.get(REQUIRE_WAYPOINT).is_some_and(|value| value == "true"))
}
