//! Merging the lists of segments of one centroid version: bits are copied, nothing
//! is encoded or trained again.
//!
//! Per list, in the order of the inputs:
//! 1. blocks that lose no row and are full are copied as they are;
//! 2. rows of other blocks and of rests are taken out and packed anew behind them.
//!
//! The answer says where each row of the result came from; its rows lie in list
//! order, so the segment that is written from it stores no ordinals. The error
//! bound of a merged list is the larger one, which holds for all of its rows.

use super::LISTS_FORMAT;
use super::head::{ListEntry, ListsHead};
use super::list::List;
use super::writer::{ListBuilder, ListsBody};
use crate::IndexError;
use vexlake_distance::{BLOCK_ROWS, block_bytes, code_bytes};

/// One segment to merge.
#[derive(Clone, Copy, Debug)]
pub struct MergeInput<'a> {
    /// Its head.
    pub head: &'a ListsHead,
    /// The whole object.
    pub bytes: &'a [u8],
    /// Bit per slot, 64 to a word: the row is left out. None keeps all.
    pub dropped: Option<&'a [u64]>,
}

/// The merged lists.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The lists object; ordinals are slots.
    pub bytes: Vec<u8>,
    /// (input, slot there) of each row, by its slot in the result.
    pub origins: Vec<(u32, u32)>,
}

/// Merges lists; all inputs must have one version, dimension and number of lists.
/// Every list is verified by its checksum as it is read. O(bytes).
pub fn merge_lists(inputs: &[MergeInput<'_>]) -> Result<Merged, IndexError> {
    let Some(first) = inputs.first() else {
        return Err(IndexError::Mismatch {
            what: "inputs to merge",
            found: 0,
            expected: 1,
        });
    };
    let (code_dim, lists) = (first.head.code_dim(), first.head.lists());
    let rows: u64 = inputs
        .iter()
        .map(|input| u64::from(input.head.rows()))
        .sum();
    if rows > u64::from(u32::MAX) {
        return Err(IndexError::BeyondCodes("more than 2³² rows in a segment"));
    }
    for MergeInput { head, bytes, .. } in inputs {
        if head.version() != first.head.version() {
            return Err(IndexError::BeyondCodes("a merge across centroid versions"));
        }
        let pairs = [
            (
                "code dimension of a merge",
                head.code_dim() as u64,
                code_dim as u64,
            ),
            (
                "lists of a merge",
                u64::from(head.lists()),
                u64::from(lists),
            ),
            ("bytes of a merge's input", bytes.len() as u64, head.bytes()),
        ];
        if let Some((what, found, expected)) = pairs.into_iter().find(|(_, a, b)| a != b) {
            return Err(IndexError::Mismatch {
                what,
                found,
                expected,
            });
        }
    }
    let mut body = ListsBody::new(LISTS_FORMAT, code_dim);
    let mut origins = Vec::with_capacity(rows as usize);
    for list in 0..lists {
        let mut builder = ListBuilder::new(code_dim);
        let mut parts = Vec::new();
        for (number, input) in inputs.iter().enumerate() {
            if let Some(entry) = input.head.entry(list) {
                let range = input.head.range(entry);
                let bytes = &input.bytes[range.start as usize..range.end as usize];
                let list = input.head.verify(entry, bytes)?;
                parts.push(Part {
                    number: number as u32,
                    entry,
                    list,
                    dropped: input.dropped,
                });
            }
        }
        parts
            .iter()
            .for_each(|part| part.copy_blocks(code_dim, &mut builder, &mut origins));
        parts
            .iter()
            .for_each(|part| part.copy_rows(code_dim, &mut builder, &mut origins));
        body.push(list, builder);
    }
    let bytes = body.finish(first.head.version(), lists, None);
    Ok(Merged { bytes, origins })
}

/// One input's share of one list.
struct Part<'a> {
    number: u32,
    entry: &'a ListEntry,
    list: List<'a>,
    dropped: Option<&'a [u64]>,
}

impl Part<'_> {
    fn is_dropped(&self, row: usize) -> bool {
        let slot = self.entry.first_slot as usize + row;
        self.dropped.is_some_and(|dropped| {
            dropped
                .get(slot / 64)
                .is_some_and(|word| (word >> (slot % 64)) & 1 == 1)
        })
    }

    /// Whether a block is full and keeps all of its rows.
    fn is_whole(&self, block: usize) -> bool {
        let rows = block * BLOCK_ROWS..(block + 1) * BLOCK_ROWS;
        rows.end <= self.list.rows() && rows.into_iter().all(|row| !self.is_dropped(row))
    }

    fn copy_blocks(&self, code_dim: usize, to: &mut ListBuilder, origins: &mut Vec<(u32, u32)>) {
        let blocks = self.list.blocks().chunks_exact(block_bytes(code_dim));
        for (number, block) in blocks.enumerate() {
            if self.is_whole(number) {
                to.push_block(block, self.entry.spread);
                let first = self.entry.first_slot + (number * BLOCK_ROWS) as u32;
                let slots = first..first + BLOCK_ROWS as u32;
                origins.extend(slots.map(|slot| (self.number, slot)));
            }
        }
    }

    fn copy_rows(&self, code_dim: usize, to: &mut ListBuilder, origins: &mut Vec<(u32, u32)>) {
        let mut code = vec![0; code_bytes(code_dim)];
        for block in 0..self.list.rows().div_ceil(BLOCK_ROWS) {
            if self.is_whole(block) {
                continue;
            }
            let end = self.list.rows().min((block + 1) * BLOCK_ROWS);
            for row in (block * BLOCK_ROWS..end).filter(|row| !self.is_dropped(*row)) {
                let (a, b) = self.list.row(row, &mut code);
                to.push(&code, a, b, self.entry.spread);
                origins.push((self.number, self.entry.first_slot + row as u32));
            }
        }
    }
}
