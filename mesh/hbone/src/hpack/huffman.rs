//! The string code of RFC 7541 appendix B.
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols, and longer codes
//! follow shorter ones. So the lengths alone say everything, and the tables below are computed from them when
//! this file is compiled.

/// The bits of each symbol's code; 256 is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];

const EOS: u16 = 256;
const LONGEST: usize = 30;
/// Codes up to this long, which are those of all common characters, are found in one step.
const SHORT: u32 = 8;

struct Code {
    /// Each symbol's code, right-aligned.
    codes: [u32; 257],
    /// Symbols in the order of their codes.
    symbols: [u16; 257],
    /// Of each length: the first code, left-aligned in 32 bits, and where its symbol stands in `symbols`.
    first: [(u32, u16); LONGEST + 1],
    /// Of each length: the first left-aligned code beyond it.
    beyond: [u64; LONGEST + 1],
    /// Of each octet that starts with a whole short code: its symbol and length; length 0 elsewhere.
    short: [(u8, u8); 1 << SHORT],
}

static CODE: Code = Code::compute();

impl Code {
    const fn compute() -> Self {
        let mut this = Self {
            codes: [0; 257],
            symbols: [0; 257],
            first: [(0, 0); LONGEST + 1],
            beyond: [0; LONGEST + 1],
            short: [(0, 0); 1 << SHORT],
        };
        let (mut code, mut position, mut length) = (0u32, 0usize, 1usize);
        while length <= LONGEST {
            this.first[length] = (code << (32 - length), position as u16);
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    this.codes[symbol] = code;
                    this.symbols[position] = symbol as u16;
                    if length <= SHORT as usize {
                        this.fill_short(code, symbol as u8, length as u8);
                    }
                    position += 1;
                    code += 1;
                }
                symbol += 1;
            }
            this.beyond[length] = (code as u64) << (32 - length);
            code <<= 1;
            length += 1;
        }
        this
    }

    const fn fill_short(&mut self, code: u32, symbol: u8, length: u8) {
        let spare = SHORT - length as u32;
        let mut rest = 0;
        while rest < 1 << spare {
            self.short[((code << spare) | rest) as usize] = (symbol, length);
            rest += 1;
        }
    }

    /// The symbol whose code starts `window` (left-aligned) and its length.
    fn long(&self, window: u32) -> (u16, u32) {
        for length in SHORT as usize + 1..LONGEST {
            if u64::from(window) < self.beyond[length] {
                return self.symbol_of(window, length);
            }
        }
        // The code is complete: what no shorter one starts, one of the longest does.
        self.symbol_of(window, LONGEST)
    }

    fn symbol_of(&self, window: u32, length: usize) -> (u16, u32) {
        let (first, position) = self.first[length];
        let offset = (window - first) >> (32 - length);
        (self.symbols[usize::from(position) + offset as usize], length as u32)
    }
}

/// The string is not Huffman-coded text: it holds EOS, or ends in anything but up to seven one bits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Appends what `coded` says to `out`.
///
/// # Errors
/// [`Malformed`], with part of the text in `out`.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // No code is shorter than 5 bits.
    out.reserve(coded.len() * 8 / 5);
    let mut octets = coded.iter();
    // Bits not decoded yet, left-aligned; zeros follow them.
    let (mut bits, mut have) = (0u64, 0u32);
    loop {
        while have <= 56 {
            let Some(&octet) = octets.next() else { break };
            bits |= u64::from(octet) << (56 - have);
            have += 8;
        }
        let (short, length) = CODE.short[(bits >> (64 - SHORT)) as usize];
        let (symbol, length) = match length {
            0 => CODE.long((bits >> 32) as u32),
            _ => (u16::from(short), u32::from(length)),
        };
        if length > have {
            // Input is used up, or `have` would be above 56: what is left must be padding.
            return if is_padding(bits, have) { Ok(()) } else { Err(Malformed) };
        }
        if symbol == EOS {
            return Err(Malformed);
        }
        out.push(symbol as u8);
        bits <<= length;
        have -= length;
    }
}

/// Whether the `have` left-aligned bits are less than an octet of ones (RFC 7541 §5.2).
fn is_padding(bits: u64, have: u32) -> bool {
    have < 8 && bits.leading_ones() >= have
}

/// How many octets `text` takes when coded.
pub(super) fn coded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&octet| usize::from(LENGTHS[usize::from(octet)])).sum();
    bits.div_ceil(8)
}

/// Appends `text`, coded and padded with ones.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut have) = (0u64, 0u32);
    for &octet in text {
        let length = u32::from(LENGTHS[usize::from(octet)]);
        bits = (bits << length) | u64::from(CODE.codes[usize::from(octet)]);
        have += length;
        while have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    if have > 0 {
        out.push(((bits << (8 - have)) as u8) | (0xff >> have));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn the_code_is_complete_and_agrees_with_the_appendix() {
        // Kraft's sum of a complete code is exactly one.
        assert_eq!(LENGTHS.iter().map(|&l| 1u64 << (30 - l)).sum::<u64>(), 1 << 30);
        // One symbol of nearly every length, from appendix B.
        let listed: &[(usize, u32)] = &[
            (b'0' as usize, 0x0),
            (b't' as usize, 0x9),
            (b' ' as usize, 0x14),
            (b'u' as usize, 0x2d),
            (b':' as usize, 0x5c),
            (b'z' as usize, 0x7b),
            (b'&' as usize, 0xf8),
            (b'Z' as usize, 0xfd),
            (b'!' as usize, 0x3f8),
            (b'|' as usize, 0x7fc),
            (b'#' as usize, 0xffa),
            (0, 0x1ff8),
            (b'^' as usize, 0x3ffc),
            (b'<' as usize, 0x7ffc),
            (b'\\' as usize, 0x7fff0),
            (128, 0xfffe6),
            (153, 0x1fffdc),
            (129, 0x3fffd2),
            (1, 0x7fffd8),
            (9, 0xffffea),
            (199, 0x1ffffec),
            (192, 0x3ffffe0),
            (203, 0x7ffffde),
            (2, 0xfffffe2),
            (10, 0x3ffffffc),
            (22, 0x3ffffffe),
            (256, 0x3fffffff),
        ];
        for &(symbol, code) in listed {
            assert_eq!(CODE.codes[symbol], code, "symbol {symbol}");
        }
    }

    #[test]
    fn every_octet_survives_alone_and_in_company() {
        for octet in 0..=255u8 {
            for text in [vec![octet], vec![b'0', octet, b'~'], vec![octet; 9]] {
                let mut coded = Vec::new();
                encode(&text, &mut coded);
                assert_eq!(coded.len(), coded_len(&text));
                assert_eq!(decoded(&coded), Ok(text));
            }
        }
    }

    #[test]
    fn bad_endings_are_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("an octet of padding", &[0xff]),
            ("text, then an octet of padding", &[0x1f, 0xff]),
            ("padding of zeros: '0' and three zeros", &[0x00]),
            ("half of a long code", &[0xff, 0xff]),
            ("EOS alone", &[0xff, 0xff, 0xff, 0xff]),
            ("EOS inside", &[0x07, 0xff, 0xff, 0xff, 0xfe, 0x07]),
        ];
        for (why, coded) in cases {
            assert_eq!(decoded(coded), Err(Malformed), "{why}");
        }
        assert_eq!(decoded(&[]), Ok(vec![]));
        assert_eq!(decoded(&[0x07]), Ok(b"0".to_vec()), "'0' and three ones");
    }
}
