//! From a header block to fields: what a peer sent is hostile until this has read it.

use super::table::{DynamicTable, STATIC};
use super::{DEFAULT_TABLE_SIZE, FIELD_OVERHEAD, huffman};

/// Octets that may follow an integer's first. Four carry 28 bits, far above any length or index that fits a
/// bounded block, and cannot overflow `usize`.
const MAX_CONTINUATION: u32 = 4;

/// Scratch space beyond this, in bytes, is given back after the block that needed it.
const KEPT_SCRATCH: usize = 1024;

/// What one header block may hold. A block beyond it costs its stream, not the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all names and values, with [`FIELD_OVERHEAD`] for each field, as SETTINGS_MAX_HEADER_LIST_SIZE
    /// counts them (RFC 9113 §6.5.2).
    pub max_header_bytes: usize,
    /// Fields.
    pub max_headers: usize,
}

/// Why a header block was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The block is well-formed but exceeds [`Limits`]. The decoder is in step with the peer: refuse the
    /// stream (431, or RST_STREAM) and keep the connection.
    #[error("the header block exceeds the limit on its fields; refuse the stream, the connection is sound")]
    TooLarge,
    /// The block ends inside a field.
    #[error("the header block ends inside a field; close the connection with COMPRESSION_ERROR")]
    Truncated,
    /// An integer takes more octets than any sound length or index.
    #[error("an integer in the header block is too long; close the connection with COMPRESSION_ERROR")]
    IntegerOverflow,
    /// An index of neither table, or index 0 (RFC 7541 §2.3.3, §6.1).
    #[error(
        "the header block names index {0}, which is in no table; close the connection with COMPRESSION_ERROR"
    )]
    NoSuchIndex(usize),
    /// A Huffman-coded string holds EOS or is padded wrongly (RFC 7541 §5.2).
    #[error("a string's Huffman code is malformed; close the connection with COMPRESSION_ERROR")]
    Huffman,
    /// A table size update after a field (RFC 7541 §4.2).
    #[error("a table size update stands after a field; close the connection with COMPRESSION_ERROR")]
    SizeUpdateMisplaced,
    /// A table size update above what we advertised (RFC 7541 §6.3).
    #[error(
        "the peer asks for a table of {asked} bytes where {allowed} are allowed; close the connection with COMPRESSION_ERROR"
    )]
    SizeUpdateTooLarge {
        /// What the update says, in bytes.
        asked: usize,
        /// What our SETTINGS_HEADER_TABLE_SIZE allows, in bytes.
        allowed: usize,
    },
    /// The peer acknowledged a smaller table, but its next block does not begin with the update that makes it
    /// so (RFC 9113 §4.3.1).
    #[error("a due table size update is missing; close the connection with COMPRESSION_ERROR")]
    SizeUpdateMissing,
}

impl DecodeError {
    /// Whether the compression state is lost, so that the connection must be closed with COMPRESSION_ERROR
    /// (RFC 9113 §4.3). Otherwise only the block's stream has to be refused.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        !matches!(self, Self::TooLarge)
    }
}

