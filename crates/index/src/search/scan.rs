//! Scanning the codes of chosen lists.
//!
//! 1. Every list is cut into *pieces* (blocks, half blocks, a rest), each what one call
//!    of a kernel scans. A piece whose rows are all hidden is left out.
//! 2. All blocks are scanned, then all half blocks, then all rests, each kernel with
//!    the memory of pieces to come on its way.
//!
//! With many segments a list is a dozen rows in each, and finding it costs as much as
//! scanning it: two misses in the segment's directory. These overlap only while nothing
//! else is done between them, so entries are asked for before lists are cut, and lists
//! are cut before the first is scanned.
//!
//! A block kernel prefetches, line by line as it reads its own piece, the one that comes
//! `AHEAD` turns later: lists are short, so hardware prefetchers learn each one only
//! when it is over. (Asked for in one burst before the kernel, or further ahead into the
//! second-level cache, the same lines cost a fifth more: what bounds it are the misses
//! that a core may have under way.)

use super::{Candidate, Search};
use crate::centroids::{Chosen, NEAR_SHARE};
use crate::lists::{List, ListEntry, ListsHead, Rest, rest_row_bytes};
use vexlake_distance::{
    BLOCK_ROWS, BlockKernel, HALF_ROWS, Line, block_bytes, half_bytes, prefetch,
};

/// Pieces between the one that is read and the one that is fetched: at 768
/// dimensions a block takes some 80 ns and a half block 40, memory answers in 100.
const AHEAD: usize = 3;

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

/// What one call of a kernel scans.
#[derive(Clone, Copy)]
struct Piece<'a> {
    bytes: &'a [u8],
    rows: u32,
    /// What the list's centroid adds, and the query and the error bound: see [`Line`].
    add: f32,
    shift: f32,
    /// Bit per row that is there and not hidden; never 0.
    visible: u32,
    /// Id of its first row.
    first: u64,
}

/// The pieces of all lists by their kind, those of near lists first: in a run of one
/// kind no branch is told wrongly.
#[derive(Default)]
struct Pieces<'a> {
    blocks: Vec<Piece<'a>>,
    halves: Vec<Piece<'a>>,
    rests: Vec<Piece<'a>>,
}

