//! Responses of a controller, as the client takes them: the envelope, the names, the versions, and the mesh that comes
//! of it.
//!
//! Input: encoded responses, each behind two octets with its length. What the mesh holds must be what the client says it
//! has when it connects again, and answers must not grow with what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::mesh::Mesh;
use prost::Message;
use proto::discovery::{DeltaDiscoveryResponse, Node};
use proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};
use xds::convert::Decoder;
use xds::delta::subscriber::{Delivery, Handler, Mode, Rejection, Subscriber, Subscription};

struct Taker {
    mesh: Mesh,
    decoder: Decoder,
}

impl Handler for Taker {
    fn apply(&mut self, delivery: &Delivery) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for name in &delivery.removed {
            if let Some(update) = self.decoder.removal(&delivery.type_url, name) {
                self.mesh.apply(update);
            }
        }
        for received in &delivery.resources {
            match self.decoder.decode(&delivery.type_url, &received.name, received.value.clone()) {
                Ok(update) => drop(self.mesh.apply(update)),
                Err(refused) => {
                    rejections.push(Rejection { name: received.name.clone(), reason: refused.to_string() })
                }
            }
        }
        rejections
    }
}

/// Refusals in one answer are cut: sixteen, of half a kilobyte each.
const LONGEST: usize = 17 * 600;

fuzz_target!(|data: &[u8]| {
    let all = [ADDRESS, AUTHORIZATION, MESH_SETTINGS].map(|type_url| Subscription {
        type_url: type_url.into(),
        mode: Mode::All,
        required: type_url != MESH_SETTINGS,
    });
    let mut subscriber = Subscriber::new(Node::default(), all);
    let mut taker = Taker { mesh: Mesh::new("".into(), Some("n".into())), decoder: Decoder::default() };
    let mut rest = data;
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let (message, tail) = tail.split_at(tail.len().min(usize::from(u16::from_be_bytes(*length))));
        rest = tail;
        let Ok(response) = DeltaDiscoveryResponse::decode(message) else { continue };
        let nonce = response.nonce.clone();
        if let Ok(answer) = subscriber.receive(response, &mut taker) {
            assert_eq!(answer.response_nonce, nonce);
            assert!(answer.error_detail.is_none_or(|status| status.message.len() <= LONGEST));
        }
    }
    let told: usize =
        subscriber.connect().iter().map(|request| request.initial_resource_versions.len()).sum();
    let held = taker.mesh.workloads().count() + taker.mesh.services().count();
    assert!(held <= told, "{held} are held, {told} would be named");
});
