//! Recall of live searches, measured: few of those that went through lists are answered
//! again exactly, once they are answered, and compared.
//!
//! 1. A search that went through lists draws a number. One that is chosen takes the turn;
//!    where another has it, or still rests, it is dropped: [`RecallCounts`] tells how many.
//! 2. What a search compares row by row (segments without lists) is exact as it is, and
//!    memtables are taken for it: their codes give up one row in 700 at the very limit. So only the segments with lists are read again, of the same snapshot under the same
//!    mask: what was written since can be no miss.
//! 3. That is done block by block, past the cache, in the background pool.
//! 4. A result counts that is as near as the last of the exact answer: which of several
//!    equally near ones is named is nobody's mistake.
//!
//! Limits: one comparison at a time, at most one twentieth of the time, and only of vectors
//! of up to [`SAMPLE_BYTES_MAX`] together. A search that is not chosen pays for the number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vexlake_distance::Metric;
use vexlake_index::Query;

use super::flat::{Scanned, scan_block};
use super::mask::Mask;
use super::{Candidate, Place, Search};
use crate::error::Result;
use crate::pools::Pools;
use crate::snapshot::{SegmentView, Snapshot};

/// Upper bounds of the histogram; beside 1, those around the recall that is promised, .98.
pub const RECALL_BOUNDS: [f64; 8] = [0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0];
/// After a comparison none begins for this many times as long as it took.
const REST: u32 = 19;
/// Vectors that one comparison reads: half a minute at 500 MB/s of a disk, under three at
/// 100 MB/s of an object store. Searches of more are not compared.
const SAMPLE_BYTES_MAX: u64 = 16 << 30;
/// By how much two kernels may differ about one distance: row kernels add in another order
/// than those of single rows. Of 1 for cosine, of the distance itself for the others.
const TIE: f32 = 1e-5;
/// 2^64 / golden ratio, odd: steps of it visit all numbers.
const WEYL: u64 = 0x9e37_79b9_7f4a_7c15;

/// What was measured since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecallCounts {
    /// Searches that were compared.
    pub compared: u64,
    /// The sum of their recall, each from 0 to 1.
    pub sum: f64,
    /// Those of them up to each of [`RECALL_BOUNDS`] and above the bound before.
    pub by_bound: [u64; RECALL_BOUNDS.len()],
    /// Searches that were chosen while another one was compared or rested after, or of
    /// too many vectors.
    pub dropped: u64,
    /// Comparisons that ended without a result: their version was swept meanwhile, or
    /// the store could not be read.
    pub failed: u64,
}

/// Chooses searches, one at a time; see the file header.
pub struct Sampler {
    /// Numbers below this choose; 0 never draws.
    threshold: u64,
    drawn: AtomicU64,
    rest: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    rests_until: Option<Instant>,
    counts: RecallCounts,
}

impl Sampler {
    /// Compares a `ratio` of searches, 0 to 1; 0 compares none. `seed` is where the row of
    /// random numbers begins.
    pub fn new(ratio: f64, seed: u64) -> Arc<Self> {
        Self::with_rest(ratio, seed, REST)
    }

    pub(crate) fn with_rest(ratio: f64, seed: u64, rest: u32) -> Arc<Self> {
        Arc::new(Self {
            // The cast saturates: all but one of the 2^64 numbers lie below the bound of 1.
            threshold: (ratio * 2f64.powi(64)) as u64,
            drawn: AtomicU64::new(seed),
            rest,
            state: Mutex::default(),
        })
    }

    /// What was measured since the start.
    pub fn counts(&self) -> RecallCounts {
        self.state.lock().counts
    }

    /// Whether a search that went through lists is chosen.
    pub(super) fn chooses(&self) -> bool {
        self.threshold > 0 && {
            let drawn = self.drawn.fetch_add(WEYL, Ordering::Relaxed);
            mixed(drawn) < self.threshold
        }
    }

    fn begin(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state.lock();
        let rests = state.rests_until.is_some_and(|end| Instant::now() < end);
        if state.running || rests {
            state.counts.dropped += 1;
            return None;
        }
        state.running = true;
        Some(Turn {
            sampler: self.clone(),
            began: Instant::now(),
            recall: None,
        })
    }
}

/// The finaliser of splitmix64: neighbouring inputs give numbers that look independent.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The right to compare; ends however the comparison does, a panic included.
struct Turn {
    sampler: Arc<Sampler>,
    began: Instant,
    recall: Option<f64>,
}

impl Turn {
    fn end(mut self, recall: f64) {
        self.recall = Some(recall);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let rest = self.began.elapsed() * self.sampler.rest;
        let mut state = self.sampler.state.lock();
        state.running = false;
        state.rests_until = (rest > Duration::ZERO).then(|| Instant::now() + rest);
        let counts = &mut state.counts;
        match self.recall {
            Some(recall) => {
                counts.compared += 1;
                counts.sum += recall;
                let bound = RECALL_BOUNDS.partition_point(|bound| *bound < recall);
                counts.by_bound[bound.min(RECALL_BOUNDS.len() - 1)] += 1;
            }
            None => counts.failed += 1,
        }
    }
}

/// An answered search with the view that it was answered on.
pub(super) struct Sample {
    pub(super) search: Search,
    pub(super) metric: Metric,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) mask: Arc<Mask>,
    /// Segments that were searched through lists, by number in the view.
    pub(super) listed: Vec<usize>,
    /// Keys of the answer.
    answered: Vec<f32>,
    /// Keys of candidates that were found by comparing every row.
    exact: Vec<f32>,
}

