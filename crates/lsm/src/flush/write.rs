//! Building the segment of a flush: rows in list order where the collection has centroids,
//! in the order of arrival else; then deletes.

use std::sync::Arc;

use vexlake_segment::{Built, Delete, Row, SegmentMeta, SegmentWriter, upload};

use super::Share;
use crate::centroids::{Encoder, lists_object};
use crate::error::{Error, Result};
use crate::incarnation::Incarnation;
use crate::memtable::Memtable;
use crate::snapshot::Snapshot;
use crate::state::IncarnationState;
use vexlake_manifest::State;

/// An uploaded segment of a share.
pub(super) struct Written {
    pub(super) meta: SegmentMeta,
    /// Where each entry of the share went, in the share's order.
    pub(super) ordinals: Vec<u32>,
}

impl Written {
    /// Whether a head refuses it: a mark newer than its name, whose sweep may have taken the
    /// files, or centroids that are gone.
    pub(super) fn is_stale(&self, state: &IncarnationState) -> bool {
        let gone = |version| !state.centroids.live.contains_key(&version);
        self.meta.id.timestamp_ms() < state.cutoff_ms() || self.meta.centroids.is_some_and(gone)
    }
}

impl Incarnation {
    /// Builds and uploads the segment of our entries; `None` when there are none.
    pub(super) async fn write_segment(
        &self,
        memtable: &Arc<Memtable>,
        ours: &Arc<Share>,
        snapshot: &Snapshot,
    ) -> Result<Option<Written>> {
        if ours.entries.is_empty() {
            return Ok(None);
        }
        let id = self.manifest.mint();
        let schema = self.manifest.head().state.schema.segment();
        let spool = tempfile::tempdir_in(&self.context.spool).map_err(|e| {
            Error::Unavailable(format!("spool {}: {e}", self.context.spool.display()))
        })?;
        let pools = &self.context.pools;
        let (built, ordinals) = pools.in_background(|| -> Result<(Built, Vec<u32>)> {
            let mut writer = SegmentWriter::create(spool.path(), &schema)?;
            let rows = self.rows_in_order(memtable, ours, snapshot, &mut writer)?;
            let mut ordinals = vec![0; ours.entries.len()];
            for (place, vector) in rows {
                let entry = memtable.entry(ours.entries[place]);
                let (id, attrs) = (memtable.id(entry), memtable.attrs(entry));
                ordinals[place] = writer.push(&Row {
                    id,
                    vector,
                    attrs,
                    event_time: entry.event_time,
                    position: entry.position,
                })?;
            }
            for (entry, ordinal) in ours.entries(memtable).zip(&mut ordinals) {
                if entry.slot.is_none() {
                    *ordinal = writer.delete(&Delete {
                        id: memtable.id(entry),
                        event_time: entry.event_time,
                        position: entry.position,
                    })?;
                }
            }
            Ok((writer.finish(id)?, ordinals))
        })?;
        upload(&self.store.scoped(&format!("seg/{id}")), &built).await?;
        let meta = built.meta;
        Ok(Some(Written { meta, ordinals }))
    }

    /// The rows of a share in the order of the segment, each with its place in the share;
    /// the lists go to the writer, where the collection has centroids.
    fn rows_in_order<'a>(
        &self,
        memtable: &'a Memtable,
        ours: &Share,
        snapshot: &Snapshot,
        writer: &mut SegmentWriter,
    ) -> Result<Vec<(usize, &'a [f32])>> {
        let rows = ours.entries(memtable).enumerate();
        let rows: Vec<(usize, &[f32])> = rows
            .filter_map(|(place, entry)| Some((place, memtable.vector(entry)?)))
            .collect();
        let Some(centroids) = snapshot.current_centroids().filter(|_| !rows.is_empty()) else {
            return Ok(rows);
        };
        let mut encoder = Encoder::new(centroids, self.context.pools.background_threads());
        for (_, vector) in &rows {
            encoder.push(vector)?;
        }
        let encoded = encoder.finish()?;
        writer.set_lists(lists_object(centroids, &encoded, true)?)?;
        let order = encoded.list_order().into_iter();
        Ok(order.map(|row| rows[row as usize]).collect())
    }
}
