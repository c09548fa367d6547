//! The exact part of a search: memtables, segments without lists, and everything for
//! queries that ask for the truth.
//!
//! Blocks that the cache holds are scanned in one go, since a search over a warm cache must
//! not stop to wait; missing ones in waves of parallel reads, each as it arrives.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use rayon::prelude::*;
use roaring::RoaringBitmap;
use vexlake_distance::TopK;
use vexlake_index::{Query, scan};
use vexlake_segment::VectorBlock;

use super::{Candidate, Group, Place, Search};
use crate::error::{Error, Result};
use crate::feed::View;
use crate::incarnation::Incarnation;
use crate::snapshot::SegmentView;

/// Missing blocks in flight between store and scan: 64 MiB of a megabyte each.
pub(super) const WAVE_BLOCKS: usize = 64;
/// Reads at once when blocks are missing: enough to hide the latency of an object store.
const READS_MAX: usize = 16;

/// A block in memory, and the number of its segment in the view.
type Loaded = (usize, Arc<VectorBlock>);

impl Incarnation {
    /// Scans every row of some segments for some queries of a group. Answers the nearest by
    /// query, (segment << 32 | row), and how many rows there were.
    pub(super) async fn scan_segments(
        &self,
        group: &Group<'_>,
        queries: &[usize],
        segments: &[usize],
    ) -> Result<(Vec<TopK>, u64)> {
        let mut tops: Vec<TopK> = queries
            .iter()
            .map(|query| TopK::new(group.queries[*query].k))
            .collect();
        let prepared: Vec<Query<'_>> = queries.iter().map(|query| group.prepared[*query]).collect();
        let (mut ready, mut missing) = (Vec::new(), Vec::new());
        if queries.is_empty() {
            return Ok((tops, 0));
        }
        for number in segments {
            let reader = &group.views[*number].reader;
            for block in 0..reader.blocks() {
                match reader.cached_block(block) {
                    Some(found) => ready.push((*number, found)),
                    None => missing.push((*number, block)),
                }
            }
        }
        let rows_of =
            |blocks: &[Loaded]| blocks.iter().map(|(_, b)| u64::from(b.rows())).sum::<u64>();
        let mut rows = rows_of(&ready);
        group.reads.add_held(ready.len() as u64);
        self.scan_blocks(group, &prepared, &ready, &mut tops);
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
            rows += rows_of(&loaded);
            self.scan_blocks(group, &prepared, &loaded, &mut tops);
        }
        Ok((tops, rows))
    }

    /// Scans loaded blocks on the search pool and merges into `tops`.
    fn scan_blocks(
        &self,
        group: &Group<'_>,
        prepared: &[Query<'_>],
        loaded: &[Loaded],
        tops: &mut Vec<TopK>,
    ) {
        let scan_all = |mut tops: Vec<TopK>, (number, block): &Loaded| {
            let (view, number) = (group.views[*number], *number);
            let feed = group.shadows.get(&view.id());
            scan_block(prepared, view, block, feed, number, &mut tops);
            tops
        };
        let merge = |mut a: Vec<TopK>, b: Vec<TopK>| {
            a.iter_mut().zip(&b).for_each(|(a, b)| a.merge(b));
            a
        };
        let empty = || {
            tops.iter()
                .map(|top| TopK::new(top.k()))
                .collect::<Vec<_>>()
        };
        let found = tokio::task::block_in_place(|| match loaded.len() {
            0..=1 => loaded.iter().fold(empty(), scan_all),
            _ => self.context.pools.search.install(|| {
                let parts = loaded.par_iter().fold(empty, scan_all);
                parts.reduce(empty, merge)
            }),
        });
        *tops = merge(std::mem::take(tops), found);
    }
}

pub(super) fn scan_feed(
    view: &View,
    query: &Search,
    prepared: &Query<'_>,
) -> (Vec<Candidate>, u64) {
    let mut top = TopK::new(query.k);
    let mut rows = 0;
    for (number, memtable) in view.memtables().enumerate() {
        for (vectors, norms, first) in memtable.chunks() {
            let hidden = |row: u32| !view.visible(number, memtable.entry_of_slot(first + row));
            rows += norms.len() as u64;
            scan(
                prepared,
                vectors,
                norms,
                Some(&hidden),
                (number as u64) << 32 | u64::from(first),
                &mut top,
            );
        }
    }
    let memtables: Vec<_> = view.memtables().collect();
    let named = top.into_sorted().into_iter().map(|(key, slot)| {
        let memtable = memtables[(slot >> 32) as usize];
        let entry = memtable.entry(memtable.entry_of_slot(slot as u32));
        let attrs = query
            .with_attrs
            .then(|| memtable.attrs(entry).map(str::to_owned))
            .flatten();
        Candidate {
            key,
            place: Place::Feed {
                id: memtable.id(entry).to_owned(),
                attrs,
            },
        }
    });
    (named.collect(), rows)
}

pub(super) fn scan_block(
    queries: &[Query<'_>],
    view: &SegmentView,
    block: &VectorBlock,
    feed: Option<&Arc<RoaringBitmap>>,
    number: usize,
    tops: &mut [TopK],
) {
    let first = block.first_row;
    let rows = first..first + block.rows();
    let masked = view.shadow.range_cardinality(rows.clone()) > 0
        || feed.is_some_and(|bits| bits.range_cardinality(rows.clone()) > 0);
    let hidden = |row: u32| {
        view.shadow.contains(first + row) || feed.is_some_and(|bits| bits.contains(first + row))
    };
    let mask: Option<&dyn Fn(u32) -> bool> = if masked { Some(&hidden) } else { None };
    let base = (number as u64) << 32 | u64::from(first);
    for (query, top) in queries.iter().zip(tops) {
        scan(query, block.values(), block.norms(), mask, base, top);
    }
}
