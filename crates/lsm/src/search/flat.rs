//! The part of a search without lists: memtables, segments that have none, and everything
//! for queries that ask for the truth.
//!
//! Blocks that the cache holds are scanned in one go, since a search over a warm cache must
//! not stop to wait; missing ones in waves of parallel reads, each as it arrives.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use rayon::prelude::*;
use roaring::RoaringBitmap;
use vexlake_distance::TopK;
use vexlake_index::{CodedQuery, Query, scan};
use vexlake_segment::VectorBlock;

use super::mask::{Mask, Masks};
use super::{Candidate, Cost, Group, Place, Search};
use crate::error::{Error, Result};
use crate::feed::{FixedTable, FixedView};
use crate::incarnation::Incarnation;
use crate::memtable::Chunk;
use crate::snapshot::SegmentView;

/// Missing blocks in flight between store and scan: 64 MiB of a megabyte each.
pub(super) const WAVE_BLOCKS: usize = 64;
/// Reads at once when blocks are missing: enough to hide the latency of an object store.
const READS_MAX: usize = 16;

/// A block in memory, and the number of its segment in the view.
type Loaded = (usize, Arc<VectorBlock>);

/// The nearest rows, (segment << 32 | row), and how many were compared.
pub(super) struct Scanned {
    pub(super) top: TopK,
    pub(super) rows: u64,
}

impl Scanned {
    pub(super) fn new(k: usize) -> Self {
        Self {
            top: TopK::new(k),
            rows: 0,
        }
    }

    fn merge(mut self, other: &Self) -> Self {
        self.top.merge(&other.top);
        self.rows += other.rows;
        self
    }
}

/// A query of the group, and what it may see.
struct Seeing<'a> {
    query: Query<'a>,
    k: usize,
    mask: &'a Mask,
}

impl Incarnation {
    /// Scans every row of some segments that some queries of a group may see. Answers by query.
    pub(super) async fn scan_segments(
        &self,
        group: &Group<'_>,
        masks: &Masks,
        queries: &[usize],
        segments: &[usize],
    ) -> Result<Vec<Scanned>> {
        let seeing: Vec<Seeing<'_>> = queries
            .iter()
            .map(|place| Seeing {
                query: group.prepared[*place],
                k: group.queries[*place].k,
                mask: masks.of(*place),
            })
            .collect();
        let mut found: Vec<Scanned> = seeing.iter().map(|one| Scanned::new(one.k)).collect();
        let (mut ready, mut missing) = (Vec::new(), Vec::new());
        if queries.is_empty() {
            return Ok(found);
        }
        for number in segments {
            let reader = &group.views[*number].reader;
            for block in 0..reader.blocks() {
                let rows = reader.block_rows(block);
                let sees = |one: &Seeing<'_>| match one.mask.filter {
                    None => true,
                    Some(_) => one.mask.seen_in(*number, rows.clone()) > 0,
                };
                if !seeing.iter().any(sees) {
                    continue;
                }
                match reader.cached_block(block) {
                    Some(found) => ready.push((*number, found)),
                    None => missing.push((*number, block)),
                }
            }
        }
        group.reads.add_held(ready.len() as u64);
        self.scan_blocks(group, &seeing, &ready, &mut found);
        drop(ready);
        for wave in missing.chunks(WAVE_BLOCKS) {
            // Collected first: a stream that holds a borrowing closure is not Send for every lifetime.
            let read = async |number: usize, block: usize| {
                let reader = &group.views[number].reader;
                let loaded = reader.block(block, group.reads).await?;
                Ok::<_, Error>((number, loaded))
            };
            let reads: Vec<_> = wave
                .iter()
                .map(|(number, block)| read(*number, *block))
                .collect();
            let reads = futures::stream::iter(reads).buffered(READS_MAX);
            let loaded: Vec<Loaded> = group.round(reads.try_collect()).await?;
            self.scan_blocks(group, &seeing, &loaded, &mut found);
        }
        Ok(found)
    }

    /// Scans loaded blocks on the search pool and merges into `found`.
    fn scan_blocks(
        &self,
        group: &Group<'_>,
        seeing: &[Seeing<'_>],
        loaded: &[Loaded],
        found: &mut Vec<Scanned>,
    ) {
        let scan_all = |mut found: Vec<Scanned>, (number, block): &Loaded| {
            let view = group.views[*number];
            let segment = (*number, view, group.shadows.get(&view.id()));
            for (one, found) in seeing.iter().zip(&mut found) {
                scan_block(&one.query, one.mask, segment, block, found);
            }
            found
        };
        let merge = |a: Vec<Scanned>, b: Vec<Scanned>| {
            let pairs = a.into_iter().zip(&b);
            pairs.map(|(a, b)| a.merge(b)).collect::<Vec<_>>()
        };
        let empty = || seeing.iter().map(|one| Scanned::new(one.k)).collect();
        let scanned = tokio::task::block_in_place(|| match loaded.len() {
            0..=1 => loaded.iter().fold(empty(), scan_all),
            _ => self.context.pools.search.install(|| {
                let parts = loaded.par_iter().fold(empty, scan_all);
                parts.reduce(empty, merge)
            }),
        });
        *found = merge(std::mem::take(found), scanned);
    }
}

