//! Centroids, lists and search: bytes that come back (`codec.rs`), corruption that is
//! refused, merges that copy (`merge.rs`), training (`training.rs`), and answers that equal
//! brute force where everything is looked at (`search.rs`). Here is what they share.

mod codec;
mod coded;
mod merge;
mod search;
mod training;

use vexlake_distance::{Metric, TopK, kernels};
use vexlake_index::{
    Candidate, Centroids, Effort, EncodedRows, ListsHead, Query, Search, SegmentLists,
    TrainOptions, build_lists, scan, train,
};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::InnerProduct];

/// Rows in `groups` clumps, seeded; the dimension is any.
fn clumps(dim: usize, rows: usize, groups: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let centres: Vec<f32> = (0..groups * dim).map(|_| 2.0 * next()).collect();
    (0..rows)
        .flat_map(|row| {
            let centre = &centres[row % groups * dim..][..dim];
            centre.iter().map(|c| c + next()).collect::<Vec<f32>>()
        })
        .collect()
}

fn options(lists: usize) -> TrainOptions {
    TrainOptions {
        version: 9,
        lists,
        rounds: 4,
        seed: 3,
        threads: 1,
    }
}

struct Segment {
    head: ListsHead,
    bytes: Vec<u8>,
}

fn segment_of(centroids: &Centroids, rows: &EncodedRows, in_list_order: bool) -> Segment {
    let lists = centroids.count() as u32;
    let code_dim = centroids.space().code_dim();
    let bytes = build_lists(centroids.version(), lists, code_dim, rows, in_list_order)
        .expect("what tests build is sound");
    Segment {
        head: ListsHead::decode(&bytes).expect("what tests build is sound"),
        bytes,
    }
}

/// Everything a test needs to search `rows` as one segment.
struct Built {
    metric: Metric,
    dim: usize,
    rows: Vec<f32>,
    norms: Vec<f32>,
    centroids: Centroids,
    segment: Segment,
}

impl Built {
    fn new(metric: Metric, dim: usize, rows: Vec<f32>, lists: usize) -> Self {
        let centroids =
            train(metric, dim, &rows, &options(lists)).expect("what tests build is sound");
        let segment = segment_of(
            &centroids,
            &centroids
                .encode(&rows, 1)
                .expect("what tests build is sound"),
            false,
        );
        let norms = rows.chunks_exact(dim).map(kernels().norm).collect();
        Self {
            metric,
            dim,
            rows,
            norms,
            centroids,
            segment,
        }
    }

    /// The nearest by lists: (key, row).
    fn search(
        &self,
        query: &[f32],
        effort: Effort,
        probes: usize,
        hidden: Option<&[u64]>,
    ) -> Vec<(f32, u64)> {
        let mut search = Search::default();
        self.run(&mut search, query, effort, probes, hidden);
        let found = search.finish().into_iter();
        found
            .map(|(key, candidate)| (key, u64::from(self.segment.head.ordinal(candidate.slot))))
            .collect()
    }

    /// A search up to its last exact look.
    fn run(
        &self,
        search: &mut Search,
        query: &[f32],
        effort: Effort,
        probes: usize,
        hidden: Option<&[u64]>,
    ) {
        search
            .begin(self.centroids.space(), query, effort)
            .expect("what tests build is sound");
        search.choose(&self.centroids, probes);
        search.scan(&[SegmentLists {
            segment: 0,
            head: &self.segment.head,
            bytes: &self.segment.bytes,
            hidden,
        }]);
        rerank(search, |candidate| {
            self.key(query, self.segment.head.ordinal(candidate.slot) as usize)
        });
    }

    fn key(&self, query: &[f32], row: usize) -> f32 {
        let vector = &self.rows[row * self.dim..][..self.dim];
        Query::new(self.metric, query).key(vector, self.norms[row])
    }

    fn exact(&self, query: &[f32], k: usize, hidden: &dyn Fn(u32) -> bool) -> Vec<(f32, u64)> {
        let mut top = TopK::new(k);
        let query = Query::new(self.metric, query);
        scan(&query, &self.rows, &self.norms, Some(hidden), 0, &mut top);
        top.into_sorted()
    }
}

/// The same rows up to equal keys, and the same keys up to rounding: the flat scan
/// takes four rows at a time, so its sums differ in the last bits.
#[track_caller]
fn assert_same(found: &[(f32, u64)], exact: &[(f32, u64)], what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (found, exact) in found.iter().zip(exact) {
        let near = (found.0 - exact.0).abs() <= 1e-4 * exact.0.abs().max(1.0);
        assert!(
            near || found.0 == exact.0,
            "{what}: {found:?} for {exact:?}"
        );
    }
}

fn rerank(search: &mut Search, key: impl Fn(Candidate) -> f32) {
    loop {
        let wave = search.wave(7).to_vec();
        if wave.is_empty() {
            return;
        }
        for candidate in wave {
            search.report(candidate, key(candidate));
        }
    }
}

fn everything(k: usize) -> Effort {
    Effort {
        k,
        rerank_max: usize::MAX,
        confidence: 1e9,
    }
}
