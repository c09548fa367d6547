//! The lists of a merge's output, made before its rows are written.
//!
//! 1. An input whose lists belong to the centroids in use gives them as they are. Of any
//!    other the vectors are read once and encoded, those of rows that stay.
//! 2. All are interleaved by copying ([`merge_lists`]): no code is computed again.
//! 3. That says which row comes to which slot, and a slot is the row's ordinal.
//!
//! Memory: the codes of all inputs and of the output, which `check_memory` counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ulid::Ulid;
use vexlake_index::{Centroids, ListsHead, MergeInput, merge_lists};

use super::{Control, LEFT_BEHIND, Pace, Progress};
use crate::centroids::{Encoder, lists_object};
use crate::error::Result;
use crate::incarnation::Incarnation;
use crate::snapshot::SegmentView;

/// The lists of an output, and where each entry of the inputs goes.
pub(super) struct Listing {
    pub(super) object: Vec<u8>,
    pub(super) rows: u32,
    /// Per input and entry; deletes are still left behind.
    pub(super) row_maps: BTreeMap<Ulid, Vec<u32>>,
}

/// The lists of one input.
struct Input {
    head: ListsHead,
    object: Vec<u8>,
    dropped: Option<Arc<Vec<u64>>>,
    /// Of an input that was encoded: the ordinals of the rows that stay.
    rows: Option<Vec<u32>>,
}

impl Input {
    fn ordinal(&self, slot: u32) -> u32 {
        let ordinal = self.head.ordinal(slot);
        self.rows
            .as_ref()
            .map_or(ordinal, |rows| rows[ordinal as usize])
    }
}

impl Incarnation {
    /// The lists of an output of these inputs; `None` when cancelled.
    pub(super) async fn list_inputs(
        &self,
        views: &[SegmentView],
        centroids: &Arc<Centroids>,
        batch: u32,
        pace: &mut Pace,
        control: Control<'_>,
    ) -> Result<Option<Listing>> {
        let version = centroids.version();
        let mut inputs = Vec::with_capacity(views.len());
        for view in views {
            let own = view.reader.lists().filter(|own| own.version() == version);
            inputs.push(match own {
                Some(head) => Input {
                    head: head.clone(),
                    object: view.reader.lists_object().await?,
                    dropped: view.hidden.clone(),
                    rows: None,
                },
                None => match self.encode(view, centroids, batch, pace, control).await? {
                    Some(input) => input,
                    None => return Ok(None),
                },
            });
        }
        let parts: Vec<MergeInput<'_>> = inputs
            .iter()
            .map(|input| MergeInput {
                head: &input.head,
                bytes: &input.object,
                dropped: input.dropped.as_ref().map(|words| words.as_slice()),
            })
            .collect();
        let merged = self.context.pools.in_background(|| merge_lists(&parts))?;
        let mut row_maps: Vec<Vec<u32>> = views
            .iter()
            .map(|view| vec![LEFT_BEHIND; view.reader.entries() as usize])
            .collect();
        for (slot, (input, from)) in (0..).zip(&merged.origins) {
            let input = *input as usize;
            row_maps[input][inputs[input].ordinal(*from) as usize] = slot;
        }
        Ok(Some(Listing {
            object: merged.bytes,
            rows: merged.origins.len() as u32,
            row_maps: views.iter().map(SegmentView::id).zip(row_maps).collect(),
        }))
    }

    /// The lists of an input that has none, or those of other centroids.
    async fn encode(
        &self,
        view: &SegmentView,
        centroids: &Arc<Centroids>,
        batch: u32,
        pace: &mut Pace,
        (cancelled, progress): Control<'_>,
    ) -> Result<Option<Input>> {
        let (pools, dim) = (&self.context.pools, centroids.space().dim());
        let (all, runtime) = (view.reader.rows(), tokio::runtime::Handle::current());
        let mut encoder = Encoder::new(centroids, pools.background_threads());
        let mut rows = Vec::with_capacity(view.live_rows as usize);
        for from in (0..all).step_by(batch as usize) {
            if cancelled.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let range = from..all.min(from.saturating_add(batch));
            let bytes = range.len() as u64 * dim as u64 * 4;
            pools.in_background(|| -> Result<()> {
                let vectors = runtime.block_on(view.reader.vectors_between(range.clone()))?;
                for (ordinal, vector) in range.clone().zip(vectors.chunks_exact(dim)) {
                    if !view.shadow.contains(ordinal) {
                        rows.push(ordinal);
                        encoder.push(vector)?;
                    }
                }
                Ok(())
            })?;
            progress(Progress {
                rows_done: u64::from(range.end),
                rows_total: u64::from(all),
                bytes_read: u64::from(range.end) * dim as u64 * 4,
                phase: "lists",
            });
            pace.wait(bytes).await;
        }
        let object = pools.in_background(|| lists_object(centroids, &encoder.finish()?, false))?;
        Ok(Some(Input {
            head: ListsHead::decode(&object)?,
            object,
            dropped: None,
            rows: Some(rows),
        }))
    }
}
