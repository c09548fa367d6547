//! Measures the vector core on one data set, one thread, one query per call, and
//! prints one JSON object per line.
//!
//! `core <directory> <dim> <metric> [name=value …]` reads `base.f32` and
//! `queries.f32` from the directory (rows of little-endian floats, see `generate`),
//! computes the exact answers once (`truth.u32` beside them), builds centroids and
//! lists, then measures each probe count. Names: lists, rounds, sample, threads,
//! seed, wave, wave2, segments; comma-separated: probes, rerank, confidence. With
//! centroids=<file> what was trained is kept there and not trained again.
//!
//! A search here is what a warm segment costs: choose, scan, exact keys of
//! candidates straight from the floats in memory with the next rows prefetched.

mod truth;

use std::path::Path;
use std::time::{Duration, Instant};
use vexlake_distance::{HugeBytes, Metric, kernels, prefetch, read_bandwidth};
use vexlake_index::{
    Candidate, Centroids, Effort, ListsHead, MergeInput, Query, Search, SegmentLists, TrainOptions,
    build_lists, merge_lists, train,
};

/// Nearest asked for.
const K: usize = 10;
/// Passes over the queries; the fastest counts for the rate, all for percentiles.
/// `quiet` figures take each query's fastest stages: what a busy machine hides.
const PASSES: usize = 5;
/// Rows prefetched ahead of the one whose exact key is computed.
const ROWS_AHEAD: usize = 3;

/// Bytes read to tell what memory gives one thread in the same run.
const BANDWIDTH_BYTES: usize = 1 << 30;

type Failure = Box<dyn std::error::Error>;

struct Settings {
    directory: String,
    dim: usize,
    metric: Metric,
    pairs: Vec<(String, String)>,
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let mut arguments = std::env::args().skip(1);
        let mut next = || {
            arguments
                .next()
                .ok_or("usage: core <directory> <dim> <metric> [name=value …]")
        };
        let (directory, dim, metric) = (next()?, next()?.parse()?, next()?);
        let metric = Metric::parse(&metric).ok_or("metric: cosine, l2 or ip")?;
        let pairs = arguments.map(|pair| {
            let (name, value) = pair.split_once('=').ok_or("settings are name=value")?;
            Ok((name.to_string(), value.to_string()))
        });
        let pairs = pairs.collect::<Result<_, Failure>>()?;
        Ok(Self {
            directory,
            dim,
            metric,
            pairs,
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(own, _)| own == name);
        pair.map(|(_, value)| value.as_str())
    }

