//! What the mesh needs to know of a Gateway that is a waypoint, and of those who ask for one.

use std::collections::BTreeMap;

use manifest::istio::{LabelSelector, Listener};
use manifest::{Object, Typed};
use model::address::Str;

use crate::index::Name;
use crate::index::labels::Labels;

/// The class that makes a Gateway a waypoint: Istio's, which manifests and tools name.
pub const CLASS: &str = "istio-waypoint";
/// The same under a name of our own, which an Istio beside us leaves alone.
pub const OWN_CLASS: &str = "lateen-waypoint";
/// The classes that make a Gateway a waypoint, and the name of the controller that answers for each.
pub const CLASSES: [(&str, &str); 2] =
    [(CLASS, "istio.io/mesh-controller"), (OWN_CLASS, "lateen.dev/mesh-controller")];
/// The protocol of a waypoint's listener.
const HBONE: &str = "HBONE";
/// On a Gateway or its class: for which traffic labels may ask for it.
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// On a Gateway: the account of its namespace in front of whose pods it stands.
pub const FOR_ACCOUNT: &str = "istio.io/for-service-account";
/// On a service, pod or namespace: the waypoint's name, or `none`.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Beside it: the waypoint's namespace, if it is another.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// On a namespace or an object: the revision of the control plane whose it is.
pub const REVISION: &str = "istio.io/rev";
/// On a namespace, service or account: whoever is no waypoint of the workload is refused.
pub const REQUIRE_WAYPOINT: &str = "lateen.dev/require-waypoint";
/// On the pods and the Service that are made for a Gateway.
pub(in crate::index) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

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
        let (class, _) = CLASSES.iter().find(|(class, _)| *class == gateway.gateway_class_name)?;
        let listener = gateway.listeners.iter().find(|listener| listener.protocol == HBONE)?;
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

/// The controller that answers for a class of waypoints; nothing for a class of others.
pub fn controller_of(class: &str) -> Option<&'static str> {
    CLASSES.iter().find(|(name, _)| *name == class).map(|(_, controller)| *controller)
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
    let name = labels.get(USE_WAYPOINT).filter(|name| !name.is_empty())?;
    if name == "none" {
        return Some(Asked::None);
    }
    let other = labels.get(USE_WAYPOINT_NAMESPACE).filter(|other| !other.is_empty());
    Some(Asked::For(Name::new(other.map_or(namespace, String::as_str), name)))
}

/// Whether labels or annotations say that all must come by a waypoint.
pub(in crate::index) fn required(
    labels: Option<&BTreeMap<String, String>>,
    annotations: Option<&BTreeMap<String, String>>,
) -> bool {
    let mut all = [labels, annotations].into_iter().flatten();
    all.any(|all| all.get(REQUIRE_WAYPOINT).is_some_and(|value| value == "true"))
}
