//! Fixtures of the crate's tests: a log in memory, a lake in a temporary directory with
//! a clock that only the test moves, and the model that everything is compared with.
//!
//! The model rests on one promise of the engine: what a view shows is a pure function of
//! the log and of how far each partition was consumed. So an oracle needs no history of
//! flushes, merges or crashes; it reads the log's prefixes and sorts positions.

mod check;
mod gate;
mod log;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_manifest::{Author, Context as Components, CrashPoint, Invariants, Manifest, crash};
use vexlake_segment::{BlockCache, Position};
use vexlake_store::Store;

pub use self::check::{check, check_scope, exact_distance, same_distance, verify, violations};
pub use self::gate::{Gate, crash_at};
pub use self::log::{Change, Log, Message, Order, TableWriter};
use crate::append::{Appended, Batch, OnBad};
use crate::error::Result;
use crate::incarnation::{Context, Incarnation};
use crate::pools::Pools;
use crate::search::{FilterCache, Sampler};
use crate::state::{IncarnationState, Schema, Source};
use crate::{MergeOptions, Merged, Policy, Spec};

/// Floats of a test vector.
pub const DIM: u32 = 3;
/// When tests begin: far from 0, before any real clock.
pub const BEGIN_MS: u64 = 1_600_000_000_000;

/// A lake of one incarnation in a temporary directory.
pub struct Site {
    pub directory: TempDir,
    pub store: Store,
    pub clock: Arc<AtomicU64>,
    pub id: Ulid,
    /// What every handle of the test has counted.
    pub invariants: Arc<Invariants>,
    draws: Arc<AtomicU64>,
}

impl Site {
    /// A new incarnation of `partitions` partitions that begin at offset 0.
    pub async fn new(metric: Metric, partitions: u32) -> Self {
        Self::of(schema(metric), sources(partitions)).await
    }

    /// As [`Site::new`] with a schema and sources of the test's own.
    pub async fn of(schema: Schema, sources: BTreeMap<u32, Source>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::directory(directory.path().join("lake")).expect("a store");
        std::fs::create_dir(directory.path().join("spool")).expect("a spool");
        let id = Ulid::from_parts(BEGIN_MS, 1);
        let clock = Arc::new(AtomicU64::new(BEGIN_MS));
        let site = Self {
            directory,
            store,
            clock,
            id,
            invariants: Arc::default(),
            draws: Arc::default(),
        };
        let state = IncarnationState::new(id, "0/t".to_owned(), schema, sources);
        let context = site.context("creator", crash::none());
        let scoped = site.store.scoped(&Incarnation::prefix(id));
        Manifest::create_with(scoped, state, &context.author, context.components)
            .await
            .expect("created");
        site
    }

    /// Clock, randomness and crash points of a manifest.
    pub fn components(&self, crash: CrashPoint) -> Components {
        let (clock, draws) = (self.clock.clone(), self.draws.clone());
        Components {
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            // Distinct and scattered; the constant is 2^128 / golden ratio, which is odd.
            rng: Arc::new(move || {
                let draw = u128::from(draws.fetch_add(1, Ordering::SeqCst) + 1);
                draw.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            }),
            crash,
            invariants: self.invariants.clone(),
        }
    }

    /// A context with this crash point.
    pub fn context(&self, role: &str, crash: CrashPoint) -> Context {
        Context {
            author: Author {
                role: role.to_owned(),
                instance: "test".to_owned(),
            },
            components: self.components(crash),
            spool: self.directory.path().join("spool"),
            // One block of the tests' segments at a time: most reads go to the store.
            cache: BlockCache::new(4096),
            filters: FilterCache::default(),
            pools: Pools::new(2).expect("threads"),
            recall: Sampler::new(0.0, 0),
            warming: Arc::default(),
        }
    }

    /// Opens the incarnation anew.
    pub async fn open(&self, role: &str) -> Arc<Incarnation> {
        self.open_with(&self.store, role, crash::none())
            .await
            .expect("opened")
    }

    /// Opens the incarnation through a store, with a crash point.
    pub async fn open_with(
        &self,
        store: &Store,
        role: &str,
        crash: CrashPoint,
    ) -> Result<Arc<Incarnation>> {
        Incarnation::open(store, self.id, self.context(role, crash)).await
    }

    /// Opens the incarnation with a cache that keeps what it reads.
    pub async fn open_cached(&self) -> Arc<Incarnation> {
        let context = Context {
            cache: BlockCache::new(64 << 20),
            ..self.context("query", crash::none())
        };
        let opened = Incarnation::open(&self.store, self.id, context).await;
        opened.expect("opened")
    }

