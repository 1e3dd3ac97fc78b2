//! The whole way from manifests to verdicts (index, translation, wire, engine) against a naive reading of Istio's
//! documentation, on random policies and connections. The reading knows nothing of the code it judges: no clauses, no
//! wire, no three-valued engine, only the fields of the manifests.
//!
//! `LATEEN_FULL=1` makes it a million pairs of policies and connections.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

#[path = "oracle/naive.rs"]
mod naive;
#[path = "oracle/random.rs"]
mod random;

use std::path::Path;
use std::sync::Arc;

use ctrl::compile::{Compiler, TYPES};
use ctrl::translate::Context;
use manifest::{Batch, Object, from_json};
use model::authz::{Subject, decide};
use model::mesh::{Mesh, Settings};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use xds::convert::Decoder;
use xds::delta::store::Store;

/// Connections tried on each set of policies.
const CONNECTIONS: usize = 20;

fn object(value: &Value) -> Arc<Object> {
    let origin: Arc<Path> = Arc::from(Path::new("test"));
    Arc::new(from_json(value, &origin).objects.pop().unwrap())
}

/// What an agent knows once it has been sent everything.
fn known(objects: &[Arc<Object>]) -> Mesh {
    let mut compiler = Compiler::new(Context::new(Settings::default()));
    let batch = Batch { upserted: objects.to_vec(), ..Batch::default() };
    let mut store = Store::new(TYPES);
    store.apply(compiler.apply(&batch).ours);
    let mut decoder = Decoder::default();
    let mut mesh = Mesh::new("".into(), None);
    for type_url in TYPES {
        for resource in store.resources(type_url) {
            let update = decoder.decode(type_url, resource.name(), resource.value().clone()).unwrap();
            mesh.apply(update);
        }
    }
    mesh
}

#[test]
fn verdicts_are_those_of_the_documentation() {
    let full = std::env::var_os("LATEEN_FULL").is_some_and(|value| value == "1");
    let pairs = if full { 1_000_000 } else { 20_000 };
    let seed: [u8; 32] = std::array::from_fn(|place| u8::try_from(place).unwrap() ^ 0x5a);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut allowed, mut denied) = (0_usize, 0_usize);
    while allowed + denied < pairs {
        let world = random::world().new_tree(&mut runner).unwrap().current();
        let objects: Vec<Arc<Object>> = world.iter().map(object).collect();
        let mesh = known(&objects);
        for _ in 0..CONNECTIONS {
            let connection = random::connection().new_tree(&mut runner).unwrap().current();
            let workload = mesh.workload("Kubernetes//Pod/shop/cart").unwrap();
            let policies = mesh.policies_for(workload).unwrap();
            let subject = Subject {
                source: connection.source,
                identity: connection.identity.as_ref(),
                destination: connection.destination,
            };
            let decision = decide(&policies, &subject);
            let expected = naive::allows(&objects, &connection);
            assert_eq!(
                decision.allows(),
                expected,
                "{}\nthe engine: {}\n{connection:?}\n{}",
                if expected { "the documentation allows it" } else { "the documentation refuses it" },
                decision.cause,
                serde_json::to_string_pretty(&world).unwrap()
            );
            if expected { allowed += 1 } else { denied += 1 }
        }
    }
    println!(
        "{} pairs of policies and connections agree: {allowed} allowed, {denied} refused",
        allowed + denied
    );
    // A generator that only makes one of them would prove nothing.
    assert!(allowed > pairs / 10 && denied > pairs / 10, "{allowed} allowed, {denied} refused");
}
