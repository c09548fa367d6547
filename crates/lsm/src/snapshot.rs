//! A snapshot: one version of an incarnation, opened for reading.
//!
//! It holds a reader and a whole shadow bitmap per live segment. Opening the next
//! version reuses every reader that stays and every bitmap whose segment no commit
//! touched since, so following the chain costs what changed, not what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use ulid::Ulid;
use vexlake_manifest::Head;
use vexlake_segment::{Position, SegmentReader, VectorCache};
use vexlake_store::Store;

use crate::error::{Error, Result};
use crate::shadow;
use crate::state::{IncarnationState, SegmentState};

/// Segments opened at once: each reads one index file of some MiB.
const OPENS_MAX: usize = 8;

/// A live segment of a snapshot.
#[derive(Clone)]
pub struct SegmentView {
    /// The open files.
    pub reader: SegmentReader,
    /// Entries hidden by newer records.
    pub shadow: Arc<RoaringBitmap>,
    shadow_version: u64,
    /// Rows that are not hidden.
    pub live_rows: u64,
}

impl SegmentView {
    /// The segment's id.
    pub fn id(&self) -> Ulid {
        self.reader.meta().id
    }

    /// The live entry of a key, if this segment holds it.
    pub fn find_live(&self, hash: u64, id: &str) -> Option<u32> {
        self.reader
            .find_hashed(hash, id)
            .filter(|entry| !self.shadow.contains(*entry))
    }
}

/// Where a key's newest committed entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The segment.
    pub segment: Ulid,
    /// Entry ordinal in it.
    pub entry: u32,
    /// Whether the entry is a delete.
    pub deleted: bool,
    /// Its position.
    pub position: Position,
}

/// One version, opened; see the file header.
pub struct Snapshot {
    /// The version's commit.
    pub head: Arc<Head<IncarnationState>>,
    /// Live segments by id.
    pub segments: BTreeMap<Ulid, SegmentView>,
    /// Rows that are not hidden.
    pub live_rows: u64,
}

impl Snapshot {
    /// Opens `head`, taking over what `previous` has open already. `store` is scoped
    /// to the incarnation.
    ///
    /// # Errors
    /// When a named object is absent, damaged or out of reach.
    pub async fn open(
        store: &Store,
        cache: &VectorCache,
        head: Arc<Head<IncarnationState>>,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        // The files of a retired incarnation go at once, so nothing of it can be opened.
        let none = BTreeMap::new();
        let live = if head.state.retired {
            &none
        } else {
            &head.state.segments
        };
        let state = &head.state;
        let reusable = |id: &Ulid, segment: &SegmentState| {
            let view = previous?.segments.get(id)?;
            (view.shadow_version == segment.shadow.version).then(|| view.clone())
        };
        let stale: Vec<(&Ulid, &SegmentState)> = live
            .iter()
            .filter(|(id, segment)| reusable(id, segment).is_none())
            .collect();
        let wanted: BTreeSet<Ulid> = stale
            .iter()
            .flat_map(|(_, s)| s.shadow.objects.iter().copied())
            .collect();
        let objects = shadow::read_objects(store, &wanted).await?;
        let schema = state.schema.segment();
        let opens = stale.into_iter().map(|(id, segment)| {
            let (objects, schema) = (&objects, &schema);
            async move {
                let reader = match previous.and_then(|p| p.segments.get(id)) {
                    Some(view) => view.reader.clone(),
                    None => {
                        let scoped = store.scoped(&format!("seg/{id}"));
                        SegmentReader::open(scoped, &segment.meta, schema, cache.clone()).await?
                    }
                };
                let shadow = shadow::union(id, &segment.shadow, objects);
                let hidden_rows = shadow.range_cardinality(0..reader.rows());
                let live_rows = u64::from(reader.rows()) - hidden_rows;
                let shadow_version = segment.shadow.version;
                Ok::<_, Error>((
                    *id,
                    SegmentView {
                        reader,
                        shadow: Arc::new(shadow),
                        shadow_version,
                        live_rows,
                    },
                ))
            }
        });
        let opened: BTreeMap<Ulid, SegmentView> = futures::stream::iter(opens.collect::<Vec<_>>())
            .buffer_unordered(OPENS_MAX)
            .try_collect()
            .await?;
        let mut segments = opened;
        for (id, segment) in live {
            if let Some(view) = reusable(id, segment) {
                segments.insert(*id, view);
            }
        }
        let live_rows = segments.values().map(|s| s.live_rows).sum();
        Ok(Snapshot {
            head,
            segments,
            live_rows,
        })
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.head.version
    }

    /// The incarnation's state at this version.
    pub fn state(&self) -> &IncarnationState {
        &self.head.state
    }

    /// The newest committed entry of a key: the one that is not hidden. Costs one
    /// key-filter probe a segment.
    pub fn locate(&self, hash: u64, id: &str) -> Option<Location> {
        locate(self.segments.values(), hash, id)
    }

    /// Next offset of a partition: what a tail must add begins here.
    pub fn next(&self, source: u32, partition: u32) -> u64 {
        self.state()
            .checkpoint(source, partition)
            .map_or(0, |c| c.next)
    }
}

/// The live entry of a key among `segments`, of which at most one holds it.
pub fn locate<'a>(
    segments: impl IntoIterator<Item = &'a SegmentView>,
    hash: u64,
    id: &str,
) -> Option<Location> {
    segments.into_iter().find_map(|view| {
        let entry = view.find_live(hash, id)?;
        let reader = &view.reader;
        let (deleted, position) = (reader.is_delete(entry), reader.position(entry));
        Some(Location {
            segment: view.id(),
            entry,
            deleted,
            position,
        })
    })
}
