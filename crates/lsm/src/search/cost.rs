//! What a search took: counts of every one, times of those that are explained.
//!
//! Counts fall out of the work and are always there. Times are taken only where somebody
//! asked (`Incarnation::explain`): a `Watch` that is off never looks at a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What one query took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Segments searched through lists.
    pub segments_listed: u64,
    /// Segments with rows of which every row was compared.
    pub segments_exact: u64,
    /// Segments with nothing to compare: of deletes alone, or where nothing passes the filter.
    pub segments_pruned: u64,
    /// Rows of segments that pass the filter and are live; 0 without a filter.
    pub rows_passed: u64,
    /// Versions of centroids that the lists belong to.
    pub centroids: u64,
    /// Lists of codes, those of all segments counted.
    pub lists: u64,
    /// Rows compared, by code or exactly.
    pub rows_scanned: u64,
    /// Those of them that lay in memtables.
    pub memtable_rows: u64,
    /// Rows found by code and then compared exactly.
    pub rows_reranked: u64,
    /// Waves of those.
    pub waves: u64,
}

impl Cost {
    /// Adds what one walk through lists took.
    pub(super) fn add_walk(&mut self, walk: &Cost) {
        self.lists += walk.lists;
        self.rows_scanned += walk.rows_scanned;
        self.rows_reranked += walk.rows_reranked;
        self.waves += walk.waves;
    }
}

/// The parts of a search that are timed, in the order in which they run.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    Feed,
    Filter,
    Lists,
    Codes,
    Rerank,
    Exact,
    Names,
}

const STAGES: usize = Stage::Names as usize + 1;

/// Microseconds of an explained search. What is between the stages is in the total alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Fixing the view, opening an older version for it, and, last but for names, scanning its
    /// memtables.
    pub feed: u64,
    /// Laying shadows over the segments, and what the filter does not let pass.
    pub filter: u64,
    /// Choosing lists and reading their pages.
    pub lists: u64,
    /// Scanning codes.
    pub codes: u64,
    /// Reading vectors of candidates and comparing them.
    pub rerank: u64,
    /// Reading and scanning what is compared row by row.
    pub exact: u64,
    /// Reading ids and attributes of the winners.
    pub names: u64,
    /// From the query to the answer.
    pub total: u64,
}

/// Times stages, or does nothing.
pub(super) struct Watch(Option<Running>);

struct Running {
    began: Instant,
    nanos: [AtomicU64; STAGES],
}

impl Watch {
    pub(super) fn new(on: bool) -> Self {
        let running = || Running {
            began: Instant::now(),
            nanos: Default::default(),
        };
        Self(on.then(running))
    }

    /// Begins a stage, which lasts until what this answers is dropped.
    pub(super) fn stage(&self, stage: Stage) -> Option<Lap<'_>> {
        self.0.as_ref().map(|running| Lap {
            nanos: &running.nanos[stage as usize],
            began: Instant::now(),
        })
    }

    pub(super) fn read(&self) -> Option<Stages> {
        let Running { began, nanos } = self.0.as_ref()?;
        let micros = |stage: Stage| nanos[stage as usize].load(Ordering::Relaxed) / 1000;
        Some(Stages {
            feed: micros(Stage::Feed),
            filter: micros(Stage::Filter),
            lists: micros(Stage::Lists),
            codes: micros(Stage::Codes),
            rerank: micros(Stage::Rerank),
            exact: micros(Stage::Exact),
            names: micros(Stage::Names),
            total: began.elapsed().as_micros() as u64,
        })
    }
}

/// A stage that is running.
pub(super) struct Lap<'a> {
    nanos: &'a AtomicU64,
    began: Instant,
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        let nanos = self.began.elapsed().as_nanos() as u64;
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}
