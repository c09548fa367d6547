//! Search over the lists of one or many segments, in steps that leave all reading
//! of bytes to the caller:
//!
//! 1. [`Search::begin`] brings the query into the space and builds its one table.
//! 2. [`Search::choose`] orders the lists that are worth a look.
//! 3. [`Search::scan`] reads their codes in every segment (whole objects in memory),
//!    or [`Search::scan_lists`] wherever they lie (in pages); hidden rows are passed
//!    over; the rows of smallest bound stay.
//! 4. [`Search::wave`] hands out candidates, best bounds first; the caller reads
//!    their vectors and [`Search::report`]s exact keys; waves end when no bound
//!    left could beat the k-th exact key, or when the limit of rows is reached.
//! 5. [`Search::finish`] answers the nearest k.
//!
//! One value serves one thread; its buffers are reused, so that once they have grown a
//! search allocates only its pieces (`scan.rs`), which borrow what is scanned.

mod pool;
mod scan;

pub use scan::SegmentLists;

use crate::IndexError;
use crate::centroids::{Centroids, ChooseScratch, Chosen};
use crate::space::Space;
use pool::Pool;
use vexlake_distance::{BLOCK_ROWS, Kernels, LookupTable, TopK, kernels};

/// A row that is worth an exact look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Candidate {
    /// The segment's number, as given to the scan.
    pub segment: u32,
    /// The row's slot in that segment's lists.
    pub slot: u32,
}

impl Candidate {
    #[inline]
    fn pack(segment: u32, slot: u32) -> u64 {
        u64::from(segment) << 32 | u64::from(slot)
    }

    #[inline]
    fn unpack(id: u64) -> Self {
        Self {
            segment: (id >> 32) as u32,
            slot: id as u32,
        }
    }
}

/// How much a search may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Rows wanted.
    pub k: usize,
    /// Rows looked at exactly, at most; at least k.
    pub rerank_max: usize,
    /// Standard deviations of the error below an estimate at which a row is given
    /// up: 0 trusts estimates, 3 misses one row in 700.
    pub confidence: f32,
}

impl Effort {
    /// A middle way: 2.5 instead of 2 deviations found .0007 more of the nearest on the
    /// clustered set of 768 dimensions and .0045 more on the one without clusters, for
    /// a seventh and a half more rows looked at exactly.
    pub fn for_k(k: usize) -> Self {
        Self {
            k,
            rerank_max: RERANK_MIN.max(k.saturating_mul(RERANK_PER_K)),
            confidence: CONFIDENCE,
        }
    }
}

/// Rows looked at exactly, at most, per row wanted.
const RERANK_PER_K: usize = 30;
/// And however few are wanted.
const RERANK_MIN: usize = 100;
/// See [`Effort::confidence`].
const CONFIDENCE: f32 = 2.0;

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchCounts {
    /// Lists that had rows, over all segments.
    pub lists: u64,
    /// Rows whose codes were read.
    pub scanned: u64,
    /// Rows looked at exactly.
    pub reranked: u64,
    /// Waves of exact looks.
    pub waves: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Search {
    effort: Effort,
    kernels: &'static Kernels,
    rotated: Vec<f32>,
    table: LookupTable,
    scratch: ChooseScratch,
    chosen: Vec<Chosen>,
    bounds: [f32; BLOCK_ROWS],
    sums: [u32; BLOCK_ROWS],
    pool: Pool,
    top: TopK,
    wave: Vec<Candidate>,
    counts: SearchCounts,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            effort: Effort::for_k(0),
            kernels: kernels(),
            rotated: Vec::new(),
            table: LookupTable::default(),
            scratch: ChooseScratch::default(),
            chosen: Vec::new(),
            bounds: [0.0; BLOCK_ROWS],
            sums: [0; BLOCK_ROWS],
            pool: Pool::default(),
            top: TopK::new(0),
            wave: Vec::new(),
            counts: SearchCounts::default(),
        }
    }
}

impl Search {
    /// Starts a search in a space; `BeyondCodes` where the query must be scanned
    /// exactly instead.
    pub fn begin(
        &mut self,
        space: &Space,
        query: &[f32],
        effort: Effort,
    ) -> Result<(), IndexError> {
        if query.len() != space.dim() {
            return Err(IndexError::Mismatch {
                what: "dimension of the query",
                found: query.len() as u64,
                expected: space.dim() as u64,
            });
        }
        self.rotated.resize(space.code_dim(), 0.0);
        if !space.enter(query, &mut self.rotated) {
            return Err(IndexError::BeyondCodes("the query's length"));
        }
        self.kernels = space.kernels();
        self.table.build(self.kernels, &self.rotated);
        self.table.build_planes();
        self.effort = effort;
        self.effort.rerank_max = effort.rerank_max.max(effort.k);
        self.pool.begin(self.effort.rerank_max);
        self.top = TopK::new(effort.k);
        self.wave.clear();
        self.chosen.clear();
        self.counts = SearchCounts::default();
        Ok(())
    }

    /// The `probes` nearest lists of one version, in the order in which to scan them.
    /// A collection with several versions chooses and scans for each in turn.
    pub fn choose(&mut self, centroids: &Centroids, probes: usize) -> &[Chosen] {
        centroids.choose(
            &self.rotated,
            &self.table,
            probes,
            &mut self.scratch,
            &mut self.chosen,
        );
        &self.chosen
    }

    /// Takes a row as a candidate without a look at its code, before all others: where rows
    /// are so few that exact keys of all cost less. At most `rerank_max` of them.
    pub fn admit(&mut self, candidate: Candidate) {
        let id = Candidate::pack(candidate.segment, candidate.slot);
        self.pool.admit(id);
    }

    /// The next candidates to look at exactly: at most `most`, those of the smallest
    /// bounds among the rest, in no order. Empty when the nearest k are settled, as
    /// far as bounds hold, or the limit of rows is reached. Report the keys of a
    /// wave before asking for the next.
    pub fn wave(&mut self, most: usize) -> &[Candidate] {
        let left = self.effort.rerank_max - self.counts.reranked as usize;
        self.wave.clear();
        let most = most.min(left);
        if most > 0 && self.effort.k > 0 {
            let limit = self.top.worst();
            self.pool.take(self.kernels, most, limit, &mut self.wave);
        }
        if !self.wave.is_empty() {
            self.counts.waves += 1;
            self.counts.reranked += self.wave.len() as u64;
        }
        &self.wave
    }

    /// The exact key of one candidate of the wave.
    #[inline]
    pub fn report(&mut self, candidate: Candidate, key: f32) {
        self.top
            .push(key, Candidate::pack(candidate.segment, candidate.slot));
    }

    /// The nearest k of the rows that were reported, nearest first.
    pub fn finish(&mut self) -> Vec<(f32, Candidate)> {
        let top = std::mem::replace(&mut self.top, TopK::new(0));
        let sorted = top.into_sorted().into_iter();
        sorted
            .map(|(key, id)| (key, Candidate::unpack(id)))
            .collect()
    }

    /// What was done since `begin`.
    pub fn counts(&self) -> SearchCounts {
        self.counts
    }
}
