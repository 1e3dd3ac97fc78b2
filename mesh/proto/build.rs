//! Compiles the `.proto` files without a system protoc.

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 9] = [
    "istio/workload.proto",
    "istio/authorization.proto",
    "istio/ca.proto",
    "istio/zds.proto",
    "envoy/discovery.proto",
    "lateen/diagnostics.proto",
    "lateen/mesh.proto",
    "lateen/routing/v1.proto",
    "lateen/security.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let mut config = tonic_prost_build::Config::new();
    // Names let a message be packed with its own type URL.
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        // Ordered maps make equal messages equal bytes, which versions by content need; `Bytes` makes a
        // decoded address a view of the message it came in.
        .btree_map(".")
        .bytes(".")
        .extern_path(".google.protobuf.Any", "crate::Any")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
