//! Fixtures of the crate's tests: a log in memory, a lake in a temporary directory with
//! a clock that only the test moves, and the model that everything is compared with.
//!
//! The model rests on one promise of the engine: what a view shows is a pure function of
//! the log and of how far each partition was consumed. So an oracle needs no history of
//! flushes, merges or crashes; it reads the log's prefixes and sorts positions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_index::Query;
use vexlake_manifest::{Author, Context as Components, CrashPoint, Manifest, crash};
use vexlake_segment::{Position, VectorCache, key_hash};
use vexlake_store::Store;

use crate::append::{Appended, Batch, OnBad};
use crate::error::Result;
use crate::incarnation::{Context, Incarnation, Pools};
use crate::record::RECORD_ENTRY_BYTES;
use crate::state::{IncarnationState, Schema, Source};
use crate::{MergeOptions, Merged, Policy, Scope, Search, Spec, Verification, Want};

/// Floats of a test vector.
pub const DIM: u32 = 3;
/// When tests begin: far from 0, before any real clock.
pub const BEGIN_MS: u64 = 1_600_000_000_000;

/// What a message does.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Upsert with or without attributes.
    Upsert([f32; 3], Option<String>),
    /// Delete by a null value.
    Delete,
    /// Replaces the vector.
    SetVector([f32; 3]),
    /// Replaces or (empty) takes away the attributes.
    SetAttrs(String),
    /// A vector of two floats.
    Bad,
    /// An offset without a message.
    Gap,
}

/// One offset of the log.
#[derive(Clone, Debug)]
pub struct Message {
    pub key: String,
    pub timestamp: i64,
    pub change: Change,
}

/// An append-only log of some partitions; an offset is an index.
#[derive(Clone, Debug, Default)]
pub struct Log(pub BTreeMap<u32, Vec<Message>>);

impl Log {
    /// Appends a message; returns its offset.
    pub fn put(&mut self, partition: u32, key: &str, timestamp: i64, change: Change) -> u64 {
        let messages = self.0.entry(partition).or_default();
        messages.push(Message { key: key.to_owned(), timestamp, change });
        messages.len() as u64 - 1
    }

    /// An upsert whose vector tells the number.
    pub fn upsert(&mut self, partition: u32, key: &str, timestamp: i64, number: u64) -> u64 {
        let n = number as f32;
        let attrs = format!("{{\"n\":{number}}}");
        self.put(partition, key, timestamp, Change::Upsert([n, n + 1.0, 1.0], Some(attrs)))
    }

    /// One past the last offset.
    pub fn end(&self, partition: u32) -> u64 {
        self.0.get(&partition).map_or(0, |messages| messages.len() as u64)
    }

    /// The table and the buffer of `[from, to)`.
    pub fn fetch(&self, partition: u32, from: u64, to: u64) -> (Vec<u8>, Vec<u8>) {
        let mut batch = TableWriter::default();
        let empty = Vec::new();
        let messages = self.0.get(&partition).unwrap_or(&empty);
        for offset in from..to.min(messages.len() as u64) {
            batch.push(offset as i64, &messages[offset as usize]);
        }
        (batch.table, batch.buffer)
    }
}

/// Writes record entries as the services do.
#[derive(Default)]
pub struct TableWriter {
    pub table: Vec<u8>,
    pub buffer: Vec<u8>,
}

impl TableWriter {
    /// Appends one entry; a gap appends none.
    pub fn push(&mut self, offset: i64, message: &Message) {
        let floats = |vector: &[f32]| vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (value, op, attrs) = match &message.change {
            Change::Gap => return,
            Change::Delete => (None, None, None),
            Change::Upsert(vector, attrs) => (Some(floats(vector)), None, attrs.clone()),
            Change::SetVector(vector) => (Some(floats(vector)), Some("set-vector"), None),
            Change::SetAttrs(attrs) => (Some(Vec::new()), Some("set-attrs"), Some(attrs.clone())),
            Change::Bad => (Some(floats(&[1.0, 2.0])), None, None),
        };
        let write = Some(format!("w{offset}").into_bytes());
        let attrs = attrs.map(String::into_bytes);
        let op = op.map(|word| word.as_bytes().to_vec());
        let key = Some(message.key.clone().into_bytes());
        self.entry(offset, message.timestamp, [key, value, None, attrs, op, None, write]);
    }

