//! Which rows of the segments a query may see: what newer records hide of them, and what its
//! filter lets pass.
//!
//! 1. Queries of a group that have the same filter share a mask; so do those without.
//! 2. What passes a filter in a segment depends on the two alone, so it is kept
//!    ([`FilterCache`]) from query to query. Missing ones read the columns that the filter
//!    names, of all segments in one round, and are evaluated side by side; rows that columns
//!    cannot judge are judged by the text of their attributes in a second round.
//! 3. Shadows are laid over it for each group, since every commit may change them.
//!
//! A filter's mask has words for every segment with rows, so that the number of rows that
//! are left is exact: the plan of the search rests on it. Without a filter, shadows become
//! words only where codes are scanned.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use futures::future::try_join_all;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rayon::prelude::*;
use ulid::Ulid;
use vexlake_index::{Filter, ListEntry};
use vexlake_segment::{FilterColumns, Passed};

use super::Group;
use super::cost::{Cost, Stage};
use crate::error::{Error, Result};
use crate::incarnation::Incarnation;
use crate::shadow;

/// Bytes of what passes filters: a million rows take 125 KB, so 500 pairs of such a segment
/// and a filter.
const CACHE_BYTES: u64 = 64 << 20;
/// A pair with a segment of 64,000 rows, which only sizes the first table.
const CACHE_ITEMS: usize = (CACHE_BYTES >> 13) as usize;
/// What an item costs beside its words.
const ITEM_OVERHEAD_BYTES: u64 = 128;
/// Texts of attributes in memory at once, where columns cannot judge a row.
const TEXTS_MAX: usize = 16_384;

/// What passes filters in segments, from query to query: bit set per row that does not.
/// Bounded by bytes. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct FilterCache(Arc<Cache<Key, Words, WordsWeighter>>);

/// A segment and the text of a filter.
type Key = (Ulid, Arc<str>);
/// Bit per row, 64 to a word.
type Words = Arc<Vec<u64>>;

#[derive(Clone)]
struct WordsWeighter;

impl Weighter<Key, Words> for WordsWeighter {
    fn weight(&self, (_, text): &Key, words: &Words) -> u64 {
        (size_of_val(words.as_slice()) + text.len()) as u64 + ITEM_OVERHEAD_BYTES
    }
}

impl Default for FilterCache {
    fn default() -> Self {
        let items = Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, WordsWeighter);
        Self(Arc::new(items))
    }
}

/// What one kind of query may see.
#[derive(Default)]
pub(super) struct Mask {
    pub(super) filter: Option<Filter>,
    /// By number of the segment, bit set per row that is not seen; all are where there is none.
    hidden: HashMap<usize, Words>,
    /// By number of the segment, the rows that are seen; known where there is a filter.
    seen: HashMap<usize, u64>,
}

impl Mask {
    /// The words of a segment, if any row of it is not seen.
    pub(super) fn hidden(&self, number: usize) -> Option<&[u64]> {
        self.hidden.get(&number).map(|words| words.as_slice())
    }

    /// The rows of a segment that are seen, where there is a filter.
    pub(super) fn seen(&self, number: usize) -> Option<u64> {
        self.filter.as_ref()?;
        Some(self.seen.get(&number).copied().unwrap_or(0))
    }

    /// Whether a segment has nothing to look at.
    pub(super) fn is_empty(&self, number: usize) -> bool {
        self.seen(number) == Some(0)
    }

    /// How many of some rows of a segment are seen.
    pub(super) fn seen_in(&self, number: usize, rows: Range<u32>) -> u64 {
        match self.hidden(number) {
            None => rows.len() as u64,
            Some(words) => rows.len() as u64 - count_ones(words, rows),
        }
    }

    /// Whether the filter lets no row of a list pass: then nobody has to read it.
    pub(super) fn passes_none(&self, number: usize, list: &ListEntry) -> bool {
        self.filter.is_some() && self.seen_in(number, list.slots()) == 0
    }

    /// The rows of a segment that are seen, of `rows` in all.
    pub(super) fn rows(&self, number: usize, rows: u32) -> impl Iterator<Item = u32> {
        let hidden = self.hidden(number);
        (0..rows.div_ceil(64)).flat_map(move |word| {
            let hidden = hidden.map_or(0, |words| words[word as usize]);
            let in_word = (rows - word * 64).min(64);
            let mut left = !hidden & (u64::MAX >> (64 - in_word));
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                (left != 0).then(|| {
                    left &= left - 1;
                    word * 64 + bit
                })
            })
        })
    }
}

/// Set bits of a range.
fn count_ones(words: &[u64], range: Range<u32>) -> u64 {
    if range.is_empty() {
        return 0;
    }
    let (first, last) = (range.start as usize / 64, (range.end - 1) as usize / 64);
    let head = u64::MAX << (range.start % 64);
    let tail = u64::MAX >> (63 - (range.end - 1) % 64);
    if first == last {
        return u64::from((words[first] & head & tail).count_ones());
    }
    let between = words[first + 1..last].iter();
    let between: u64 = between.map(|word| u64::from(word.count_ones())).sum();
    let ends = (words[first] & head).count_ones() + (words[last] & tail).count_ones();
    between + u64::from(ends)
}

/// The masks of a group.
pub(super) struct Masks {
    masks: Vec<Arc<Mask>>,
    of_query: Vec<usize>,
}

impl Masks {
    /// The mask of a query, by its place in the group.
    pub(super) fn of(&self, query: usize) -> &Arc<Mask> {
        &self.masks[self.of_query[query]]
    }

