//! The part of a search that goes through lists of codes.
//!
//! 1. Per query: rotate it, make its one table, choose lists of every version of centroids.
//!    A filter makes it choose more of them, as its nearest rows lie further apart; where so
//!    few rows are left that exact keys of all cost less, they are candidates at once.
//! 2. Fetch the pages of lists that are not in memory, those of all segments and queries in
//!    one round.
//! 3. Per query: scan the codes under its mask; the rows of smallest bound stay.
//! 4. In waves, compute exact keys of candidates, best bounds first, until no bound that is
//!    left could beat the k-th.
//! 5. Where fewer than k rows came of it, look at more lists: k records come back whenever
//!    k are live.
//!
//! **Rounds.** A search waits for the store three times at most: pages of lists, vectors,
//! ids. So when pages of lists had to be read, all candidates are read in one wave; when
//! they were there, a small wave first spares most of the others, and only the first wave
//! that has to read is followed by one more, of all that the bounds still leave. Waves
//! over `WAVE_BYTES_MAX` are cut, which takes many dimensions or a large k; so does 5. A
//! filter whose columns are not in memory waits for them before (`mask.rs`).

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures::future::try_join_all;
use rayon::prelude::*;
use vexlake_distance::{Metric, kernels};
use vexlake_index::{Chosen, IndexError, Search as Walk};

use super::choice::{Version, choose_passing, effort_of, few_left, probes_of, versions_of};
use super::cost::Stage;
use super::mask::{Mask, Masks};
use super::{Cost, Group};
use crate::error::{Error, Result};
use crate::incarnation::Incarnation;

/// The first wave beyond k rows, where reading can be spared.
const WAVE_EXTRA: usize = 16;
/// Vectors of a wave in memory: 5,000 of 768 dimensions.
const WAVE_BYTES_MAX: usize = 16 << 20;
/// Queries of a group that walk together: each holds its pages meanwhile, some 100 of 32 KiB
/// a segment.
const QUERIES_MAX: usize = 16;
/// By how much the lists grow where too few rows were found.
const WIDEN: u64 = 4;

/// Pages in memory for a while, by segment and page.
type Pages = HashMap<(usize, u32), Bytes>;

/// A query on its way.
struct Walker<'a> {
    /// Its place in the group.
    place: usize,
    mask: &'a Mask,
    walk: Walk,
    chosen: Vec<(&'a Version<'a>, Vec<Chosen>)>,
    /// (segment, ordinal) of the wave.
    wave: Vec<(usize, u32)>,
    ended: bool,
    /// Whether more lists would hold nothing that it has not seen.
    all_lists: bool,
}

/// What a query found: (key, number of the segment, row), nearest first.
pub(super) type Found = Vec<(f32, usize, u32)>;

impl Incarnation {
    /// Searches the segments with lists for some queries of a group. Answers by query; a
    /// query that codes cannot serve gets none, and has to be scanned exactly.
    pub(super) async fn walk_lists(
        &self,
        group: &Group<'_>,
        masks: &Masks,
        queries: &[usize],
        segments: &[usize],
        costs: &mut [Cost],
    ) -> Result<BTreeMap<usize, Found>> {
        let mut found = BTreeMap::new();
        if queries.is_empty() || segments.is_empty() {
            return Ok(found);
        }
        let versions = versions_of(group, segments);
        for part in queries.chunks(QUERIES_MAX) {
            let mut part: Vec<usize> = part.to_vec();
            let mut widened = 1;
            while !part.is_empty() {
                let walked = self.walk(group, masks, &part, &versions, widened).await?;
                widened *= WIDEN;
                part.clear();
                for (place, (rows, all_lists)) in walked {
                    let cost = &mut costs[place];
                    cost.add_walk(&rows.1);
                    // Again with more lists; what was found is found again.
                    match rows.0.len() < group.queries[place].k && !all_lists {
                        true => part.push(place),
                        false => drop(found.insert(place, rows.0)),
                    }
                }
            }
        }
        for place in found.keys() {
            let mask = masks.of(*place);
            let looked_at = segments.iter().filter(|number| !mask.is_empty(**number));
            costs[*place].segments_listed = looked_at.count() as u64;
            costs[*place].centroids = versions.len() as u64;
        }
        Ok(found)
    }

