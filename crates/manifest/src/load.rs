//! Reading: HEAD, slots, bases, and how they add up to a state.
//!
//! **Load**: HEAD names h. Read slots h, h + 1, … until one is absent; the last one
//! read is the head. Then HEAD again: had `retain_from` passed h meanwhile, a slot read
//! could be a ghost in a swept place, so start over. An absent slot h means HEAD moved
//! on and h was swept: read HEAD again, never take it for "empty".
//!
//! **Follow** does the same from a known version, without HEAD first. The order matters:
//! HEAD is read after the slot that was absent, because a sweep moves HEAD before it
//! deletes. So "absent, and HEAD not beyond" proves that nothing newer was swept.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::sleep;
use ulid::Ulid;
use vexlake_store::Tag;

use crate::manifest::Access;
use crate::state::{Head, State};
use crate::wire::{
    BaseBody, BasePointer, Chain, CommitBody, Entry, FORMAT, HeadBody, check_format,
};
use crate::{ManifestError, keys, unframe};

/// A damaged frame is read again: connections break bodies more often than disks do.
const READS_MAX: u32 = 3;
/// Loads that start over: each means that a whole grace period of commits and a sweep
/// happened between two reads, so 8 in a row mean damage.
const LOADS_MAX: u32 = 8;
/// Slots that `follow` reads one by one before it asks HEAD for a shorter way.
const FOLLOWED_MAX: u64 = 4;
/// How far HEAD may lag. It lags by one for each commit whose HEAD move failed; at
/// 1 ms a read this many take 100 s.
const HEAD_LAG_MAX: u64 = 100_000;

/// What HEAD is to say at least.
pub(crate) struct HeadMove {
    pub version: u64,
    pub id: Ulid,
    pub retain_from: u64,
    pub cutoff_ms: u64,
}

impl HeadMove {
    pub(crate) fn to<S: State>(head: &Head<S>) -> Self {
        let (retain_from, cutoff_ms) = (head.state.retain_from(), head.state.cutoff_ms());
        Self {
            version: head.version,
            id: head.id,
            retain_from,
            cutoff_ms,
        }
    }

    /// Fields never decrease: each moves by itself.
    pub(crate) fn over(&self, now: &HeadBody) -> Option<HeadBody> {
        let ahead = self.version > now.version;
        let merged = HeadBody {
            format: FORMAT,
            version: self.version.max(now.version),
            id: if ahead { self.id } else { now.id },
            retain_from: self.retain_from.max(now.retain_from),
            cutoff_ms: self.cutoff_ms.max(now.cutoff_ms),
        };
        let moves =
            ahead || merged.retain_from > now.retain_from || merged.cutoff_ms > now.cutoff_ms;
        moves.then_some(merged)
    }

    pub(crate) fn first(&self) -> HeadBody {
        let &Self {
            version,
            id,
            retain_from,
            cutoff_ms,
        } = self;
        HeadBody {
            format: FORMAT,
            version,
            id,
            retain_from,
            cutoff_ms,
        }
    }
}

