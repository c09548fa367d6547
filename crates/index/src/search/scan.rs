//! Scanning the codes of chosen lists: one flat run of blocks over all lists and
//! segments, with the memory of the blocks to come on its way.
//!
//! The kernel prefetches, line by line as it reads its own block, the block that
//! comes `AHEAD` turns later: lists are short, so hardware prefetchers learn each
//! one only when it is over. A block whose rows are all hidden is not read.

use super::{Candidate, Search};
use crate::centroids::Chosen;
use crate::lists::{List, ListEntry, ListsHead};
use vexlake_distance::{BLOCK_ROWS, Line, block_bytes, code_bytes};

/// Blocks between the one that is read and the one that is fetched: at 768
/// dimensions a block takes some 70 ns, memory answers in 100.
const AHEAD: usize = 2;

/// One segment's lists, wholly in memory, their checksums verified before.
#[derive(Clone, Copy, Debug)]
pub struct SegmentLists<'a> {
    /// Its number in candidates.
    pub segment: u32,
    /// Its head.
    pub head: &'a ListsHead,
    /// The whole object.
    pub bytes: &'a [u8],
    /// Bit per slot, 64 to a word: the row is passed over (deleted, shadowed or
    /// filtered out). None shows all; words that are not there show theirs.
    pub hidden: Option<&'a [u64]>,
}

/// A stretch of one list: a block, or the rest.
#[derive(Clone, Copy)]
struct Step<'a> {
    bytes: &'a [u8],
    line: Line,
    /// The id of the first row.
    first: u64,
    /// The rows to look at, bit by bit.
    visible: u32,
    /// Rows of a rest; 0 for a block.
    rest_rows: usize,
    factors: &'a [u8],
}

impl Search {
    /// Scans the chosen lists of segments in memory; the segments' lists must belong
    /// to the centroids that chose.
    pub fn scan(&mut self, segments: &[SegmentLists<'_>]) {
        let chosen = std::mem::take(&mut self.chosen);
        let lists = chosen.iter().flat_map(|chosen| {
            segments.iter().filter_map(move |segment| {
                let entry = segment.head.entry(chosen.list)?;
                let range = segment.head.range(entry);
                let bytes = &segment.bytes[range.start as usize..range.end as usize];
                let list = segment.head.open(entry, bytes).ok()?;
                Some((*chosen, segment.segment, entry, list, segment.hidden))
            })
        });
        self.scan_lists(lists);
        self.chosen = chosen;
    }

    /// Scans one list, for bytes that arrive one list at a time.
    pub fn scan_list(
        &mut self,
        chosen: &Chosen,
        segment: u32,
        entry: &ListEntry,
        list: List<'_>,
        hidden: Option<&[u64]>,
    ) {
        self.scan_lists(std::iter::once((*chosen, segment, entry, list, hidden)));
    }

    /// Scans lists of any segments in one run: (list, number of the segment, its entry, its
    /// bytes, hidden slots of the segment). For bytes that lie in pages.
    pub fn scan_lists<'a>(
        &mut self,
        lists: impl Iterator<Item = (Chosen, u32, &'a ListEntry, List<'a>, Option<&'a [u64]>)>,
    ) {
        let code_dim = self.rotated.len();
        let (offset, scale) = (self.table.offset(), self.table.scale());
        let (residue, confidence) = (self.table.residue(), self.effort.confidence);
        let mut opened = 0;
        let mut steps = lists.flat_map(|(chosen, segment, entry, list, hidden)| {
            opened += 1;
            let error = entry.spread * chosen.gap;
            let line = Line {
                add: chosen.key,
                shift: offset + confidence * (error * error + residue * residue).sqrt(),
                scale,
            };
            steps_of(code_dim, line, segment, entry, list, hidden)
        });
        let mut ahead: [Option<Step<'a>>; AHEAD] = std::array::from_fn(|_| steps.next());
        let mut turn = 0;
        while let Some(step) = ahead[turn] {
            ahead[turn] = steps.next();
            // What was just fetched lies AHEAD turns away.
            let next = ahead[turn].map_or(step.bytes, |next| next.bytes);
            turn = (turn + 1) % AHEAD;
            if step.visible == 0 {
                continue;
            }
            self.counts.scanned += u64::from(step.visible.count_ones());
            if step.rest_rows > 0 {
                self.scan_rest(&step);
            } else {
                let within = (self.kernels.block_bounds)(
                    self.table.table(),
                    step.bytes,
                    &step.line,
                    self.pool.limit(),
                    next,
                    &mut self.bounds,
                ) & step.visible;
                if within != 0 {
                    self.pool
                        .offer(self.kernels, within, &self.bounds, step.first);
                }
            }
        }
        drop(steps);
        self.counts.lists += opened;
    }

    fn scan_rest(&mut self, step: &Step<'_>) {
        let rows = step.rest_rows;
        self.sums.resize(rows, 0);
        let (planes, negative) = (self.table.planes(), self.table.negative());
        (self.kernels.row_sums)(planes, negative, step.bytes, &mut self.sums);
        let (a, b) = step.factors.as_chunks::<4>().0.split_at(rows);
        let limit = self.pool.limit();
        let mut within = 0;
        for row in 0..rows {
            let (a, b) = (f32::from_le_bytes(a[row]), f32::from_le_bytes(b[row]));
            self.bounds[row] = step.line.bound(a, b, self.sums[row]);
            within |= u32::from(self.bounds[row] <= limit) << row;
        }
        within &= step.visible;
        if within != 0 {
            self.pool
                .offer(self.kernels, within, &self.bounds, step.first);
        }
    }
}

/// The blocks of a list, then its rest.
fn steps_of<'a>(
    code_dim: usize,
    line: Line,
    segment: u32,
    entry: &ListEntry,
    list: List<'a>,
    hidden: Option<&'a [u64]>,
) -> impl Iterator<Item = Step<'a>> {
    let (first_slot, rows) = (entry.first_slot, list.rows());
    let step = move |row: usize, count: usize| Step {
        bytes: &[],
        line,
        first: Candidate::pack(segment, first_slot + row as u32),
        visible: visible_rows(hidden, first_slot as usize + row, count),
        rest_rows: 0,
        factors: &[],
    };
    let blocks = list.blocks().chunks_exact(block_bytes(code_dim));
    let blocks_end = blocks.len() * BLOCK_ROWS;
    let rest = list.rest();
    let rest = (rest.rows > 0).then(|| Step {
        bytes: &rest.codes[..rest.rows * code_bytes(code_dim)],
        rest_rows: rest.rows,
        factors: rest.factors,
        ..step(blocks_end, rest.rows)
    });
    let blocks = blocks.enumerate().map(move |(number, bytes)| {
        let row = number * BLOCK_ROWS;
        Step {
            bytes,
            ..step(row, (rows - row).min(BLOCK_ROWS))
        }
    });
    blocks.chain(rest)
}

/// Bit i set where row i of `count` rows from `slot` on is not hidden.
#[inline]
fn visible_rows(hidden: Option<&[u64]>, slot: usize, count: usize) -> u32 {
    let all = u32::MAX >> (BLOCK_ROWS - count);
    let Some(hidden) = hidden else {
        return all;
    };
    let word = |at: usize| hidden.get(at).copied().unwrap_or(0);
    let (at, shift) = (slot / 64, slot % 64);
    // Both words as one, so that no shift reaches 64.
    let both = u128::from(word(at)) | u128::from(word(at + 1)) << 64;
    all & !((both >> shift) as u32)
}
