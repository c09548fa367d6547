//! Time travel: a version by number or time, the list of commits, and all states in a row.
//!
//! A version's slot and its base are its whole state, so any retained or pinned one
//! opens with two reads. After reading, the marks are looked at again: a version that
//! was swept meanwhile could have been a ghost's.

use std::sync::Arc;

use ulid::Ulid;

use crate::ManifestError;
use crate::keys;
use crate::load::apply_stored;
use crate::manifest::Manifest;
use crate::state::{CommitSummary, Head, State};
use crate::wire::{Chain, CommitBody};

impl<S: State> Manifest<S> {
    /// Opens one version. `Expired` below the retained ones unless pinned, `NotYet`
    /// beyond the head.
    pub async fn at(&self, version: u64) -> Result<Head<S>, ManifestError> {
        let mut head = self.head();
        if version > head.version || !head.retains(version) {
            head = self.refresh().await?;
        }
        if version > head.version {
            return Err(ManifestError::NotYet {
                version,
                head: head.version,
            });
        }
        if version == head.version {
            return Ok(Head::clone(&head));
        }
        if !head.retains(version) {
            return Err(expired(&*head, version));
        }
        let found = match self.access().read_slot(version).await? {
            Some(slot) => Some(self.access().materialise(slot, None).await),
            None => None,
        };
        let head = self.refresh().await?;
        if !head.retains(version) {
            return Err(expired(&*head, version));
        }
        found.unwrap_or_else(|| {
            Err(ManifestError::corrupt(
                keys::slot(version),
                "absent, although retained",
            ))
        })
    }

    /// Opens the newest version committed at or before `ms`. `Expired` where that is
    /// below the retained ones. O(log versions) reads.
    pub async fn at_time(&self, ms: u64) -> Result<Head<S>, ManifestError> {
        let head = self.refresh().await?;
        if head.when_ms <= ms {
            return Ok(Head::clone(&head));
        }
        let (mut low, mut high) = (head.state.retain_from(), head.version);
        let oldest = self.slot_of(low).await?;
        if oldest.when_ms > ms {
            return Err(ManifestError::Expired {
                version: low,
                retain_from: low,
            });
        }
        // Commit times never decrease: when(low) ≤ ms < when(high).
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.slot_of(middle).await?.when_ms <= ms {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.at(low).await
    }

    /// The slot of a retained or pinned version; `Expired` where that ended meanwhile.
    pub(crate) async fn slot_of(&self, version: u64) -> Result<CommitBody, ManifestError> {
        match self.access().read_slot(version).await? {
            Some(slot) => Ok(slot),
            None => {
                let head = self.refresh().await?;
                match head.retains(version) {
                    true => Err(ManifestError::corrupt(
                        keys::slot(version),
                        "absent, although retained",
                    )),
                    false => Err(expired(&*head, version)),
                }
            }
        }
    }

    /// The newest `limit` retained commits, newest first. One read for each base roll
    /// that they span.
    pub async fn history(&self, limit: usize) -> Result<Vec<CommitSummary<S>>, ManifestError> {
        let head = self.refresh().await?;
        let retain_from = head.state.retain_from();
        let mut chain = Chain::clone(&head.chain);
        let mut version = head.version;
        let mut found = Vec::new();
        while found.len() < limit && version >= retain_from {
            if version > chain.base.version {
                found.push(
                    chain
                        .entry::<S::Delta>(&keys::slot(version), version)?
                        .summary(),
                );
                version -= 1;
                continue;
            }
            // The base's own version: its slot carries the chain before it.
            let slot = match self.slot_of(version).await {
                // A sweep came by: what was retained a moment ago has ended here.
                Err(ManifestError::Expired { .. }) => break,
                slot => slot?,
            };
            if version == 0 {
                found.push(first(slot.id, &slot));
                break;
            }
            chain = slot.into();
        }
        Ok(found)
    }
}

impl<S: State> Manifest<S> {
    /// Runs `look` over the state of every version from `from` to the head, which it
    /// answers. Reads each base once, and the slot of a base's own version: what a base
    /// holds is equivalent to that version's state, not the same.
    ///
    /// `Expired` where `from` was swept meanwhile.
    pub async fn walk(
        &self,
        from: u64,
        look: impl FnMut(&S) + Send,
    ) -> Result<Arc<Head<S>>, ManifestError> {
        let head = self.refresh().await?;
        let walked = self.walk_from(&head, from, look).await;
        // As after every read of old versions: what was swept could have been a ghost's.
        let now = self.refresh().await?;
        match now.state.retain_from() > from {
            true => Err(expired(&*now, from)),
            false => walked.map(|()| head),
        }
    }

    async fn walk_from(
        &self,
        head: &Head<S>,
        from: u64,
        mut look: impl FnMut(&S) + Send,
    ) -> Result<(), ManifestError> {
        let (mut newest, mut chain) = (head.version, Chain::clone(&head.chain));
        while newest >= from {
            let base = self.access().read_base::<S>(&chain.base).await?;
            let (key, mut state) = (keys::slot(newest), base.state);
            if newest == base.version {
                // Only version 0 carries no delta: its base is its state.
                look(&state);
                break;
            }
            for version in base.version + 1..=newest {
                let entry = chain.entry::<S::Delta>(&key, version)?;
                apply_stored(&mut state, &key, &entry)?;
                if version >= from {
                    look(&state);
                }
            }
            if base.version < from {
                break;
            }
            let slot = self.slot_of(base.version).await?;
            if slot.id != base.id {
                let message = format!("holds commit {}, its base says {}", slot.id, base.id);
                return Err(ManifestError::corrupt(keys::slot(base.version), message));
            }
            newest = slot.version;
            chain = slot.into();
        }
        Ok(())
    }
}

fn first<S: State>(id: Ulid, slot: &CommitBody) -> CommitSummary<S> {
    CommitSummary {
        version: 0,
        id,
        when_ms: slot.when_ms,
        author: slot.author(),
        delta: None,
    }
}

fn expired<S: State>(head: &Head<S>, version: u64) -> ManifestError {
    ManifestError::Expired {
        version,
        retain_from: head.state.retain_from(),
    }
}
