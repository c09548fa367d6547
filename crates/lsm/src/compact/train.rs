//! Training: a sample of the rows becomes a version of centroids; and splitting, where those
//! there are only have lists that grew.
//!
//! 1. Whoever trained meanwhile wins: the job is *superseded*.
//! 2. Every n-th visible row of the spec's segments is read, so many that each list gets
//!    `SAMPLE_ROWS_PER_LIST`, as far as the memory goes.
//! 3. In the background: k-means in the space of the version before, which the first one
//!    makes and which stays for the incarnation's life; or k-means within each list that
//!    grew, all others staying as they are. Rows held out measure how many lists a query has
//!    to look at for the promised recall.
//! 4. Upload the object, commit the `centroids` delta. From then on flushes and merges make
//!    lists by it; what exists is rewritten by merges that the planner proposes.
//!
//! Left out on purpose: a training is not paced while it computes, and is not cancelled
//! there; its pool is of low priority and takes a minute for a million rows.

use std::sync::atomic::{AtomicBool, Ordering};

use ulid::Ulid;
use vexlake_index::{Centroids, IndexError, SplitOptions, TrainOptions, split, train, train_in};
use vexlake_manifest::{ManifestError, State};

use super::merge::{Control, Ended, MergeOptions, Merged, Pace, Progress};
use super::plan::Spec;
use crate::centroids::upload;
use crate::error::{Error, Result};
use crate::incarnation::{COMMIT_ATTEMPTS_MAX, Incarnation};
use crate::snapshot::{SegmentView, Snapshot};
use crate::state::{CentroidsMeta, Delta};

/// Rows of the sample for each list: below some forty, k-means fits the sample and not the
/// collection (faiss warns below 39).
const SAMPLE_ROWS_PER_LIST: u64 = 50;
/// Rows of the sample that are read at once.
const READ_ROWS: usize = 1024;
/// Parts of the memory that the sample may take; its rotated copy takes as much, k-means
/// some more.
const SAMPLE_MEMORY_SHARE: u64 = 4;
/// Rounds of k-means: more move centroids by less than a sample errs.
const ROUNDS: usize = 10;
/// Share of the true neighbours whose lists a query looks at by default. Some are lost
/// after that, to estimates: the promise is .98.
const PROBES_RECALL: f32 = 0.99;
/// Lists on top of that: where few lists do, the next neighbours of a list's border decide,
/// and a list more costs a microsecond.
const PROBES_MARGIN: usize = 1;