    /// One walk of some queries with `widened` times their lists: what they found, at which
    /// cost, and whether they looked at all lists.
    async fn walk(
        &self,
        group: &Group<'_>,
        masks: &Masks,
        queries: &[usize],
        versions: &[Version<'_>],
        widened: u64,
    ) -> Result<BTreeMap<usize, ((Found, Cost), bool)>> {
        let lap = group.watch.stage(Stage::Lists);
        let begin = |place: &usize| begin(group, masks, *place, versions, widened);
        let begun = self.on_search_pool(queries.len(), || match queries {
            [query] => vec![begin(query)],
            _ => queries.par_iter().map(begin).collect(),
        });
        let begun: std::result::Result<Vec<Option<Walker<'_>>>, IndexError> =
            begun.into_iter().collect();
        let mut walkers: Vec<Walker<'_>> = begun?.into_iter().flatten().collect();
        let (pages, was_read) = fetch_pages(group, &walkers).await?;
        drop(lap);
        let lap = group.watch.stage(Stage::Codes);
        self.on_search_pool(walkers.len(), || match walkers.as_mut_slice() {
            [walker] => scan(walker, &pages),
            walkers => walkers
                .par_iter_mut()
                .try_for_each(|walker| scan(walker, &pages)),
        })?;
        drop((pages, lap));
        let lap = group.watch.stage(Stage::Rerank);
        self.rerank(group, &mut walkers, was_read).await?;
        drop(lap);
        let ended = walkers.into_iter().map(|mut walker| {
            let found = walker.walk.finish().into_iter();
            let rows = found.map(|(key, candidate)| {
                let number = candidate.segment as usize;
                (key, number, ordinal(group, number, candidate.slot))
            });
            let rows: Found = rows.collect();
            let counts = walker.walk.counts();
            let cost = Cost {
                lists: counts.lists,
                rows_scanned: counts.scanned,
                rows_reranked: counts.reranked,
                waves: counts.waves,
                ..Cost::default()
            };
            (walker.place, ((rows, cost), walker.all_lists))
        });
        Ok(ended.collect())
    }

    /// Exact keys of candidates, wave by wave.
    async fn rerank(
        &self,
        group: &Group<'_>,
        walkers: &mut [Walker<'_>],
        was_read: bool,
    ) -> Result<()> {
        let dim = group.snapshot.state().schema.dim as usize;
        let most = (WAVE_BYTES_MAX / (4 * dim)).max(1);
        let mut spare = !was_read;
        loop {
            let mut wanted: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for walker in walkers.iter_mut().filter(|walker| !walker.ended) {
                let k = group.queries[walker.place].k;
                let rows = if spare { k + WAVE_EXTRA } else { most };
                let wave = walker.walk.wave(rows.min(most)).iter();
                walker.wave.clear();
                walker.wave.extend(wave.map(|candidate| {
                    let number = candidate.segment as usize;
                    (number, candidate.slot)
                }));
                walker.ended = walker.wave.is_empty();
                for (number, slot) in &walker.wave {
                    let row = ordinal(group, *number, *slot);
                    wanted.entry(*number).or_default().push(row);
                }
            }
            if wanted.is_empty() {
                return Ok(());
            }
            let before = group.reads.read().requests;
            let reads = wanted.into_iter().map(|(number, mut rows)| async move {
                rows.sort_unstable();
                rows.dedup();
                let reader = &group.views[number].reader;
                let values = reader.rows_of(&rows, group.reads).await?;
                Ok::<_, Error>((number, (rows, values)))
            });
            let read: HashMap<usize, (Vec<u32>, Vec<f32>)> = group
                .round(try_join_all(reads))
                .await?
                .into_iter()
                .collect();
            spare = spare && group.reads.read().requests == before;
            self.on_search_pool(walkers.len(), || {
                let report = |walker: &mut Walker<'_>| report(group, walker, &read, dim);
                match &mut *walkers {
                    [walker] => report(walker),
                    walkers => walkers.par_iter_mut().for_each(report),
                }
            });
        }
    }

    /// One query is answered where it came in, as the way to another thread takes longer
    /// than a stage; several share the pool.
    fn on_search_pool<T: Send>(&self, queries: usize, work: impl FnOnce() -> T + Send) -> T {
        tokio::task::block_in_place(|| match queries {
            0..=1 => work(),
            _ => self.context.pools.search.install(work),
        })
    }
}

/// `None` where codes cannot serve the query.
fn begin<'a>(
    group: &Group<'_>,
    masks: &'a Masks,
    place: usize,
    versions: &'a [Version<'a>],
    widened: u64,
) -> std::result::Result<Option<Walker<'a>>, IndexError> {
    let (query, mask) = (&group.queries[place], masks.of(place));
    let mut walk = Walk::default();
    // All versions of an incarnation lie in one space.
    let Some(first) = versions.first() else {
        return Ok(None);
    };
    let few = few_left(versions, mask);
    let mut effort = effort_of(query);
    effort.rerank_max = effort.rerank_max.max(few.unwrap_or(0) as usize);
    match walk.begin(first.centroids.space(), &query.vector, effort) {
        Err(IndexError::BeyondCodes(_)) => return Ok(None),
        begun => begun?,
    }
    let mut chosen = Vec::with_capacity(versions.len());
    let mut all_lists = true;
    for version in versions {
        if few.is_some() {
            version.admit_all(mask, &mut walk);
            continue;
        }
        let probes = probes_of(query, version, widened);
        let lists = match version.seen(mask) {
            None => walk.choose(version.centroids, probes).to_vec(),
            Some(0) => continue,
            Some(seen) => choose_passing(&mut walk, version, mask, (query.k, probes), seen),
        };
        all_lists &= lists.len() == version.centroids.count();
        chosen.push((version, lists));
    }
    Ok(Some(Walker {
        place,
        mask,
        walk,
        chosen,
        wave: Vec::new(),
        ended: false,
        all_lists,
    }))
}

