//! Probe: which committed entry each key of a flush meets, and the shadow bits that follow.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use ulid::Ulid;

use super::Share;
use super::write::Written;
use crate::error::Result;
use crate::memtable::Memtable;
use crate::snapshot::{Key, Location, Snapshot, locate_many};

/// For every entry of a share the committed entry of its key, kept across lost races.
#[derive(Default)]
pub(super) struct Probe {
    probed: BTreeSet<Ulid>,
    pub(super) found: Vec<Option<Location>>,
}

impl Probe {
    /// Brings the findings up to a snapshot: probes the segments not seen yet, and
    /// forgets what is no longer live.
    pub(super) async fn update(
        &mut self,
        memtable: &Memtable,
        ours: &Share,
        snapshot: &Snapshot,
    ) -> Result<()> {
        self.found.resize(ours.entries.len(), None);
        let added = snapshot
            .segments
            .iter()
            .filter(|(id, _)| !self.probed.contains(id));
        let keys: Vec<Key<'_>> = ours
            .entries(memtable)
            .map(|entry| (entry.hash, memtable.id(entry)))
            .collect();
        let located = locate_many(added.map(|(_, view)| view), &keys).await?;
        for (found, newer) in self.found.iter_mut().zip(located) {
            let live = |l: &Location| {
                snapshot
                    .segments
                    .get(&l.segment)
                    .is_some_and(|view| !view.shadow.contains(l.entry))
            };
            *found = newer.or(found.filter(live));
        }
        self.probed.extend(snapshot.segments.keys());
        Ok(())
    }

    pub(super) fn bits(
        &self,
        memtable: &Memtable,
        ours: &Share,
        segment: &Written,
        snapshot: &Snapshot,
    ) -> BTreeMap<Ulid, RoaringBitmap> {
        let mut bits: BTreeMap<Ulid, RoaringBitmap> = BTreeMap::new();
        let entries = ours.entries(memtable).zip(&segment.ordinals);
        for ((entry, ordinal), found) in entries.zip(&self.found) {
            if let Some(found) = found {
                let newer = snapshot.state().order(&found.position)
                    > snapshot.state().order(&entry.position);
                let (id, bit) = if newer {
                    (segment.meta.id, *ordinal)
                } else {
                    (found.segment, found.entry)
                };
                bits.entry(id).or_default().insert(bit);
            }
        }
        bits
    }
}
