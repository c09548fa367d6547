//! Exact top-k over a view: snapshot segments and the feed.
//!
//! 1. Under the feed's lock: take the snapshot and the feed's shadows, scan the
//!    memtables, copy the candidates out. That fixes the view of every query in the
//!    group; the lock is held for one scan of the memtables.
//! 2. Scan the blocks of all segments on the search pool, for all queries of the group,
//!    so pipelined requests share the pass over memory: first what the cache holds, in
//!    one go, then the missing blocks in waves of parallel reads.
//! 3. Merge, name the rows, and read attributes of the winners where asked.
//!
//! Hidden rows are masked during the scan, never removed afterwards, so k results
//! come back whenever k records are live.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use rayon::prelude::*;
use roaring::RoaringBitmap;
use ulid::Ulid;
use vexlake_distance::{Metric, TopK};
use vexlake_index::{Query, scan};
use vexlake_segment::VectorBlock;

use crate::error::{Error, Result};
use crate::feed::View;
use crate::incarnation::{Incarnation, VIEWS_MAX, overtaken};
use crate::snapshot::{SegmentView, Snapshot};

/// Results that one query may ask for.
pub const K_MAX: usize = 10_000;
/// Missing blocks in flight between store and scan: 64 MiB of a megabyte each.
const WAVE_BLOCKS: usize = 64;
/// Reads at once when blocks are missing: enough to hide the latency of an object store.
const READS_MAX: usize = 16;

/// What a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Newest snapshot and everything this process has consumed since.
    Fresh,
    /// Newest snapshot only.
    Snapshot,
    /// An older version.
    At(u64),
}

/// One query.
#[derive(Clone, Debug)]
pub struct Search {
    /// dim floats.
    pub vector: Vec<f32>,
    /// Results wanted, 1..=[`K_MAX`].
    pub k: usize,
    /// Smallest score wanted.
    pub score_min: Option<f32>,
    /// Whether to return attributes.
    pub with_attrs: bool,
}

/// One result.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Key of the record.
    pub id: String,
    /// Smaller is nearer.
    pub distance: f32,
    /// Larger is better.
    pub score: f32,
    /// Attributes, when asked for and present.
    pub attrs: Option<String>,
}

/// The answers to a group of queries on one view.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Version of the snapshot.
    pub version: u64,
    /// One list per query, nearest first.
    pub hits: Vec<Vec<Hit>>,
    /// Rows compared, all queries together.
    pub rows_scanned: u64,
}

/// A block in memory, and the number of its segment in the view.
type Loaded = (usize, Arc<VectorBlock>);
/// Feed shadows by segment.
type Shadows = HashMap<Ulid, Arc<RoaringBitmap>>;

struct Candidate {
    key: f32,
    place: Place,
}

enum Place {
    Feed { id: String, attrs: Option<String> },
    Segment { number: usize, row: u32 },
}

impl Incarnation {
    /// Answers a group of queries on one consistent view; see the file header.
    ///
    /// # Errors
    /// `INVALID` for a wrong dimension, a non-finite component or k out of range;
    /// `NOT_FOUND` for a version that is gone; read errors.
    pub async fn search(&self, queries: &[Search], scope: Scope) -> Result<Answers> {
        for _ in 0..VIEWS_MAX {
            let version = self.oldest_of(scope);
            match self.search_view(queries, scope).await {
                Err(error) => self.leave_swept(error, version).await?,
                answered => return answered,
            }
        }
        Err(overtaken())
    }

    /// The version that a read begun now uses at the least.
    pub(crate) fn oldest_of(&self, scope: Scope) -> u64 {
        match scope {
            Scope::At(version) => version,
            Scope::Fresh | Scope::Snapshot => self.snapshot().version(),
        }
    }

