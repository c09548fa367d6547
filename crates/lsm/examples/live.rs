//! Searches while rows arrive, in the whole engine; prints JSON.
//!
//! 1. A base of rows is flushed, trained on, rewritten and merged into one segment, and every
//!    query is asked until nothing is read from the store any more.
//! 2. Quiet: searches at fixed times, each a task of its own, timed from the moment it was due,
//!    so that a slow one delays none behind it and hides in no average.
//! 3. Busy, at two rates: the same searches while small batches arrive, the memtable is sealed
//!    by age and by size and flushed, and the planner's merges run in the background.
//! 4. Insert → found, while rows go on arriving: a row is appended and searched for until it
//!    is the first result.
//! 5. Full: the memtable as large as it gets before it is sealed, and nothing else going on.
//! 6. Burst: the memtable is filled by whole fetches as fast as they are taken.
//!
//! Vectors are `base.f32` and `queries.f32` of `--set`, as crates/index's example `generate`
//! writes them, else clusters of its own.
//!
//! `cargo run --profile fast -p vexlake-lsm --example live -- [--rows n] [--dim n] [--seconds n]
//! [--rate n] [--fast n] [--set folder] [--threads n]`

#[path = "scratch/clusters.rs"]
mod clusters;
mod scratch;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clusters::Clusters;
use scratch::{Failure, create, open, option, text_option};
use tokio::task::JoinSet;
use vexlake_lsm::{Incarnation, MergeOptions, Policy, Scope, Search, View};

/// Results per query.
const K: usize = 10;
/// Different queries, asked in turn.
const QUERIES: usize = 500;
/// Rows of a segment while the base is loaded.
const SEGMENT_ROWS: usize = 25_000;
/// Between two searches.
const SEARCH_EVERY: Duration = Duration::from_millis(50);
/// Between two batches: a fetch takes what there is after some milliseconds.
const BATCH_EVERY: Duration = Duration::from_millis(4);
/// What ingest seals by (DESIGN §11: seal_age_ms, seal_bytes).
const SEAL_AGE: Duration = Duration::from_secs(10);
const SEAL_BYTES: usize = 64 << 20;
/// Between two looks at what is due, as the flusher's and the planner's.
const FLUSH_LOOK: Duration = Duration::from_millis(100);
const PLAN_EVERY: Duration = Duration::from_secs(5);
/// Rows inserted and searched for, one after another.
const FINDS: usize = 1000;
/// Rows of a fetch in a burst.
const BURST_ROWS: usize = 4096;
/// Partitions: of the stream, and of the rows that are searched for.
const STREAM: u32 = 0;
const FOUND: u32 = 1;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("{{{}}}", runtime.block_on(measure())?.join(", "));
    Ok(())
}