    fn list<T: std::str::FromStr + Clone>(
        &self,
        name: &str,
        otherwise: &[T],
    ) -> Result<Vec<T>, T::Err> {
        match self.text(name) {
            Some(text) => text.split(',').map(str::parse).collect(),
            None => Ok(otherwise.to_vec()),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str, otherwise: T) -> T {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    }
}

fn main() -> Result<(), Failure> {
    let settings = Settings::read()?;
    let directory = Path::new(&settings.directory);
    let base = read_floats(&directory.join("base.f32"))?;
    let queries = read_floats(&directory.join("queries.f32"))?;
    let (dim, metric) = (settings.dim, settings.metric);
    let threads = settings.number("threads", 2);
    let rows = base.floats().len() / dim;
    let norms: Vec<f32> = base
        .floats()
        .chunks_exact(dim)
        .map(kernels().norm)
        .collect();
    let truth = truth::Truth::new(
        directory,
        metric,
        base.floats(),
        &norms,
        queries.floats(),
        dim,
        threads,
    )?;
    println!("{}", truth.difficulty(base.floats(), queries.floats(), dim));

    let sample_rows = settings.number("sample", rows).min(rows);
    let options = TrainOptions {
        version: 1,
        lists: settings.number("lists", (rows / 200).clamp(1, 1 << 16)),
        rounds: settings.number("rounds", 10),
        seed: settings.number("seed", 7),
        threads,
    };
    let (before, began) = (cpu_seconds(), Instant::now());
    let kept = settings.text("centroids").map(Path::new);
    let centroids = match kept.filter(|kept| kept.exists()) {
        Some(kept) => Centroids::from_bytes(&std::fs::read(kept)?)?,
        None => {
            let sample = sampled(base.floats(), dim, sample_rows);
            train(metric, dim, &sample, &options)?
        }
    };
    if let Some(kept) = kept {
        std::fs::write(kept, centroids.to_bytes())?;
    }
    let trained = cpu_seconds();
    let segments = build(&settings, &centroids, base.floats(), threads)?;
    let (built, wall) = (cpu_seconds(), began.elapsed().as_secs_f64());
    let index_bytes: u64 = segments.iter().map(|segment| segment.head.bytes()).sum();
    println!(
        "{{\"build\":{{\"rows\":{rows},\"dim\":{dim},\"kernels\":\"{}\",\"lists\":{},\"rounds\":{},\"sample\":{sample_rows},\"train_cpu_s\":{:.2},\"encode_cpu_s\":{:.2},\"cpu_s\":{:.2},\"wall_s\":{wall:.2},\"threads\":{threads},\"bytes_a_vector\":{:.1},\"centroid_bytes\":{},\"read_gb_s\":{:.1},\"probes_98\":{},\"probes_99\":{}}}}}",
        kernels().name,
        centroids.count(),
        options.rounds,
        trained - before,
        built - trained,
        built - before,
        index_bytes as f64 / rows as f64,
        centroids.to_bytes().len(),
        read_bandwidth(BANDWIDTH_BYTES, 1),
        centroids.probes_for(0.98),
        centroids.probes_for(0.99),
    );
    if segments.len() > 1 {
        time_merge(&segments)?;
    }
    let measured = [centroids.probes_for(0.98), centroids.probes_for(0.99)];
    let probes = settings.list("probes", &measured)?;
    for confidence in settings.list("confidence", &[Effort::for_k(K).confidence])? {
        for rerank_max in settings.list("rerank", &[Effort::for_k(K).rerank_max])? {
            let bench = Bench {
                metric,
                dim,
                base: base.floats(),
                queries: queries.floats(),
                truth: &truth,
                centroids: &centroids,
                segments: &segments,
                effort: Effort {
                    k: K,
                    rerank_max,
                    confidence,
                },
                waves: (settings.number("wave", 20), settings.number("wave2", 16)),
            };
            probes.iter().for_each(|probes| bench.measure(*probes));
        }
    }
    Ok(())
}

/// One segment in memory as a file has it: lists, and rows in list order.
struct Segment {
    head: ListsHead,
    bytes: HugeBytes,
    vectors: HugeBytes,
    norms: Vec<f32>,
    /// The base's row of each slot.
    origins: Vec<usize>,
}

fn build(
    settings: &Settings,
    centroids: &Centroids,
    base: &[f32],
    threads: usize,
) -> Result<Vec<Segment>, Failure> {
    let dim = settings.dim;
    let rows = base.len() / dim;
    let each = rows.div_ceil(settings.number("segments", 1usize).max(1));
    let parts = base.chunks(each * dim).enumerate();
    parts
        .map(|(number, part)| {
            let encoded = centroids.encode(part, threads)?;
            let lists = centroids.count() as u32;
            let code_dim = centroids.space().code_dim();
            let bytes = build_lists(centroids.version(), lists, code_dim, &encoded, true)?;
            let order = encoded.list_order();
            let mut vectors = HugeBytes::zeroed(size_of_val(part));
            let rows = vectors.floats_mut().chunks_exact_mut(dim);
            for (to, from) in rows.zip(&order) {
                to.copy_from_slice(&part[*from as usize * dim..][..dim]);
            }
            let norms = vectors.floats().chunks_exact(dim).map(kernels().norm);
            Ok(Segment {
                head: ListsHead::decode(&bytes)?,
                bytes: HugeBytes::copied(&bytes),
                norms: norms.collect(),
                vectors,
                origins: order
                    .iter()
                    .map(|row| number * each + *row as usize)
                    .collect(),
            })
        })
        .collect()
}

/// Merging all segments, beside what encoding them took.
fn time_merge(segments: &[Segment]) -> Result<(), Failure> {
    let inputs: Vec<MergeInput<'_>> = segments
        .iter()
        .map(|segment| MergeInput {
            head: &segment.head,
            bytes: &segment.bytes,
            dropped: None,
        })
        .collect();
    let ran = thread_nanos();
    let merged = merge_lists(&inputs)?;
    let seconds = (thread_nanos() - ran) as f64 / 1e9;
    println!(
        "{{\"merge\":{{\"segments\":{},\"rows\":{},\"cpu_s\":{seconds:.4},\"bytes\":{}}}}}",
        segments.len(),
        merged.origins.len(),
        merged.bytes.len()
    );
    Ok(())
}

struct Bench<'a> {
    metric: Metric,
    dim: usize,
    base: &'a [f32],
    queries: &'a [f32],
    truth: &'a truth::Truth,
    centroids: &'a Centroids,
    segments: &'a [Segment],
    effort: Effort,
    waves: (usize, usize),
}

