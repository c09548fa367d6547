//! Encoded rows, and building a segment's lists from them.

use super::head::{ListEntry, ListsHead};
use super::{LISTS_FORMAT, Shape};
use crate::IndexError;
use crate::rabitq::Factors;
use vexlake_distance::{
    BLOCK_FACTOR_BYTES, BLOCK_ROWS, HALF_FACTOR_BYTES, HALF_ROWS, block_bytes, code_bytes,
    pack_block, pack_half,
};

/// Rows after encoding, in the order they came: list, code, factors.
#[derive(Clone, Debug, Default)]
pub struct EncodedRows {
    pub(crate) lists: Vec<u32>,
    pub(crate) codes: Vec<u8>,
    pub(crate) factors: Vec<Factors>,
}

impl EncodedRows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The list of each row.
    pub fn lists(&self) -> &[u32] {
        &self.lists
    }

    /// Appends the rows of another batch of the same centroids.
    pub fn append(&mut self, mut other: EncodedRows) {
        self.lists.append(&mut other.lists);
        self.codes.append(&mut other.codes);
        self.factors.append(&mut other.factors);
    }

    /// Row numbers in list order: where rows are to be written in the order of
    /// slots, row `order[slot]` comes at `slot`. Rows of a list keep their order.
    pub fn list_order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.lists.len() as u32).collect();
        order.sort_by_key(|row| self.lists[*row as usize]);
        order
    }
}

/// The lists object of encoded rows. `version` and `lists` are those of the
/// centroids. With `in_list_order` the segment's rows are written by
/// [`EncodedRows::list_order`] and ordinals are slots; else ordinals are row
/// numbers and stored. O(rows · code).
pub fn build_lists(
    version: u128,
    lists: u32,
    code_dim: usize,
    rows: &EncodedRows,
    in_list_order: bool,
) -> Result<Vec<u8>, IndexError> {
    build_lists_as(LISTS_FORMAT, version, lists, code_dim, rows, in_list_order)
}

/// As [`build_lists`] in an older format, [`LISTS_FORMAT_MIN`](super::LISTS_FORMAT_MIN) at
/// the least.
pub fn build_lists_as(
    format: u32,
    version: u128,
    lists: u32,
    code_dim: usize,
    rows: &EncodedRows,
    in_list_order: bool,
) -> Result<Vec<u8>, IndexError> {
    let expected = rows.len() * code_bytes(code_dim);
    if rows.codes.len() != expected {
        return Err(IndexError::Mismatch {
            what: "bytes of codes",
            found: rows.codes.len() as u64,
            expected: expected as u64,
        });
    }
    let order = rows.list_order();
    let mut body = ListsBody::new(format, code_dim);
    for run in order.chunk_by(|a, b| rows.lists[*a as usize] == rows.lists[*b as usize]) {
        let list = rows.lists[run[0] as usize];
        if list >= lists {
            return Err(IndexError::Mismatch {
                what: "list of a row",
                found: u64::from(list),
                expected: u64::from(lists),
            });
        }
        let mut builder = ListBuilder::new(code_dim);
        for row in run {
            let row = *row as usize;
            let code = &rows.codes[row * code_bytes(code_dim)..][..code_bytes(code_dim)];
            let Factors { a, b, spread } = rows.factors[row];
            builder.push(code, a, b, spread);
        }
        body.push(list, builder);
    }
    let ordinals = (!in_list_order).then_some(order);
    Ok(body.finish(version, lists, ordinals))
}

/// One list in the making: whole blocks, and rows that wait for theirs.
pub(super) struct ListBuilder {
    code_dim: usize,
    bytes: Vec<u8>,
    blocks: usize,
    codes: Vec<u8>,
    a: Vec<f32>,
    b: Vec<f32>,
    spread: f32,
}

impl ListBuilder {
    pub(super) fn new(code_dim: usize) -> Self {
        Self {
            code_dim,
            bytes: Vec::new(),
            blocks: 0,
            codes: Vec::with_capacity(BLOCK_ROWS * code_bytes(code_dim)),
            a: Vec::with_capacity(BLOCK_ROWS),
            b: Vec::with_capacity(BLOCK_ROWS),
            spread: 0.0,
        }
    }