async fn measure() -> Result<Vec<String>, Failure> {
    let (rows, dim) = (option("--rows", 200_000), option("--dim", 128));
    let (rate, fast) = (option("--rate", 1_000), option("--fast", 5_000));
    let length = Duration::from_secs(option("--seconds", 60) as u64);
    let source = Arc::new(Source::new(rows, dim)?);
    let folder = tempfile::tempdir()?;
    let cache_bytes = 4 * rows * dim * 4;
    let lake = open(folder.path(), "live", cache_bytes, option("--threads", 0)).await?;
    let live = Arc::new(Live {
        incarnation: create(&lake, (dim, "cosine"), 2).await?,
        queries: source.queries()?,
        source,
        appended: AtomicUsize::new(0),
    });
    live.load(rows).await?;
    let mut lines = vec![format!(
        "\"rows\": {rows}, \"dim\": {dim}, \"seconds\": {}",
        length.as_secs()
    )];

    let quiet = live.searches(length, 0).await?;
    lines.push(format!("\"quiet\": {{{quiet}}}"));
    let mut found_at = 0;
    for (name, rate) in [("busy", rate), ("fast", fast)] {
        if rate == 0 {
            continue;
        }
        let services = live.serve(rate);
        let busy = live.searches(length, found_at).await?;
        let found = live.finds(&mut found_at).await?;
        let (flushes, merges) = services.end().await?;
        lines.push(format!(
            "\"{name}\": {{\"rate\": {rate}, {busy}, \"ratioP99\": {:.2}, \"flushes\": {flushes}, \
             \"merges\": {merges}, \"insertToFound\": {{{found}}}}}",
            busy.p99 / quiet.p99
        ));
    }
    live.incarnation.flush().await?;
    let again = live.searches(length / 2, found_at).await?;
    lines.push(format!("\"quietAgain\": {{{again}}}"));

    while live.bytes() + BURST_ROWS * dim * 4 < SEAL_BYTES {
        live.arrive(BURST_ROWS).await?;
    }
    let full = live.searches(length / 3, found_at).await?;
    lines.push(format!("\"full\": {{{full}}}"));
    live.incarnation.flush().await?;

    let over = Arc::new(AtomicBool::new(false));
    let (until, to) = (over.clone(), live.clone());
    let filling = tokio::spawn(async move {
        let mut batches = 0;
        while !until.load(Ordering::Relaxed) {
            if to.bytes() > SEAL_BYTES {
                to.incarnation.flush().await.map_err(|e| e.to_string())?;
            }
            to.arrive(BURST_ROWS).await.map_err(|e| e.to_string())?;
            batches += 1;
        }
        Ok::<_, String>(batches)
    });
    let burst = live.searches(length / 3, found_at).await?;
    over.store(true, Ordering::Relaxed);
    let batches = filling.await??;
    let per_second = batches * BURST_ROWS as u64 / (length / 3).as_secs().max(1);
    lines.push(format!(
        "\"burst\": {{\"rowsPerSecond\": {per_second}, {burst}}}"
    ));
    Ok(lines)
}

/// Where vectors come from.
enum Source {
    Made(Clusters),
    Files {
        base: File,
        queries: File,
        dim: usize,
        rows: usize,
    },
}

impl Source {
    fn new(rows: usize, dim: usize) -> Result<Self, Failure> {
        let Some(folder) = text_option("--set") else {
            return Ok(Self::Made(Clusters::of_rows(rows, dim)));
        };
        let base = File::open(Path::new(&folder).join("base.f32"))?;
        Ok(Self::Files {
            rows: base.metadata()?.len() as usize / (4 * dim),
            base,
            queries: File::open(Path::new(&folder).join("queries.f32"))?,
            dim,
        })
    }

    /// A row by its number; a set that is used up begins anew.
    fn row(&self, n: usize) -> Vec<f32> {
        match self {
            Self::Made(clusters) => clusters.row(n),
            Self::Files {
                base, dim, rows, ..
            } => read_row(base, n % rows, *dim).expect("a row below the file's length"),
        }
    }

    fn queries(&self) -> Result<Vec<Vec<f32>>, Failure> {
        match self {
            Self::Made(clusters) => Ok((0..QUERIES)
                .map(|n| clusters.row(usize::MAX / 2 + n))
                .collect()),
            Self::Files { queries, dim, .. } => {
                let all = queries.metadata()?.len() as usize / (4 * dim);
                (0..all.min(QUERIES))
                    .map(|n| Ok(read_row(queries, n, *dim)?))
                    .collect()
            }
        }
    }
}

fn read_row(file: &File, row: usize, dim: usize) -> std::io::Result<Vec<f32>> {
    let mut bytes = vec![0; 4 * dim];
    file.read_exact_at(&mut bytes, (row * 4 * dim) as u64)?;
    let floats = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok(floats.collect())
}

/// The collection under load.
struct Live {
    incarnation: Arc<Incarnation>,
    source: Arc<Source>,
    queries: Vec<Vec<f32>>,
    /// Rows of the stream so far.
    appended: AtomicUsize,
}

/// What the services of a phase run until.
struct Services {
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<usize, String>>>,
}

impl Services {
    /// Flushes and jobs that ran.
    async fn end(self) -> Result<(usize, usize), Failure> {
        self.over.store(true, Ordering::Relaxed);
        let mut counts = Vec::new();
        for task in self.tasks {
            counts.push(task.await??);
        }
        Ok((counts[1], counts[2]))
    }
}