/// Time by stage: prepare, choose, scan, re-rank.
type Stages = [Duration; 4];

impl Bench<'_> {
    fn measure(&self, probes: usize) {
        let parts: Vec<SegmentLists<'_>> = self
            .segments
            .iter()
            .enumerate()
            .map(|(segment, own)| SegmentLists {
                segment: segment as u32,
                head: &own.head,
                bytes: &own.bytes,
                hidden: None,
            })
            .collect();
        let mut search = Search::default();
        let mut times = Vec::new();
        let (mut fastest, mut least) = (f64::INFINITY, u64::MAX);
        let count = self.queries.len() / self.dim;
        let mut best = vec![[Duration::MAX; 4]; count];
        let (mut found, mut scanned, mut reranked, mut waves) = (0usize, 0, 0, 0);
        for pass in 0..PASSES + 1 {
            let (began, ran) = (Instant::now(), thread_nanos());
            for (number, query) in self.queries.chunks_exact(self.dim).enumerate() {
                let start = Instant::now();
                let spent = self.search(&mut search, query, probes, &parts);
                if pass > 0 {
                    times.push(start.elapsed());
                    best[number]
                        .iter_mut()
                        .zip(spent)
                        .for_each(|(best, spent)| *best = spent.min(*best));
                    continue;
                }
                let truth = &self.truth.of(number)[..K];
                let counts = search.counts();
                (scanned, reranked, waves) = (
                    scanned + counts.scanned,
                    reranked + counts.reranked,
                    waves + counts.waves,
                );
                found += self
                    .answer(&mut search)
                    .iter()
                    .filter(|row| truth.contains(row))
                    .count();
            }
            if pass > 0 {
                fastest = fastest.min(began.elapsed().as_secs_f64());
                least = least.min(thread_nanos() - ran);
            }
        }
        let mut quiet: Vec<Duration> = best.iter().map(|stages| stages.iter().sum()).collect();
        let stage = |at: usize| {
            let total: Duration = best.iter().map(|stages| stages[at]).sum();
            total.as_secs_f64() * 1e6 / count as f64
        };
        let rows = self.base.len() / self.dim;
        println!(
            "{{\"probes\":{probes},\"recall\":{:.4},\"qps\":{:.0},\"cpu_us\":{:.1},\"p50_us\":{:.1},\"p99_us\":{:.1},\"quiet_us\":{:.1},\"quiet_p50_us\":{:.1},\"quiet_p99_us\":{:.1},\"scanned\":{:.0},\"scanned_share\":{:.4},\"reranked\":{:.1},\"waves\":{:.2},\"confidence\":{},\"rerank_max\":{},\"stages_us\":{{\"prepare\":{:.1},\"choose\":{:.1},\"scan\":{:.1},\"rerank\":{:.1}}}}}",
            found as f64 / (count * K) as f64,
            count as f64 / fastest,
            least as f64 / 1e3 / count as f64,
            micros(&mut times, 0.5),
            micros(&mut times, 0.99),
            (0..4).map(stage).sum::<f64>(),
            micros(&mut quiet, 0.5),
            micros(&mut quiet, 0.99),
            scanned as f64 / count as f64,
            scanned as f64 / (count * rows) as f64,
            reranked as f64 / count as f64,
            waves as f64 / count as f64,
            self.effort.confidence,
            self.effort.rerank_max,
            stage(0),
            stage(1),
            stage(2),
            stage(3),
        );
    }

    fn search(
        &self,
        search: &mut Search,
        query: &[f32],
        probes: usize,
        parts: &[SegmentLists<'_>],
    ) -> Stages {
        let start = Instant::now();
        search
            .begin(self.centroids.space(), query, self.effort)
            .expect("usable queries");
        let prepared = Instant::now();
        search.choose(self.centroids, probes);
        let chosen = Instant::now();
        search.scan(parts);
        let scanned = Instant::now();
        let exact = Query::new(self.metric, query);
        let mut most = self.waves.0;
        let nobody = Candidate {
            segment: 0,
            slot: 0,
        };
        let mut keys = [(nobody, 0.0); 64];
        loop {
            let wave = search.wave(most.min(keys.len()));
            if wave.is_empty() {
                break;
            }
            let count = wave.len();
            wave.iter()
                .take(ROWS_AHEAD)
                .for_each(|first| prefetch(self.vector(*first).0));
            for (at, candidate) in wave.iter().enumerate() {
                if let Some(next) = wave.get(at + ROWS_AHEAD) {
                    prefetch(self.vector(*next).0);
                }
                let (vector, norm) = self.vector(*candidate);
                keys[at] = (*candidate, exact.key(vector, norm));
            }
            for (candidate, key) in &keys[..count] {
                search.report(*candidate, *key);
            }
            most = self.waves.1;
        }
        [
            prepared - start,
            chosen - prepared,
            scanned - chosen,
            scanned.elapsed(),
        ]
    }

    /// A candidate's floats and their norm.
    fn vector(&self, candidate: Candidate) -> (&[f32], f32) {
        let segment = &self.segments[candidate.segment as usize];
        let slot = candidate.slot as usize;
        let vector = &segment.vectors.floats()[slot * self.dim..][..self.dim];
        (vector, segment.norms[slot])
    }

    fn answer(&self, search: &mut Search) -> Vec<u32> {
        let found = search.finish().into_iter();
        found
            .map(|(_, candidate)| {
                self.segments[candidate.segment as usize].origins[candidate.slot as usize] as u32
            })
            .collect()
    }
}

/// Every (rows / wanted)-th row.
fn sampled(base: &[f32], dim: usize, wanted: usize) -> Vec<f32> {
    let rows = base.len() / dim;
    let chosen = (0..wanted).map(|at| at * rows / wanted);
    chosen
        .flat_map(|row| base[row * dim..][..dim].iter().copied())
        .collect()
}

fn read_floats(path: &Path) -> Result<HugeBytes, Failure> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let mut bytes = HugeBytes::zeroed(file.metadata()?.len() as usize);
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A percentile in microseconds.
fn micros(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}

/// Nanoseconds that this thread has run; 0 where the system does not tell.
fn thread_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat.split_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// User and system time of this process; 0 where the system has no /proc.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    // 100 ticks a second on every Linux this runs on.
    (ticks(11) + ticks(12)) / 100.0
}
