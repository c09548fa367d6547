//! Sweeping slots and bases after a mark was committed.
//!
//! The order is the safety: the mark is a commit; its boundary was checked when it was
//! acknowledged; HEAD is made durable with its `retain_from`; only then slots go. From
//! then on a sleeper who fills a swept slot is told by HEAD that it made a ghost.
//!
//! - Slots below `retain_from` go unless pinned; earlier ghosts among them go too.
//! - Bases go if no retained or pinned version starts from them **and** their name is
//!   not newer than the mark's cutoff: a commit under way names its base after it. Of a
//!   retired state any age will do: the commit under way finds its slot taken.
//!
//! LIST only finds candidates. What is referenced is read from the commits themselves,
//! all of it before the first deletion. Objects of the state's own are its owner's.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};

use ulid::Ulid;

use crate::ManifestError;
use crate::keys;
use crate::load::HeadMove;
use crate::manifest::Manifest;
use crate::state::{Head, State};

/// Deletions in flight: a sweep is background work.
const DELETES_IN_FLIGHT_MAX: usize = 16;
/// Marks come minutes apart: to be overtaken twice in one sweep is damage already.
const SWEEPS_MAX: u32 = 3;

impl<S: State> Manifest<S> {
    /// Deletes what the last mark gave up; answers how many objects. Nothing to do
    /// before the first mark or a retire; safe to repeat, and to run anywhere at any time.
    pub async fn sweep_slots(&self) -> Result<u64, ManifestError> {
        for _ in 1..SWEEPS_MAX {
            match self.sweep_once().await {
                // Another sweep of a newer mark came by; that mark is ours to sweep as well.
                Err(ManifestError::Expired { .. }) => {}
                outcome => return self.inner.context.note(outcome),
            }
        }
        self.inner.context.note(self.sweep_once().await)
    }

    async fn sweep_once(&self) -> Result<u64, ManifestError> {
        let head = self.reload().await?;
        let retain_from = head.state.retain_from();
        let retired = head.state.retired();
        if retain_from == 0 && !retired {
            return Ok(0);
        }
        let found = self.access().read_head().await?;
        self.access()
            .advance_head(&HeadMove::to(&head), found)
            .await?;
        let pinned: HashSet<u64> = head.state.pinned().into_iter().collect();
        let bases = self.referenced_bases(&head, &pinned).await?;
        let slots = self.inner.store.list(keys::SLOTS).await?;
        let slots = slots.into_iter().filter(|entry| {
            keys::slot_version(&entry.key)
                .is_some_and(|version| version < retain_from && !pinned.contains(&version))
        });
        let cutoff_ms = head.state.cutoff_ms();
        let listed = self.inner.store.list(keys::BASES).await?;
        let orphans = listed.into_iter().filter(|entry| {
            let old = |id: Ulid| retired || id.timestamp_ms() <= cutoff_ms;
            let old = keys::base_id(&entry.key).is_some_and(old);
            old && !bases.contains(&entry.key)
        });
        let doomed: Vec<String> = slots.chain(orphans).map(|entry| entry.key).collect();
        // Collected first: a stream that holds a borrowing closure is not Send for every lifetime.
        let deletes: Vec<_> = doomed
            .iter()
            .map(|key| self.inner.store.delete(key))
            .collect();
        let deleted: Vec<()> = stream::iter(deletes)
            .buffer_unordered(DELETES_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        Ok(deleted.len() as u64)
    }

    /// The bases of every retained and pinned version. All versions between a base's
    /// own and the next roll share it, so one slot a base is read.
    async fn referenced_bases(
        &self,
        head: &Head<S>,
        pinned: &HashSet<u64>,
    ) -> Result<HashSet<String>, ManifestError> {
        let retain_from = head.state.retain_from();
        let mut bases = HashSet::from([head.chain.base.key.clone()]);
        let mut base = head.chain.base.clone();
        while base.version >= retain_from && base.version > 0 {
            base = self.slot_of(base.version).await?.base;
            bases.insert(base.key.clone());
        }
        for &version in pinned.iter().filter(|&&version| version < retain_from) {
            bases.insert(self.slot_of(version).await?.base.key);
        }
        Ok(bases)
    }
}
