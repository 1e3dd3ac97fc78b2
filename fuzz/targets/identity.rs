//! A URI name of a peer's certificate. What is accepted must be written back letter by letter: two spellings of one
//! identity are how a policy is made to miss.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Identity;

fuzz_target!(|text: &str| {
    let Ok(identity) = text.parse::<Identity>() else { return };
    assert_eq!(identity.to_string(), text);
    let parts = [identity.trust_domain(), identity.namespace(), identity.service_account()];
    for part in parts {
        assert!(
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'),
            "{part:?}"
        );
    }
    let [trust_domain, namespace, account] = parts.map(Clone::clone);
    assert_eq!(Identity::new(trust_domain, namespace, account), identity);
});