    /// Says of each query what its mask leaves of `segments`, those with rows of `all`.
    pub(super) fn count(&self, all: usize, segments: &[usize], costs: &mut [Cost]) {
        for (query, cost) in costs.iter_mut().enumerate() {
            let mask = self.of(query);
            let empty = segments.iter().filter(|number| mask.is_empty(**number));
            cost.segments_pruned = (all - segments.len() + empty.count()) as u64;
            let seen = segments.iter().filter_map(|number| mask.seen(*number));
            cost.rows_passed = seen.sum();
        }
    }
}

impl Incarnation {
    /// The masks of a group over all its segments with rows.
    pub(super) async fn masks(&self, group: &Group<'_>, segments: &[usize]) -> Result<Masks> {
        let mut masks: Vec<Mask> = Vec::new();
        let mut of_query = Vec::with_capacity(group.queries.len());
        for query in group.queries {
            let place = masks.iter().position(|mask| mask.filter == query.filter);
            of_query.push(place.unwrap_or(masks.len()));
            if place.is_none() {
                let filter = query.filter.clone();
                masks.push(Mask {
                    filter,
                    ..Mask::default()
                });
            }
        }
        for mask in &mut masks {
            let lap = group.watch.stage(Stage::Filter);
            let passing = match &mask.filter {
                Some(filter) => self.passing(group, filter, segments).await?,
                None => HashMap::new(),
            };
            tokio::task::block_in_place(|| lay_shadows(group, segments, passing, mask));
            drop(lap);
        }
        let masks = masks.into_iter().map(Arc::new).collect();
        Ok(Masks { masks, of_query })
    }

    /// Rows that do not pass a filter, by number of the segment.
    async fn passing(
        &self,
        group: &Group<'_>,
        filter: &Filter,
        segments: &[usize],
    ) -> Result<HashMap<usize, Words>> {
        let text: Arc<str> = filter.text().into();
        let key = |number: usize| (group.views[number].id(), text.clone());
        let cache = &self.context.filters.0;
        let mut passing = HashMap::with_capacity(segments.len());
        let mut missing = Vec::new();
        for number in segments {
            match cache.get(&key(*number)) {
                Some(words) => drop(passing.insert(*number, words)),
                None => missing.push(*number),
            }
        }
        let reads = missing.iter().map(|number| async move {
            let reader = &group.views[*number].reader;
            Ok::<_, Error>(reader.filter_columns(filter, group.reads).await?)
        });
        let columns: Vec<FilterColumns> = group.round(try_join_all(reads)).await?;
        let evaluated = tokio::task::block_in_place(|| {
            let evaluate = |columns: &FilterColumns| Ok::<_, Error>(columns.evaluate(filter)?);
            self.context
                .pools
                .search
                .install(|| columns.par_iter().map(evaluate).collect::<Result<Vec<_>>>())
        })?;
        drop(columns);
        let judged = missing.iter().zip(evaluated).map(|(number, passed)| async {
            let passed = judge_texts(group, filter, *number, passed).await?;
            let hidden: Vec<u64> = passed.iter().map(|word| !word).collect();
            Ok::<_, Error>((*number, Arc::new(hidden)))
        });
        for (number, words) in group.round(try_join_all(judged)).await? {
            cache.insert(key(number), words.clone());
            passing.insert(number, words);
        }
        Ok(passing)
    }
}

/// Settles the rows that columns could not judge. Answers all that pass.
async fn judge_texts(
    group: &Group<'_>,
    filter: &Filter,
    number: usize,
    Passed { mut pass, unknown }: Passed,
) -> Result<Vec<u64>> {
    let judged = Mask {
        hidden: HashMap::from([(number, Arc::new(unknown.iter().map(|word| !word).collect()))]),
        ..Mask::default()
    };
    let reader = &group.views[number].reader;
    let rows: Vec<u32> = judged.rows(number, reader.rows()).collect();
    for rows in rows.chunks(TEXTS_MAX) {
        let texts = reader.attrs(rows, group.reads).await?;
        tokio::task::block_in_place(|| {
            for (row, text) in rows.iter().zip(texts) {
                let passes = filter.matches(text.as_deref());
                pass[*row as usize / 64] |= u64::from(passes) << (row % 64);
            }
        });
    }
    Ok(pass)
}

/// Lays what newer records hide over what does not pass.
fn lay_shadows(
    group: &Group<'_>,
    segments: &[usize],
    mut passing: HashMap<usize, Words>,
    mask: &mut Mask,
) {
    for number in segments {
        let view = group.views[*number];
        let rows = view.reader.rows();
        let feed = group.shadows.get(&view.id());
        let shadow = || match feed {
            Some(feed) => Some(Arc::new(shadow::words(rows, [&*view.shadow, &**feed]))),
            None => view.hidden.clone(),
        };
        let words = match passing.remove(number) {
            None if view.reader.lists().is_some() => shadow(),
            None => None,
            Some(failing) if feed.is_none() && view.shadow.is_empty() => Some(failing),
            Some(failing) => {
                let mut words = (*failing).clone();
                let feed = feed.map(|feed| &**feed);
                shadow::add_words(&mut words, rows, feed.into_iter().chain([&*view.shadow]));
                Some(Arc::new(words))
            }
        };
        let Some(words) = words else {
            continue;
        };
        if mask.filter.is_some() {
            let seen = u64::from(rows) - count_ones(&words, 0..rows);
            mask.seen.insert(*number, seen);
        }
        mask.hidden.insert(*number, words);
    }
}
