//! The compression as a whole: the RFC's own examples, blocks made to harm, and what we write read back.
//! The h2 crate as peer is in `tests/peer.rs`.

use proptest::prelude::*;

use super::{DEFAULT_TABLE_SIZE, DecodeError, Decoder, Encoder, Limits};

mod peer;

type Field = (Vec<u8>, Vec<u8>);
type Listed<'a> = &'a [(&'a str, &'a str)];

const ROOMY: Limits = Limits { max_header_bytes: 1 << 20, max_headers: 1000 };

fn decoder() -> Decoder {
    Decoder::new(DEFAULT_TABLE_SIZE, ROOMY)
}

fn fields_of(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, DecodeError> {
    let mut fields = Vec::new();
    decoder.decode(block, &mut |name, value| fields.push((name.to_vec(), value.to_vec())))?;
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex is ASCII"), 16).expect("hex"))
        .collect()
}

fn fields(listed: Listed<'_>) -> Vec<Field> {
    listed.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// Blocks of one connection, each with its fields and the table's size after it.
fn check_sequence(setup: &[u8], blocks: &[(&str, Listed<'_>, usize)]) {
    let mut decoder = decoder();
    assert_eq!(fields_of(&mut decoder, setup), Ok(vec![]));
    for (hex, expected, table_size) in blocks {
        assert_eq!(fields_of(&mut decoder, &bytes(hex)), Ok(fields(expected)), "{hex}");
        assert_eq!(decoder.table().size(), *table_size, "{hex}");
    }
}

#[test]
fn appendix_c2_representations() {
    let custom = &[("custom-key", "custom-header")][..];
    check_sequence(&[], &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", custom, 55)]);
    check_sequence(&[], &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0)]);
    check_sequence(&[], &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], 0)]);
    check_sequence(&[], &[("82", &[(":method", "GET")], 0)]);
}

#[test]
fn appendix_c3_and_c4_requests() {
    let first =
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")][..];
    let second = &[first, &[("cache-control", "no-cache")]].concat();
    let third = &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ][..];
    check_sequence(
        &[],
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", first, 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", second, 110),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", third, 164),
        ],
    );
    check_sequence(
        &[],
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", first, 57),
            ("8286 84be 5886 a8eb 1064 9cbf", second, 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", third, 164),
        ],
    );
}

#[test]
fn appendix_c5_and_c6_responses_with_eviction() {
    let date = "Mon, 21 Oct 2013 20:13:21 GMT";
    let location = ("location", "https://www.example.com");
    let private = ("cache-control", "private");
    let first = &[(":status", "302"), private, ("date", date), location][..];
    let second = &[(":status", "307"), private, ("date", date), location][..];
    let third = &[
        (":status", "200"),
        private,
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        location,
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ][..];
    let table_of_256 = [0x3f, 0xe1, 0x01];
    check_sequence(
        &table_of_256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                 6c65 2e63 6f6d",
                first,
                222,
            ),
            ("4803 3330 37c1 c0bf", second, 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                 3d31",
                third,
                215,
            ),
        ],
    );
    check_sequence(
        &table_of_256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                first,
                222,
            ),
            ("4883 640e ffc1 c0bf", second, 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                third,
                215,
            ),
        ],
    );
}

#[test]
fn corrupt_blocks_end_the_connection() {
    use DecodeError::{
        Huffman, IntegerOverflow, NoSuchIndex, SizeUpdateMisplaced, SizeUpdateTooLarge, Truncated,
    };
    let cases: &[(&str, &str, DecodeError)] = &[
        ("index 0", "80", NoSuchIndex(0)),
        ("the first index of an empty dynamic table", "be", NoSuchIndex(62)),
        ("a name from an empty dynamic table", "7e 00", NoSuchIndex(62)),
        ("an index far out", "ff ff ff ff 7f", NoSuchIndex(127 + 0x0fff_ffff)),
        ("an integer of five more octets", "ff ff ff ff ff 0f", IntegerOverflow),
        ("an integer without end", "ff 80 80 80 80 80 80 80 80 80 80 80 80", IntegerOverflow),
        ("a length without end", "00 7f ff ff ff ff ff ff", IntegerOverflow),
        ("an integer cut off", "ff 80", Truncated),
        ("no name", "40", Truncated),
        ("a name cut off", "00 05 61 62", Truncated),
        ("no value", "00 01 61", Truncated),
        ("a value cut off", "82 44 05 2f", Truncated),
        ("a length beyond all memory", "00 7f ff ff ff 7f 61", Truncated),
        ("EOS in a value", "00 01 61 84 ff ff ff ff", Huffman),
        ("an octet of padding", "00 01 61 82 1f ff", Huffman),
        ("a size update after a field", "82 20", SizeUpdateMisplaced),
        ("a size update above ours", "3f e2 1f", SizeUpdateTooLarge { asked: 4097, allowed: 4096 }),
    ];
    for (why, hex, error) in cases {
        assert_eq!(fields_of(&mut decoder(), &bytes(hex)), Err(*error), "{why}");
        assert!(error.ends_connection(), "{why}");
    }
}