impl Access<'_> {
    /// The newest version, through HEAD.
    pub(crate) async fn load<S: State>(&self) -> Result<Head<S>, ManifestError> {
        let mut failed: Option<(ManifestError, Tag)> = None;
        for attempt in 0..LOADS_MAX {
            if attempt > 0 {
                sleep(self.store.patience().wait(attempt)).await;
            }
            let Some((head, tag)) = self.read_head().await? else {
                self.start_over_without_head::<S>().await?;
                continue;
            };
            match self.load_through(&head).await {
                Ok(Some(loaded)) => return Ok(loaded),
                Ok(None) => {}
                // What contradicts itself under a HEAD that stands still is damage.
                Err(error @ ManifestError::Corrupt { .. }) => match failed {
                    Some((first, before)) if before == tag => return Err(first),
                    _ => failed = Some((error, tag)),
                },
                Err(error) => return Err(error),
            }
        }
        let restless =
            || ManifestError::corrupt(keys::HEAD, "moves faster than it can be followed");
        Err(failed.map_or_else(restless, |(error, _)| error))
    }

    /// One turn of loading; `None` where a sweep passed meanwhile.
    async fn load_through<S: State>(
        &self,
        head: &HeadBody,
    ) -> Result<Option<Head<S>>, ManifestError> {
        let key = keys::slot(head.version);
        let Some(slot) = self.read_slot(head.version).await? else {
            return Err(ManifestError::corrupt(
                key,
                "absent, although HEAD names it",
            ));
        };
        if slot.id != head.id {
            return Err(ManifestError::corrupt(
                key,
                format!("holds commit {}, HEAD says {}", slot.id, head.id),
            ));
        }
        let (newest, ended) = self.follow(slot, HEAD_LAG_MAX).await?;
        if !ended {
            return Err(ManifestError::corrupt(
                key,
                format!("HEAD lags by more than {HEAD_LAG_MAX} versions"),
            ));
        }
        if !self.retained(head.version).await? {
            return Ok(None);
        }
        self.materialise(newest, None).await.map(Some)
    }

    /// The newest version after `known`; `None` where `known` is the newest.
    pub(crate) async fn follow_from<S: State>(
        &self,
        known: &Head<S>,
    ) -> Result<Option<Head<S>>, ManifestError> {
        let first = known.version + 1;
        let newest = match self.read_slot(first).await? {
            None => None,
            Some(slot) if slot.parent == Some(known.id) => {
                match self.follow(slot, FOLLOWED_MAX).await {
                    Ok((newest, true)) => Some(newest),
                    Ok((_, false)) | Err(ManifestError::Corrupt { .. }) => {
                        return self.load().await.map(Some);
                    }
                    Err(error) => return Err(error),
                }
            }
            // A ghost, or damage; HEAD knows.
            Some(_) => return self.load().await.map(Some),
        };
        let Some((head, _)) = self.read_head().await? else {
            return Err(ManifestError::corrupt(
                keys::HEAD,
                "absent, although it was there before",
            ));
        };
        let reached = newest.as_ref().map_or(known.version, |slot| slot.version);
        // No look at `retain_from` is needed: it is at most HEAD's version, so at most
        // `reached`. That slot was thus not swept when it was read, is no ghost, and the
        // chain of parents ties all below it.
        if head.version > reached {
            return self.load().await.map(Some);
        }
        let Some(newest) = newest else {
            return Ok(None);
        };
        match self.materialise(newest, Some(known)).await {
            // Its base may have been swept since the check; HEAD knows.
            Err(ManifestError::Corrupt { .. }) => self.load().await.map(Some),
            outcome => outcome.map(Some),
        }
    }

    /// Reads on from `slot` until a slot is absent (true) or `limit` slots were read;
    /// checks the chain.
    async fn follow(
        &self,
        mut slot: CommitBody,
        limit: u64,
    ) -> Result<(CommitBody, bool), ManifestError> {
        for _ in 0..limit {
            let Some(next) = self.read_slot(slot.version + 1).await? else {
                return Ok((slot, true));
            };
            let key = keys::slot(next.version);
            if next.parent != Some(slot.id) {
                let message = format!(
                    "parent is {:?}, version {} is {}",
                    next.parent, slot.version, slot.id
                );
                return Err(ManifestError::corrupt(key, message));
            }
            if next.when_ms < slot.when_ms {
                let message = format!(
                    "time {} is before the parent's {}",
                    next.when_ms, slot.when_ms
                );
                return Err(ManifestError::corrupt(key, message));
            }
            slot = next;
        }
        Ok((slot, false))
    }

    /// Whether no slot from `version` on was swept before now.
    pub(crate) async fn retained(&self, version: u64) -> Result<bool, ManifestError> {
        match self.read_head().await? {
            Some((head, _)) => Ok(head.retain_from <= version),
            None => Err(ManifestError::corrupt(
                keys::HEAD,
                "absent, although it was there before",
            )),
        }
    }

    /// HEAD is absent: nothing here, or a creation that died between its slot and HEAD.
    /// The latter is finished for its author; then loading can start over.
    async fn start_over_without_head<S: State>(&self) -> Result<(), ManifestError> {
        match self.find_first::<S>().await? {
            Some(Some(first)) => self.heal_head(&HeadMove::to(&first).first()).await,
            Some(None) => Ok(()),
            None => Err(ManifestError::NotFound {
                location: self.store.describe(),
            }),
        }
    }

    /// What is here? `None`: no manifest. `Some(None)`: one with a HEAD. `Some(Some(v0))`:
    /// a creation that died before its HEAD. A later slot without a HEAD is a manifest
    /// that lost it (nobody commits before HEAD is there): refused, because what was
    /// swept is unknown, and guessing could start a second history.
    pub(crate) async fn find_first<S: State>(
        &self,
    ) -> Result<Option<Option<Head<S>>>, ManifestError> {
        if self.read_head().await?.is_some() {
            return Ok(Some(None));
        }
        let first = self.read_slot(0).await?;
        let listed = self.store.list(keys::SLOTS).await?;
        let versions = listed
            .iter()
            .filter_map(|slot| keys::slot_version(&slot.key));
        let newest = versions.max().unwrap_or(0);
        // Again: a creation may have ended, and a commit been made, in between.
        if self.read_head().await?.is_some() {
            return Ok(Some(None));
        }
        if newest > 0 {
            let message = format!("absent, although version {newest} exists; restore it");
            return Err(ManifestError::corrupt(keys::HEAD, message));
        }
        match first {
            Some(slot) => Ok(Some(Some(self.materialise(slot, None).await?))),
            None => Ok(None),
        }
    }

    /// Turns a slot into a version with its state. From `known` where that lies on the
    /// same base, else from the base.
    pub(crate) async fn materialise<S: State>(
        &self,
        slot: CommitBody,
        known: Option<&Head<S>>,
    ) -> Result<Head<S>, ManifestError> {
        let key = keys::slot(slot.version);
        let author = slot.author();
        let deltas = slot.deltas.into_iter().map(Arc::<RawValue>::from).collect();
        let chain = Chain {
            base: slot.base,
            deltas,
        };
        let known =
            known.filter(|known| known.chain.base == chain.base && known.version <= slot.version);
        let (mut state, from, mut previous) = match known {
            Some(known) => (S::clone(&known.state), known.version, known.id),
            None => {
                let base = self.read_base::<S>(&chain.base).await?;
                (base.state, base.version, base.id)
            }
        };
        let (mut delta, mut before) = (None, None);
        for version in from + 1..=slot.version {
            let entry = chain.entry::<S::Delta>(&key, version)?;
            apply_stored(&mut state, &key, &entry)?;
            before = Some(std::mem::replace(&mut previous, entry.id));
            delta = Some(entry.delta);
        }
        // The chain of ids must end in this slot's own, and start from what we hold.
        let parent_fits = before.is_none() || before == slot.parent;
        if previous != slot.id || !parent_fits {
            let message = format!(
                "commit {} with parent {:?}, its deltas end in {previous}",
                slot.id, slot.parent
            );
            return Err(ManifestError::corrupt(key, message));
        }
        Ok(Head {
            version: slot.version,
            id: slot.id,
            parent: slot.parent,
            when_ms: slot.when_ms,
            author,
            state: Arc::new(state),
            delta,
            chain: Arc::new(chain),
        })
    }

    pub(crate) async fn read_head(&self) -> Result<Option<(HeadBody, Tag)>, ManifestError> {
        let Some((json, tag)) = self.read_frame(keys::HEAD).await? else {
            return Ok(None);
        };
        let head: HeadBody = parse(keys::HEAD, &json)?;
        check_format(keys::HEAD, head.format)?;
        if head.retain_from > head.version {
            let message = format!(
                "retains from {}, beyond its version {}",
                head.retain_from, head.version
            );
            return Err(ManifestError::corrupt(keys::HEAD, message));
        }
        Ok(Some((head, tag)))
    }

    pub(crate) async fn read_slot(
        &self,
        version: u64,
    ) -> Result<Option<CommitBody>, ManifestError> {
        let key = keys::slot(version);
        let Some((json, _)) = self.read_frame(&key).await? else {
            return Ok(None);
        };
        let slot: CommitBody = parse(&key, &json)?;
        slot.check(&key, version)?;
        Ok(Some(slot))
    }

    pub(crate) async fn read_base<S: State>(
        &self,
        pointer: &BasePointer,
    ) -> Result<BaseBody<S>, ManifestError> {
        let key = &pointer.key;
        if !key
            .strip_prefix(keys::BASES)
            .is_some_and(|rest| rest.starts_with('/'))
        {
            return Err(ManifestError::corrupt(key, "is not the name of a base"));
        }
        let Some((json, _)) = self.read_frame(key).await? else {
            return Err(ManifestError::corrupt(
                key,
                "absent, although a commit names it",
            ));
        };
        let found = (crc32c::crc32c(&json), json.len() as u64);
        if found != (pointer.crc32c, pointer.bytes) {
            let message = format!("checksum and length are {found:?}, the commit says {pointer:?}");
            return Err(ManifestError::corrupt(key, message));
        }
        let base: BaseBody<S> = parse(key, &json)?;
        check_format(key, base.format)?;
        if base.version != pointer.version {
            let message = format!(
                "holds version {}, the commit says {}",
                base.version, pointer.version
            );
            return Err(ManifestError::corrupt(key, message));
        }
        Ok(base)
    }

    async fn read_frame(&self, key: &str) -> Result<Option<(Bytes, Tag)>, ManifestError> {
        let mut reads = 0;
        loop {
            let Some((framed, tag)) = self.store.get_tagged(key).await? else {
                return Ok(None);
            };
            match unframe(&framed) {
                Ok(json) => return Ok(Some((json, tag))),
                Err(error) => {
                    reads += 1;
                    if reads >= READS_MAX {
                        return Err(ManifestError::corrupt(key, error.to_string()));
                    }
                    sleep(self.store.patience().wait(reads)).await;
                }
            }
        }
    }
}

