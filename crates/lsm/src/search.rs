//! Search over a view: snapshot segments and the feed, exact or through lists.
//!
//! 1. Under the feed's lock: take references to the snapshot, to the feed's shadows and to
//!    the rows of its memtables (`feed/fixed.rs`). That fixes the view of every query in the
//!    group. The memtables are scanned after the lock is released.
//! 2. Which rows of the segments each query may see: shadows and filters become masks
//!    (`search/mask.rs`).
//! 3. Segments with lists: read the codes of the lists that are worth a look, then the
//!    vectors of the best rows (`search/listed.rs`). A query that asks for the truth does
//!    not go there.
//! 4. All else exactly: blocks of segments without lists, of all segments for the truth
//!    (`search/flat.rs`), for all queries of the group at once, so that pipelined requests
//!    share the pass over memory.
//! 5. Merge, and in one round for the whole group read ids and, where asked, attributes
//!    of the winners.
//!
//! Rows that a query may not see are masked during the scan, never removed afterwards, so k
//! results come back whenever k records are live and pass the filter.

mod choice;
mod cost;
mod flat;
mod listed;
mod mask;
mod recall;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64};

use futures::future::{try_join, try_join_all};
use roaring::RoaringBitmap;
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_index::{Filter, Query};
use vexlake_segment::{ReadCounts, Reads};

pub use self::choice::EF_DEFAULT;
pub use self::cost::{Cost, Stages};
use self::cost::{Stage, Watch};
use self::flat::{Scanned, scan_feed};
pub use self::mask::FilterCache;
use self::recall::Sample;
pub use self::recall::{RECALL_BOUNDS, RecallCounts, Sampler};

use crate::error::{Error, Result};
use crate::feed::View;
use crate::incarnation::{Incarnation, VIEWS_MAX, overtaken};
use crate::snapshot::{SegmentView, Snapshot};

/// Results that one query may ask for.
pub const K_MAX: usize = 10_000;
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
    /// `EF`: scales what a search through lists looks at around [`EF_DEFAULT`].
    pub effort: Option<u32>,
    /// `TRUTH`: whether to compare every row.
    pub truth: bool,
    /// What attributes of results must satisfy.
    pub filter: Option<Filter>,
}

impl Search {
    /// The k nearest of all, with nothing else asked for.
    pub fn new(vector: Vec<f32>, k: usize) -> Self {
        Self {
            vector,
            k,
            score_min: None,
            with_attrs: false,
            effort: None,
            truth: false,
            filter: None,
        }
    }
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
    /// What each query took.
    pub costs: Vec<Cost>,
    /// Rows compared, by code or exactly, all queries together.
    pub rows_scanned: u64,
    /// Times that the group waited for the store.
    pub rounds: u64,
    /// What the group read.
    pub reads: Reads,
    /// Where the time went; only of an explained search.
    pub stages: Option<Stages>,
}

/// Feed shadows by segment.
type Shadows = HashMap<Ulid, Arc<RoaringBitmap>>;

/// A group of queries on its view.
struct Group<'a> {
    queries: &'a [Search],
    prepared: &'a [Query<'a>],
    snapshot: &'a Snapshot,
    views: &'a [&'a SegmentView],
    shadows: &'a Shadows,
    reads: &'a ReadCounts,
    rounds: &'a AtomicU64,
    watch: &'a Watch,
}

