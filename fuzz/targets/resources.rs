//! Resources of the workload API. The controller is trusted, but a mistake in one of its messages must neither end a
//! proxy nor let anybody pass.
//!
//! Input: an octet for the type, then the encoded message, asked for by the name that it bears. What was read must
//! survive being written, and must go away by that name; a policy that is refused must deny.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Identity;
use model::address::Str;
use model::authz::Action;
use model::mesh::Update;
use prost::Message;
use prost::bytes::Bytes;
use proto::type_url;
use proto::workload::{Address, address::Type};
use xds::convert::{Decoder, authz, service, settings, workload};

fn address(data: &[u8]) {
    let Ok(Address { r#type: Some(found) }) = Address::decode(data) else { return };
    let name: Str = match &found {
        Type::Workload(workload) => workload.uid.as_str().into(),
        Type::Service(service) => format!("{}/{}", service.namespace, service.hostname).into(),
    };
    let Ok(read) = decode(type_url::ADDRESS, &name, data) else { return };
    let written = match &read {
        Update::Workload(workload) => {
            let identity = workload.profile.identity.to_string();
            assert!(identity.len() > 2048 || identity.parse::<Identity>().is_ok(), "{identity:?}");
            Type::Workload(workload::to_wire(workload))
        }
        Update::Service(service) => Type::Service(service::to_wire(service)),
        other => panic!("an address became {other:?}"),
    };
    let written = Address { r#type: Some(written) }.encode_to_vec();
    assert_eq!(decode(type_url::ADDRESS, &name, &written), Ok(read));
}

fn policy(data: &[u8]) {
    let Ok(found) = proto::security::Authorization::decode(data) else { return };
    let name: Str = format!("{}/{}", found.namespace, found.name).into();
    let removed = Decoder::default().removal(type_url::AUTHORIZATION, &name);
    match decode(type_url::AUTHORIZATION, &name, data) {
        Ok(Update::Policy(policy)) => {
            assert_eq!(removed, Some(Update::RemovePolicy(policy.name.clone())));
            let written = authz::to_wire(&policy).encode_to_vec();
            assert_eq!(decode(type_url::AUTHORIZATION, &name, &written), Ok(Update::Policy(policy)));
        }
        Ok(other) => panic!("a policy became {other:?}"),
        Err(Some(instead)) => {
            assert!(
                instead.action == Action::Deny
                    && instead.invalid.is_some()
                    && instead.dry_run == found.dry_run
            );
            assert_eq!(removed, Some(Update::RemovePolicy(instead.name)));
        }
        Err(None) => assert_eq!(removed, None, "a refused policy that has a name is stood in for"),
    }
}

fn mesh_settings(data: &[u8]) {
    let name: Str = proto::MESH_SETTINGS_NAME.into();
    let Ok(read) = decode(type_url::MESH_SETTINGS, &name, data) else { return };
    let Update::Settings(found) = &read else { panic!("settings became {read:?}") };
    let written = settings::to_wire(found, "").encode_to_vec();
    assert_eq!(decode(type_url::MESH_SETTINGS, &name, &written), Ok(read));
}

/// What was read, or the policy that stands in for a refused one.
fn decode(type_url: &str, name: &Str, data: &[u8]) -> Result<Update, Option<model::authz::Policy>> {
    let value = Bytes::copy_from_slice(data);
    Decoder::default().decode(type_url, name, value).map_err(|refused| refused.instead.map(|policy| *policy))
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, message)) = data.split_first() else { return };
    match kind % 3 {
        0 => address(message),
        1 => policy(message),
        _ => mesh_settings(message),
    }
});