    pub(super) fn push(&mut self, code: &[u8], a: f32, b: f32, spread: f32) {
        self.codes.extend_from_slice(code);
        self.a.push(a);
        self.b.push(b);
        self.spread = self.spread.max(spread);
        if self.a.len() == BLOCK_ROWS {
            self.close_block();
        }
    }

    /// Takes a whole block as it is. Only while no row waits: blocks come first.
    pub(super) fn push_block(&mut self, block: &[u8], spread: f32) {
        debug_assert!(self.a.is_empty() && block.len() == block_bytes(self.code_dim));
        self.bytes.extend_from_slice(block);
        self.blocks += 1;
        self.spread = self.spread.max(spread);
    }

    pub(super) fn rows(&self) -> usize {
        self.blocks * BLOCK_ROWS + self.a.len()
    }

    fn close_block(&mut self) {
        self.close(BLOCK_ROWS, BLOCK_FACTOR_BYTES, pack_block);
        self.blocks += 1;
    }

    /// Packs the first waiting rows as a block of so many. Rows that are missing stay
    /// zero; readers know the count and pass them over.
    fn close(&mut self, rows: usize, factor_bytes: usize, pack: fn(&[u8], usize, &mut [u8])) {
        let row_bytes = code_bytes(self.code_dim);
        let taken = rows.min(self.a.len());
        let start = self.bytes.len();
        let bytes = start + rows * row_bytes + factor_bytes;
        self.bytes.resize(bytes, 0);
        let (codes, factors) = self.bytes[start..].split_at_mut(rows * row_bytes);
        pack(&self.codes[..taken * row_bytes], row_bytes, codes);
        let (a, b) = factors.split_at_mut(factor_bytes / 2);
        put_floats(a, &self.a[..taken]);
        put_floats(b, &self.b[..taken]);
        self.codes.drain(..taken * row_bytes);
        self.a.drain(..taken);
        self.b.drain(..taken);
    }

    fn finish(mut self, format: u32) -> Vec<u8> {
        let shape = Shape::of(format, self.rows());
        if shape.blocks > self.blocks {
            self.close_block();
        }
        if shape.has_half {
            self.close(HALF_ROWS, HALF_FACTOR_BYTES, pack_half);
        }
        debug_assert_eq!(self.a.len(), shape.rest);
        self.bytes.extend_from_slice(&self.codes);
        crate::bytes::put_f32s(&mut self.bytes, &self.a);
        crate::bytes::put_f32s(&mut self.bytes, &self.b);
        crate::bytes::put_padding(&mut self.bytes);
        debug_assert_eq!(self.bytes.len(), shape.bytes(self.code_dim));
        self.bytes
    }
}

fn put_floats(out: &mut [u8], values: &[f32]) {
    for (out, value) in out.chunks_exact_mut(4).zip(values) {
        out.copy_from_slice(&value.to_le_bytes());
    }
}

/// All lists in the making; pushed in ascending order.
pub(super) struct ListsBody {
    format: u32,
    code_dim: usize,
    entries: Vec<ListEntry>,
    bytes: Vec<u8>,
}

impl ListsBody {
    pub(super) fn new(format: u32, code_dim: usize) -> Self {
        Self {
            format,
            code_dim,
            entries: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, list: u32, builder: ListBuilder) {
        let rows = builder.rows();
        if rows == 0 {
            return;
        }
        let spread = builder.spread;
        let bytes = builder.finish(self.format);
        self.entries.push(ListEntry {
            list,
            rows: rows as u32,
            spread,
            checksum: crc32c::crc32c(&bytes),
            first_slot: 0,
            offset: 0,
        });
        self.bytes.extend_from_slice(&bytes);
    }

    pub(super) fn finish(self, version: u128, lists: u32, ordinals: Option<Vec<u32>>) -> Vec<u8> {
        let head = ListsHead::new(
            self.format,
            version,
            self.code_dim,
            lists,
            self.entries,
            ordinals,
        );
        let mut out = Vec::with_capacity(head.bytes() as usize);
        head.encode(&mut out);
        out.extend_from_slice(&self.bytes);
        out
    }
}