    /// Moves the clock.
    pub fn tick(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    /// Names of all objects below a prefix of the incarnation.
    pub async fn list(&self, prefix: &str) -> Vec<String> {
        let scoped = self.store.scoped(&Incarnation::prefix(self.id));
        let listed = scoped.list(prefix).await.expect("listed");
        listed.into_iter().map(|object| object.key).collect()
    }

    /// Where the lake lies.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// The tests' schema.
pub fn schema(metric: Metric) -> Schema {
    Schema {
        dim: DIM,
        metric: metric.name().to_owned(),
        format: "f32".to_owned(),
    }
}

/// One source of some partitions that begin at offset 0.
pub fn sources(partitions: u32) -> BTreeMap<u32, Source> {
    let source = Source {
        rank: 100,
        epoch: 0,
        kind: "local".to_owned(),
        cluster: "c".to_owned(),
        topic: "t".to_owned(),
        compacted: false,
        starts: (0..partitions).map(|p| (p, 0)).collect(),
    };
    BTreeMap::from([(0, source)])
}

/// Delivers `[from, to)` of a partition.
pub async fn deliver(
    to: &Incarnation,
    log: &Log,
    partition: u32,
    range: std::ops::Range<u64>,
) -> Result<Appended> {
    deliver_as(to, log, 0, partition, range).await
}

/// Delivers `[from, to)` of a partition as a source's.
pub async fn deliver_as(
    to: &Incarnation,
    log: &Log,
    source: u32,
    partition: u32,
    range: std::ops::Range<u64>,
) -> Result<Appended> {
    let (table, buffer) = log.fetch(partition, range.start, range.end);
    let buffers = [buffer.as_slice()];
    to.append(&Batch {
        source,
        partition,
        from: range.start,
        to: range.end,
        buffers: &buffers,
        table: &table,
        format: None,
        on_bad: OnBad::Pass,
    })
    .await
}

/// Delivers everything of a partition from where the feed stands.
pub async fn catch_up(to: &Incarnation, log: &Log, partition: u32) {
    let next = applied(to, partition);
    deliver(to, log, partition, next..log.end(partition))
        .await
        .expect("appended");
}

/// The next offset of a partition in the feed.
pub fn applied(of: &Incarnation, partition: u32) -> u64 {
    of.feed
        .read(|view| view.applied(0, partition))
        .expect("a partition of the test")
        .next
}

/// Merges without a bound.
pub async fn merge(handle: &Incarnation, spec: &Spec) -> Result<Merged> {
    handle
        .merge(
            spec,
            &MergeOptions::default(),
            &AtomicBool::new(false),
            &|_| {},
        )
        .await
}

/// Does whatever a spec says, without a bound.
pub async fn run_spec(handle: &Incarnation, spec: &Spec) -> Result<Merged> {
    let (never, silent) = (AtomicBool::new(false), |_| {});
    handle
        .run(spec, &MergeOptions::default(), &never, &silent)
        .await
}

/// A training on all segments.
pub fn training_of(handle: &Incarnation) -> Spec {
    Spec {
        kind: "train".to_owned(),
        replaces: handle.snapshot().state().centroids.current,
        lists: (handle.snapshot().live_rows / 2).max(1) as u32,
        ..spec_of(handle, None)
    }
}

/// A merge of these segments, or of all, that drops every delete that may go.
pub fn spec_of(handle: &Incarnation, inputs: Option<Vec<Ulid>>) -> Spec {
    let snapshot = handle.snapshot();
    let inputs = inputs.unwrap_or_else(|| snapshot.segments.keys().copied().collect());
    Spec {
        id: "test".to_owned(),
        incarnation: handle.id,
        kind: "merge".to_owned(),
        inputs,
        reason: "test".to_owned(),
        bytes_in: 0,
        predicted_bytes: 0,
        entries_in: 0,
        drop_deletes_before: snapshot.state().horizon(),
        replaces: None,
        lists: 0,
        version: snapshot.version(),
    }
}

/// A policy that always finds something to do.
pub fn eager() -> Policy {
    Policy {
        fan_in: 2,
        inputs_max: 3,
        shadow_ratio: 0.4,
        delete_retention_ms: 3,
        delete_ratio: 0.2,
        train_rows_min: 6,
        train_growth: 3.0,
        split_growth: 1.4,
        rows_per_list: 2,
        ..Policy::default()
    }
}

/// A position for unit tests.
pub fn position(partition: u32, log_time: i64, offset: u64) -> Position {
    Position {
        source: 0,
        log_time,
        partition,
        offset,
    }
}

/// Runs a test on the runtime that the engine needs.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test)
}