impl Search {
    /// Scans the chosen lists of segments in memory; the segments' lists must belong
    /// to the centroids that chose.
    pub fn scan<'a>(&mut self, segments: &[SegmentLists<'a>]) {
        let chosen = std::mem::take(&mut self.chosen);
        for segment in segments {
            let lists = chosen.iter().map(|chosen| chosen.list);
            lists.for_each(|list| segment.head.prefetch(list));
        }
        // The nearest lists in all segments, then the others as they lie in each.
        let (near, far) = chosen.split_at(chosen.len().div_ceil(NEAR_SHARE));
        let of = |chosen: &Chosen, segment: &SegmentLists<'a>| {
            let entry = segment.head.entry(chosen.list)?;
            let list = segment.head.list_in(entry, segment.bytes)?;
            Some((*chosen, segment.segment, entry, list, segment.hidden))
        };
        let near = near.iter().flat_map(|chosen| {
            segments
                .iter()
                .filter_map(move |segment| of(chosen, segment))
        });
        let far = segments
            .iter()
            .flat_map(|segment| far.iter().filter_map(move |chosen| of(chosen, segment)));
        let lists = near.chain(far);
        self.scan_lists(lists);
        self.chosen = chosen;
    }

    /// Scans lists of any segments in one run: (list, number of the segment, its entry, its
    /// bytes, hidden slots of the segment). For bytes that lie in pages.
    pub fn scan_lists<'a>(
        &mut self,
        lists: impl Iterator<Item = (Chosen, u32, &'a ListEntry, List<'a>, Option<&'a [u64]>)>,
    ) {
        let mut pieces = Pieces::default();
        for (chosen, segment, entry, list, hidden) in lists {
            self.counts.lists += 1;
            self.cut(&chosen, segment, entry, &list, hidden, &mut pieces);
        }
        self.scan_pieces(&pieces.blocks, self.kernels.block_bounds);
        self.scan_pieces(&pieces.halves, self.kernels.half_bounds);
        for (at, piece) in pieces.rests.iter().enumerate() {
            let next = pieces.rests.get(at + AHEAD);
            prefetch(next.map_or(&[][..], |next| next.bytes));
            let rest = Rest::new(piece.bytes, self.rotated.len(), piece.rows as usize);
            let within = self.rest_bounds(&rest, &self.line_of(piece), self.pool.limit());
            self.offer(piece, within);
        }
    }

    fn scan_pieces(&mut self, pieces: &[Piece<'_>], kernel: BlockKernel) {
        for (at, piece) in pieces.iter().enumerate() {
            let ahead = pieces
                .get(at + AHEAD)
                .map_or(piece.bytes, |next| next.bytes);
            let (table, line) = (self.table.table(), self.line_of(piece));
            let limit = self.pool.limit();
            let within = kernel(table, piece.bytes, &line, limit, ahead, &mut self.bounds);
            self.offer(piece, within);
        }
    }

    #[inline]
    fn line_of(&self, piece: &Piece<'_>) -> Line {
        Line {
            add: piece.add,
            shift: piece.shift,
            scale: self.table.scale(),
        }
    }

    #[inline]
    fn offer(&mut self, piece: &Piece<'_>, within: u32) {
        self.counts.scanned += u64::from(piece.visible.count_ones());
        let within = within & piece.visible;
        if within != 0 {
            let first = piece.first;
            self.pool.offer(self.kernels, within, &self.bounds, first);
        }
    }

    /// Cuts a list into its pieces.
    #[inline]
    fn cut<'a>(
        &self,
        chosen: &Chosen,
        segment: u32,
        entry: &ListEntry,
        list: &List<'a>,
        hidden: Option<&[u64]>,
        pieces: &mut Pieces<'a>,
    ) {
        let (error, residue) = (entry.spread * chosen.gap, self.table.residue());
        let error = (error * error + residue * residue).sqrt();
        let shift = self.table.offset() + self.effort.confidence * error;
        let (shape, bytes) = (list.shape(), list.bytes());
        let dim = self.rotated.len();
        let (mut row, mut at) = (0, 0);
        let mut cut = |to: &mut Vec<Piece<'a>>, len: usize, rows: usize| {
            let rows = rows.min(list.rows() - row);
            let slot = entry.first_slot + row as u32;
            let visible = visible(hidden, slot as usize, rows);
            if visible != 0 {
                to.push(Piece {
                    bytes: &bytes[at..at + len],
                    rows: rows as u32,
                    add: chosen.key,
                    shift,
                    visible,
                    first: Candidate::pack(segment, slot),
                });
            }
            (row, at) = (row + rows, at + len);
        };
        for _ in 0..shape.blocks {
            cut(&mut pieces.blocks, block_bytes(dim), BLOCK_ROWS);
        }
        if shape.has_half {
            cut(&mut pieces.halves, half_bytes(dim), HALF_ROWS);
        }
        if shape.rest > 0 {
            cut(
                &mut pieces.rests,
                shape.rest * rest_row_bytes(dim),
                shape.rest,
            );
        }
    }

    fn rest_bounds(&mut self, rest: &Rest<'_>, line: &Line, limit: f32) -> u32 {
        let sums = &mut self.sums[..rest.rows];
        (self.kernels.row_sums)(&self.table, rest.codes, sums);
        let mut within = 0;
        for (row, sum) in sums.iter().enumerate() {
            let (a, b) = rest.factors_of(row);
            self.bounds[row] = line.bound(a, b, *sum);
            within |= u32::from(self.bounds[row] <= limit) << row;
        }
        within
    }
}

/// Bit i set where slot `slot` + i of `count` slots is not hidden.
#[inline]
fn visible(hidden: Option<&[u64]>, slot: usize, count: usize) -> u32 {
    let all = (u64::from(u32::MAX) >> (BLOCK_ROWS - count)) as u32;
    let Some(hidden) = hidden else {
        return all;
    };
    let word = |at: usize| hidden.get(at).copied().unwrap_or(0);
    // Both words as one, so that no shift reaches 64.
    let both = u128::from(word(slot / 64)) | u128::from(word(slot / 64 + 1)) << 64;
    all & !((both >> (slot % 64)) as u32)
}
