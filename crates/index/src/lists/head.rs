//! The head of a lists object: header, directory, ordinals. It says where every
//! list lies; the lists themselves are opened from bytes of any origin.

use super::{LISTS_FORMAT, LISTS_FORMAT_MIN, List, Shape};
use crate::IndexError;
use crate::bytes::{Fields, put_checksum, put_padding, put_u32s};
use crate::space::DIM_MAX;
use std::ops::Range;
use vexlake_distance::{CODE_DIM_STEP, prefetch};

const MAGIC: [u8; 4] = *b"VXLL";
/// Magic, format, version, four u32, checksum: 44 bytes, padded.
const HEADER_BYTES: usize = 64;
/// List, rows, spread, checksum.
const ENTRY_BYTES: usize = 16;
/// In the map from list to entry: no rows.
const NO_ENTRY: u32 = u32::MAX;
/// Centroids of one version at most: 2²⁴ lists of 200 rows are 3.4 billion rows.
pub(crate) const LISTS_MAX: u32 = 1 << 24;

/// One list that has rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListEntry {
    /// The centroid's number.
    pub list: u32,
    /// Rows in the list; never 0.
    pub rows: u32,
    /// The largest spread of its rows' codes (see `rabitq`).
    pub spread: f32,
    /// CRC32C of the list's bytes.
    pub checksum: u32,
    /// The slot of its first row.
    pub first_slot: u32,
    /// Where its bytes start in the object.
    pub offset: u64,
}