/// Applies a delta that somebody committed: that it does not fit is damage.
pub(crate) fn apply_stored<S: State>(
    state: &mut S,
    key: &str,
    entry: &Entry<S::Delta>,
) -> Result<(), ManifestError> {
    let version = entry.version;
    let outcome = state.apply(version, entry.when_ms, &entry.delta);
    outcome.map_err(|violation| {
        let message = format!("delta of version {version} does not apply: {violation}");
        ManifestError::corrupt(key, message)
    })
}

fn parse<T: DeserializeOwned>(key: &str, json: &[u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(json)
        .map_err(|e| ManifestError::corrupt(key, format!("not what this format says: {e}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn should_never_let_a_field_of_head_decrease(now in any::<[u64; 3]>(), to in any::<[u64; 3]>()) {
            let (old, new) = (Ulid::from(1u128), Ulid::from(2u128));
            let [version, retain_from, cutoff_ms] = now;
            let now = HeadBody { format: FORMAT, version, id: old, retain_from, cutoff_ms };
            let [version, retain_from, cutoff_ms] = to;
            let to = HeadMove { version, id: new, retain_from, cutoff_ms };
            let fields = |head: &HeadBody| [head.version, head.retain_from, head.cutoff_ms];
            let wanted = [
                now.version.max(to.version),
                now.retain_from.max(to.retain_from),
                now.cutoff_ms.max(to.cutoff_ms),
            ];
            match to.over(&now) {
                Some(moved) => {
                    prop_assert_eq!(fields(&moved), wanted);
                    prop_assert_eq!(moved.id, if to.version > now.version { new } else { old });
                }
                None => prop_assert_eq!(fields(&now), wanted),
            }
        }
    }
}
