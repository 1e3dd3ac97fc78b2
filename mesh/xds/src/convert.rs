//! Wire ⇄ model, for every resource that delta xDS carries.
//!
//! Reading is strict where a mistake would widen what is allowed (policies: [`authz`], [`strict`]) and plain
//! elsewhere: what cannot be read is refused by name, field and reason, and the resources beside it still count.
//! Writing is its inverse, used by the controller.

pub mod authz;
pub mod resource;
pub mod routing;
pub mod service;
pub mod settings;
pub mod workload;

mod fields;
mod intern;
mod strict;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use model::address::{NamespacedHostname, Str};
use model::authz::Policy;
use model::mesh::{Settings, Update};
use model::route::Routing;
use model::workload::PolicyName;
use prost::Message;
use proto::type_url;
use thiserror::Error;

use self::intern::{Gateways, Profiles, Strings};

/// The largest resource that is read, in bytes. Beyond it, one object would stop all others.
pub const MAX_RESOURCE_BYTES: usize = 8 << 20;

/// Reads resources into updates of a [`model::mesh::Mesh`]. Equal strings, profiles and addresses of gateways are shared
/// between all that it has read, which is what keeps workloads and services small.
#[derive(Debug)]
pub struct Decoder {
    strings: Strings,
    profiles: Profiles,
    gateways: Gateways,
    settings: Settings,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// It is needed and empty.
    #[error("must not be empty")]
    Missing,
    /// An address is neither IPv4 nor IPv6.
    #[error("an address of {0} bytes; there are only those of 4 and of 16")]
    AddressLength(usize),
    /// A range is longer than its address.
    #[error("a prefix of {0} bits is longer than the address")]
    PrefixLength(u32),
    /// A number that this version knows no meaning for.
    #[error("{0} has no meaning in this version; upgrade this proxy or undo the change")]
    UnknownValue(i32),
    /// A field that this version does not know, where ignoring it could change who is let through.
    #[error("field {0} has no meaning in this version; upgrade this proxy or undo the change")]
    UnknownField(u32),
    /// Fields that this version does not know, where each may change what is done.
    #[error("it has fields without a meaning in this version; upgrade this proxy or undo the change")]
    UnknownFields,
    /// Something that this version cannot do.
    #[error("{0:?} is required, which this version cannot do; upgrade this proxy or undo the change")]
    Required(String),
    /// TLS as injected sidecars speak it.
    #[error("LEGACY_ISTIO_MTLS is not spoken here; enrol the workload in ambient mode")]
    LegacyTunnel,
    /// A port out of range.
    #[error("{0} is not a port")]
    Port(u32),
    /// A name is not in the form expected.
    #[error("{text:?} is not of the form {form}")]
    Form {
        /// What was found.
        text: String,
        /// What was expected.
        form: &'static str,
    },
    /// The resource names itself otherwise than its envelope does.
    #[error("{0:?} is not the name that the resource was sent under")]
    OtherName(String),
    /// The bytes are not the message they should be.
    #[error("{0}")]
    Malformed(String),
    /// Something that the message says must be understood.
    #[error(
        "{0:?} must be understood to read it and has no meaning in this version; upgrade this proxy or undo the change"
    )]
    Requires(String),
    /// Too large.
    #[error("{0} bytes, more than the {MAX_RESOURCE_BYTES} that one resource may have")]
    TooLarge(usize),
    /// No type that is known here.
    #[error("resources of type {0} are not understood here")]
    UnknownType(String),
}

/// Why a resource is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{resource}: {field}: {reason}")]
pub struct ConvertError {
    /// The resource's name.
    pub resource: String,
    /// The field, by its path in the message.
    pub field: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// A refused resource.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct Refused {
    /// Why.
    pub error: ConvertError,
    /// Where it is a policy: one that denies all of its scope. It takes the refused one's place unless an earlier
    /// version that could be read is still in force.
    pub instead: Option<Box<Policy>>,
}

/// A field and what is wrong with it, on the way up to the resource that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: Cow<'static, str>,
    pub(crate) reason: Reason,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<Cow<'static, str>>, reason: Reason) -> Self {
        Self { field: field.into(), reason }
    }

    /// Puts an outer field in front.
    pub(crate) fn within(self, outer: impl fmt::Display) -> Self {
        Self { field: format!("{outer}.{}", self.field).into(), reason: self.reason }
    }

    fn of(self, resource: &str) -> ConvertError {
        ConvertError { resource: resource.to_owned(), field: self.field.into_owned(), reason: self.reason }
    }
}

impl Decoder {
    /// A reader for which elided fields mean what `settings` say, until the controller sends its own.
    pub fn new(settings: Settings) -> Self {
        Self {
            strings: Strings::default(),
            profiles: Profiles::default(),
            gateways: Gateways::default(),
            settings,
        }
    }

    /// Shares a string with all equal ones that were read.
    pub fn intern(&mut self, text: &str) -> Str {
        self.strings.get(text)
    }