impl ListEntry {
    /// The slots of its rows.
    pub fn slots(&self) -> Range<u32> {
        self.first_slot..self.first_slot + self.rows
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct ListsHead {
    format: u32,
    version: u128,
    code_dim: usize,
    rows: u32,
    entries: Vec<ListEntry>,
    /// Entry by list number, `NO_ENTRY` where it has no rows.
    by_list: Vec<u32>,
    ordinals: Option<Vec<u32>>,
    bytes: u64,
    head_bytes: u64,
}

impl ListsHead {
    /// Puts a head together; offsets and first slots are set here.
    pub(super) fn new(
        format: u32,
        version: u128,
        code_dim: usize,
        lists: u32,
        mut entries: Vec<ListEntry>,
        ordinals: Option<Vec<u32>>,
    ) -> Self {
        let mut slot = 0u32;
        let mut by_list = vec![NO_ENTRY; lists as usize];
        let head_bytes = head_bytes(entries.len(), ordinals.as_ref().map(Vec::len)) as u64;
        let mut offset = head_bytes;
        for (place, entry) in entries.iter_mut().enumerate() {
            (entry.first_slot, entry.offset) = (slot, offset);
            by_list[entry.list as usize] = place as u32;
            slot += entry.rows;
            offset += Shape::of(format, entry.rows as usize).bytes(code_dim) as u64;
        }
        Self {
            format,
            version,
            code_dim,
            rows: slot,
            entries,
            by_list,
            ordinals,
            bytes: offset,
            head_bytes,
        }
    }

    /// The bytes of the head of an object that starts with these (at least
    /// [`ListsHead::PREFIX_BYTES`] of them, fewer where the object is shorter), so
    /// that a reader may fetch just the head.
    pub fn bytes_of_head(prefix: &[u8]) -> Result<u64, IndexError> {
        let (_, _, entries, ordinals, _) = read_header(&mut Fields::new("lists header", prefix))?;
        Ok(head_bytes(entries, ordinals) as u64)
    }

    /// Bytes from which the length of the head follows.
    pub const PREFIX_BYTES: usize = HEADER_BYTES;

    /// Decodes the head; `bytes` start the object and hold at least its head.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut header = Fields::new("lists header", bytes);
        let (format, version, entry_count, ordinal_count, [code_dim, lists, rows]) =
            read_header(&mut header)?;
        let mut fields = header.in_section("lists directory");
        let from = fields.at();
        let mut entries = Vec::with_capacity(fields.at_most(entry_count, ENTRY_BYTES)?);
        let mut total = 0u64;
        for _ in 0..entry_count {
            let entry = ListEntry {
                list: fields.u32()?,
                rows: fields.u32()?,
                spread: fields.f32()?,
                checksum: fields.u32()?,
                first_slot: 0,
                offset: 0,
            };
            let ascending = entries
                .last()
                .is_none_or(|last: &ListEntry| last.list < entry.list);
            if !ascending || entry.list >= lists {
                return Err(fields.corrupt("a list out of order"));
            }
            if entry.rows == 0 || !(0.0..=1.0).contains(&entry.spread) {
                return Err(fields.corrupt("an impossible list"));
            }
            total += u64::from(entry.rows);
            entries.push(entry);
        }
        if total != u64::from(rows) {
            return Err(fields.corrupt("rows that do not add up"));
        }
        fields.checksum(from)?;
        fields.pad()?;
        let mut ordinals = None;
        if let Some(count) = ordinal_count {
            let mut fields = fields.in_section("lists ordinals");
            let from = fields.at();
            ordinals = Some(fields.u32s(count)?);
            fields.checksum(from)?;
            fields.pad()?;
        }
        Ok(Self::new(
            format,
            version,
            code_dim as usize,
            lists,
            entries,
            ordinals,
        ))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.format.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        let counts = [
            self.code_dim as u32,
            self.by_list.len() as u32,
            self.rows,
            self.entries.len() as u32,
            u32::from(self.ordinals.is_some()),
        ];
        put_u32s(out, &counts);
        put_checksum(out, start);
        put_padding(out);
        let start = out.len();
        for entry in &self.entries {
            put_u32s(
                out,
                &[
                    entry.list,
                    entry.rows,
                    entry.spread.to_bits(),
                    entry.checksum,
                ],
            );
        }
        put_checksum(out, start);
        put_padding(out);
        if let Some(ordinals) = &self.ordinals {
            let start = out.len();
            put_u32s(out, ordinals);
            put_checksum(out, start);
            put_padding(out);
        }
    }

    /// The centroids that the lists belong to.
    pub fn version(&self) -> u128 {
        self.version
    }

    /// Bits of a code.
    pub fn code_dim(&self) -> usize {
        self.code_dim
    }

    /// Rows in all lists.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Centroids, with rows or without.
    pub fn lists(&self) -> u32 {
        self.by_list.len() as u32
    }

    /// The lists that have rows, ascending.
    pub fn entries(&self) -> &[ListEntry] {
        &self.entries
    }

    /// Bytes of the whole object.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the head.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// The entry of a list; None where it has no rows here.
    #[inline]
    pub fn entry(&self, list: u32) -> Option<&ListEntry> {
        self.entries.get(*self.by_list.get(list as usize)? as usize)
    }

    /// Asks for the entry of a list that will be looked up soon.
    #[inline]
    pub fn prefetch(&self, list: u32) {
        let entry = self.entry(list);
        prefetch(entry.map_or(&[], std::slice::from_ref));
    }

    /// The range of a list's bytes in the object.
    pub fn range(&self, entry: &ListEntry) -> Range<u64> {
        entry.offset..entry.offset + self.shape(entry).bytes(self.code_dim) as u64
    }

    #[inline]
    fn shape(&self, entry: &ListEntry) -> Shape {
        Shape::of(self.format, entry.rows as usize)
    }

    /// Whether slots are ordinals.
    pub fn is_in_list_order(&self) -> bool {
        self.ordinals.is_none()
    }

    /// The segment's ordinal of a slot.
    #[inline]
    pub fn ordinal(&self, slot: u32) -> u32 {
        self.ordinals
            .as_ref()
            .map_or(slot, |ordinals| ordinals[slot as usize])
    }

    /// Moves bits by ordinal (64 to a word) to the slots' order, for
    /// the masks of [`crate::SegmentLists::hidden`].
    pub fn by_slot(&self, by_ordinal: &[u64]) -> Vec<u64> {
        let Some(ordinals) = &self.ordinals else {
            return by_ordinal.to_vec();
        };
        let mut by_slot = vec![0; ordinals.len().div_ceil(64)];
        for (slot, ordinal) in ordinals.iter().enumerate() {
            let word = by_ordinal.get(*ordinal as usize / 64).unwrap_or(&0);
            by_slot[slot / 64] |= ((word >> (ordinal % 64)) & 1) << (slot % 64);
        }
        by_slot
    }

    /// A list of the whole object, verified before; None where the object is cut.
    #[inline]
    pub(crate) fn list_in<'a>(&self, entry: &ListEntry, object: &'a [u8]) -> Option<List<'a>> {
        let shape = self.shape(entry);
        let bytes = object.get(entry.offset as usize..)?;
        let bytes = bytes.get(..shape.bytes(self.code_dim))?;
        Some(List::new(bytes, self.code_dim, entry.rows as usize, shape))
    }

    /// A list over its own bytes, which are checked against its checksum: for bytes
    /// that enter a cache.
    pub fn verify<'a>(&self, entry: &ListEntry, bytes: &'a [u8]) -> Result<List<'a>, IndexError> {
        let list = self.open(entry, bytes)?;
        if crc32c::crc32c(bytes) != entry.checksum {
            return Err(IndexError::Corrupt {
                section: "list",
                offset: entry.offset,
                reason: "checksum differs",
            });
        }
        Ok(list)
    }

    /// A list over bytes that were verified before. O(1).
    #[inline]
    pub fn open<'a>(&self, entry: &ListEntry, bytes: &'a [u8]) -> Result<List<'a>, IndexError> {
        let shape = self.shape(entry);
        if bytes.len() != shape.bytes(self.code_dim) {
            return Err(IndexError::Corrupt {
                section: "list",
                offset: entry.offset,
                reason: "a list of another length",
            });
        }
        Ok(List::new(bytes, self.code_dim, entry.rows as usize, shape))
    }
}

