//! Scanning the codes of chosen lists: one flat run of blocks over all lists and
//! segments, with the memory of the blocks to come on its way.
//!
//! The kernel prefetches, line by line as it reads its own block, the block that
//! comes `AHEAD` turns later, in this list or the next: lists are short, so hardware
//! prefetchers learn each one only when it is over. A block whose rows are all hidden is not read.

use super::{Candidate, Search};
use crate::centroids::Chosen;
use crate::lists::{List, ListEntry, ListsHead, Rest};
use vexlake_distance::{BLOCK_ROWS, Line, block_bytes, prefetch};

/// Blocks between the one that is read and the one that is fetched: at 768
/// dimensions a block takes some 70 ns, memory answers in 100.
const AHEAD: usize = 2;

/// Lists between the one that is scanned and the one whose rest is fetched: with
/// many segments a list is a dozen rows, 60 ns of work.
const PARTS_AHEAD: usize = 4;

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

/// One list of one segment, ready to be scanned.
#[derive(Clone, Copy)]
struct Part<'a> {
    list: List<'a>,
    line: Line,
    segment: u32,
    first_slot: u32,
    hidden: Option<&'a [u64]>,
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

    /// Scans lists of any segments in one run: (list, number of the segment, its entry, its
    /// bytes, hidden slots of the segment). For bytes that lie in pages.
    pub fn scan_lists<'a>(
        &mut self,
        lists: impl Iterator<Item = (Chosen, u32, &'a ListEntry, List<'a>, Option<&'a [u64]>)>,
    ) {
        let (offset, scale) = (self.table.offset(), self.table.scale());
        let (residue, confidence) = (self.table.residue(), self.effort.confidence);
        let mut parts = lists.map(|(chosen, segment, entry, list, hidden)| {
            let error = entry.spread * chosen.gap;
            Part {
                list,
                line: Line {
                    add: chosen.key,
                    shift: offset + confidence * (error * error + residue * residue).sqrt(),
                    scale,
                },
                segment,
                first_slot: entry.first_slot,
                hidden,
            }
        });
        let mut fetched = || parts.next().inspect(Part::prefetch);
        let mut ring: [Option<Part<'a>>; PARTS_AHEAD] = std::array::from_fn(|_| fetched());
        let mut turn = 0;
        while let Some(part) = ring[turn] {
            ring[turn] = fetched();
            turn = (turn + 1) % PARTS_AHEAD;
            self.counts.lists += 1;
            self.scan_part(&part, ring[turn].as_ref());
        }
    }

    fn scan_part(&mut self, part: &Part<'_>, next: Option<&Part<'_>>) {
        let block_bytes = block_bytes(self.rotated.len());
        let rows = part.list.rows();
        let (bytes, after) = (
            part.list.bytes(),
            next.map_or(&[][..], |next| next.list.bytes()),
        );
        let blocks = part.list.blocks();
        for (number, block) in blocks.chunks_exact(block_bytes).enumerate() {
            let row = number * BLOCK_ROWS;
            let visible = part.visible(row, (rows - row).min(BLOCK_ROWS));
            if visible == 0 {
                continue;
            }
            self.counts.scanned += u64::from(visible.count_ones());
            let ahead = (number + AHEAD) * block_bytes;
            let ahead = match bytes.get(ahead..) {
                Some(ahead) if !ahead.is_empty() => ahead,
                _ => after.get(ahead - blocks.len()..).unwrap_or(block),
            };
            let within = (self.kernels.block_bounds)(
                self.table.table(),
                block,
                &part.line,
                self.pool.limit(),
                ahead,
                &mut self.bounds,
            ) & visible;
            if within != 0 {
                let first = part.id(row);
                self.pool.offer(self.kernels, within, &self.bounds, first);
            }
        }
        let rest = part.list.rest();
        let visible = part.visible(rows - rest.rows, rest.rows);
        if visible != 0 {
            self.counts.scanned += u64::from(visible.count_ones());
            self.scan_rest(part, &rest, visible);
        }
    }

    fn scan_rest(&mut self, part: &Part<'_>, rest: &Rest<'_>, visible: u32) {
        self.sums.resize(rest.rows, 0);
        (self.kernels.row_sums)(&self.table, rest.codes, &mut self.sums);
        let limit = self.pool.limit();
        let mut within = 0;
        for (row, sum) in self.sums.iter().enumerate() {
            let (a, b) = rest.factors_of(row);
            self.bounds[row] = part.line.bound(a, b, *sum);
            within |= u32::from(self.bounds[row] <= limit) << row;
        }
        within &= visible;
        if within != 0 {
            let first = part.id(part.list.rows() - rest.rows);
            self.pool.offer(self.kernels, within, &self.bounds, first);
        }
    }
}

impl Part<'_> {
    /// Fetches what the kernel does not fetch while it scans the blocks before: the
    /// rest, and blocks so few that the next list comes too soon.
    fn prefetch(&self) {
        let (bytes, blocks) = (self.list.bytes(), self.list.blocks());
        let few = self.list.rows() <= AHEAD * BLOCK_ROWS;
        prefetch(if few { bytes } else { &bytes[blocks.len()..] });
    }

    /// The id of one of its rows.
    fn id(&self, row: usize) -> u64 {
        Candidate::pack(self.segment, self.first_slot + row as u32)
    }

    /// Bit i set where row `row` + i of `count` rows is not hidden.
    #[inline]
    fn visible(&self, row: usize, count: usize) -> u32 {
        // As u64, which can shift by all 32 bits where there are no rows.
        let all = (u64::from(u32::MAX) >> (BLOCK_ROWS - count)) as u32;
        let Some(hidden) = self.hidden else {
            return all;
        };
        let slot = self.first_slot as usize + row;
        let word = |at: usize| hidden.get(at).copied().unwrap_or(0);
        // Both words as one, so that no shift reaches 64.
        let both = u128::from(word(slot / 64)) | u128::from(word(slot / 64 + 1)) << 64;
        all & !((both >> (slot % 64)) as u32)
    }
}