    /// Appends one entry from its spans: key, value, format, attrs, op, event time, write.
    pub fn entry(&mut self, offset: i64, timestamp: i64, spans: [Option<Vec<u8>>; 7]) {
        let before = self.table.len();
        self.table.extend(offset.to_le_bytes());
        self.table.extend(timestamp.to_le_bytes());
        for span in spans {
            let numbers = match &span {
                None => [u32::MAX, 0, 0],
                Some(bytes) => [0, self.buffer.len() as u32, bytes.len() as u32],
            };
            numbers.iter().for_each(|number| self.table.extend(number.to_le_bytes()));
            self.buffer.extend(span.unwrap_or_default());
        }
        assert_eq!(self.table.len() - before, RECORD_ENTRY_BYTES);
    }
}

/// A live record of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub vector: [f32; 3],
    pub attrs: Option<String>,
    pub partition: u32,
    pub offset: u64,
}

/// Newest position of each key and what it says; `None` = deleted.
pub type Model = BTreeMap<String, Option<Live>>;

/// What a reader must see who consumed `[0, ends[p])` of each partition.
pub fn model(log: &Log, ends: &BTreeMap<u32, u64>) -> Model {
    let mut newest: BTreeMap<String, ((i64, u32, u64), Option<Live>)> = BTreeMap::new();
    for (partition, messages) in &log.0 {
        let (partition, end) = (*partition, ends.get(partition).copied().unwrap_or(0));
        let mut log_time = i64::MIN;
        for (offset, message) in messages.iter().enumerate().take(end as usize) {
            let offset = offset as u64;
            if message.change == Change::Gap {
                continue;
            }
            log_time = log_time.max(message.timestamp);
            let base = newest.get(&message.key).and_then(|(_, live)| live.clone());
            let base = base.filter(|live| live.partition == partition);
            let live = |vector, attrs| Live { vector, attrs, partition, offset };
            let after = match &message.change {
                Change::Upsert(vector, attrs) => Some(live(*vector, attrs.clone())),
                Change::Delete => None,
                Change::SetVector(vector) => match base {
                    Some(base) => Some(live(*vector, base.attrs)),
                    None => continue,
                },
                Change::SetAttrs(attrs) => match base {
                    Some(base) => Some(live(base.vector, (!attrs.is_empty()).then(|| attrs.clone()))),
                    None => continue,
                },
                Change::Bad | Change::Gap => continue,
            };
            let order = (log_time, partition, offset);
            if newest.get(&message.key).is_none_or(|(before, _)| *before < order) {
                newest.insert(message.key.clone(), (order, after));
            }
        }
    }
    newest.into_iter().map(|(key, (_, live))| (key, live)).collect()
}

/// A lake of one incarnation in a temporary directory.
pub struct Site {
    pub directory: TempDir,
    pub store: Store,
    pub clock: Arc<AtomicU64>,
    pub id: Ulid,
    draws: Arc<AtomicU64>,
    pub metric: Metric,
}

impl Site {
    /// A new incarnation of `partitions` partitions that begin at offset 0.
    pub async fn new(metric: Metric, partitions: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::directory(directory.path().join("lake")).expect("a store");
        std::fs::create_dir(directory.path().join("spool")).expect("a spool");
        let id = Ulid::from_parts(BEGIN_MS, 1);
        let clock = Arc::new(AtomicU64::new(BEGIN_MS));
        let site = Self { directory, store, clock, id, draws: Arc::default(), metric };
        let state = IncarnationState::new(id, "0/t".to_owned(), schema(metric), sources(partitions));
        let context = site.context("creator", crash::none());
        let scoped = site.store.scoped(&Incarnation::prefix(id));
        Manifest::create_with(scoped, state, &context.author, context.components).await.expect("created");
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
        }
    }

    /// A context with this crash point.
    pub fn context(&self, role: &str, crash: CrashPoint) -> Context {
        Context {
            author: Author { role: role.to_owned(), instance: "test".to_owned() },
            components: self.components(crash),
            spool: self.directory.path().join("spool"),
            // One block of the tests' segments at a time: most reads go to the store.
            cache: VectorCache::new(4096),
            pools: Pools::new(2).expect("threads"),
        }
    }

    /// Opens the incarnation anew.
    pub async fn open(&self, role: &str) -> Arc<Incarnation> {
        self.open_with(&self.store, role, crash::none()).await.expect("opened")
    }

    /// Opens the incarnation through a store, with a crash point.
    pub async fn open_with(&self, store: &Store, role: &str, crash: CrashPoint) -> Result<Arc<Incarnation>> {
        Incarnation::open(store, self.id, self.context(role, crash)).await
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
    Schema { dim: DIM, metric: metric.name().to_owned(), format: "f32".to_owned() }
}