    /// The shared string equal to a text, if one is held: the name of a service, say, that a workload is behind.
    pub fn held(&self, text: &str) -> Option<Str> {
        self.strings.held(text)
    }

    /// Reads one resource.
    ///
    /// # Errors
    /// Why it is refused, and for a policy what stands in its place.
    pub fn decode(&mut self, type_url: &str, name: &Str, value: Bytes) -> Result<Update, Refused> {
        if is_policy(type_url) {
            return self.policy(type_url, name, &value).map(Update::Policy);
        }
        let read = self.check_size(&value).and_then(|()| match type_url {
            type_url::ADDRESS => self.address(name, value),
            type_url::MESH_SETTINGS => self.mesh_settings(value).map(Update::Settings),
            other => Err(FieldError::new("type_url", Reason::UnknownType(other.to_owned()))),
        });
        read.map_err(|error| Refused { error: error.of(name), instead: None })
    }

    /// Reads the routing of a host ([`type_url::ROUTING`]), which is no part of a [`model::mesh::Mesh`]: the reader's table
    /// of hosts has it.
    ///
    /// # Errors
    /// Why it is refused; the last good one stays.
    pub fn routing(&mut self, name: &Str, value: Bytes) -> Result<Routing, Refused> {
        let read = self.check_size(&value).and_then(|()| routing::read(&mut self.strings, name, value));
        read.map_err(|error| Refused { error: error.of(name), instead: None })
    }

    /// The host whose routing was removed.
    pub fn routing_removal(&mut self, name: &Str) -> Option<NamespacedHostname> {
        fields::service_key(&mut self.strings, name).ok()
    }

    /// What the removal of a resource means, if anything is known by that name at all.
    pub fn removal(&mut self, type_url: &str, name: &Str) -> Option<Update> {
        match type_url {
            type_url::ADDRESS => Some(Update::RemoveAddress(name.clone())),
            _ if is_policy(type_url) => {
                fields::policy_name(&mut self.strings, name).ok().map(Update::RemovePolicy)
            }
            _ => None,
        }
    }

    fn check_size(&self, value: &Bytes) -> Result<(), FieldError> {
        if value.len() <= MAX_RESOURCE_BYTES {
            return Ok(());
        }
        Err(FieldError::new("resource", Reason::TooLarge(value.len())))
    }

    fn address(&mut self, name: &Str, value: Bytes) -> Result<Update, FieldError> {
        use proto::workload::address::Type;
        let address: proto::workload::Address = parse(value)?;
        match address.r#type {
            Some(Type::Workload(wire)) => {
                workload::read(&mut self.strings, &mut self.profiles, &self.settings, name, &wire)
                    .map(Update::Workload)
                    .map_err(|error| error.within("workload"))
            }
            Some(Type::Service(wire)) => service::read(&mut self.strings, &mut self.gateways, name, &wire)
                .map(Update::Service)
                .map_err(|error| error.within("service")),
            None => Err(FieldError::new("type", Reason::Missing)),
        }
    }

    fn mesh_settings(&mut self, value: Bytes) -> Result<Settings, FieldError> {
        let read = settings::read(&mut self.strings, &parse(value)?)?;
        self.settings = read.clone();
        Ok(read)
    }

    fn policy(&mut self, type_url: &str, name: &Str, value: &Bytes) -> Result<Policy, Refused> {
        let read = self.check_size(value).and_then(|()| match type_url {
            type_url::REQUEST_AUTHORIZATION => authz::request::read(&mut self.strings, name, value.clone()),
            _ => authz::read(&mut self.strings, name, value.clone()),
        });
        read.map_err(|error| {
            let error = error.of(name);
            let instead = self.stand_in(type_url, name, value, &error);
            Refused { error, instead }
        })
    }

    /// The policy that denies everything a refused one covers. What cannot be made out is assumed to be wide, as
    /// far as a policy of that namespace can reach.
    fn stand_in(
        &mut self,
        type_url: &str,
        name: &Str,
        value: &Bytes,
        error: &ConvertError,
    ) -> Option<Box<Policy>> {
        let name: PolicyName = fields::policy_name(&mut self.strings, name).ok()?;
        let mesh_wide = name.namespace == self.settings.root_namespace;
        let reason = error.to_string();
        Some(Box::new(match type_url {
            type_url::REQUEST_AUTHORIZATION => {
                authz::request::stand_in(&mut self.strings, name, value, mesh_wide, &reason)
            }
            _ => authz::stand_in(name, value, mesh_wide, &reason),
        }))
    }
}

/// Whether resources of a type are policies, in one of their two forms.
fn is_policy(type_url: &str) -> bool {
    [type_url::AUTHORIZATION, type_url::REQUEST_AUTHORIZATION].contains(&type_url)
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

fn parse<M: Message + Default>(value: Bytes) -> Result<M, FieldError> {
    M::decode(value).map_err(|error| FieldError::new("resource", Reason::Malformed(error.to_string())))
}
