//! A snapshot: one version of an incarnation, opened for reading.
//!
//! It holds a reader and a whole shadow bitmap per live segment. Opening the next
//! version reuses every reader that stays and every bitmap whose segment no commit
//! touched since, so following the chain costs what changed, not what is there.
//!
//! Keys are looked up many at a time: the filters of all segments first, which is memory
//! and answers nearly everything; then, per segment, what passed, in two rounds of reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::{try_join, try_join_all};
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use ulid::Ulid;
use vexlake_index::Centroids;
use vexlake_manifest::Head;
use vexlake_segment::{BlockCache, Position, ReadCounts, SegmentReader};
use vexlake_store::Store;

use crate::centroids;
use crate::error::{Error, Result};
use crate::get::Want;
use crate::shadow;
use crate::state::{IncarnationState, SegmentState};

/// Segments opened at once: each reads the head of an index, some 100 KiB.
const OPENS_MAX: usize = 8;
/// Segments that one lookup reads at once: each holds a wave of pages, 7 MiB at most.
const LOOKUPS_MAX: usize = 8;
/// Keys whose filters are asked without leaving the thread to others first: over 30
/// segments at 20 ns some 150 µs.
const KEYS_INLINE_MAX: usize = 256;

/// A key and its hash.
pub type Key<'a> = (u64, &'a str);

/// A live segment of a snapshot.
#[derive(Clone)]
pub struct SegmentView {
    /// The open files.
    pub reader: SegmentReader,
    /// Entries hidden by newer records.
    pub shadow: Arc<RoaringBitmap>,
    shadow_version: u64,
    /// The shadow of the rows as words, where the segment has lists and a shadow.
    pub hidden: Option<Arc<Vec<u64>>>,
    /// Rows that are not hidden.
    pub live_rows: u64,
}