/// One source of some partitions that begin at offset 0.
pub fn sources(partitions: u32) -> BTreeMap<u32, Source> {
    let source = Source {
        rank: 100,
        epoch: 0,
        kind: "local".to_owned(),
        cluster: "c".to_owned(),
        topic: "t".to_owned(),
        starts: (0..partitions).map(|p| (p, 0)).collect(),
    };
    BTreeMap::from([(0, source)])
}

/// Delivers `[from, to)` of a partition.
pub async fn deliver(to: &Incarnation, log: &Log, partition: u32, range: std::ops::Range<u64>) -> Result<Appended> {
    let (table, buffer) = log.fetch(partition, range.start, range.end);
    let buffers = [buffer.as_slice()];
    to.append(&Batch {
        source: 0,
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
    deliver(to, log, partition, next..log.end(partition)).await.expect("appended");
}

/// The next offset of a partition in the feed.
pub fn applied(of: &Incarnation, partition: u32) -> u64 {
    of.feed.read(|view| view.applied(0, partition)).expect("a partition of the test").next
}

fn ends(next: impl Fn(u32) -> u64, log: &Log) -> BTreeMap<u32, u64> {
    log.0.keys().map(|partition| (*partition, next(*partition))).collect()
}

/// Compares what a handle shows, fresh and committed, with the model.
pub async fn check(handle: &Incarnation, log: &Log, metric: Metric) {
    let fresh = ends(|partition| applied(handle, partition), log);
    check_scope(handle, log, metric, Scope::Fresh, &fresh).await;
    let expected = model(log, &fresh).values().filter(|live| live.is_some()).count() as u64;
    assert_eq!(handle.feed.read(|view| view.card()), expected, "card of the view at {fresh:?}");
    let snapshot = handle.snapshot();
    let committed = ends(|partition| snapshot.next(0, partition), log);
    check_scope(handle, log, metric, Scope::Snapshot, &committed).await;
    let expected = model(log, &committed).values().filter(|live| live.is_some()).count() as u64;
    assert_eq!(snapshot.live_rows, expected, "live rows of version {}", snapshot.version());
    check_one_entry_a_key(&snapshot, log);
}

/// Compares gets and searches of one scope with the model at `ends`.
pub async fn check_scope(handle: &Incarnation, log: &Log, metric: Metric, scope: Scope, ends: &BTreeMap<u32, u64>) {
    let model = model(log, ends);
    let keys: Vec<&str> =
        log.0.values().flatten().map(|m| m.key.as_str()).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let got = handle.get(&keys, scope, Want { vector: true, attrs: true }).await.expect("got");
    for (key, got) in keys.iter().zip(got) {
        let got = got.map(|got| Live {
            vector: got.vector.expect("wanted").try_into().expect("three floats"),
            attrs: got.attrs,
            partition: got.partition,
            offset: got.offset,
        });
        assert_eq!(got, model.get(*key).cloned().flatten(), "key {key} in {scope:?} at {ends:?}");
    }
    for (vector, k) in [([1.0, 2.0, 1.0], 2), ([-3.0, 0.5, 2.0], 100)] {
        let query = Search { vector: vector.to_vec(), k, score_min: None, with_attrs: true };
        let answers = handle.search(std::slice::from_ref(&query), scope).await.expect("searched");
        check_hits(&answers.hits[0], &model, metric, &vector, k);
    }
}

/// Ties may come in any order: distances must be the k smallest, each hit its own.
fn check_hits(hits: &[crate::Hit], model: &Model, metric: Metric, vector: &[f32], k: usize) {
    let query = Query::new(metric, vector);
    let distance = |live: &Live| {
        metric.distance(query.key(&live.vector, (vexlake_distance::kernels().norm)(&live.vector)))
    };
    let live: BTreeMap<&str, &Live> = model.iter().filter_map(|(k, v)| Some((k.as_str(), v.as_ref()?))).collect();
    let mut expected: Vec<f32> = live.values().map(|live| distance(live)).collect();
    expected.sort_by(f32::total_cmp);
    expected.truncate(k);
    assert_eq!(hits.len(), expected.len(), "hits {hits:?} of {live:?}");
    let mut seen = std::collections::BTreeSet::new();
    for (hit, expected) in hits.iter().zip(expected) {
        let record = live.get(hit.id.as_str()).unwrap_or_else(|| panic!("hit {hit:?} is not live in {live:?}"));
        assert!(seen.insert(&hit.id), "{} twice", hit.id);
        assert_eq!(hit.attrs, record.attrs, "attributes of {}", hit.id);
        assert!((hit.distance - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{hit:?}, expected {expected}");
        let own = distance(record);
        assert!((hit.distance - own).abs() <= 1e-5 * own.abs().max(1.0), "{hit:?} of {record:?}");
    }
}

/// The invariant that merges and shadows rest on.
fn check_one_entry_a_key(snapshot: &crate::Snapshot, log: &Log) {
    for key in log.0.values().flatten().map(|message| &message.key) {
        let hash = key_hash(key);
        let live = snapshot.segments.values().filter(|view| view.find_live(hash, key).is_some()).count();
        assert!(live <= 1, "key {key} has {live} live entries in version {}", snapshot.version());
    }
}

/// Recounts the whole log and expects no complaint.
pub async fn verify(handle: &Incarnation, log: &Log) {
    let mut verification = Verification::begin(handle).await.expect("begun");
    for (source, partition, checkpoint) in verification.stretches() {
        let (table, buffer) = log.fetch(partition, 0, checkpoint.next);
        verification.add(source, partition, 0, checkpoint.next, &table, &[&buffer]).expect("recounted");
    }
    let report = verification.finish();
    assert!(report.ok && report.recounted, "{report:#?}");
    assert_eq!((report.missing, report.duplicated), (0, 0));
}

/// Merges without a bound.
pub async fn merge(handle: &Incarnation, spec: &Spec) -> Result<Merged> {
    handle.merge(spec, &MergeOptions::default(), &AtomicBool::new(false), &|_| {}).await
}

/// A merge of these segments, or of all.
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
        version: snapshot.version(),
    }
}

/// A policy that always finds something to do.
pub fn eager() -> Policy {
    Policy { fan_in: 2, inputs_max: 3, shadow_ratio: 0.4, ..Policy::default() }
}

/// A named point at which one call stops until the test lets it go on.
pub struct Gate {
    reached: Receiver<()>,
    go: Sender<()>,
}

impl Gate {
    /// Stops the first call that passes `point`.
    pub fn at(point: &'static str) -> (CrashPoint, Gate) {
        let (reached_in, reached) = channel();
        let (go, go_out) = channel();
        let ends = Mutex::new(Some((reached_in, go_out)));
        let hook = move |passed: &str| {
            let ends = if passed == point { ends.lock().take() } else { None };
            let Some((reached, go)) = ends else { return };
            let _ = reached.send(());
            tokio::task::block_in_place(|| drop(go.recv_timeout(GATE_PATIENCE)));
        };
        (Arc::new(hook), Gate { reached, go })
    }

    /// Waits until the call stands at the point.
    pub fn wait(&self) {
        tokio::task::block_in_place(|| self.reached.recv_timeout(GATE_PATIENCE)).expect("the point is reached");
    }

    /// Lets the call go on.
    pub fn open(self) {
        self.go.send(()).expect("a call stands at the point");
    }
}

/// Longer than any machine needs; a test that waits this long has failed.
const GATE_PATIENCE: Duration = Duration::from_secs(60);

/// Panics at the `nth` passage (from 1) of a point, like a process that dies there.
pub fn crash_at(point: &'static str, nth: u64) -> CrashPoint {
    let passed = AtomicU64::new(0);
    Arc::new(move |name| {
        if name == point && passed.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            panic!("crash at {point}");
        }
    })
}

/// A position for unit tests.
pub fn position(partition: u32, log_time: i64, offset: u64) -> Position {
    Position { source: 0, log_time, partition, offset }
}

/// Runs a test on the runtime that the engine needs.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test)
}
