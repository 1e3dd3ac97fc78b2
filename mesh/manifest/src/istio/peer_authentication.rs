//! PeerAuthentication (`security.istio.io`): whether a workload accepts callers without an identity.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};

use super::WorkloadSelector;

/// The `spec` of a PeerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PeerAuthentication {
    /// The workloads it is for; every one of its namespace when absent.
    pub selector: Option<WorkloadSelector>,
    /// The mode for all ports.
    pub mtls: Option<MutualTls>,
    /// Modes for single ports of the workload; only with a selector.
    pub port_level_mtls: BTreeMap<PortNumber, MutualTls>,
}

/// Wraps a mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MutualTls {
    /// The mode.
    pub mode: MutualTlsMode,
}

/// Whether plain connections are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MutualTlsMode {
    /// As the wider scope says: workload, then namespace, then mesh; PERMISSIVE where none does.
    #[default]
    Unset,
    /// No mutual TLS; without sidecars the same as PERMISSIVE, since tunnels are always accepted.
    Disable,
    /// Both.
    Permissive,
    /// Only callers with an identity.
    Strict,
}

/// A port as the key of an object, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortNumber(pub u16);

impl<'de> Deserialize<'de> for PortNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = PortNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number from 1 to 65535")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortNumber, E> {
                match text.parse() {
                    Ok(0) | Err(_) => {
                        Err(E::custom(format_args!("`{text}` is not a port number from 1 to 65535")))
                    }
                    Ok(port) => Ok(PortNumber(port)),
                }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}