impl SegmentView {
    /// The segment's id.
    pub fn id(&self) -> Ulid {
        self.reader.meta().id
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

/// What was read of a record.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// dim floats, when wanted; `None` of a delete.
    pub vector: Option<Vec<f32>>,
    /// JSON text, when wanted and present.
    pub attrs: Option<String>,
}

/// One version, opened; see the file header.
pub struct Snapshot {
    /// The version's commit.
    pub head: Arc<Head<IncarnationState>>,
    /// Live segments by id.
    pub segments: BTreeMap<Ulid, SegmentView>,
    /// Centroids by version: those of segments' lists, and those of new ones.
    pub centroids: BTreeMap<Ulid, Arc<Centroids>>,
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
        cache: &BlockCache,
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
        let known = previous.map(|previous| &previous.centroids);
        let centroids = centroids::open_live(store, state, known).await?;
        let opens = stale.into_iter().map(|(id, segment)| {
            let (objects, schema, centroids) = (&objects, &schema, &centroids);
            async move {
                let reader = match previous.and_then(|p| p.segments.get(id)) {
                    Some(view) => view.reader.clone(),
                    None => {
                        let scoped = store.scoped(&format!("seg/{id}"));
                        let version = segment.meta.centroids;
                        let own = version.and_then(|version| centroids.get(&version).cloned());
                        let cache = cache.clone();
                        SegmentReader::open(scoped, &segment.meta, schema, cache, own).await?
                    }
                };
                let shadow = shadow::union(id, &segment.shadow, objects);
                let hidden_rows = shadow.range_cardinality(0..reader.rows());
                let live_rows = u64::from(reader.rows()) - hidden_rows;
                let hidden = (reader.lists().is_some() && hidden_rows > 0)
                    .then(|| Arc::new(shadow::words(reader.rows(), [&shadow])));
                let shadow_version = segment.shadow.version;
                Ok::<_, Error>((
                    *id,
                    SegmentView {
                        reader,
                        shadow: Arc::new(shadow),
                        shadow_version,
                        hidden,
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
            centroids,
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

    /// What new segments are listed by; none in a small collection.
    pub fn current_centroids(&self) -> Option<&Arc<Centroids>> {
        self.centroids.get(&self.state().centroids.current?)
    }

    /// The newest committed entry of each key: the one that is not hidden.
    ///
    /// # Errors
    /// Read errors.
    pub async fn locate_many(&self, keys: &[Key<'_>]) -> Result<Vec<Option<Location>>> {
        locate_many(self.segments.values(), keys).await
    }

    /// The wanted parts of located entries, in one round of reads.
    ///
    /// # Errors
    /// Read errors.
    pub async fn read(&self, entries: &[Location], want: Want) -> Result<Vec<Parts>> {
        let mut by_segment: BTreeMap<Ulid, Vec<usize>> = BTreeMap::new();
        for (place, location) in entries.iter().enumerate().filter(|(_, l)| !l.deleted) {
            by_segment.entry(location.segment).or_default().push(place);
        }
        let none: &[u32] = &[];
        let uncounted = &ReadCounts::default();
        let reads = by_segment.into_iter().map(|(id, places)| async move {
            let reader = &self.segments[&id].reader;
            let rows: Vec<u32> = places.iter().map(|place| entries[*place].entry).collect();
            let of = |wanted: bool| if wanted { rows.as_slice() } else { none };
            let (vectors, attrs) = (
                reader.vectors(of(want.vector)),
                reader.attrs(of(want.attrs), uncounted),
            );
            Ok::<_, Error>((places, try_join(vectors, attrs).await?))
        });
        let dim = self.state().schema.dim as usize;
        let mut parts = vec![Parts::default(); entries.len()];
        for (places, (vectors, attrs)) in try_join_all(reads).await? {
            for (place, vector) in places.iter().zip(vectors.chunks_exact(dim)) {
                parts[*place].vector = Some(vector.to_vec());
            }
            for (place, attrs) in places.iter().zip(attrs) {
                parts[*place].attrs = attrs;
            }
        }
        Ok(parts)
    }

    /// Next offset of a partition: what a tail must add begins here.
    pub fn next(&self, source: u32, partition: u32) -> u64 {
        self.state()
            .checkpoint(source, partition)
            .map_or(0, |c| c.next)
    }
}

/// The live entry of each key among `segments`, of which at most one holds it.
///
/// # Errors
/// Read errors.
pub async fn locate_many<'a>(
    segments: impl IntoIterator<Item = &'a SegmentView>,
    keys: &[Key<'_>],
) -> Result<Vec<Option<Location>>> {
    let views: Vec<&SegmentView> = segments.into_iter().collect();
    let ask_filters = || -> Vec<(&SegmentView, Vec<usize>)> {
        let passed = |view: &SegmentView| {
            let places = (0..keys.len()).filter(|place| view.reader.may_hold(keys[*place].0));
            places.collect::<Vec<usize>>()
        };
        let asked = views.iter().map(|view| (*view, passed(view)));
        asked.filter(|(_, places)| !places.is_empty()).collect()
    };
    let passed = match keys.len() {
        0..=KEYS_INLINE_MAX => ask_filters(),
        _ => tokio::task::block_in_place(ask_filters),
    };
    // Collected first: a stream that holds a borrowing closure is not Send for every lifetime.
    let finds: Vec<_> = passed
        .into_iter()
        .map(|(view, places)| async move {
            let asked: Vec<Key<'_>> = places.iter().map(|place| keys[*place]).collect();
            let found = view.reader.find(&asked).await?;
            Ok::<_, Error>((view, places, found))
        })
        .collect();
    let mut located = vec![None; keys.len()];
    let mut finds = futures::stream::iter(finds).buffer_unordered(LOOKUPS_MAX);
    while let Some((view, places, found)) = finds.try_next().await? {
        let found = places.into_iter().zip(found);
        for (place, found) in found.filter_map(|(place, found)| Some((place, found?))) {
            if !view.shadow.contains(found.entry) {
                located[place] = Some(Location {
                    segment: view.id(),
                    entry: found.entry,
                    deleted: view.reader.is_delete(found.entry),
                    position: found.position,
                });
            }
        }
    }
    Ok(located)
}
