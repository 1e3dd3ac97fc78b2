//! What checked connections say (`e2e/examples/{streams,traffic}.rs`): no two messages are alike, so that one that is lost,
//! doubled or another's is seen.

/// A message that no other connection sends, and this one only once: mostly short, now and then a megabyte.
pub fn message(number: u64, sent: u64) -> Vec<u8> {
    let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ sent.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let len = match key % 512 {
        0 => 1 << 20,
        1..8 => 64 << 10,
        short => 16 + short as usize * 3,
    };
    let mut word = key | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::message;

    #[test]
    fn no_two_messages_are_alike() {
        let all: BTreeSet<Vec<u8>> =
            (0..20).flat_map(|number| (0..20).map(move |sent| message(number, sent))).collect();
        assert_eq!(all.len(), 400);
        assert!(all.iter().all(|message| message.len() >= 16));
    }
}
