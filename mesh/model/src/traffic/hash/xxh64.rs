//! XXH64, from the public specification of xxHash.

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// The hash of bytes, by a seed.
pub(crate) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let [one, two, three, four, five] = PRIMES;
    let stripes = bytes.chunks_exact(32);
    let rest = stripes.remainder();
    let mut hash = if bytes.len() < 32 {
        seed.wrapping_add(five)
    } else {
        let lanes =
            [seed.wrapping_add(one).wrapping_add(two), seed.wrapping_add(two), seed, seed.wrapping_sub(one)];
        merged(stripes.fold(lanes, striped))
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let words = rest.chunks_exact(8);
    let tail = words.remainder();
    for word in words {
        hash = (hash ^ round(0, little(word))).rotate_left(27).wrapping_mul(one).wrapping_add(four);
    }
    let halves = tail.chunks_exact(4);
    let last = halves.remainder();
    for half in halves {
        hash = (hash ^ little(half).wrapping_mul(one)).rotate_left(23).wrapping_mul(two).wrapping_add(three);
    }
    for byte in last {
        hash = (hash ^ u64::from(*byte).wrapping_mul(five)).rotate_left(11).wrapping_mul(one);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(two);
    hash = (hash ^ (hash >> 29)).wrapping_mul(three);
    hash ^ (hash >> 32)
}

fn striped(mut lanes: [u64; 4], stripe: &[u8]) -> [u64; 4] {
    for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
        *lane = round(*lane, little(word));
    }
    lanes
}

fn merged(lanes: [u64; 4]) -> u64 {
    let [first, second, third, fourth] = lanes;
    let sum = first
        .rotate_left(1)
        .wrapping_add(second.rotate_left(7))
        .wrapping_add(third.rotate_left(12))
        .wrapping_add(fourth.rotate_left(18));
    lanes
        .into_iter()
        .fold(sum, |hash, lane| (hash ^ round(0, lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]))
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

/// At most eight bytes, the lowest first.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::xxh64;

    /// Values of the reference implementation, over lengths of each kind of remainder.
    #[test]
    fn gives_the_values_of_the_reference() {
        for (text, seed, expected) in [
            ("", 0, 0xef46_db37_51d8_e999),
            ("a", 0, 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0, 0x44bc_2cf5_ad77_0999),
            ("xxhash", 0, 0x32dd_3895_2c4b_c720),
            ("xxhash", 20_141_025, 0xb559_b98d_844e_0635),
            ("0123456789abcdef0123456789abcdef", 0, 0x642a_9495_8e71_e6c5),
            ("Nobody inspects the spammish repetition", 0, 0xfbce_a83c_8a37_8bf1),
            ("Call me Ishmael. Some years ago--never mind how long precisely-", 0, 0x02a2_e854_70d6_fd96),
        ] {
            assert_eq!(xxh64(text.as_bytes(), seed), expected, "{text:?} {seed}");
        }
    }
}