/// Reads the header blocks of one connection, in the order of their arrival.
///
/// Memory: at most four times `max_table_size` for the table, nothing before the peer first indexes, and
/// 2 KiB of scratch between blocks; while a block is decoded, 1.6 times its longest name and value. Time is
/// linear in the block's size, so the caller bounds what it collects from CONTINUATION.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    table: DynamicTable,
    /// The largest table that the peer may ask for now.
    allowed: usize,
    /// What our SETTINGS advertise; in force once the peer has acknowledged them.
    advertised: usize,
    /// The next block must begin with a size update.
    update_due: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// A decoder for a connection whose SETTINGS advertise a header table of `max_table_size` bytes.
    ///
    /// The table starts at the protocol's 4,096 bytes, which the peer may use until it has seen our SETTINGS.
    /// Who advertises less must call [`settings_acknowledged`](Self::settings_acknowledged).
    #[must_use]
    pub fn new(max_table_size: usize, limits: Limits) -> Self {
        Self {
            limits,
            table: DynamicTable::new(DEFAULT_TABLE_SIZE),
            allowed: max_table_size.max(DEFAULT_TABLE_SIZE),
            advertised: max_table_size,
            update_due: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The peer has acknowledged our SETTINGS: from its next block on, no larger table than advertised.
    pub fn settings_acknowledged(&mut self) {
        self.allowed = self.advertised;
        self.update_due = self.table.max_size() > self.allowed;
    }

    /// Reads one whole header block and hands each field to `each`, in order.
    ///
    /// Fields are handed out as they are read: on an error, those before it have been, and the caller drops
    /// them. Whether a field may be indexed by others (RFC 7541 §7.1.3) is not told, since a tunnel's ends
    /// never pass a block on.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] refuses the stream; all others end the connection
    /// ([`DecodeError::ends_connection`]), and the decoder must not be used again.
    pub fn decode(&mut self, block: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), DecodeError> {
        let mut input = Input { rest: block };
        let mut fields = Fields { limits: self.limits, over: false, each };
        self.size_updates(&mut input)?;
        while let Some(kind) = input.kind() {
            match kind {
                Kind::Indexed => {
                    let (name, value) = lookup(&self.table, input.integer(7)?)?;
                    fields.deliver(name, value);
                }
                Kind::LiteralIndexing => self.literal_with_indexing(&mut input, &mut fields)?,
                Kind::Literal => self.literal(&mut input, &mut fields)?,
                Kind::SizeUpdate => return Err(DecodeError::SizeUpdateMisplaced),
            }
        }
        let over = fields.over;
        for scratch in [&mut self.name, &mut self.value] {
            scratch.clear();
            scratch.shrink_to(KEPT_SCRATCH);
        }
        if over { Err(DecodeError::TooLarge) } else { Ok(()) }
    }

    /// Table size updates stand only before a block's first field (RFC 7541 §4.2).
    fn size_updates(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        while input.kind() == Some(Kind::SizeUpdate) {
            let asked = input.integer(5)?;
            if asked > self.allowed {
                return Err(DecodeError::SizeUpdateTooLarge { asked, allowed: self.allowed });
            }
            self.table.resize(asked);
            self.update_due = false;
        }
        if self.update_due { Err(DecodeError::SizeUpdateMissing) } else { Ok(()) }
    }

    /// RFC 7541 §6.2.1.
    fn literal_with_indexing(
        &mut self,
        input: &mut Input<'_>,
        fields: &mut Fields<'_>,
    ) -> Result<(), DecodeError> {
        let index = input.integer(6)?;
        let name = match index {
            0 => input.string(&mut self.name)?,
            _ => {
                // A copy: the insertion may evict the entry that the name stands in (RFC 7541 §4.4).
                self.name.clear();
                self.name.extend_from_slice(lookup(&self.table, index)?.0);
                &self.name
            }
        };
        let value = input.string(&mut self.value)?;
        fields.deliver(name, value);
        self.table.insert(name, value);
        Ok(())
    }

    /// RFC 7541 §6.2.2 and §6.2.3.
    fn literal(&mut self, input: &mut Input<'_>, fields: &mut Fields<'_>) -> Result<(), DecodeError> {
        let name = match input.integer(4)? {
            0 => input.string(&mut self.name)?,
            index => lookup(&self.table, index)?.0,
        };
        let value = input.string(&mut self.value)?;
        fields.deliver(name, value);
        Ok(())
    }
}

/// The field at `index` of the static table and the dynamic one behind it (RFC 7541 §2.3.3).
fn lookup(table: &DynamicTable, index: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    let position = index.checked_sub(1).ok_or(DecodeError::NoSuchIndex(0))?;
    match STATIC.get(position) {
        Some((name, value)) => Ok((name.as_bytes(), value.as_bytes())),
        None => table.get(position - STATIC.len()).ok_or(DecodeError::NoSuchIndex(index)),
    }
}

/// Where fields go, and what they may still cost. Once over, nothing more is delivered.
struct Fields<'a> {
    /// What is left of it.
    limits: Limits,
    over: bool,
    each: &'a mut dyn FnMut(&[u8], &[u8]),
}

impl Fields<'_> {
    fn deliver(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + FIELD_OVERHEAD;
        self.over |= size > self.limits.max_header_bytes || self.limits.max_headers == 0;
        if !self.over {
            self.limits.max_header_bytes -= size;
            self.limits.max_headers -= 1;
            (self.each)(name, value);
        }
    }
}

/// The representations of RFC 7541 §6, told by the first octet's leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Indexed,
    LiteralIndexing,
    SizeUpdate,
    Literal,
}

/// What is left of a block.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn kind(&self) -> Option<Kind> {
        Some(match self.rest.first()? {
            0x80.. => Kind::Indexed,
            0x40.. => Kind::LiteralIndexing,
            0x20.. => Kind::SizeUpdate,
            _ => Kind::Literal,
        })
    }

    fn octet(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    /// An integer whose first octet gives it `prefix` bits (RFC 7541 §5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, DecodeError> {
        let mask = (1u8 << prefix) - 1;
        let mut value = usize::from(self.octet()? & mask);
        if value < usize::from(mask) {
            return Ok(value);
        }
        for position in 0..MAX_CONTINUATION {
            let octet = self.octet()?;
            value += usize::from(octet & 0x7f) << (7 * position);
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::IntegerOverflow)
    }

    /// A string (RFC 7541 §5.2): as it stands in the block or, if it was coded, decoded into `scratch`.
    fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], DecodeError>
    where
        'a: 's,
    {
        let coded = self.rest.first().is_some_and(|octet| octet & 0x80 != 0);
        let length = self.integer(7)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        if !coded {
            return Ok(string);
        }
        scratch.clear();
        huffman::decode(string, scratch).map_err(|huffman::Malformed| DecodeError::Huffman)?;
        Ok(scratch)
    }
}

#[cfg(test)]
impl Decoder {
    pub(super) fn table(&self) -> &DynamicTable {
        &self.table
    }
}