/// Scans the memtables of a view, and adds to what queries have found in segments and to what
/// that cost.
///
/// A chunk goes through all queries before the next: it stays in the core's cache.
pub(super) fn scan_feed(
    view: &FixedView,
    group: &Group<'_>,
    found: &mut [Vec<Candidate>],
    costs: &mut [Cost],
) {
    let tables = &view.tables;
    let mut chunks = tables.iter().flat_map(|table| table.rows.chunks());
    let has_codes = chunks.any(|chunk| chunk.codes().is_some());
    let begin = |place: usize| FeedScan::begin(group, place, &found[place], has_codes);
    let mut scans: Vec<FeedScan<'_>> = (0..group.queries.len()).map(begin).collect();
    for (number, table) in tables.iter().enumerate() {
        let passing = |query: &Search| Some(table.rows.passing(query.filter.as_ref()?));
        let passing: Vec<Option<Vec<u64>>> = group.queries.iter().map(passing).collect();
        for chunk in table.rows.chunks() {
            for (scan, passing) in scans.iter_mut().zip(&passing) {
                scan.scan_chunk((number as u64) << 32, chunk, passing.as_deref(), table);
            }
        }
    }
    let rows: u64 = tables.iter().map(|table| u64::from(table.rows.len())).sum();
    for (place, scan) in scans.into_iter().enumerate() {
        costs[place].rows_scanned += rows;
        costs[place].memtable_rows += rows;
        costs[place].rows_reranked += scan.reranked;
        let named = scan.top.into_sorted().into_iter().map(|(key, slot)| {
            let (rows, slot) = (&tables[(slot >> 32) as usize].rows, slot as u32);
            let attrs = rows.attrs(slot).filter(|_| group.queries[place].with_attrs);
            let (id, attrs) = (rows.id(slot).to_owned(), attrs.map(str::to_owned));
            Candidate {
                key,
                place: Place::Feed { id, attrs },
            }
        });
        found[place].extend(named);
    }
}

/// The k-th key of candidates; infinite while they are fewer.
pub(super) fn kth_key(found: &[Candidate], k: usize) -> f32 {
    let mut keys: Vec<f32> = found.iter().map(|candidate| candidate.key).collect();
    match keys.len() < k {
        true => f32::INFINITY,
        false => *keys.select_nth_unstable_by(k - 1, f32::total_cmp).1,
    }
}

/// A query on its way through memtables.
struct FeedScan<'a> {
    query: &'a Query<'a>,
    /// None where codes cannot serve it.
    coded: Option<CodedQuery<'a>>,
    top: TopK,
    reranked: u64,
}

impl<'a> FeedScan<'a> {
    /// `found` is what the query has found in segments.
    fn begin(group: &Group<'a>, place: usize, found: &[Candidate], has_codes: bool) -> Self {
        let (wanted, query) = (&group.queries[place], &group.prepared[place]);
        let limit = kth_key(found, wanted.k);
        let centroids = group.snapshot.current_centroids();
        let centroids = centroids.filter(|_| has_codes && !wanted.truth);
        Self {
            query,
            coded: centroids.and_then(|c| CodedQuery::new(c.space(), query, limit).ok()),
            top: TopK::new(wanted.k),
            reranked: 0,
        }
    }

    /// `table` is the number of the chunk's table in the upper half, `passing` a bit per slot.
    fn scan_chunk(
        &mut self,
        table: u64,
        chunk: &Chunk,
        passing: Option<&[u64]>,
        FixedTable { visible, .. }: &FixedTable,
    ) {
        let first = chunk.first();
        let hidden = |row: u32| {
            let slot = first + row;
            let passes = |words: &[u64]| words[slot as usize / 64] >> (slot % 64) & 1 == 1;
            !passing.is_none_or(passes) || !visible.contains(chunk.entry(row))
        };
        let base = table | u64::from(first);
        let (vectors, norms) = (chunk.vectors(), chunk.norms());
        match (&mut self.coded, chunk.codes()) {
            (Some(coded), Some(codes)) => {
                let rows = (vectors, norms);
                self.reranked += coded.scan(codes, rows, &hidden, base, &mut self.top);
            }
            _ => scan(
                self.query,
                vectors,
                norms,
                Some(&hidden),
                base,
                &mut self.top,
            ),
        }
    }
}

pub(super) fn scan_block(
    query: &Query<'_>,
    mask: &Mask,
    (number, view, feed): (usize, &SegmentView, Option<&Arc<RoaringBitmap>>),
    block: &VectorBlock,
    found: &mut Scanned,
) {
    let first = block.first_row;
    let rows = first..first + block.rows();
    let words = mask.hidden(number);
    let masked = match words {
        Some(_) => mask.seen_in(number, rows.clone()) < u64::from(block.rows()),
        None => {
            view.shadow.range_cardinality(rows.clone()) > 0
                || feed.is_some_and(|bits| bits.range_cardinality(rows.clone()) > 0)
        }
    };
    let by_word = |row: u32| {
        let row = (first + row) as usize;
        words.is_some_and(|words| words[row / 64] >> (row % 64) & 1 == 1)
    };
    let by_bitmap = |row: u32| {
        view.shadow.contains(first + row) || feed.is_some_and(|bits| bits.contains(first + row))
    };
    let hidden: Option<&dyn Fn(u32) -> bool> = match (masked, words) {
        (false, _) => None,
        (true, Some(_)) => Some(&by_word),
        (true, None) => Some(&by_bitmap),
    };
    found.rows += match mask.filter {
        Some(_) => mask.seen_in(number, rows),
        None => u64::from(block.rows()),
    };
    let base = (number as u64) << 32 | u64::from(first);
    let (values, norms) = (block.values(), block.norms());
    scan(query, values, norms, hidden, base, &mut found.top);
}
