//! Writes a seeded data set for `core` and for filters: `base.f32` and `queries.f32`, rows
//! of little-endian floats, and attributes as little-endian u32, one a row: `buckets.u32` of
//! the rows, 0 to 999 by a hash of the row's number; where there are topics, the top-level
//! topics of rows and queries, `topics.u32` and `query-topics.u32`.
//!
//! `generate <a|b|hard> <directory> [rows] [queries] [seed]`
//!
//! `a` and `b` follow the shape of real embeddings, calibrated to published local
//! intrinsic dimensions and contrasts (arxiv-nomic-like at 768 and at 128 floats):
//! 1. a tree of 32 × 32 topics with Zipf sizes; each level is a Gaussian in a latent
//!    space whose spectrum falls as i^−α;
//! 2. around its leaf a row is a Gaussian whose spectrum each branch stretches in
//!    its own way (log-normal);
//! 3. a share of the rows comes in groups of near duplicates;
//! 4. a random orthonormal matrix lifts the latent space, a little isotropic noise
//!    is added, the result has unit length.
//!
//! `hard` has no clusters at all: a Gaussian whose spectrum falls as i^−0.6.
//! Queries are drawn as rows are, and are not among them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use vexlake_distance::kernels;

/// Topics of each level.
const BRANCHES: usize = 32;
/// Exponent of the topics' sizes.
const ZIPF: f64 = 0.8;

/// Values of the attribute that has nothing to do with vectors: shares of a thousandth.
const BUCKETS: u64 = 1000;

/// One data set's parameters.
struct Preset {
    dim: usize,
    rows: usize,
    latent: usize,
    /// Spectrum i^−alpha.
    alpha: f64,
    /// Size of the second level and of rows around leaves, relative to the first.
    leaf: f64,
    around: f64,
    /// Log-normal deviation of a branch's spectrum.
    stretch: f64,
    /// Share of rows in groups of near duplicates, size of a group, their distance.
    duplicates: f64,
    group: usize,
    near: f64,
    noise: f64,
    clusters: bool,
}

const A: Preset = Preset {
    dim: 768,
    rows: 200_000,
    latent: 256,
    alpha: 0.5,
    leaf: 1.0,
    around: 1.65,
    stretch: 0.7,
    duplicates: 0.2,
    group: 8,
    near: 0.1,
    noise: 0.1,
    clusters: true,
};

const B: Preset = Preset {
    dim: 128,
    rows: 1_000_000,
    latent: 128,
    ..A
};

const HARD: Preset = Preset {
    latent: 768,
    alpha: 0.6,
    clusters: false,
    ..A
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: generate <a|b|hard> <directory> [rows] [queries] [seed]";
    let [name, directory, rest @ ..] = &arguments[..] else {
        return Err(usage.into());
    };
    let preset = match name.as_str() {
        "a" => A,
        "b" => B,
        "hard" => HARD,
        _ => return Err(usage.into()),
    };
    let number = |at: usize, otherwise: usize| -> Result<usize, std::num::ParseIntError> {
        rest.get(at).map_or(Ok(otherwise), |text| text.parse())
    };
    let (rows, queries) = (number(0, preset.rows)?, number(1, 1000)?);
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)?;
    let mut source = Source::new(&preset, number(2, 1)? as u64);
    let topics = source.write(&directory.join("base.f32"), rows)?;
    let buckets = (0..rows as u64).map(|row| (Random(row).next() % BUCKETS) as u32);
    write_u32(&directory.join("buckets.u32"), buckets)?;
    // Duplicates of base rows would make queries trivial.
    source.preset.duplicates = 0.0;
    let query_topics = source.write(&directory.join("queries.f32"), queries)?;
    if preset.clusters {
        write_u32(&directory.join("topics.u32"), topics)?;
        write_u32(&directory.join("query-topics.u32"), query_topics)?;
    }
    println!(
        "{{\"dim\":{},\"rows\":{rows},\"queries\":{queries}}}",
        preset.dim
    );
    Ok(())
}

struct Source {
    preset: Preset,
    random: Random,
    spectrum: Vec<f32>,
    /// Per leaf: cumulative share, centre, and its branch.
    shares: Vec<f64>,
    centres: Vec<Vec<f32>>,
    stretches: Vec<Vec<f32>>,
    /// Rows of the lift: dim × latent, orthonormal columns.
    lift: Vec<f32>,
}