    async fn search_view(&self, queries: &[Search], scope: Scope) -> Result<Answers> {
        let schema = self.manifest.head().state.schema.clone();
        let metric = schema.metric();
        for query in queries {
            self.check(query)?;
        }
        let prepared: Vec<Query<'_>> = queries
            .iter()
            .map(|q| Query::new(metric, &q.vector))
            .collect();
        let (snapshot, shadows, mut found, mut rows) =
            self.begin(queries, &prepared, scope).await?;
        let views: Vec<&SegmentView> = snapshot.segments.values().collect();
        let (tops, scanned) = self
            .scan_segments(queries, &prepared, &views, &shadows)
            .await?;
        rows += scanned;
        for (list, top) in found.iter_mut().zip(tops) {
            list.extend(top.into_sorted().into_iter().map(|(key, id)| {
                let place = Place::Segment {
                    number: (id >> 32) as usize,
                    row: id as u32,
                };
                Candidate { key, place }
            }));
        }
        let mut hits = Vec::with_capacity(queries.len());
        for (query, list) in queries.iter().zip(found) {
            hits.push(finish(query, metric, list, &views).await?);
        }
        Ok(Answers {
            version: snapshot.version(),
            hits,
            rows_scanned: rows,
        })
    }

    /// Fixes the view and scans its feed.
    async fn begin(
        &self,
        queries: &[Search],
        prepared: &[Query<'_>],
        scope: Scope,
    ) -> Result<(Arc<Snapshot>, Shadows, Vec<Vec<Candidate>>, u64)> {
        let none = || queries.iter().map(|_| Vec::new()).collect();
        Ok(match scope {
            Scope::Snapshot => (self.snapshot(), Shadows::new(), none(), 0),
            Scope::At(version) => (self.at(version).await?, Shadows::new(), none(), 0),
            Scope::Fresh => tokio::task::block_in_place(|| {
                self.feed.read(|view| {
                    let mut rows = 0;
                    let per_query = |(query, prepared): (&Search, &Query<'_>)| {
                        let (list, scanned) = scan_feed(view, query, prepared);
                        rows += scanned;
                        list
                    };
                    let found = queries.iter().zip(prepared).map(per_query).collect();
                    (view.snapshot.clone(), view.shadows.clone(), found, rows)
                })
            }),
        })
    }

    /// Scans every block of the segments: those in memory in one go, since a search over a
    /// warm cache must not stop to wait, the others in waves as they are read.
    async fn scan_segments(
        &self,
        queries: &[Search],
        prepared: &[Query<'_>],
        views: &[&SegmentView],
        shadows: &Shadows,
    ) -> Result<(Vec<TopK>, u64)> {
        let mut tops: Vec<TopK> = queries.iter().map(|q| TopK::new(q.k)).collect();
        let (mut ready, mut missing) = (Vec::new(), Vec::new());
        for (number, view) in views.iter().enumerate() {
            for block in 0..view.reader.blocks() {
                match view.reader.cached_block(block) {
                    Some(found) => ready.push((number, found)),
                    None => missing.push((number, block)),
                }
            }
        }
        let rows_of =
            |blocks: &[Loaded]| blocks.iter().map(|(_, b)| u64::from(b.rows())).sum::<u64>();
        let mut rows = rows_of(&ready);
        self.scan_blocks(prepared, views, shadows, &ready, &mut tops);
        drop(ready);
        for wave in missing.chunks(WAVE_BLOCKS) {
            // Collected first: a stream that holds a borrowing closure is not Send for every lifetime.
            let read = async |number: usize, block: usize| {
                Ok::<_, Error>((number, views[number].reader.block(block).await?))
            };
            let reads: Vec<_> = wave
                .iter()
                .map(|(number, block)| read(*number, *block))
                .collect();
            let loaded: Vec<Loaded> = futures::stream::iter(reads)
                .buffered(READS_MAX)
                .try_collect()
                .await?;
            rows += rows_of(&loaded);
            self.scan_blocks(prepared, views, shadows, &loaded, &mut tops);
        }
        Ok((tops, rows * queries.len() as u64))
    }

    /// Scans loaded blocks on the search pool and merges into `tops`.
    fn scan_blocks(
        &self,
        prepared: &[Query<'_>],
        views: &[&SegmentView],
        shadows: &Shadows,
        loaded: &[Loaded],
        tops: &mut Vec<TopK>,
    ) {
        let scan_all = |mut tops: Vec<TopK>, (number, block): &Loaded| {
            let (view, number) = (views[*number], *number);
            let feed = shadows.get(&view.id());
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

    /// Whether a query fits this incarnation.
    ///
    /// # Errors
    /// `INVALID`, naming the field and both values.
    pub fn check(&self, query: &Search) -> Result<()> {
        let (k, given, dim) = (
            query.k,
            query.vector.len(),
            self.manifest.head().state.schema.dim,
        );
        if given != dim as usize {
            return Err(Error::Invalid(format!(
                "vector has dimension {given}, the collection has {dim}"
            )));
        }
        if let Some(at) = query.vector.iter().position(|x| !x.is_finite()) {
            let component = query.vector[at];
            return Err(Error::Invalid(format!(
                "vector component {at} is {component}, not a finite number"
            )));
        }
        if k == 0 || k > K_MAX {
            return Err(Error::Invalid(format!(
                "k is {k}, allowed are 1 to {K_MAX}"
            )));
        }
        Ok(())
    }
}

fn scan_feed(view: &View, query: &Search, prepared: &Query<'_>) -> (Vec<Candidate>, u64) {
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

fn scan_block(
    queries: &[Query<'_>],
    view: &SegmentView,
    block: &VectorBlock,
    feed: Option<&Arc<RoaringBitmap>>,
    number: usize,
    tops: &mut [TopK],
) {
    let first = block.first_row;
    let rows = first..first + block.rows();
    let norms = &view.reader.norms()[rows.start as usize..rows.end as usize];
    let masked = view.shadow.range_cardinality(rows.clone()) > 0
        || feed.is_some_and(|bits| bits.range_cardinality(rows.clone()) > 0);
    let hidden = |row: u32| {
        view.shadow.contains(first + row) || feed.is_some_and(|bits| bits.contains(first + row))
    };
    let mask: Option<&dyn Fn(u32) -> bool> = if masked { Some(&hidden) } else { None };
    let base = (number as u64) << 32 | u64::from(first);
    for (query, top) in queries.iter().zip(tops) {
        scan(query, block.values(), norms, mask, base, top);
    }
}

async fn finish(
    query: &Search,
    metric: Metric,
    mut list: Vec<Candidate>,
    views: &[&SegmentView],
) -> Result<Vec<Hit>> {
    list.sort_by(|a, b| a.key.partial_cmp(&b.key).unwrap_or(Ordering::Equal));
    list.truncate(query.k);
    if let Some(min) = query.score_min {
        list.retain(|candidate| metric.score(candidate.key) >= min);
    }
    let mut attrs: HashMap<(usize, u32), String> = HashMap::new();
    if query.with_attrs {
        let mut wanted: HashMap<usize, Vec<u32>> = HashMap::new();
        for candidate in &list {
            if let Place::Segment { number, row } = candidate.place {
                wanted.entry(number).or_default().push(row);
            }
        }
        for (number, rows) in wanted {
            let texts = views[number].reader.attrs(&rows).await?;
            let named = rows.into_iter().zip(texts);
            attrs.extend(named.filter_map(|(row, text)| Some(((number, row), text?))));
        }
    }
    Ok(list
        .into_iter()
        .map(|Candidate { key, place }| {
            let (id, attrs) = match place {
                Place::Feed { id, attrs } => (id, attrs),
                Place::Segment { number, row } => (
                    views[number].reader.id(row).to_owned(),
                    attrs.remove(&(number, row)),
                ),
            };
            Hit {
                id,
                distance: metric.distance(key),
                score: metric.score(key),
                attrs,
            }
        })
        .collect())
}

#[cfg(test)]
mod tests;
