//! Scenarios (`e2e/scenarios`) on a mesh of this machine; `kube_scenarios.rs` plays the same on a Kubernetes.

use e2e::scenario::Script;

#[test]
fn the_bookshop_is_served_as_it_is_written() {
    let script = Script::read("bookshop");
    script.play(&script.mesh());
}

#[test]
fn monitoring_reaches_one_port() {
    let script = Script::read("monitoring");
    script.play(&script.mesh());
}