impl Group<'_> {
    /// Waits for reads that do not depend on each other; counts where the store was asked.
    async fn round<T>(&self, reads: impl Future<Output = T>) -> T {
        let before = self.reads.read().requests;
        let read = reads.await;
        let asked = self.reads.read().requests > before;
        self.rounds
            .fetch_add(u64::from(asked), atomic::Ordering::Relaxed);
        read
    }
}

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
        self.search_timed(queries, scope, false).await
    }

    /// Answers one query as [`Incarnation::search`] does, alone and with times of its stages.
    ///
    /// # Errors
    /// As a search.
    pub async fn explain(&self, query: &Search, scope: Scope) -> Result<Answers> {
        let alone = std::slice::from_ref(query);
        self.search_timed(alone, scope, true).await
    }

    async fn search_timed(&self, queries: &[Search], scope: Scope, timed: bool) -> Result<Answers> {
        for _ in 0..VIEWS_MAX {
            let version = self.oldest_of(scope);
            match self.search_view(queries, scope, Watch::new(timed)).await {
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

    async fn search_view(&self, queries: &[Search], scope: Scope, watch: Watch) -> Result<Answers> {
        let schema = self.manifest.head().state.schema.clone();
        let metric = schema.metric();
        for query in queries {
            self.check(query)?;
        }
        let prepared: Vec<Query<'_>> = queries
            .iter()
            .map(|q| Query::new(metric, &q.vector))
            .collect();
        let lap = watch.stage(Stage::Feed);
        let (snapshot, shadows, mut found, mut costs) =
            self.begin(queries, &prepared, scope).await?;
        drop(lap);
        let views: Vec<&SegmentView> = snapshot.segments.values().collect();
        let (reads, rounds) = (ReadCounts::default(), AtomicU64::new(0));
        let group = Group {
            queries,
            prepared: &prepared,
            snapshot: &snapshot,
            views: &views,
            shadows: &shadows,
            reads: &reads,
            rounds: &rounds,
            watch: &watch,
        };
        let has_rows = |number: &usize| views[*number].reader.rows() > 0;
        let has_lists = |number: &usize| views[*number].reader.lists().is_some();
        let with_rows: Vec<usize> = (0..views.len()).filter(has_rows).collect();
        let masks = self.masks(&group, &with_rows).await?;
        let (listed, flat): (Vec<usize>, Vec<usize>) =
            with_rows.iter().copied().partition(has_lists);
        for (query, cost) in costs.iter_mut().enumerate() {
            let mask = masks.of(query);
            let empty = with_rows.iter().filter(|number| mask.is_empty(**number));
            cost.segments_pruned = (views.len() - with_rows.len() + empty.count()) as u64;
            let seen = with_rows.iter().filter_map(|number| mask.seen(*number));
            cost.rows_passed = seen.sum();
        }
        let everybody: Vec<usize> = (0..queries.len()).collect();
        let by_code: Vec<usize> = everybody
            .iter()
            .copied()
            .filter(|q| !queries[*q].truth)
            .collect();
        let walked = self
            .walk_lists(&group, &masks, &by_code, &listed, &mut costs)
            .await?;
        let exact = everybody
            .iter()
            .copied()
            .filter(|q| !walked.contains_key(q));
        let exact: Vec<usize> = exact.collect();
        for (query, rows) in walked {
            let place = |(key, number, row)| Candidate {
                key,
                place: Place::Segment { number, row },
            };
            found[query].extend(rows.into_iter().map(place));
        }
        let lap = watch.stage(Stage::Exact);
        for (scanning, segments) in [(&everybody, &flat), (&exact, &listed)] {
            let scanned = self
                .scan_segments(&group, &masks, scanning, segments)
                .await?;
            for (query, Scanned { top, rows }) in scanning.iter().zip(scanned) {
                let looked_at = segments.iter().filter(|n| !masks.of(*query).is_empty(**n));
                costs[*query].rows_scanned += rows;
                costs[*query].segments_exact += looked_at.count() as u64;
                found[*query].extend(top.into_sorted().into_iter().map(|(key, id)| {
                    let place = Place::Segment {
                        number: (id >> 32) as usize,
                        row: id as u32,
                    };
                    Candidate { key, place }
                }));
            }
        }
        drop(lap);
        let sampler = &self.context.recall;
        let by_lists = |query: &&usize| costs[**query].segments_listed > 0;
        for query in by_code.iter().filter(by_lists) {
            if sampler.chooses() {
                let search = (&queries[*query], metric);
                let sample = Sample::new(
                    search,
                    (&snapshot, masks.of(*query)),
                    &listed,
                    &found[*query],
                );
                sample.compare(sampler, &self.context.pools);
            }
        }
        let lap = watch.stage(Stage::Names);
        let hits = finish(&group, metric, found).await?;
        drop(lap);
        Ok(Answers {
            version: snapshot.version(),
            hits,
            rows_scanned: costs.iter().map(|cost| cost.rows_scanned).sum(),
            costs,
            rounds: rounds.into_inner(),
            reads: reads.read(),
            stages: watch.read(),
        })
    }

    /// Fixes the view and scans its feed.
    async fn begin(
        &self,
        queries: &[Search],
        prepared: &[Query<'_>],
        scope: Scope,
    ) -> Result<(Arc<Snapshot>, Shadows, Vec<Vec<Candidate>>, Vec<Cost>)> {
        let none = || queries.iter().map(|_| Vec::new()).collect();
        let free = vec![Cost::default(); queries.len()];
        Ok(match scope {
            Scope::Snapshot => (self.snapshot(), Shadows::new(), none(), free),
            Scope::At(version) => (self.at(version).await?, Shadows::new(), none(), free),
            Scope::Fresh => {
                let view = self.feed.read(View::fixed);
                let (found, costs) =
                    tokio::task::block_in_place(|| scan_feed(&view.tables, queries, prepared));
                (view.snapshot, view.shadows, found, costs)
            }
        })
    }

    /// Whether a query fits this incarnation.
    ///
    /// # Errors
    /// `INVALID`, naming the field and both values.
    pub fn check(&self, query: &Search) -> Result<()> {
        let k = query.k;
        check_vector(
            &query.vector,
            self.manifest.head().state.schema.dim as usize,
        )?;
        if k == 0 || k > K_MAX {
            return Err(Error::Invalid(format!(
                "k is {k}, allowed are 1 to {K_MAX}"
            )));
        }
        Ok(())
    }
}

/// Whether a vector may be stored and searched where vectors have `dim` components.
///
/// # Errors
/// `INVALID`, naming the field and both values.
pub fn check_vector(vector: &[f32], dim: usize) -> Result<()> {
    if vector.len() != dim {
        let given = vector.len();
        return Err(Error::Invalid(format!(
            "vector has dimension {given}, the collection has {dim}"
        )));
    }
    if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
        let component = vector[at];
        return Err(Error::Invalid(format!(
            "vector component {at} is {component}, not a finite number"
        )));
    }
    Ok(())
}

/// Winners of one segment, those of all queries together.
#[derive(Default)]
struct Winners {
    rows: Vec<u32>,
    /// Those of queries that want attributes.
    rows_with_attrs: Vec<u32>,
}

/// Cuts the lists to what was asked for and names what is left.
async fn finish(
    group: &Group<'_>,
    metric: Metric,
    mut lists: Vec<Vec<Candidate>>,
) -> Result<Vec<Vec<Hit>>> {
    let queries = group.queries;
    let mut winners: BTreeMap<usize, Winners> = BTreeMap::new();
    for (query, list) in queries.iter().zip(&mut lists) {
        list.sort_by(|a, b| a.key.partial_cmp(&b.key).unwrap_or(Ordering::Equal));
        list.truncate(query.k);
        if let Some(min) = query.score_min {
            list.retain(|candidate| metric.score(candidate.key) >= min);
        }
        for candidate in list {
            if let Place::Segment { number, row } = candidate.place {
                let of_segment = winners.entry(number).or_default();
                of_segment.rows.push(row);
                if query.with_attrs {
                    of_segment.rows_with_attrs.push(row);
                }
            }
        }
    }
    let reads = winners.iter().map(|(number, winners)| async move {
        let reader = &group.views[*number].reader;
        let ids = reader.ids(&winners.rows, group.reads);
        let attrs = reader.attrs(&winners.rows_with_attrs, group.reads);
        let (ids, attrs) = try_join(ids, attrs).await?;
        Ok::<_, Error>((*number, (ids.into_iter(), attrs.into_iter())))
    });
    let mut named: HashMap<usize, _> = group
        .round(try_join_all(reads))
        .await?
        .into_iter()
        .collect();
    let mut finished = Vec::with_capacity(lists.len());
    for (query, list) in queries.iter().zip(lists) {
        let mut hits = Vec::with_capacity(list.len());
        for Candidate { key, place } in list {
            let (id, attrs) = match place {
                Place::Feed { id, attrs } => (id, attrs),
                Place::Segment { number, .. } => {
                    // In the order in which they were asked for above.
                    let (ids, attrs) = named.get_mut(&number).expect("asked for above");
                    let attrs = if query.with_attrs { attrs.next() } else { None };
                    (ids.next().unwrap_or_default(), attrs.flatten())
                }
            };
            hits.push(Hit {
                id,
                distance: metric.distance(key),
                score: metric.score(key),
                attrs,
            });
        }
        finished.push(hits);
    }
    Ok(finished)
}

#[cfg(test)]
mod tests;