impl Source {
    fn new(preset: &Preset, seed: u64) -> Self {
        let mut random = Random(seed);
        let latent = preset.latent;
        let mut spectrum: Vec<f32> = (1..=latent)
            .map(|i| (i as f64).powf(-preset.alpha) as f32)
            .collect();
        let size = (kernels().norm)(&spectrum);
        spectrum.iter_mut().for_each(|x| *x /= size);
        let mut shares = Vec::new();
        let (mut centres, mut stretches) = (Vec::new(), Vec::new());
        if preset.clusters {
            for branch in 0..BRANCHES {
                let top = random.gaussians(&spectrum, 1.0);
                let stretch =
                    (0..latent).map(|_| (preset.stretch * random.gaussian()).exp() as f32);
                let mut stretch: Vec<f32> = stretch.collect();
                let stretched: Vec<f32> =
                    stretch.iter().zip(&spectrum).map(|(a, b)| a * b).collect();
                let size = (kernels().norm)(&stretched);
                stretch.iter_mut().for_each(|x| *x /= size);
                stretches.push(stretch);
                for leaf in 0..BRANCHES {
                    let mut centre = random.gaussians(&spectrum, preset.leaf);
                    centre.iter_mut().zip(&top).for_each(|(x, top)| *x += top);
                    centres.push(centre);
                    let weight =
                        ((branch + 1) as f64).powf(-ZIPF) * ((leaf + 1) as f64).powf(-ZIPF);
                    shares.push(shares.last().copied().unwrap_or(0.0) + weight);
                }
            }
        }
        let lift = if preset.clusters {
            orthonormal(&mut random, preset.dim, latent)
        } else {
            Vec::new()
        };
        Self {
            preset: Preset { ..*preset },
            random,
            spectrum,
            shares,
            centres,
            stretches,
            lift,
        }
    }

    /// Writes rows; answers their topics.
    fn write(&mut self, path: &Path, rows: usize) -> std::io::Result<Vec<u32>> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut topics = Vec::with_capacity(rows);
        let (mut latent, mut topic) = (Vec::new(), 0);
        let mut group = 0;
        for _ in 0..rows {
            if group == 0 {
                (latent, topic) = self.latent();
                let starts = self.preset.duplicates / self.preset.group as f64;
                let singles = 1.0 - self.preset.duplicates;
                if self.random.unit() < starts / (starts + singles) {
                    group = self.preset.group;
                }
            }
            let mut row = latent.clone();
            if group > 0 {
                group -= 1;
                let near = self.random.gaussians(&self.spectrum, self.preset.near);
                row.iter_mut().zip(near).for_each(|(x, step)| *x += step);
            }
            for x in self.lifted(&row) {
                file.write_all(&x.to_le_bytes())?;
            }
            topics.push(topic);
        }
        file.flush()?;
        Ok(topics)
    }

    /// A row in the latent space, and its topic.
    fn latent(&mut self) -> (Vec<f32>, u32) {
        let Some(total) = self.shares.last() else {
            return (self.random.gaussians(&self.spectrum, 1.0), 0);
        };
        let at = self.random.unit() * total;
        let leaf = self
            .shares
            .partition_point(|share| *share < at)
            .min(self.centres.len() - 1);
        let mut row = self.random.gaussians(&self.spectrum, self.preset.around);
        let stretch = &self.stretches[leaf / BRANCHES];
        for ((x, stretch), centre) in row.iter_mut().zip(stretch).zip(&self.centres[leaf]) {
            *x = *x * stretch + centre;
        }
        (row, (leaf / BRANCHES) as u32)
    }

    fn lifted(&mut self, latent: &[f32]) -> Vec<f32> {
        if self.lift.is_empty() {
            return latent.to_vec();
        }
        let mut row = vec![0.0; self.preset.dim];
        (kernels().dot_rows)(latent, &self.lift, &mut row);
        let noise =
            self.preset.noise * f64::from((kernels().norm)(&row)) / (row.len() as f64).sqrt();
        row.iter_mut()
            .for_each(|x| *x += (noise * self.random.gaussian()) as f32);
        let norm = (kernels().norm)(&row);
        row.iter_mut().for_each(|x| *x /= norm);
        row
    }
}

fn write_u32(path: &Path, values: impl IntoIterator<Item = u32>) -> std::io::Result<()> {
    let bytes = values.into_iter().flat_map(u32::to_le_bytes);
    std::fs::write(path, bytes.collect::<Vec<u8>>())
}

/// dim × latent with orthonormal columns: Gram and Schmidt over Gaussians.
fn orthonormal(random: &mut Random, dim: usize, latent: usize) -> Vec<f32> {
    let ones = vec![1.0; dim];
    let mut columns: Vec<Vec<f32>> = Vec::with_capacity(latent);
    for _ in 0..latent {
        let mut column = random.gaussians(&ones, 1.0);
        for _ in 0..2 {
            for other in &columns {
                let along = (kernels().dot)(&column, other);
                column
                    .iter_mut()
                    .zip(other)
                    .for_each(|(x, y)| *x -= along * y);
            }
        }
        let norm = (kernels().norm)(&column);
        column.iter_mut().for_each(|x| *x /= norm);
        columns.push(column);
    }
    let entries = (0..dim).flat_map(|row| columns.iter().map(move |column| column[row]));
    entries.collect()
}

/// SplitMix64, and Gaussians by Box and Muller.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn gaussians(&mut self, sizes: &[f32], scale: f64) -> Vec<f32> {
        let each = sizes.iter();
        each.map(|size| (scale * self.gaussian()) as f32 * size)
            .collect()
    }
}
