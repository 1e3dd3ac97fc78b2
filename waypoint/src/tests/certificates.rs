//! What can be scraped of a waypoint's certificates.

use std::time::{SystemTime, UNIX_EPOCH};

use super::requests::application;
use super::world::{HTTP, World, run};

#[test]
fn when_they_end_can_be_scraped() {
    run(async {
        let world = World::new(application).await;
        let ends = |kind: &str| {
            let kind = format!("kind=\"{kind}\"");
            world.metric("lateen_certificate_expiry_timestamp_seconds", &[&kind])
        };
        let left = |resource: &str| world.metric("istio_agent_cert_expiry_seconds", &[resource]);
        assert_eq!((ends("workload"), left("default")), (None, None), "it has none yet");
        drop(world.connect(HTTP).await);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        for (kind, resource) in [("workload", "default"), ("root", "ROOTCA")] {
            let (end, left) = (ends(kind).expect(kind), left(resource).expect(kind));
            assert!(end > now && (end - now - left).abs() < 30.0, "{kind}: {end} is {left} from {now}");
        }
        assert_eq!(world.metric("lateen_certificates_late", &[]), Some(0.0));
    });
}