impl Sample {
    /// Of a search that found these candidates.
    pub(super) fn new(
        (search, metric): (&Search, Metric),
        (snapshot, mask): (&Arc<Snapshot>, &Arc<Mask>),
        listed: &[usize],
        found: &[Candidate],
    ) -> Self {
        let is_exact = |candidate: &&Candidate| match &candidate.place {
            Place::Feed { .. } => true,
            Place::Segment { number, .. } => !listed.contains(number),
        };
        let key = |candidate: &Candidate| candidate.key;
        Self {
            search: search.clone(),
            metric,
            snapshot: snapshot.clone(),
            mask: mask.clone(),
            listed: listed.to_vec(),
            answered: nearest(found.iter().map(key).collect(), search.k),
            exact: found.iter().filter(is_exact).map(key).collect(),
        }
    }

    /// Compares behind the caller's back, if it is its turn.
    pub(super) fn compare(self, sampler: &Arc<Sampler>, pools: &Pools) {
        let rows = |number: &usize| u64::from(self.views()[*number].reader.rows());
        let vector_bytes = 4 * self.search.vector.len() as u64;
        let bytes = self.listed.iter().map(rows).sum::<u64>() * vector_bytes;
        if bytes > SAMPLE_BYTES_MAX {
            sampler.state.lock().counts.dropped += 1;
            return;
        }
        let Some(turn) = sampler.begin() else {
            return;
        };
        let pools = pools.clone();
        tokio::spawn(async move {
            // Whoever reads at a swept version meets this too, and is told; here it is counted.
            if let Ok(truth) = self.truth(&pools).await {
                turn.end(recall(&self.answered, &truth, self.metric));
            }
        });
    }

    fn views(&self) -> Vec<&SegmentView> {
        self.snapshot.segments.values().collect()
    }

    /// Keys of the exact answer.
    async fn truth(&self, pools: &Pools) -> Result<Vec<f32>> {
        let query = Query::new(self.metric, &self.search.vector);
        let mut found = Scanned::new(self.search.k);
        let views = self.views();
        for number in &self.listed {
            let view = views[*number];
            for block in 0..view.reader.blocks() {
                if self.mask.seen_in(*number, view.reader.block_rows(block)) == 0 {
                    continue;
                }
                let block = view.reader.block_once(block).await?;
                pools.in_background(|| {
                    // With lists, the mask has what the feed hides.
                    let segment = (*number, view, None);
                    scan_block(&query, &self.mask, segment, &block, &mut found);
                });
            }
        }
        let mut keys = self.exact.clone();
        keys.extend(found.top.into_sorted().into_iter().map(|(key, _)| key));
        Ok(nearest(keys, self.search.k))
    }
}

fn nearest(mut keys: Vec<f32>, k: usize) -> Vec<f32> {
    keys.sort_by(f32::total_cmp);
    keys.truncate(k);
    keys
}

/// The share of the true results that an answer reaches; both ascend.
fn recall(answered: &[f32], truth: &[f32], metric: Metric) -> f64 {
    let Some(last) = truth.last() else {
        return 1.0;
    };
    let scale = match metric {
        Metric::Cosine => 1.0,
        _ => last.abs(),
    };
    let bar = last + TIE * scale;
    let reached = answered.partition_point(|key| *key <= bar);
    reached.min(truth.len()) as f64 / truth.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_count_results_as_near_as_the_last_true_one() {
        let of = |answered: &[f32], truth: &[f32]| recall(answered, truth, Metric::L2);
        assert_eq!(of(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), 1.0);
        assert_eq!(of(&[1.0, 3.0, 3.0], &[1.0, 2.0, 3.0]), 1.0);
        assert_eq!(of(&[1.0, 3.000_01, 3.1], &[1.0, 2.0, 3.0]), 2.0 / 3.0);
        assert_eq!(of(&[4.0, 5.0], &[1.0, 2.0]), 0.0);
        assert_eq!(of(&[1.0], &[1.0, 2.0]), 0.5);
        assert_eq!(of(&[], &[]), 1.0);
        assert_eq!(recall(&[1e-6], &[0.0], Metric::Cosine), 1.0);
        assert_eq!(recall(&[1e-6], &[0.0], Metric::L2), 0.0);
    }

    #[test]
    fn should_choose_about_the_ratio_asked_for() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.01, 850, 1150), (1.0, 100_000, 100_000)] {
            let sampler = Sampler::new(ratio, 7);
            let chosen = (0..100_000).filter(|_| sampler.chooses()).count();
            assert!((least..=most).contains(&chosen), "{chosen} of {ratio}");
        }
    }

    #[test]
    fn should_give_one_turn_at_a_time_and_rest_after_it() {
        let sampler = Sampler::with_rest(1.0, 0, 1_000_000);
        let turn = sampler.begin().expect("the first");
        assert!(sampler.begin().is_none(), "one has it");
        turn.end(0.96);
        assert!(sampler.begin().is_none(), "it rests");
        let counts = sampler.counts();
        assert_eq!((counts.compared, counts.dropped, counts.failed), (1, 2, 0));
        assert_eq!(
            (counts.sum, counts.by_bound),
            (0.96, [0, 0, 0, 0, 1, 0, 0, 0])
        );

        let restless = Sampler::with_rest(1.0, 0, 0);
        drop(restless.begin());
        assert_eq!(restless.counts().failed, 1);
        assert!(restless.begin().is_some());
    }
}