/// One answered search.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// From when it was due.
    millis: f64,
    /// Rows of memtables, and requests to the store.
    memtable_rows: u64,
    requests: u64,
}

/// Milliseconds of searches from when they were due; those without reads found everything in
/// the cache.
struct Latencies {
    p99: f64,
    text: String,
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn latencies(asked: &[Asked]) -> Latencies {
    let sorted = |asked: &mut dyn Iterator<Item = &Asked>| {
        let mut millis: Vec<f64> = asked.map(|one| one.millis).collect();
        millis.sort_by(f64::total_cmp);
        millis
    };
    let at = |millis: &[f64], share: f64| {
        let last = millis.len().saturating_sub(1) as f64;
        millis
            .get((last * share).round() as usize)
            .copied()
            .unwrap_or(0.0)
    };
    let all = sorted(&mut asked.iter());
    let without_reads = sorted(&mut asked.iter().filter(|one| one.requests == 0));
    let rows = asked.iter().map(|one| one.memtable_rows).max();
    let p99 = at(&all, 0.99);
    let text = format!(
        "\"searches\": {}, \"p50Millis\": {:.3}, \"p99Millis\": {p99:.3}, \"maxMillis\": {:.3}, \"memtableRows\": {}, \
         \"withReads\": {}, \"p99MillisWithoutReads\": {:.3}",
        all.len(),
        at(&all, 0.5),
        at(&all, 1.0),
        rows.unwrap_or(0),
        all.len() - without_reads.len(),
        at(&without_reads, 0.99),
    );
    Latencies { p99, text }
}

impl Live {
    fn bytes(&self) -> usize {
        self.incarnation.feed.read(View::bytes)
    }

    /// The stream's next rows.
    async fn arrive(&self, rows: usize) -> Result<(), Failure> {
        let from = self.appended.fetch_add(rows, Ordering::Relaxed);
        let keyed = |row| (format!("key-{row}"), self.source.row(row), None);
        scratch::append(&self.incarnation, STREAM, from..from + rows, keyed).await
    }

    /// The base, as one segment with lists.
    async fn load(&self, rows: usize) -> Result<(), Failure> {
        while self.appended.load(Ordering::Relaxed) < rows {
            let left = rows - self.appended.load(Ordering::Relaxed);
            self.arrive(left.min(SEGMENT_ROWS)).await?;
            self.incarnation.flush().await?;
        }
        // First training, then all into one.
        let policy = Policy {
            fan_in: 2,
            inputs_max: usize::MAX,
            ..Policy::default()
        };
        for _ in 0..3 {
            let plan = self.incarnation.plan(&policy);
            if let Some(spec) = plan.first() {
                self.run(spec).await?;
            }
        }
        Ok(())
    }

    async fn run(&self, spec: &vexlake_lsm::Spec) -> Result<(), Failure> {
        let (options, never) = (MergeOptions::default(), AtomicBool::new(false));
        self.incarnation
            .run(spec, &options, &never, &|_| {})
            .await?;
        Ok(())
    }