/// (format, version, entries, ordinals where stored, [code_dim, lists, rows]).
type Header = (u32, u128, usize, Option<usize>, [u32; 3]);

fn read_header(fields: &mut Fields<'_>) -> Result<Header, IndexError> {
    if fields.array::<4>()? != MAGIC {
        return Err(fields.corrupt("another magic"));
    }
    let format = fields.u32()?;
    let version = u128::from_le_bytes(fields.array()?);
    let [code_dim, lists, rows, entries, has_ordinals] = [
        fields.u32()?,
        fields.u32()?,
        fields.u32()?,
        fields.u32()?,
        fields.u32()?,
    ];
    fields.checksum(0)?;
    // Judged after the checksum: a flipped bit must not look like a later program.
    if !(LISTS_FORMAT_MIN..=LISTS_FORMAT).contains(&format) {
        return Err(IndexError::Version {
            section: "lists",
            found: format,
            known: LISTS_FORMAT,
        });
    }
    fields.pad()?;
    let code_dim_fits = code_dim > 0
        && code_dim as usize <= DIM_MAX
        && (code_dim as usize).is_multiple_of(CODE_DIM_STEP);
    if !code_dim_fits || lists > LISTS_MAX || entries > lists || has_ordinals > 1 {
        return Err(fields.corrupt("an impossible header"));
    }
    let ordinals = (has_ordinals == 1).then_some(rows as usize);
    let entries = entries as usize;
    Ok((format, version, entries, ordinals, [code_dim, lists, rows]))
}

fn head_bytes(entries: usize, ordinals: Option<usize>) -> usize {
    use crate::bytes::ALIGN;
    let directory = (entries * ENTRY_BYTES + 4).next_multiple_of(ALIGN);
    let ordinals = ordinals.map_or(0, |rows| (4 * rows + 4).next_multiple_of(ALIGN));
    HEADER_BYTES + directory + ordinals
}
