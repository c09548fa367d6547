//! Time travel: a version by number or time, and the list of commits.
//!
//! A version's slot and its base are its whole state, so any retained or pinned one
//! opens with two reads. After reading, the marks are looked at again: a version that
//! was swept meanwhile could have been a ghost's.

use ulid::Ulid;

use crate::ManifestError;
use crate::keys;
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
            chain = Chain {
                base: slot.base,
                deltas: slot.deltas.into_iter().map(Into::into).collect(),
            };
        }
        Ok(found)
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