    /// Searches at fixed times for a while, after every query was asked once.
    async fn searches(
        self: &Arc<Self>,
        length: Duration,
        turn: usize,
    ) -> Result<Latencies, Failure> {
        for vector in &self.queries {
            self.ask(vector).await?;
        }
        // Due times come from a thread of its own: the runtime's timers are a millisecond coarse.
        let (live, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let mut asked = tokio::task::spawn_blocking(move || {
            let (began, mut asked) = (Instant::now(), JoinSet::new());
            for number in 0.. {
                let due = began + SEARCH_EVERY * number;
                if due - began >= length {
                    break;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let live = live.clone();
                let query = (turn + number as usize) % live.queries.len();
                let search = async move {
                    let asked = live.ask(&live.queries[query]).await;
                    let asked = asked.map_err(|e| e.to_string())?;
                    let millis = due.elapsed().as_secs_f64() * 1e3;
                    Ok::<_, String>(Asked { millis, ..asked })
                };
                asked.spawn_on(search, &runtime);
            }
            asked
        })
        .await?;
        let mut answered = Vec::with_capacity(asked.len());
        while let Some(answer) = asked.join_next().await {
            answered.push(answer??);
        }
        Ok(latencies(&answered))
    }

    async fn ask(&self, vector: &[f32]) -> Result<Asked, Failure> {
        let query = Search::new(vector.to_vec(), K);
        let answers = self.incarnation.search(&[query], Scope::Fresh).await?;
        Ok(Asked {
            millis: 0.0,
            memtable_rows: answers.costs[0].memtable_rows,
            requests: answers.reads.requests,
        })
    }

    /// Milliseconds from an append to the search that finds its row.
    async fn finds(&self, next: &mut usize) -> Result<Latencies, Failure> {
        let mut found = Vec::with_capacity(FINDS);
        for _ in 0..FINDS {
            wait_until(Instant::now() + BATCH_EVERY).await;
            // Of its own: rows of the stream may be its duplicates.
            let mut vector = self.source.row(*next);
            vector.iter_mut().rev().step_by(2).for_each(|x| *x = -*x);
            let key = format!("found-{next}");
            let began = Instant::now();
            let keyed = |_| (key.clone(), vector.clone(), None);
            scratch::append(&self.incarnation, FOUND, *next..*next + 1, keyed).await?;
            let query = [Search::new(vector.clone(), 1)];
            loop {
                let answers = self.incarnation.search(&query, Scope::Fresh).await?;
                if answers.hits[0].first().is_some_and(|hit| hit.id == key) {
                    break;
                }
            }
            found.push(Asked {
                millis: began.elapsed().as_secs_f64() * 1e3,
                ..Asked::default()
            });
            *next += 1;
        }
        Ok(latencies(&found))
    }

    /// The stream, the flusher and the compactor, until they are told to end.
    fn serve(self: &Arc<Self>, rate: usize) -> Services {
        let over = Arc::new(AtomicBool::new(false));
        let until = |over: &Arc<AtomicBool>| {
            let over = over.clone();
            move || over.load(Ordering::Relaxed)
        };
        let (is_over, live) = (until(&over), self.clone());
        let stream = tokio::spawn(async move {
            let (began, mut sent) = (Instant::now(), 0);
            while !is_over() {
                wait_until(Instant::now() + BATCH_EVERY).await;
                let wanted = (began.elapsed().as_secs_f64() * rate as f64) as usize;
                live.arrive(wanted - sent)
                    .await
                    .map_err(|e| e.to_string())?;
                sent = wanted;
            }
            Ok(sent)
        });
        let (is_over, live) = (until(&over), self.clone());
        let flusher = tokio::spawn(async move {
            let (mut sealed, mut flushes) = (Instant::now(), 0);
            while !is_over() {
                wait_until(Instant::now() + FLUSH_LOOK).await;
                if sealed.elapsed() < SEAL_AGE && live.bytes() < SEAL_BYTES {
                    continue;
                }
                sealed = Instant::now();
                live.incarnation.flush().await.map_err(|e| e.to_string())?;
                flushes += 1;
            }
            Ok(flushes)
        });
        let (is_over, live) = (until(&over), self.clone());
        let compactor = tokio::spawn(async move {
            let (mut looked, mut merges) = (Instant::now(), 0);
            while !is_over() {
                wait_until(Instant::now() + FLUSH_LOOK).await;
                if looked.elapsed() < PLAN_EVERY {
                    continue;
                }
                looked = Instant::now();
                if let Some(spec) = live.incarnation.plan(&Policy::default()).first() {
                    live.run(spec).await.map_err(|e| e.to_string())?;
                    merges += 1;
                }
            }
            Ok(merges)
        });
        Services {
            over,
            tasks: vec![stream, flusher, compactor],
        }
    }
}

async fn wait_until(due: Instant) {
    tokio::time::sleep_until(due.into()).await;
}