impl Incarnation {
    /// Does what a spec says: merges or trains.
    ///
    /// # Errors
    /// `INVALID` for a kind that is not known; see [`Incarnation::merge`] and
    /// [`Incarnation::train`].
    pub async fn run(
        &self,
        spec: &Spec,
        options: &MergeOptions,
        cancelled: &AtomicBool,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Merged> {
        match spec.kind.as_str() {
            "merge" => self.merge(spec, options, cancelled, progress).await,
            "train" | "split" => self.train(spec, options, cancelled, progress).await,
            other => Err(Error::Invalid(format!(
                "spec of kind {other:?}, known are merge, train and split"
            ))),
        }
    }

    /// Trains centroids, or splits those there are; see the file header.
    ///
    /// # Errors
    /// `INVALID` for a metric without centroids; `CONFLICT` after too many lost races; read
    /// and write errors.
    pub async fn train(
        &self,
        spec: &Spec,
        options: &MergeOptions,
        cancelled: &AtomicBool,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Merged> {
        let snapshot = self.follow().await?;
        let live = |id: &Ulid| snapshot.segments.get(id);
        let views: Vec<&SegmentView> = spec.inputs.iter().filter_map(live).collect();
        let rows: u64 = views.iter().map(|view| view.live_rows).sum();
        if snapshot.state().centroids.current != spec.replaces || rows == 0 {
            return Ok(spec.ended(Ended::Superseded, snapshot.version()));
        }
        let control = (cancelled, progress);
        let sample = match self
            .sample(&views, (rows, spec.lists), options, control)
            .await
        {
            Ok(Some(sample)) => sample,
            Ok(None) => return Ok(spec.ended(Ended::Cancelled, snapshot.version())),
            Err(error) => return self.superseded_or(spec, error).await,
        };
        let dim = snapshot.state().schema.dim as usize;
        let at = |phase| Progress {
            rows_done: (sample.len() / dim) as u64,
            rows_total: (sample.len() / dim) as u64,
            bytes_read: sample.len() as u64 * 4,
            phase,
        };
        progress(at("train"));
        let before = snapshot
            .current_centroids()
            .filter(|_| spec.kind == "split");
        let centroids = match before {
            Some(before) => self.split_on(before, &sample, (rows, spec.lists))?,
            None => self.train_on(&snapshot, &sample, spec.lists as usize)?,
        };
        let trained = before.and_then(|_| snapshot.state().centroids.current());
        let version = Ulid::from(centroids.version());
        progress(at("upload"));
        let probes = centroids.probes_for(PROBES_RECALL) + PROBES_MARGIN;
        let probes = probes.min(centroids.count()) as u32;
        let meta = upload(
            &self.store,
            version,
            &centroids,
            (probes, snapshot.live_rows),
            trained.map(CentroidsMeta::trained),
        )
        .await?;
        (self.context.components.crash)("train:uploaded");
        progress(at("commit"));
        for _ in 0..=COMMIT_ATTEMPTS_MAX {
            let head = self.manifest.head();
            if head.state.centroids.current != spec.replaces {
                return Ok(spec.ended(Ended::Superseded, head.version));
            }
            if version.timestamp_ms() < head.state.cutoff_ms() {
                // The object may be swept already.
                let message = format!("a mark overtook the upload of centroids {version}");
                return Err(Error::Conflict(message));
            }
            let delta = Delta::Centroids {
                replaces: spec.replaces,
                centroids: meta.clone(),
            };
            let author = &self.context.author;
            match self.manifest.commit(&head, delta, author).await {
                Ok(committed) => {
                    (self.context.components.crash)("train:committed");
                    self.show_committed(&committed).await;
                    return Ok(Merged {
                        bytes_in: sample.len() as u64 * 4,
                        bytes_out: meta.bytes,
                        ..spec.ended(Ended::Done, committed.version)
                    });
                }
                Err(ManifestError::Conflict { .. }) => drop(self.manifest.refresh().await?),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict(format!(
            "incarnation {}: {COMMIT_ATTEMPTS_MAX} commits lost in a row",
            self.id
        )))
    }

    /// Vectors of one in n visible rows; `None` when cancelled. Drawn by a hash and not
    /// counted off: producers take turns, and every n-th row may well be every n-th topic.
    async fn sample(
        &self,
        views: &[&SegmentView],
        (rows, lists): (u64, u32),
        options: &MergeOptions,
        (cancelled, progress): Control<'_>,
    ) -> Result<Option<Vec<f32>>> {
        let row_bytes = u64::from(self.manifest.head().state.schema.dim) * 4;
        let fit = options.memory_bytes_max / SAMPLE_MEMORY_SHARE / row_bytes;
        let wanted = (lists as u64 * SAMPLE_ROWS_PER_LIST)
            .min(fit)
            .clamp(1, rows);
        let one_in = rows.div_ceil(wanted);
        let mut pace = Pace::new(options.bytes_per_second_max);
        let mut sample = Vec::with_capacity((wanted * row_bytes / 4) as usize);
        for view in views {
            let visible = (0..view.reader.rows()).filter(|row| !view.shadow.contains(*row));
            let segment = u128::from(view.id()) as u64;
            let drawn = |row: &u32| mixed(segment ^ u64::from(*row)).is_multiple_of(one_in);
            let chosen: Vec<u32> = visible.filter(drawn).collect();
            for part in chosen.chunks(READ_ROWS) {
                if cancelled.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                sample.extend(view.reader.vectors(part).await?);
                let bytes = part.len() as u64 * row_bytes;
                progress(Progress {
                    rows_done: sample.len() as u64 * 4 / row_bytes,
                    rows_total: wanted,
                    bytes_read: sample.len() as u64 * 4,
                    phase: "sample",
                });
                pace.wait(bytes).await;
            }
        }
        Ok(Some(sample))
    }

    fn train_on(&self, snapshot: &Snapshot, sample: &[f32], lists: usize) -> Result<Centroids> {
        let (state, pools) = (snapshot.state(), &self.context.pools);
        let version = u128::from(self.manifest.mint());
        let id = u128::from(self.id);
        let options = TrainOptions {
            version,
            lists,
            rounds: ROUNDS,
            seed: (id >> 64) as u64 ^ id as u64,
            threads: pools.background_threads(),
        };
        let trained = pools.in_background(|| match snapshot.current_centroids() {
            Some(before) => train_in(before.space().clone(), sample, &options),
            None => train(
                state.schema.metric(),
                state.schema.dim as usize,
                sample,
                &options,
            ),
        });
        trained.map_err(untrainable)
    }

    /// Splits lists so that they hold about `rows / lists` of the collection's rows each.
    fn split_on(
        &self,
        before: &Centroids,
        sample: &[f32],
        (rows, lists): (u64, u32),
    ) -> Result<Centroids> {
        let pools = &self.context.pools;
        let version = self.manifest.mint();
        let options = SplitOptions {
            version: u128::from(version),
            rows,
            rows_per_list: rows.div_ceil(u64::from(lists.max(1))),
            rounds: ROUNDS,
            seed: u128::from(version) as u64,
            threads: pools.background_threads(),
        };
        let splitting = || split(before, sample, &options);
        pools.in_background(splitting).map_err(untrainable)
    }
}

fn untrainable(error: IndexError) -> Error {
    match error {
        IndexError::BeyondCodes(_) => Error::Invalid(error.to_string()),
        error => error.into(),
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): neighbours become unrelated.
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests;
