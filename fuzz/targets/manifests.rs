//! Manifests as people and tenants write them: YAML and JSON, with aliases, and far too deep.
//!
//! What is found wrong has a place in the text; what reads must be judged without falling over.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let file: Arc<Path> = Arc::from(Path::new("a.yaml"));
    let parsed = manifest::parse(text, &file);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let _ = manifest::analyze(&objects, "lateen-system");
});
