//! What a client of rustls sends first, whole, cut anywhere, and spoilt.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

pub(crate) fn of(name: &str, with_name: bool) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.enable_sni = with_name;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_name_is_read_wherever_it_is_cut() {
    let hello = of("Reviews.Shop.example", true);
    for end in 0..hello.len() {
        assert_eq!(read(&hello[..end]), None, "{end} of {}", hello.len());
    }
    assert_eq!(read(&hello), Some(Hello::Name("reviews.shop.example".into())));
    // What follows it is not looked at.
    assert_eq!(read(&[&hello[..], b"more"].concat()), Some(Hello::Name("reviews.shop.example".into())));
    assert_eq!(read(&of("reviews.example", false)), Some(Hello::Nameless));
    assert_eq!(read(&of("10.0.0.1", true)), Some(Hello::Nameless));
}

#[test]
fn over_several_records_it_is_the_same() {
    let hello = of("reviews.example", true);
    let (header, body) = hello.split_at(5);
    let mut split = Vec::new();
    for part in body.chunks(7) {
        split.extend_from_slice(&header[..3]);
        split.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
        split.extend_from_slice(part);
    }
    assert_eq!(read(&split), Some(Hello::Name("reviews.example".into())));
}

#[test]
fn what_cannot_be_read_counts_as_unseen() {
    let mut spoilt = of("reviews.example", true);
    // The kind of the handshake message.
    spoilt[5] = 2;
    assert_eq!(read(&spoilt), Some(Hello::Unseen));
    // A message that says it is longer than is waited for.
    let mut endless = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    endless.resize(LONGEST, 0);
    assert_eq!(read(&endless[..100]), None);
    assert_eq!(read(&endless), Some(Hello::Unseen));
    assert_eq!(Hello::Unseen.sni(), Sni::Unseen);
    assert_eq!(Hello::NoTls.sni(), Sni::Absent);
}