#[test]
fn size_updates_stand_at_the_start_and_evict() {
    let mut decoder = decoder();
    fields_of(&mut decoder, &bytes("40 01 61 01 62")).expect("a: b, indexed");
    assert_eq!(decoder.table().len(), 1);
    // Down to nothing and up again (RFC 7541 §4.2 wants both), up to the limit exactly.
    assert_eq!(fields_of(&mut decoder, &bytes("20 3f e1 1f 82")), Ok(fields(&[(":method", "GET")])));
    assert_eq!(decoder.table().len(), 0);
    assert_eq!(fields_of(&mut decoder, &bytes("be")), Err(DecodeError::NoSuchIndex(62)));
}

#[test]
fn a_smaller_table_binds_once_the_peer_has_acknowledged_it() {
    let fresh = || Decoder::new(100, ROOMY);
    let mut before = fresh();
    fields_of(&mut before, &bytes("3f e1 1f 82")).expect("4096 bytes are the protocol's default until then");
    let after = || {
        let mut decoder = fresh();
        decoder.settings_acknowledged();
        decoder
    };
    assert_eq!(fields_of(&mut after(), &[0x82]), Err(DecodeError::SizeUpdateMissing));
    assert_eq!(fields_of(&mut after(), &[0x3f, 0x45, 0x82]), Ok(fields(&[(":method", "GET")])));
    assert_eq!(
        fields_of(&mut after(), &[0x3f, 0x46, 0x82]),
        Err(DecodeError::SizeUpdateTooLarge { asked: 101, allowed: 100 })
    );
    let mut satisfied = after();
    fields_of(&mut satisfied, &[0x20, 0x82]).expect("the due update");
    fields_of(&mut satisfied, &[0x82]).expect("none is due any more");
}

#[test]
fn a_larger_table_needs_no_update() {
    let mut decoder = Decoder::new(8192, ROOMY);
    decoder.settings_acknowledged();
    fields_of(&mut decoder, &[0x82]).expect("the peer may stay at the default");
    fields_of(&mut decoder, &bytes("3f e1 3f 82")).expect("and may go up to 8192");
}

#[test]
fn a_block_beyond_the_limits_leaves_the_table_in_step() {
    // `a: b` counts 34 bytes. Three of them are one too many for either limit.
    for limits in [
        Limits { max_header_bytes: 101, max_headers: 1000 },
        Limits { max_header_bytes: 1000, max_headers: 2 },
    ] {
        let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE, limits);
        let mut delivered = 0;
        let block = bytes("40 01 61 01 62 be 40 01 63 01 64 40 01 65 01 66");
        assert_eq!(decoder.decode(&block, &mut |_, _| delivered += 1), Err(DecodeError::TooLarge));
        assert_eq!(delivered, 2, "nothing is delivered once the limit is hit");
        assert!(!DecodeError::TooLarge.ends_connection());
        // What the refused block indexed is there for the next one.
        assert_eq!(fields_of(&mut decoder, &bytes("be c0")), Ok(fields(&[("e", "f"), ("a", "b")])));
    }
}

#[test]
fn a_small_field_after_a_large_one_is_not_delivered() {
    let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE, Limits { max_header_bytes: 60, max_headers: 10 });
    let large = [&[0x00, 0x01, b'x', 40][..], &[b'y'; 40], &[0x82]].concat();
    assert_eq!(fields_of(&mut decoder, &large), Err(DecodeError::TooLarge));
}

