//! What lists say, written byte by byte as authorities do that use more of the standard than ours does.

use super::{ListError, MAX_BYTES, MAX_REVOKED, RevocationList, hexadecimal, serial};

/// A value in DER: its tag, its length, its content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        bytes.push(short);
    } else {
        let long: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        bytes.push(0x80 | u8::try_from(long.len()).unwrap());
        bytes.extend(long);
    }
    bytes.extend(content);
    bytes
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

/// An extension `2.5.29.arc` that says nothing in particular.
fn extension(arc: u8, critical: bool) -> Vec<u8> {
    let mut parts = vec![der(0x06, &[0x55, 0x1d, arc])];
    if critical {
        parts.push(der(0x01, &[0xff]));
    }
    parts.push(der(0x04, &sequence(&[])));
    sequence(&parts)
}

fn time() -> Vec<u8> {
    der(0x17, b"260101000000Z")
}

/// An entry for a serial number.
fn entry(number: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut parts = vec![der(0x02, number), time()];
    if !extensions.is_empty() {
        parts.push(sequence(extensions));
    }
    sequence(&parts)
}

/// A list of the authority "x". Nobody signed it, which is not asked when a list is read.
fn list(entries: &[Vec<u8>], extensions: &[Vec<u8>]) -> Vec<u8> {
    let algorithm = sequence(&[der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])]);
    let name = sequence(&[der(0x06, &[0x55, 0x04, 0x03]), der(0x0c, b"x")]);
    let issuer = sequence(&[der(0x31, &name)]);
    let mut parts = vec![der(0x02, &[1]), algorithm.clone(), issuer, time(), time()];
    if !entries.is_empty() {
        parts.push(sequence(entries));
    }
    if !extensions.is_empty() {
        parts.push(der(0xa0, &sequence(extensions)));
    }
    sequence(&[sequence(&parts), algorithm, der(0x03, &[0, 1])])
}

#[test]
fn a_list_that_may_mean_something_else_is_refused() {
    const REASON: u8 = 21;
    const DELTA: u8 = 27;
    const SCOPE: u8 = 28;
    const UNKNOWN: u8 = 99;
    let one = || vec![entry(&[7], &[])];
    let unsupported = |what| Err(ListError::Unsupported(what));
    for (about, entries, extensions, expected) in [
        ("nothing in it", vec![], vec![], Ok(0)),
        ("no extensions", one(), vec![], Ok(1)),
        ("changes since another list", one(), vec![extension(DELTA, true)], unsupported("a delta list")),
        ("the same, not marked", one(), vec![extension(DELTA, false)], unsupported("a delta list")),
        ("a part of the certificates", one(), vec![extension(SCOPE, true)], Ok(1)),
        ("something more", one(), vec![extension(UNKNOWN, false)], Ok(1)),
        (
            "something that matters",
            one(),
            vec![extension(SCOPE, true), extension(UNKNOWN, true)],
            unsupported("a list with an unknown critical extension"),
        ),
        ("why", vec![entry(&[7], &[extension(REASON, false)]), entry(&[8], &[])], vec![], Ok(2)),
        (
            "another issuer's",
            vec![entry(&[7], &[]), entry(&[8], &[extension(UNKNOWN, false), extension(29, true)])],
            vec![],
            unsupported("a list with critical extensions of entries"),
        ),
    ] {
        let read = RevocationList::from_der(&list(&entries, &extensions));
        let counted = read.map(|list| (list.len(), list.is_empty()));
        assert_eq!(counted, expected.map(|count| (count, count == 0)), "{about}");
    }
}

#[test]
fn a_list_is_as_long_as_the_limit_and_no_longer() {
    let of = |count: usize| {
        // Twenty bytes, as long as serial numbers may be.
        let serial = |place: usize| [&[0x40; 12][..], &place.to_be_bytes()[..]].concat();
        let entries: Vec<_> = (0..count).map(|place| entry(&serial(place), &[])).collect();
        list(&entries, &[])
    };
    let read = |list: &[u8]| RevocationList::from_der(list).map(|list| list.len());
    let longest = of(MAX_REVOKED);
    assert_eq!(read(&longest), Ok(MAX_REVOKED));
    assert!(longest.len() <= MAX_BYTES, "{} bytes cannot travel", longest.len());
    let count = MAX_REVOKED + 1;
    assert_eq!(read(&of(count)), Err(ListError::TooLong(count)));
}

#[test]
fn a_list_is_kept_as_it_came() {
    let bytes = list(&[entry(&[7], &[])], &[]);
    assert_eq!(RevocationList::from_der(&bytes).unwrap().der()[..], bytes);
    let section = |tag: &str, bytes: &[u8]| pem::encode(&pem::Pem::new(tag, bytes));
    // What else stands in the file is none of ours.
    let text = section("CERTIFICATE", b"x") + &section("X509 CRL", &bytes);
    let lists = RevocationList::from_pem(&text).unwrap();
    assert_eq!(lists.iter().map(|list| list.der().to_vec()).collect::<Vec<_>>(), [bytes]);
    assert_eq!(RevocationList::from_pem(&section("CERTIFICATE", b"x")), Err(ListError::NotPem));
    let damaged = RevocationList::from_pem(&section("X509 CRL", b"x"));
    assert!(matches!(damaged, Err(ListError::Malformed(_))), "{damaged:?}");
}

#[test]
fn serial_numbers_are_compared_without_the_zeros_before_them() {
    let table: [(&[u8], &[u8], &str); 6] = [
        (&[], &[], ""),
        (&[0], &[], ""),
        (&[0, 0, 7], &[7], "07"),
        (&[0x12, 0, 0xab], &[0x12, 0, 0xab], "1200ab"),
        (&[0, 0x80, 0], &[0x80, 0], "8000"),
        (&[0xff; 20], &[0xff; 20], "ffffffffffffffffffffffffffffffffffffffff"),
    ];
    for (raw, compared, text) in table {
        assert_eq!(&*serial(raw), compared);
        assert_eq!(hexadecimal(&serial(raw)), text);
    }
}