fn ordinal(group: &Group<'_>, number: usize, slot: u32) -> u32 {
    let lists = group.views[number].reader.lists();
    lists.map_or(slot, |lists| lists.ordinal(slot))
}

/// The pages that the walkers need, and whether any had to be read.
async fn fetch_pages(group: &Group<'_>, walkers: &[Walker<'_>]) -> Result<(Pages, bool)> {
    let mut pages = Pages::new();
    let mut missing: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    let chosen = walkers.iter().flat_map(|walker| {
        let of = walker.chosen.iter();
        of.map(|(version, chosen)| (walker.mask, *version, chosen))
    });
    for (mask, version, chosen) in chosen {
        for (number, view) in &version.segments {
            let lists = view.reader.lists();
            let entries = chosen
                .iter()
                .filter_map(|chosen| lists.and_then(|lists| lists.entry(chosen.list)))
                .filter(|entry| !mask.passes_none(*number, entry));
            for page in entries.map(|entry| view.reader.list_page(entry)) {
                if pages.contains_key(&(*number, page)) {
                    continue;
                }
                match view.reader.held_list_page(page) {
                    Some(bytes) => drop(pages.insert((*number, page), bytes)),
                    None => missing.entry(*number).or_default().push(page),
                }
            }
        }
    }
    group.reads.add_held(pages.len() as u64);
    let was_read = !missing.is_empty();
    let reads = missing.into_iter().map(|(number, mut wanted)| async move {
        wanted.sort_unstable();
        wanted.dedup();
        let reader = &group.views[number].reader;
        let read = reader.list_pages(&wanted, group.reads).await?;
        Ok::<_, Error>((number, wanted, read))
    });
    for (number, wanted, read) in group.round(try_join_all(reads)).await? {
        let numbered = wanted.into_iter().map(|page| (number, page));
        pages.extend(numbered.zip(read));
    }
    Ok((pages, was_read))
}

/// Scans the chosen lists of a query in all segments.
fn scan(walker: &mut Walker<'_>, pages: &Pages) -> Result<()> {
    for (version, chosen) in &walker.chosen {
        let mut lists = Vec::with_capacity(chosen.len() * version.segments.len());
        for chosen in chosen {
            for (number, view) in &version.segments {
                let Some(entry) = view.reader.lists().and_then(|l| l.entry(chosen.list)) else {
                    continue;
                };
                if walker.mask.passes_none(*number, entry) {
                    continue;
                }
                let page = view.reader.list_page(entry);
                let list = view.reader.list(entry, page, &pages[&(*number, page)])?;
                let hidden = walker.mask.hidden(*number);
                lists.push((*chosen, *number as u32, entry, list, hidden));
            }
        }
        walker.walk.scan_lists(lists.into_iter());
    }
    Ok(())
}

/// Reports the exact keys of a wave.
fn report(
    group: &Group<'_>,
    walker: &mut Walker<'_>,
    read: &HashMap<usize, (Vec<u32>, Vec<f32>)>,
    dim: usize,
) {
    let query = &group.prepared[walker.place];
    for (number, slot) in &walker.wave {
        let (rows, values) = &read[number];
        let place = rows.partition_point(|row| *row < ordinal(group, *number, *slot));
        let row = &values[place * dim..(place + 1) * dim];
        let norm = match query.metric {
            Metric::Cosine => (kernels().norm)(row),
            _ => 0.0,
        };
        let candidate = vexlake_index::Candidate {
            segment: *number as u32,
            slot: *slot,
        };
        walker.walk.report(candidate, query.key(row, norm));
    }
}