#[test]
fn a_table_bomb_is_cut_off_by_the_byte_limit() {
    // One entry that fills the table, then one octet for each copy of it: 4 MB out of 1 KB.
    let limits = Limits { max_header_bytes: 16 * 1024, max_headers: 1000 };
    let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE, limits);
    let value = vec![b'v'; 4000];
    let mut block = vec![0x40, 0x01, b'n', 0x7f];
    block.extend([(4000 - 127) as u8 & 0x7f | 0x80, ((4000 - 127) >> 7) as u8]);
    block.extend(&value);
    block.extend([0xbe; 1000]);
    let mut delivered = 0;
    assert_eq!(decoder.decode(&block, &mut |_, v| delivered += v.len()), Err(DecodeError::TooLarge));
    assert_eq!(delivered, 4 * 4000);
}

#[test]
fn the_table_holds_at_most_four_times_its_size() {
    let mut decoder = decoder();
    for round in 0u32..20_000 {
        // Values of 0 to 300 octets, so that entries straddle every boundary.
        let length = (round * 37 % 301) as usize;
        let mut block = vec![0x40, 0x01, b'n'];
        match length {
            0..127 => block.push(length as u8),
            _ => block.extend([0x7f, (length - 127) as u8 & 0x7f | 0x80, ((length - 127) >> 7) as u8]),
        }
        block.extend(std::iter::repeat_n(round as u8, length));
        block.push(0xbe);
        let found = fields_of(&mut decoder, &block).expect("a sound block");
        assert_eq!(found[0], found[1], "the newest entry reads back");
        assert!(decoder.table().size() <= DEFAULT_TABLE_SIZE);
        assert!(decoder.table().held() <= 4 * DEFAULT_TABLE_SIZE, "{}", decoder.table().held());
    }
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = decoder();
    fields_of(&mut decoder, &bytes("3f 0a 40 01 61 01 62")).expect("41 bytes for `a: b`");
    assert_eq!(decoder.table().len(), 1);
    fields_of(&mut decoder, &bytes("40 05 6162636465 05 6162636465")).expect("42 bytes, no error");
    assert_eq!((decoder.table().len(), decoder.table().size(), decoder.table().held()), (0, 0, 0));
}

#[test]
fn a_name_may_come_from_the_entry_that_its_insertion_evicts() {
    let mut decoder = decoder();
    fields_of(&mut decoder, &bytes("3f 09 40 02 6e31 01 62")).expect("a table of 40 bytes, 35 used");
    let found = fields_of(&mut decoder, &bytes("7e 02 6363 be"));
    assert_eq!(found, Ok(fields(&[("n1", "cc"), ("n1", "cc")])));
    assert_eq!(decoder.table().len(), 1);
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::sample::select(vec![":method", ":status", ":authority", "baggage", "via"])
            .prop_map(|known| known.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::sample::select(vec!["GET", "200", "", "CONNECT"])
            .prop_map(|known| known.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..400),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        written in proptest::collection::vec((name(), value(), any::<bool>()), 0..20),
        huffman in any::<bool>(),
        shrunk in any::<bool>(),
    ) {
        let mut encoder = Encoder::new(huffman);
        if shrunk {
            encoder.peer_table_size(0);
        }
        let mut block = Vec::new();
        for (name, value, secret) in &written {
            match secret {
                true => encoder.encode_sensitive(name, value, &mut block),
                false => encoder.encode(name, value, &mut block),
            }
        }
        let mut decoder = decoder();
        let expected: Vec<Field> = written.into_iter().map(|(name, value, _)| (name, value)).collect();
        prop_assert_eq!(fields_of(&mut decoder, &block), Ok(expected));
        prop_assert_eq!(decoder.table().len(), 0, "nothing we write is indexed");
    }

    #[test]
    fn no_block_breaks_the_decoder(blocks in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..200), 1..5,
    )) {
        let limits = Limits { max_header_bytes: 500, max_headers: 5 };
        let mut decoder = Decoder::new(200, limits);
        for block in blocks {
            let (mut count, mut total) = (0, 0);
            let result = decoder.decode(&block, &mut |name, value| {
                count += 1;
                total += name.len() + value.len() + super::FIELD_OVERHEAD;
            });
            prop_assert!(count <= limits.max_headers && total <= limits.max_header_bytes);
            prop_assert!(decoder.table().size() <= DEFAULT_TABLE_SIZE);
            if result.is_err_and(|error| error.ends_connection()) {
                break;
            }
        }
    }
}
